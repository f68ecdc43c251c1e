package launch

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/tranter-ci/tranter"
)

func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.DETACHED_PROCESS}
}

func own(_ *exec.Cmd, as *tranter.Account) error {
	if as != nil {
		return errors.New("commands can't run as another user on Windows")
	}
	return nil
}

// inherit does nothing: locks are not inherited on Windows.
func inherit(*exec.Cmd, *os.File) {}

func terminateGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

func signalGroup(int, bool) {}

func startOf(int) string { return "" }

func groupLives(*exec.Cmd) bool { return false }

func signalOf(*exec.ExitError) int { return 0 }
