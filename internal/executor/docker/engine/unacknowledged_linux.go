package engine

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged has the kernel end a connection whose other end does not acknowledge what was sent.
func limitUnacknowledged(_, _ string, conn syscall.RawConn) error {
	var failed error
	err := conn.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("limit the wait for acknowledgements: %w", err)
	}
	return nil
}
