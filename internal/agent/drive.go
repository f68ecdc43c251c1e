package agent

import (
	"context"
	"errors"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/driver"
	"github.com/tranter-ci/tranter/internal/stagescript"
)

// drive has a custom executor's driver do a step once.
func (r *run) drive(ctx context.Context, s *tranter.Step, attempt int) error {
	if s.Sources != nil && attempt > 1 {
		r.clearing(func() error { return r.stage(ctx, stagescript.ClearWorktree, stagescript.Clear(r.phase)) })
	}
	if s.Script != nil {
		r.noteScript(s)
	}
	started := time.Now()
	err := r.stage(ctx, stagescript.Name(s), stagescript.Of(r.phase, s, stagescript.Around{Status: jobStatus(r.result.Status), Now: time.Now}))
	if s.Script != nil && !s.Script.After {
		r.spent += time.Since(started)
	}
	if build, ok := errors.AsType[*tranter.BuildError](err); ok {
		return &scriptError{err: build, code: build.ExitCode}
	}
	return err
}

// stage has the driver run one script, with its output in the log.
func (r *run) stage(ctx context.Context, name, text string) error {
	stdout, stderr := r.log.Stdout(), r.log.Stderr()
	defer stdout.Close()
	defer stderr.Close()
	return driver.Stage(ctx, r.phase.Driver, driver.Script{Stage: name, Text: text, Stdout: stdout, Stderr: stderr})
}
