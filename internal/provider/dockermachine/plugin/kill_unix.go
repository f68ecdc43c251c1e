//go:build unix

package plugin

import (
	"os/exec"

	"golang.org/x/sys/unix"
)

func killGroup(cmd *exec.Cmd) { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
