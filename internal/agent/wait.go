package agent

import (
	"context"
	"fmt"
)

// WaitAll calls all of waits, each of which returns when an agent has ended. It returns an error when ctx ends before
// that; what waits goes on then.
func WaitAll(ctx context.Context, waits []func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, wait := range waits {
			wait()
		}
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the job's agents: %w", context.Cause(ctx))
	}
}
