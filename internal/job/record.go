package job

import (
	"context"
	"errors"
	"sync"

	"github.com/tranter-ci/tranter"
)

// note changes the record, which is saved later.
func (r *run) note(change func(*tranter.JobRecord)) {
	r.recording.Lock()
	defer r.recording.Unlock()
	change(&r.Record)
}

// keep changes the record and saves it. That it can't be saved must not end the job: only a restart would miss it.
func (r *run) keep(ctx context.Context, change func(*tranter.JobRecord)) {
	r.recording.Lock()
	defer r.recording.Unlock()
	change(&r.Record)
	r.History.write(&r.Record)
	if err := r.Records.Save(context.WithoutCancel(ctx), r.Record); err != nil {
		r.Log.Error("The job could not be recorded; a restart of the runner would lose it", "job", r.Record.Job.ID, "error", err)
	}
}

// recordInterrupt keeps why the job is interrupted, for a start after which the agent's result is all there is, until the
// returned function is called.
func (r *run) recordInterrupt(ctx context.Context) func() {
	attached, end := context.WithCancel(context.WithoutCancel(ctx))
	var owned sync.WaitGroup
	owned.Go(func() {
		select {
		case <-attached.Done():
			return
		case <-ctx.Done():
		}
		if cause := context.Cause(ctx); errors.Is(cause, ErrInterrupted) {
			r.keep(ctx, func(rec *tranter.JobRecord) { rec.Interrupt = cause.Error() })
		}
	})
	return func() {
		end()
		owned.Wait()
	}
}
