package enginetest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// bound starts a process that the kernel ends with this one, and returns what is closed when it has ended. The thread that
// starts it has to stay: the kernel looks at that.
func bound(cmd *exec.Cmd) (<-chan struct{}, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
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
