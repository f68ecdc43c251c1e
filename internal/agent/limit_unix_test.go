//go:build unix

package agent_test

import (
	"os/signal"
	"strconv"

	"golang.org/x/sys/unix"
)

// limitFiles makes writes fail that would let a file grow beyond a size, as if the disk were full.
func limitFiles(size string) {
	n, err := strconv.ParseUint(size, 10, 63)
	if err != nil {
		return
	}
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
		panic(err)
	}
}
