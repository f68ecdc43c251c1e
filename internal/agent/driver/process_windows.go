package driver

import "os/exec"

func ownGroup(*exec.Cmd) {}

// terminateGroup can't ask kindly here: programs of Windows have no signal for it.
func terminateGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

func reapGroup(*exec.Cmd) {}
