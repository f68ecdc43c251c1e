//go:build !linux

package enginetest

import "os/exec"

// bound starts a process and returns what is closed when it has ended. Only Linux ends it with this process.
func bound(cmd *exec.Cmd) (<-chan struct{}, error) {
	ended := make(chan struct{})
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // it ends with the process
		defer close(ended)
		_ = cmd.Wait()
	}()
	return ended, nil
}
