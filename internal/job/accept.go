package job

import (
	"context"
	"time"

	"github.com/tranter-ci/tranter"
)

const (
	// acceptPatience is how long a job is not started because the coordinator can't be told that it was accepted. Then it
	// is: the coordinator that does not answer has not given it to anybody else either.
	acceptPatience = time.Minute
	acceptLimit    = 30 * time.Second // of one call
)

// accept tells the coordinator that the job was received and will be run (runner contract, section 1.7). It returns what
// the coordinator wants instead, if it does not want the job to be run any more.
func (r *run) accept(ctx context.Context) tranter.Stop {
	r.Stage("accepting")
	began := time.Now()
	for pause := time.Second; ; pause = min(2*pause, 10*time.Second) {
		call, cancel := context.WithTimeout(ctx, acceptLimit)
		answer, err := r.Reporter.Update(call, r.ref(), tranter.Update{State: tranter.JobRunning})
		cancel()
		switch {
		case err == nil && answer.Verdict == tranter.Gone:
			return tranter.StopAbort
		case err == nil:
			return answer.Stop
		case ctx.Err() != nil:
			return tranter.StopNone // what ended it decides how the job ends
		case time.Since(began) > acceptPatience:
			r.Log.Warn("The server could not be told that the job was accepted; it is run", "job", r.Record.Job.ID, "error", err)
			return tranter.StopNone
		}
		r.Log.Warn("The server could not be told that the job was accepted; it will be tried again", "job", r.Record.Job.ID, "in", pause, "error", err)
		if !wait(ctx, pause) {
			return tranter.StopNone
		}
	}
}
