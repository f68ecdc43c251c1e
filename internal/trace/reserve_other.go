//go:build !linux

package trace

import "os"

// reserve does nothing where no room can be taken for a file that is to grow.
func reserve(*os.File, int64) {}
