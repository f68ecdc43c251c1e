//go:build unix && !linux

package plugin

import (
	"os/exec"
	"syscall"
)

// ownGroup has the process begin a group of its own. When this process is killed, it ends itself after ten seconds.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
