//go:build unix

package main

import (
	"fmt"
	"os"
	"syscall"
)

// The signals of a manager (contract 12.5). A drain finishes running jobs and takes no new ones.
func stopSignals() []os.Signal   { return []os.Signal{syscall.SIGINT, syscall.SIGTERM} }
func drainSignals() []os.Signal  { return []os.Signal{syscall.SIGQUIT} }
func reloadSignals() []os.Signal { return []os.Signal{syscall.SIGHUP} }

// Ours: the manager becomes the version that is installed now.
func upgradeSignals() []os.Signal { return []os.Signal{syscall.SIGUSR2} }

// canReplace says whether a process can become another program.
const canReplace = true

// becomeProgram makes this process the program at path, with our arguments. It returns only an error.
func becomeProgram(path string) error {
	if err := syscall.Exec(path, append([]string{path}, os.Args[1:]...), os.Environ()); err != nil { //nolint:gosec // ourselves
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}
