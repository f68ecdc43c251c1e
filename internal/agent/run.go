package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/env"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
	"github.com/tranter-ci/tranter/internal/joblog"
)

// Why a context of the run has ended.
var (
	errJobTimeout    = errors.New("the job's timeout is over")
	errStepTimeout   = errors.New("the step's timeout is over")
	errScriptTimeout = errors.New("the scripts' timeout is over")
	errCanceled      = errors.New("canceled")
	errAborted       = errors.New("aborted")
	errStopped       = errors.New("the agent was stopped")
)

// scriptError is a script of the user that has failed.
type scriptError struct {
	err  error
	code int
}

func (e *scriptError) Error() string { return e.err.Error() }
func (e *scriptError) Unwrap() error { return e.err }

// run is the work on one phase.
type run struct {
	dir    directory
	phase  *tranter.Phase
	log    *joblog.Log
	env    *env.Env
	vars   *environment
	work   Work
	result tranter.PhaseResult
	over   bool // the job has ended: only what always runs is left
	// outcome is how the job stood when its scripts were over: it decides which caches and artifacts are kept, also if
	// that fails. Empty: they are not over yet.
	outcome tranter.PhaseStatus

	job     context.Context //nolint:containedctx // ends at the job's timeout, by an abort, and when the journal can't be written
	abort   context.CancelCauseFunc
	scripts context.Context //nolint:containedctx // ends also by a graceful cancel and at the scripts' timeout
	cancel  context.CancelCauseFunc
	grace   atomic.Int64 // time.Duration between the kind and the hard way to end a process

	artifacts transfer.Artifacts
	spent     time.Duration // of the scripts' timeout
}

func newRun(d directory, p *tranter.Phase, journal io.Writer, w Work) *run {
	r := &run{dir: d, phase: p, work: w, result: p.Prior}
	if r.result.Status == "" {
		r.result.Status = tranter.PhaseSucceeded
	}
	r.grace.Store(int64(defaultGrace))
	if p.KillGrace > 0 {
		r.grace.Store(int64(p.KillGrace))
	}
	r.log = joblog.New(&journalWriter{dst: journal, failed: r.journalFailed}, p.Log, time.Now)
	r.env = &env.Env{Phase: p, Log: r.log, Exec: r.exec, Script: r.hook}
	r.vars = &environment{phase: p, log: r.log, env: r.env}
	return r
}

// journalWriter reports the first failed write, which ends the job: what it printed would be lost.
type journalWriter struct {
	dst    io.Writer
	failed func(error)
	err    error
}

func (w *journalWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.dst.Write(p)
	if err != nil {
		w.err = fmt.Errorf("write the job's log: %w", err)
		w.failed(w.err)
	}
	return n, err
}

func (r *run) journalFailed(err error) {
	if r.abort != nil {
		r.abort(err)
	}
}

// all goes through the steps and returns the phase's result.
func (r *run) all(ctx context.Context) tranter.PhaseResult {
	job, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	r.abort = abort
	if !r.phase.Deadline.IsZero() {
		var stop context.CancelFunc
		job, stop = context.WithDeadlineCause(job, r.phase.Deadline, errJobTimeout)
		defer stop()
	}
	r.job = job
	r.scripts, r.cancel = context.WithCancelCause(job)
	defer r.cancel(nil)
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		r.watchCancel(watching)
	}()
	for i := range r.phase.Steps {
		r.step(i) //nolint:contextcheck // steps have contexts of the run, each with its own end
	}
	stopWatching()
	<-watched
	r.endLeftovers()
	if err := r.log.Close(); err != nil && r.result.Reason != tranter.RunnerSystemFailure {
		r.fail("", fmt.Errorf("write the job's log: %w", err))
	}
	r.result.LogBytes = r.log.Written()
	return r.result
}

// scriptFollows says whether processes that step i leaves behind are kept: after_script may want to stop them.
func (r *run) scriptFollows(i int) bool {
	return slices.ContainsFunc(r.phase.Steps[i+1:], func(s tranter.Step) bool { return s.Script != nil && r.wanted(&s) })
}

// watchCancel looks for requests to end the phase.
func (r *run) watchCancel(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var c cancelRequest
		if err := r.dir.readJSON(cancelFile, &c); err != nil {
			continue
		}
		if c.Grace > 0 {
			r.grace.Store(int64(c.Grace))
		}
		if c.Abort {
			r.abort(errAborted)
			return
		}
		r.cancel(errCanceled)
	}
}

// wanted says whether a step's condition holds, as the job stands.
func (r *run) wanted(s *tranter.Step) bool {
	status := r.result.Status
	if (s.Archive != nil || s.Upload != nil) && r.outcome != "" {
		status = r.outcome
	}
	switch s.When {
	case tranter.Always:
		return true
	case tranter.OnFailure:
		return !r.over && status != tranter.PhaseSucceeded
	case tranter.AfterScript:
		return !r.over && r.result.ScriptReached
	default:
		return !r.over && status == tranter.PhaseSucceeded
	}
}

// step carries out step i, if it is its turn, and keeps how it went.
func (r *run) step(i int) {
	s := &r.phase.Steps[i]
	r.noteEnd()
	if r.outcome == "" && (s.Archive != nil || s.Upload != nil) {
		r.outcome = r.result.Status
	}
	if !r.wanted(s) {
		return
	}
	rec := tranter.StepRecord{Name: s.Name, Started: time.Now().UnixMilli(), Status: tranter.PhaseSucceeded}
	if s.Title != "" {
		r.log.SectionStart(s.Name)
		r.log.Headline(s.Title)
	}
	if err := r.attempts(s, &rec); err != nil {
		rec.Status = tranter.PhaseFailed
		r.judge(s, err)
	}
	if s.Script != nil && !r.scriptFollows(i) {
		r.endLeftovers()
	}
	if s.Title != "" {
		r.log.SectionEnd(s.Name)
	}
	rec.Ended = time.Now().UnixMilli()
	r.result.Steps = append(r.result.Steps, rec)
}

// noteEnd takes notice of an end of the job that came between two steps.
func (r *run) noteEnd() {
	if r.over {
		return
	}
	if cause := context.Cause(r.job); cause != nil {
		r.end("", cause)
		return
	}
	if !r.result.ScriptReached && context.Cause(r.scripts) != nil {
		r.end("", errCanceled)
	}
}

// judge decides what a failed step makes of the job.
func (r *run) judge(s *tranter.Step, err error) {
	job := context.Cause(r.job)
	switch {
	case r.over:
		r.log.Warning("%s failed: %v", s.Name, err)
	case job != nil:
		r.end(s.Name, job)
	case errors.Is(err, errCanceled) && (s.Script == nil || !s.Script.User):
		r.end(s.Name, errCanceled)
	case errors.Is(err, errCanceled):
		r.set(s.Name, tranter.PhaseCanceled, tranter.JobCanceled, "canceled")
	case s.Script != nil && s.Script.After:
		r.judgeAfterScript(s, err)
	case s.When == tranter.Always:
		r.log.Warning("%s failed: %v", s.Name, err)
	case errors.Is(err, errStepTimeout), errors.Is(err, errScriptTimeout):
		r.log.Warning("%s could not run to completion because the timeout was exceeded", s.Name)
		r.set(s.Name, tranter.PhaseTimedOut, tranter.JobExecutionTimeout, timeoutText(s, r.phase))
		r.over = s.Script == nil
	default:
		r.fail(s.Name, err)
		r.over = r.over || s.Prepare != nil
	}
}

func (r *run) judgeAfterScript(s *tranter.Step, err error) {
	if errors.Is(err, errStepTimeout) {
		err = fmt.Errorf("it took longer than %v", s.Timeout)
	}
	if s.Script.IgnoreErrors || r.result.Status != tranter.PhaseSucceeded {
		r.log.Warning("after_script failed, but job will continue unaffected: %v", err)
		return
	}
	r.fail(s.Name, err)
}

func timeoutText(s *tranter.Step, p *tranter.Phase) string {
	limit := s.Timeout
	if s.Script != nil {
		limit = p.ScriptTimeout
	}
	return fmt.Sprintf("%s took longer than %v", s.Name, limit)
}

// end ends the job for a reason that lies outside its steps: only what always runs is left to do.
func (r *run) end(step string, cause error) {
	r.over = true
	switch {
	case errors.Is(cause, errJobTimeout):
		r.set(step, tranter.PhaseTimedOut, tranter.JobExecutionTimeout, fmt.Sprintf("execution took longer than %v seconds", r.phase.Timeout))
	case errors.Is(cause, errCanceled):
		r.set(step, tranter.PhaseCanceled, tranter.JobCanceled, "canceled")
	case errors.Is(cause, errAborted):
		r.set(step, tranter.PhaseAborted, tranter.JobCanceled, "aborted")
	case errors.Is(cause, errStopped):
		r.set(step, tranter.PhaseAborted, tranter.RunnerInterrupted, errStopped.Error())
	default:
		r.set(step, tranter.PhaseFailed, tranter.RunnerSystemFailure, cause.Error())
	}
}

func (r *run) set(step string, status tranter.PhaseStatus, reason tranter.FailureReason, message string) {
	r.result.Status, r.result.Reason, r.result.Message, r.result.Step = status, reason, message, step
	r.result.ExitCode = 0
}

// fail takes the failure of a step into the result. The first one counts. A script of the user that fails is
// script_failure; what we do for the job, and fail at, is the runner's failure, unless the user's settings are why.
func (r *run) fail(step string, err error) {
	if r.result.Status != tranter.PhaseSucceeded {
		r.log.Error("%s failed: %v", step, err)
		return
	}
	var script *scriptError
	var config *tranter.ConfigError
	switch {
	case errors.As(err, &script):
		r.set(step, tranter.PhaseFailed, tranter.ScriptFailure, script.Error())
		r.result.ExitCode = script.code
	case errors.As(err, &config):
		r.set(step, tranter.PhaseFailed, tranter.RunnerConfigurationError, err.Error())
	case errors.Is(err, tranter.ErrTooLarge):
		r.set(step, tranter.PhaseFailed, tranter.ScriptFailure, err.Error())
		r.result.ExitCode = 1
	default:
		r.set(step, tranter.PhaseFailed, tranter.RunnerSystemFailure, fmt.Sprintf("%s: %v", step, err))
	}
}

func (r *run) endLeftovers() {
	if n := endLeftovers(r.job); n > 0 {
		r.log.Warning("ended processes that the job had left behind: %d", n)
	}
}

// hostname returns the name of the host, for the user.
func hostname() string {
	h, err := os.Hostname()
	if err != nil {
		return "an unnamed host"
	}
	return h
}
