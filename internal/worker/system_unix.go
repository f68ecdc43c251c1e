//go:build unix

package worker

import (
	"io/fs"
	"syscall"
)

// noTricks are flags for opening a file that somebody else may have put something else in the place of.
const noTricks = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// owner returns whose a file is; ok is false where that can't be told.
func owner(info fs.FileInfo) (uid, gid uint32, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return st.Uid, st.Gid, true
}
