//go:build unix

package launch

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tranter-ci/tranter"
)

// detach lets a process live on when this one and its terminal are gone.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// own gives a command a group of its own, and the rights of an account.
func own(cmd *exec.Cmd, as *tranter.Account) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if as == nil || int(as.UID) == os.Geteuid() {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("run it as user %s: only root can, and this runs as uid %d", as.Name, os.Geteuid())
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: as.UID, Gid: as.GID, Groups: as.Groups}
	return nil
}

// inherit leaves a file open in a command.
func inherit(cmd *exec.Cmd, f *os.File) { cmd.ExtraFiles = []*os.File{f} }

func terminateGroup(cmd *exec.Cmd) { _ = unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }

func killGroup(cmd *exec.Cmd) { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }

// signalGroup tells a group to end, or ends it.
func signalGroup(pid int, kill bool) {
	signal := unix.SIGTERM
	if kill {
		signal = unix.SIGKILL
	}
	_ = unix.Kill(-pid, signal)
}

// startOf tells when a process has started, in the system's words; "" where that is not known.
func startOf(pid int) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(data), ") ") // the name comes before; a name with ") " in it is not one of a submit command
	fields := strings.Fields(after)
	const start = 19 // the 22nd of all
	if len(fields) <= start {
		return ""
	}
	return fields[start]
}

// groupLives says whether a process of a command's group is left.
func groupLives(cmd *exec.Cmd) bool { return unix.Kill(-cmd.Process.Pid, 0) == nil }

func signalOf(e *exec.ExitError) int {
	if status, ok := e.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return int(status.Signal())
	}
	return 0
}
