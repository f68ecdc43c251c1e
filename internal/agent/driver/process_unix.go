//go:build unix

package driver

import (
	"errors"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func terminateGroup(cmd *exec.Cmd) { _ = unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }

func killGroup(cmd *exec.Cmd) { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }

// reapGroup waits for the killed processes of the group that are ours to wait for, as an agent's are, so that nothing of
// them is left.
func reapGroup(cmd *exec.Cmd) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(defaultForce)
	defer limit.Stop()
	for {
		pid, err := unix.Wait4(-cmd.Process.Pid, nil, unix.WNOHANG, nil)
		if pid > 0 || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil { // there are none, or no more
			return
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return
		}
	}
}
