package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// aside is where that goes which somebody has left among the hints and which is not a file: it may be as large as they like,
// and is removed while the hints are looked at.
type aside struct {
	root *os.Root
	log  *slog.Logger
	more chan struct{} // something was put there; of size one
}

// discard removes something, or puts it aside.
func (a aside) discard(name string) {
	err := a.root.Remove(name)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return
	}
	if made := a.root.Mkdir(asideDir, 0o700); made == nil || errors.Is(made, os.ErrExist) {
		err = a.root.Rename(name, filepath.Join(asideDir, rand.Text()))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		a.log.Debug("Something among the signs of workers can't be removed", "name", name, "error", err)
	}
	select {
	case a.more <- struct{}{}:
	default:
	}
}

// sweep removes what was put aside, also before a restart, until ctx ends.
func (a aside) sweep(ctx context.Context) {
	for {
		if err := a.root.RemoveAll(asideDir); err != nil {
			a.log.Debug("What was put aside can't be removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-a.more:
		}
	}
}

// ours says whether a directory is ours, or root's. Where everybody can make directories, somebody else may have made it, and
// would put another program there for the jobs of all.
func ours(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if uid, _, ok := owner(info); !info.IsDir() || ok && uid != 0 && uid != uint32(max(0, os.Geteuid())) { //nolint:gosec // a uid
		return fmt.Errorf("%s in it was made by somebody else, user %d: remove it, or name another directory", name, uid)
	}
	return nil
}

// layOut makes a directory of ours.
func layOut(root *os.Root, name string, mode os.FileMode) error {
	if err := root.Mkdir(name, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := ours(root, name); err != nil {
		return err
	}
	return root.Chmod(name, mode)
}
