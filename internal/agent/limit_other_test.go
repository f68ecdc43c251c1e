//go:build !linux

package agent_test

// limitFiles would make the disk look full; tests of that are for Linux.
func limitFiles(string) {}
