package job

import (
	"context"
	"time"
)

// rememberLimit is how long a job that was reported is not forgotten because its history can't be kept.
const rememberLimit = 5 * time.Second

// remember keeps the history of a job that was reported. Without it, people know less of the job; that is all.
func remember(ctx context.Context, r *run) {
	past := r.History.close()
	if r.Past == nil {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), rememberLimit)
	defer stop()
	if err := r.Past.Keep(ctx, past); err != nil {
		r.Log.Warn("The history of a job could not be kept", "job", r.Record.Job.ID, "error", err)
	}
}

// putAway hands the log over to who keeps it, or removes it. What was handed over already, by a start that was interrupted then, is not
// replaced by the little that was written since.
func putAway(r *run, handedOver bool) error {
	if r.Logs == nil || handedOver {
		return r.trace.Remove()
	}
	err := r.trace.Close()
	if keepErr := r.Logs.Keep(r.Record.Key, spool(r.Dir)); keepErr != nil {
		r.Log.Warn("The log of a job could not be kept", "job", r.Record.Job.ID, "error", keepErr)
	}
	return err
}
