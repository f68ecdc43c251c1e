package slurmtest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// bound starts a process that the kernel ends with this one, and returns what is closed when it has ended. The thread that
// starts it has to stay: the kernel looks at that.
func bound(cmd *exec.Cmd) (<-chan struct{}, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() { // it ends with the process
		defer close(ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	return ended, <-started
}

// apart lets a process live on when this one and its terminal are gone.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
