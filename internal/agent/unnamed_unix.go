//go:build unix && !linux

package agent

import "os"

// unnamed returns a new file in dir without a name.
func unnamed(dir string) (*os.File, error) { return unlinked(dir) }
