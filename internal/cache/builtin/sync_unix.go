//go:build unix

package builtin

import (
	"errors"
	"os"
)

// syncDir makes what was renamed in a directory last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
