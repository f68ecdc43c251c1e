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

// run is the work on one phase.
type run struct {
	dir directory
	verdict
	env   *env.Env
	vars  *environment
	work  Work
	ready bool // terminals may be opened

	spared processes // not the phase's

	job     context.Context //nolint:containedctx // ends at the job's timeout, by an abort, and when the journal can't be written
	abort   context.CancelCauseFunc
	scripts context.Context //nolint:containedctx // ends also by a graceful cancel and at the scripts' timeout
	cancel  context.CancelCauseFunc
	grace   atomic.Int64 // time.Duration between the kind and the hard way to end a process

	artifacts transfer.Artifacts
	spent     time.Duration // of the scripts' timeout
}

func newRun(d directory, p *tranter.Phase, journal io.Writer, w Work) *run {
	r := &run{dir: d, verdict: verdict{phase: p, result: p.Prior}, work: w}
	if r.result.Status == "" {
		r.result.Status = tranter.PhaseSucceeded
	}
	r.grace.Store(int64(defaultGrace))
	if p.KillGrace > 0 {
		r.grace.Store(int64(p.KillGrace))
	}
	r.log = joblog.New(&journalWriter{dst: journal, failed: r.journalFailed}, p.Log, time.Now)
	r.env = &env.Env{Phase: p, Log: r.log, Exec: r.exec, Script: r.hook, Steps: func() []tranter.StepRecord { return r.result.Steps }}
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
	steps := make(chan struct{})
	// It outlives this call only if it hangs in the system.
	go func() { //nolint:contextcheck // steps have contexts of the run, each with its own end
		defer close(steps)
		for i := range r.phase.Steps {
			r.step(i)
		}
		stopWatching()
		<-watched
		r.endLeftovers()
	}()
	if !r.await(steps) {
		return r.hung()
	}
	if err := r.log.Close(); err != nil && r.result.Reason != tranter.RunnerSystemFailure {
		r.fail("", fmt.Errorf("write the job's log: %w", err))
	}
	r.result.LogBytes = r.log.Written()
	return r.result
}

// endLimit is how long after the time of grace a job may take that has been ended: to remove what must not stay.
const endLimit = 5 * time.Second

// await waits for the steps, but once the job has ended for a reason that lies outside of them only so long that a disk
// that does not answer can't keep it.
func (r *run) await(steps <-chan struct{}) bool {
	select {
	case <-steps:
		return true
	case <-r.job.Done():
	}
	limit := time.NewTimer(time.Duration(r.grace.Load()) + endLimit)
	defer limit.Stop()
	select {
	case <-steps:
		return true
	case <-limit.C:
		return false
	}
}

// hung is the result of a phase in which a step hangs, so that what it has found so far can't be used.
func (r *run) hung() tranter.PhaseResult {
	late := verdict{phase: r.phase, result: tranter.PhaseResult{ScriptReached: true}}
	late.end("", context.Cause(r.job))
	if r.phase.Prior.Over { // how the job ended was known before
		late.result = r.phase.Prior
	}
	r.log.Warning("the job has not ended in time: something in it hangs in the system, such as a disk that does not answer; it is left behind")
	_ = r.log.Close() // the result says more than that it could not be written
	late.result.LogBytes = r.log.Written()
	return late.result
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
		r.cancel(c.cause())
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
	noteReady(r, s)
	rec := tranter.StepRecord{Name: s.Name, Started: time.Now().UnixMilli(), Status: tranter.PhaseSucceeded}
	if s.Title != "" {
		r.log.SectionStart(s.Name)
		r.log.Headline(s.Title)
	}
	if err := r.attempts(s, &rec); err != nil {
		rec.Status = tranter.PhaseFailed
		r.judge(s, err, context.Cause(r.job))
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
	if r.result.Over {
		return
	}
	if cause := context.Cause(r.job); cause != nil {
		r.end("", cause)
		return
	}
	if cause := context.Cause(r.scripts); !r.result.ScriptReached && cause != nil {
		if !errors.Is(cause, errCanceled) {
			cause = errCanceled
		}
		r.end("", cause)
	}
}

func (r *run) endLeftovers() {
	if r.phase.Driver != nil { // what it leaves running here, such as a connection, is its own
		return
	}
	if n := endLeftovers(r.job, r.spared); n > 0 {
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
