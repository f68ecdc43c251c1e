package image

import "io/fs"

// trust believes in the system's own inheritance of rights.
func trust(fs.FileInfo, bool) bool { return true }
