//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// lockWait is how long another command may hold the lock: it reads and writes one small file meanwhile.
const lockWait = 10 * time.Second

// lockDir keeps others out that change the configuration in a directory. The lock is on the directory itself: files in
// it are replaced, and a lock would go with the old one.
func lockDir(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(ctx, lockWait)
	defer stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil, errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.EINVAL):
			// Some network file systems know no locks: then nobody has one.
			return func() { f.Close() }, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for another command that changes the configuration in %s: %w", dir, ctx.Err())
		case <-tick.C:
		}
	}
}

// keepOwner gives a file the owner of the one that it is going to replace.
func keepOwner(old fs.FileInfo, path string) error {
	was, ok := old.Sys().(*syscall.Stat_t)
	if !ok || int(was.Uid) == os.Geteuid() && int(was.Gid) == os.Getegid() {
		return nil
	}
	err := os.Chown(path, int(was.Uid), int(was.Gid))
	if errors.Is(err, fs.ErrPermission) && int(was.Uid) == os.Geteuid() {
		return nil // only the group is another one, and nobody but the owner may read the file
	}
	return err
}

// syncDir makes a rename in a directory survive a power cut.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, f.Close())
}
