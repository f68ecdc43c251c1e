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
	return p.Dirs, p.Phases[0].Variables, nil
}

// lasting says whether making the environment once more can't help.
func lasting(err error) bool {
	var config *tranter.ConfigError
	var build *tranter.BuildError
	return errors.As(err, &config) || errors.As(err, &build)
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
