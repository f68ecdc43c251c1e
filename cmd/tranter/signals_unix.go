//go:build unix

package main

import (
	"os"
	"syscall"
)

// The signals of a manager (contract 12.5). A drain finishes running jobs and takes no new ones.
func stopSignals() []os.Signal   { return []os.Signal{syscall.SIGINT, syscall.SIGTERM} }
func drainSignals() []os.Signal  { return []os.Signal{syscall.SIGQUIT} }
func reloadSignals() []os.Signal { return []os.Signal{syscall.SIGHUP} }
