//go:build !windows

package archive

import "syscall"

const nonBlocking = syscall.O_NONBLOCK

// localize makes a clean path with slashes, which leads nowhere else, one of this system. Any bytes will do here.
func localize(name string) (string, bool) { return name, true }
