//go:build unix

package diskspace

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func room(path string) (Room, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Room{}, fmt.Errorf("look for room on the disk of %s: %w", path, err)
	}
	return Room{
		Bytes:   uint64(max(0, int64(s.Bavail))) * uint64(s.Bsize), //nolint:gosec,unconvert,nolintlint // the types differ by system
		Size:    uint64(s.Blocks) * uint64(s.Bsize),                //nolint:gosec,unconvert,nolintlint // the types differ by system
		Inodes:  uint64(max(0, int64(s.Ffree))),                    //nolint:gosec,unconvert,nolintlint // the types differ by system
		Counted: s.Files > 0,
	}, nil
}
