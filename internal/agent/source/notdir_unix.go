//go:build unix

package source

import (
	"errors"
	"syscall"
)

// isNotDir says whether a file stood where err's path has a directory.
func isNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
