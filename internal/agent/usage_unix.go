//go:build unix

package agent

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// freeAt returns how many bytes are free on the file system of dir; not ok and -1 if that can't be told.
func freeAt(dir string) (int64, bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return -1, false
	}
	blocks, size := uint64(s.Bfree), uint64(s.Bsize) //nolint:gosec,unconvert // neither is negative, and their types are not the same on all systems
	if size == 0 || blocks > math.MaxInt64/size {
		return -1, true
	}
	return int64(blocks * size), true
}

// own returns the processor time of this process.
func own() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
