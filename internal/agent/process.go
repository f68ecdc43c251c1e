package agent

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

const (
	defaultGrace = 10 * time.Second
	// outputDelay is how long output is still read after a program has ended while others hold its pipe: those that
	// it has left behind in the background.
	outputDelay = time.Second
	// hangLimit is how long a process is waited for that has been killed: one that waits for a disk that does not answer
	// never ends.
	hangLimit = 3 * time.Second
	// leftoverGrace is the time between the kind and the hard way to end what a script has left behind.
	leftoverGrace = 2 * time.Second
)

// execute runs cmd in a process group of its own and waits for it. When ctx ends, the group is ended, kindly first,
// after the time of grace by force, and the cause of ctx is returned.
func execute(ctx context.Context, cmd *exec.Cmd, grace func() time.Duration) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	ownGroup(cmd)
	copyWell(cmd)
	cmd.WaitDelay = outputDelay
	if err := cmd.Start(); err != nil {
		return err
	}
	var err error
	done := make(chan struct{})
	go func() { // outlives this call only for a program that hangs in the system
		defer close(done)
		err = cmd.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		if !endProcess(cmd, done, grace()) {
			return fmt.Errorf("%w (a process hangs in the system and can't be ended)", context.Cause(ctx))
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		killGroup(cmd) // those that did not mind the kind way
		return cause
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}

// endProcess ends cmd's group, kindly first, after the time of grace by force, and says whether it has ended.
func endProcess(cmd *exec.Cmd, done <-chan struct{}, grace time.Duration) bool {
	terminateGroup(cmd)
	limit := time.NewTimer(grace)
	defer limit.Stop()
	select {
	case <-done:
		return true
	case <-limit.C:
	}
	killGroup(cmd)
	limit.Reset(hangLimit)
	select {
	case <-done:
		return true
	case <-limit.C:
		return false
	}
}
