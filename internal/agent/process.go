package agent

import (
	"context"
	"errors"
	"os/exec"
	"time"
)

const (
	defaultGrace = 10 * time.Second
	// outputDelay is how long output is still read after a program has ended while others hold its pipe: those that
	// it has left behind in the background.
	outputDelay = time.Second
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
	cmd.WaitDelay = outputDelay
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		endWith(ctx, cmd, ended, grace)
	}()
	err := cmd.Wait()
	close(ended)
	<-watched
	if cause := context.Cause(ctx); cause != nil {
		killGroup(cmd) // those that did not mind the kind way
		return cause
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}

func endWith(ctx context.Context, cmd *exec.Cmd, ended <-chan struct{}, grace func() time.Duration) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	terminateGroup(cmd)
	limit := time.NewTimer(grace())
	defer limit.Stop()
	select {
	case <-ended:
	case <-limit.C:
		killGroup(cmd)
	}
}
