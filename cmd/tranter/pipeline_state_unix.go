//go:build unix

package main

import (
	"fmt"
	"os"
	"syscall"
)

// ownDir refuses a state directory that somebody else has made, as could be in a directory for temporary files.
func ownDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("the state directory %s belongs to another user: name another with --state-dir", dir)
	}
	return nil
}
