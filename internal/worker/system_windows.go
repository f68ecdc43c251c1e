package worker

import "io/fs"

const noTricks = 0

// owner can't tell: all is ours here.
func owner(fs.FileInfo) (uid, gid uint32, ok bool) { return 0, 0, false }
