package trace

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve takes room on the disk for n bytes, or, where there is less, for a half of that, and so on: what a job has
// printed must find its way into the spool although the job fills the disk.
func reserve(f *os.File, n int64) {
	const least = 64 << 10
	for ; n >= least; n /= 2 {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n) //nolint:gosec // descriptors are small
		if !errors.Is(err, unix.ENOSPC) {
			return // done, or this file system can't
		}
	}
}
