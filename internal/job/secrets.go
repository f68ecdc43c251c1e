package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/joblog"
	"github.com/tranter-ci/tranter/internal/plan"
	"github.com/tranter-ci/tranter/internal/variables"
)

// revokeLimit is how long the job waits for borrowed tokens to be given back.
const revokeLimit = 5 * time.Second

// resolveSecrets fetches the job's external secrets before anything else of it is planned, so that they are masked from
// the first byte, and keeps them with the record: a job goes on after a restart with the values that it began with
// (runner contract, sections 2.10 and 3.2).
func (r *run) resolveSecrets(ctx context.Context) error {
	r.Stage("resolve_secrets")
	p, err := plan.Secrets(r.Record.Job, r.Settings, variables.Slots{Runner: r.Record.RunnerSlot, Project: r.Record.Slot})
	if err != nil {
		r.failedBeforePlan()
		return err
	}
	var said buffer // shown once the head of the log can be written
	l := joblog.New(&said, p.Format, time.Now)
	const section = "resolve_secrets"
	l.SectionStart(section)
	l.Headline("Resolving secrets")
	for _, w := range p.Warnings {
		l.Warning("%s", w)
	}
	found, err := r.readSecrets(ctx, p, l)
	l.SectionEnd(section)
	r.closeLog(l)
	if err != nil {
		r.failedBeforePlan()
		if _, writeErr := r.early.Write(said); writeErr != nil {
			r.Log.Error("The job's log could not be written", "job", r.Record.Job.ID, "error", writeErr)
		}
		return err
	}
	r.beforePrepare = said
	r.note(func(rec *tranter.JobRecord) {
		rec.SecretVariables, rec.Job.SecretVariables = found, found
		rec.Job.Secrets = nil
	})
	return nil
}

// readSecrets reads all secrets, in as many attempts as the job allows for them together.
func (r *run) readSecrets(ctx context.Context, p *plan.SecretsPlan, l *joblog.Log) ([]tranter.Variable, error) {
	if len(p.Secrets) == 0 {
		return nil, nil
	}
	if r.Secrets == nil {
		return nil, &plan.UnsupportedError{Err: errors.New("the job uses secrets: of an external provider, which this runner can't fetch")}
	}
	for try := 1; ; try++ {
		found, err := r.readOnce(ctx, p, l)
		if err == nil || try == p.Attempts || ctx.Err() != nil {
			return found, err
		}
		pause := tranter.AttemptPause(try, p.FlatBackoff)
		l.Warning("%v", err)
		l.Warning("Retrying in %v (attempt %d of %d)...", pause, try+1, p.Attempts)
		if !wait(ctx, pause) {
			return nil, context.Cause(ctx)
		}
	}
}

func (r *run) readOnce(ctx context.Context, p *plan.SecretsPlan, l *joblog.Log) ([]tranter.Variable, error) {
	reader := r.Secrets()
	defer func() {
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), revokeLimit)
		defer stop()
		reader.Close(ctx)
	}()
	var found []tranter.Variable
	for _, s := range p.Secrets {
		l.Plain("Resolving secret %q...", s.Variable)
		value, err := reader.Read(ctx, s)
		switch {
		case errors.Is(err, tranter.ErrNoSecret) && !p.FailMissing:
			l.Warning("secret %s: %v; its variable is empty", s.Variable, err)
		case errors.Is(err, tranter.ErrNoSecret):
			return nil, &tranter.ConfigError{Err: fmt.Errorf("secret %s: %w", s.Variable, err)}
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, fmt.Errorf("secret %s: %w", s.Variable, err)
		}
		found = append(found, tranter.Variable{Key: s.Variable, Value: value.Reveal(), Masked: true, Raw: true, File: s.File})
	}
	return found, nil
}
