//go:build unix

package batch

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tranter-ci/tranter"
)

// ownGroup gives a command a process group of its own, and the rights of an account: only root may.
func ownGroup(cmd *exec.Cmd, as *tranter.Account) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if as == nil || int(as.UID) == os.Geteuid() {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("run as user %s: only root can do that, and this runs as uid %d", as.Name, os.Geteuid())
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: as.UID, Gid: as.GID, Groups: as.Groups}
	return nil
}

func killGroup(cmd *exec.Cmd) { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
