package job

import (
	"context"
	"errors"
	"time"

	"github.com/tranter-ci/tranter"
)

const refuseLimit = 30 * time.Second // of one report

// refuse reports a job as failed of which nothing can be kept here, because of cause: it must not be left hanging. One
// whose agent is at work is left to the next start, as is one whose coordinator can't be told before report ends.
func (r *run) refuse(report context.Context, cause error) (tranter.Result, error) {
	result := systemFailure(cause)
	if len(r.Record.Session) > 0 {
		return result, cause
	}
	r.History.end(result, nil)
	r.Freed()
	r.Stage("reporting")
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		call, cancel := context.WithTimeout(report, refuseLimit)
		answer, err := r.Reporter.Update(call, r.ref(), tranter.Update{State: tranter.JobFailed, Reason: result.Reason})
		cancel()
		if err == nil && answer.Verdict != tranter.NotYet {
			r.Log.Error("The job was reported as failed: nothing of it can be kept here", "job", r.Record.Job.ID, "error", cause)
			remember(report, r)
			if err := r.Records.Remove(context.WithoutCancel(report), r.Record.Key); err != nil {
				r.Log.Warn("A reported job could not be forgotten", "job", r.Record.Job.ID, "error", err)
			}
			return result, nil
		}
		if !wait(report, pause) {
			return result, errors.Join(cause, err)
		}
	}
}
