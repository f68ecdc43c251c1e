package job

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// agentPatience is how long after its job's end, and the time of grace, an agent may still be at work. It ends by
	// itself before that unless it was stopped or hangs.
	agentPatience = 8 * time.Second
	// closePatience is how long the report of a job waits for its environment to be removed: one that hangs must not keep
	// the job from being over.
	closePatience = 3 * time.Second
	// maxReserve is for how many bytes of log room is taken before the job starts.
	maxReserve = 5 << 20
)

// logReserve returns how much room is taken for a log that may have so many bytes: a job that fills the disk leaves its
// whole log if it is no larger. What is written between the parts and about the end comes on top.
func logReserve(limit int64) int64 {
	const around = 64 << 10
	if limit <= 0 {
		return maxReserve
	}
	return min(limit+around, maxReserve)
}

// giveUpOn calls leave with the cause of work's end, so long after that end that the agent must be over. A job that was
// interrupted because the manager is to stop is not given up: the next start takes it up again. The returned function
// ends the watch.
func giveUpOn(work context.Context, leave context.CancelCauseFunc) func() {
	attached, end := context.WithCancel(context.WithoutCancel(work))
	var owned sync.WaitGroup
	owned.Go(func() {
		select {
		case <-attached.Done():
			return
		case <-work.Done():
		}
		if !errors.Is(context.Cause(work), ErrInterrupted) && wait(attached, killGrace+agentPatience) {
			leave(context.Cause(work))
		}
	})
	return func() {
		end()
		owned.Wait()
	}
}

// quiet is a session that can tell that nothing of the job runs in its environment any more although that is still there:
// the job's report need not wait for the removal then.
type quiet interface{ Quiet() bool }

// closing gives the environment back, and returns once that is done, takes too long to wait for or need not be waited for. The channel is closed
// when it is done.
func (r *run) closing(ctx context.Context, resumed bool) <-chan struct{} {
	q, ok := r.session.(quiet)
	rests := ok && !resumed && q.Quiet()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		r.close(ctx, resumed)
		r.Freed()
	}()
	if rests {
		return closed
	}
	timer := time.NewTimer(closePatience)
	defer timer.Stop()
	select {
	case <-closed:
		r.Stage("reporting")
	case <-timer.C:
		r.Log.Warn("The removal of the job's environment takes its time; the job is reported meanwhile", "job", r.Record.Job.ID)
	}
	return closed
}
