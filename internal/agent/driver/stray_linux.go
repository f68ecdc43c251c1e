package driver

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// EndStray ends a program that another process has started by Run and could not end, with all in its group: kindly, and
// after grace by force. It is the process pid only if it has the entry env in its environment.
func EndStray(ctx context.Context, pid int, env string, grace time.Duration) {
	alive := func() bool {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
		return err == nil && slices.ContainsFunc(bytes.Split(data, []byte{0}), func(kv []byte) bool { return string(kv) == env })
	}
	if !alive() {
		return
	}
	_ = unix.Kill(-pid, unix.SIGTERM)
	if grace <= 0 {
		grace = defaultGrace
	}
	limit := time.NewTimer(grace)
	defer limit.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for alive() {
		select {
		case <-ctx.Done():
		case <-limit.C:
		case <-tick.C:
			continue
		}
		break
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
}
