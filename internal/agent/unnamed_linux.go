package agent

import (
	"os"

	"golang.org/x/sys/unix"
)

// unnamed returns a new file without a name: in memory, since what a job makes and deletes on a disk costs the disk's file
// system more than all of the script's text; in dir where the system does not let it.
func unnamed(dir string) (*os.File, error) {
	fd, err := unix.MemfdCreate("script", unix.MFD_CLOEXEC)
	if err != nil {
		return unlinked(dir)
	}
	return os.NewFile(uintptr(fd), "script"), nil
}
