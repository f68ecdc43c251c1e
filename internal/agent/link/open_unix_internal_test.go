//go:build unix

package link

import (
	"os"
	"path/filepath"
	"testing"
)

// An earlier job may have left a link in a volume, to what is not everybody's.
func TestALinkIsNotOpenedUp(t *testing.T) {
	dir := t.TempDir()
	private, trap := filepath.Join(dir, "private"), filepath.Join(dir, "trap")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(private, trap); err != nil {
		t.Fatal(err)
	}
	if err := openUp(trap); err == nil {
		t.Error("nobody is told")
	}
	if info, err := os.Stat(private); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	made := filepath.Join(dir, "deep", "made")
	if err := openUp(made); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(made); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("%v, %v", info, err)
	}
}
