//go:build unix

package apptainer

import (
	"os/exec"
	"syscall"
)

// ownSession lets cmd live on when this process and its terminal are gone.
func ownSession(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
