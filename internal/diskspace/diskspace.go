// Package diskspace says how much room is left where jobs work.
package diskspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Room is what is left of a file system for an ordinary user.
type Room struct {
	Bytes  uint64 // that are free
	Size   uint64 // of all bytes
	Inodes uint64
	// Counted says whether the file system has a fixed number of inodes at all.
	Counted bool
}

// Of returns the room on the file system of path, or, while that is not there, of the directory in which it would be.
func Of(path string) (Room, error) {
	for p := filepath.Clean(path); ; p = filepath.Dir(p) {
		_, err := os.Stat(p)
		if errors.Is(err, fs.ErrNotExist) && p != filepath.Dir(p) {
			continue
		}
		if err != nil {
			return Room{}, fmt.Errorf("look for room on the disk: %w", err)
		}
		return room(p)
	}
}

// Guard says from which room on jobs are taken.
type Guard struct {
	Bytes  uint64 // at least; 0: any
	Inodes uint64 // at least; 0: any
	Dirs   []string
}

// check returns nil while there is room enough in all directories, else an error that says what is wrong where. A
// directory that can't be looked at is no reason to stop.
func (g Guard) check(dirs []string, of func(string) (Room, error)) error {
	for _, dir := range dirs {
		r, err := of(dir)
		if err != nil {
			continue
		}
		if r.Bytes < g.Bytes {
			return fmt.Errorf("only %d MiB are free on the disk of %s, and disk_guard.min_free_mib is %d: free some, or lower it", r.Bytes>>20, dir, g.Bytes>>20)
		}
		if r.Counted && r.Inodes < g.Inodes {
			return fmt.Errorf("only %d inodes are free on the disk of %s, and disk_guard.min_free_inodes is %d: remove files, or lower it", r.Inodes, dir, g.Inodes)
		}
	}
	return nil
}

// Full says whether nothing worth speaking of can be written any more: less than 64 KiB, or no inode.
func (r Room) Full() bool { return r.Bytes < 64<<10 || r.Counted && r.Inodes == 0 }
