package image

import (
	"os"

	"golang.org/x/sys/unix"
)

// settle makes sure that what was written below dir is there after a crash.
func settle(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}
