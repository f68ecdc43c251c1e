package agent

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/windows"
)

func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

// shellCode is a program's exit code; the system has unsigned ones.
func shellCode(e *exec.ExitError) int { return int(int32(e.ExitCode())) } //nolint:gosec // see above

func terminateGroup(cmd *exec.Cmd) {
	_ = windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(cmd.Process.Pid))
}

// killGroup ends a process and all below it.
func killGroup(cmd *exec.Cmd) {
	_ = exec.Command("taskkill", "/F", "/T", "/PID", strconv.Itoa(cmd.Process.Pid)).Run()
}

func detach(cmd *exec.Cmd, as *Identity) error {
	if as != nil {
		return errors.New("jobs can't run as another user on Windows")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.DETACHED_PROCESS}
	return nil
}

// stdinFile returns a file with text to read from. It can't lose its name while it is open: the phase's directory,
// which only the job's user can read, is removed with it.
func stdinFile(dir, text string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "stdin.*")
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(text); err != nil {
		_ = f.Close()
		return nil, err
	}
	_, err = f.Seek(0, 0)
	return f, err
}

// noTricks are flags for opening a file that somebody else may have put something else in the place of: none here, where
// jobs run as the manager's own user.
const noTricks = 0

// ownLike gives a file to the owner of dir: it has the right one here.
func ownLike(*os.File, string) error { return nil }

// reap does nothing: a process does not become another program.
func (directory) reap() {}
