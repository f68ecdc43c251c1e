package job

import (
	"errors"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/plan"
	"github.com/tranter-ci/tranter/internal/variables"
)

// makePlan plans the job, with what its environment has said about itself, if it has.
func (r *run) makePlan() (*plan.Plan, error) {
	settings := r.Settings
	if s := r.Record.Surroundings; s != nil {
		settings = settings.In(*s)
	}
	if len(r.Record.Session) > 0 { // the configuration may have changed since
		settings.Helper = r.Record.Helper
	}
	return plan.Build(r.Record.Job, settings, variables.Slots{Runner: r.Record.RunnerSlot, Project: r.Record.Slot})
}

// settle plans the job anew for the environment that is being made. It is SessionSpec.Settle.
func (r *run) settle(s tranter.Surroundings) (tranter.Dirs, []tranter.Variable, error) {
	r.note(func(rec *tranter.JobRecord) { rec.Surroundings = &s })
	p, err := r.makePlan()
	if err != nil {
		return tranter.Dirs{}, nil, err
	}
	r.plan = p
	return p.Dirs, p.Variables(), nil
}

// lasting says whether making the environment once more can't help, or whether what failed was tried often enough: who
// says that an image could not be pulled, or that something outside does not answer, has tried it several times (runner
// contract, sections 3.3 and 3.9).
func lasting(err error) bool {
	var config *tranter.ConfigError
	var build *tranter.BuildError
	var pull *tranter.PullError
	var dependency *tranter.DependencyError
	return errors.As(err, &config) || errors.As(err, &build) || errors.As(err, &pull) || errors.As(err, &dependency)
}

// slowCloser is a session that may take long to close by its user's wish.
type slowCloser interface{ CloseLimit() time.Duration }

// timeToClose returns how long a session gets to close.
func timeToClose(s tranter.Session) time.Duration {
	if slow, ok := s.(slowCloser); ok {
		return max(closeLimit, slow.CloseLimit())
	}
	return closeLimit
}
