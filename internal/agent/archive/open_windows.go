package archive

import "path/filepath"

const nonBlocking = 0

// localize makes a clean path with slashes one of this system, if it can have one of this name.
func localize(name string) (string, bool) {
	local, err := filepath.Localize(name)
	return local, err == nil
}
