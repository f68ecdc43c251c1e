package job

import (
	"context"
	"time"

	"github.com/tranter-ci/tranter"
)

// Measure uploads what was measured of a job's environment since a time. The selector says which measurements are the
// environment's.
type Measure func(ctx context.Context, job tranter.JobRef, selector string, since time.Time) error

// measureLimit is how long the end of a job may wait for its measurements.
const measureLimit = time.Minute

// measure uploads the measurements of a job that has just ended, if its environment has any. That it can't be done is no
// failure of the job.
func (r *run) measure(ctx context.Context) {
	m, ok := r.session.(tranter.Measured)
	if r.Measure == nil || !ok {
		return
	}
	selector := m.Selector()
	if selector == "" {
		return
	}
	ctx, stop := context.WithTimeout(ctx, measureLimit)
	defer stop()
	if err := r.Measure(ctx, r.ref(), selector, r.Record.Taken); err != nil {
		r.Log.Warn("The measurements of a job's environment could not be uploaded", "job", r.Record.Job.ID, "error", err)
	}
}
