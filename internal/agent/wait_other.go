//go:build !linux

package agent

import "os/exec"

// awaitExit does nothing where there is no way to wait that takes no thread.
func awaitExit(*exec.Cmd) {}
