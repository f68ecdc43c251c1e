//go:build unix

package image

import (
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// trust says whether nobody whom we don't trust can have changed what is in a directory: it belongs to us, or with shared to
// root or us with a group of ours, and nobody else may write to it.
func trust(info fs.FileInfo, shared bool) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Perm()&0o002 != 0 {
		return false
	}
	own := int(stat.Uid) == os.Geteuid()
	if !shared {
		return own && info.Mode().Perm()&0o020 == 0
	}
	groups, _ := os.Getgroups()
	group := int(stat.Gid) == os.Getegid() || slices.Contains(groups, int(stat.Gid))
	return (own || stat.Uid == 0) && (group || info.Mode().Perm()&0o020 == 0)
}
