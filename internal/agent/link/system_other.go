//go:build unix && !linux

package link

// guardProcess does nothing where the system has no such thing.
func guardProcess() {}
