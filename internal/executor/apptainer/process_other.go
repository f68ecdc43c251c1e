//go:build !linux

package apptainer

import (
	"os"
	"os/exec"
)

func tied(*exec.Cmd) {}

func terminate(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}
