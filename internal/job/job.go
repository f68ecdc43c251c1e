// Package job takes one job from its payload to its reported end: plan, environment, phases, log, outcome, report. It
// can leave off at any point and go on from what was recorded, also in another process.
//
// It knows executors and coordinators by the root package's interfaces only. Package manager owns the jobs.
package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/joblog"
	"github.com/tranter-ci/tranter/internal/plan"
	"github.com/tranter-ci/tranter/internal/trace"
	"github.com/tranter-ci/tranter/internal/variables"
)

// Records keeps what is needed to go on with a job after a restart.
type Records interface {
	Save(ctx context.Context, r tranter.JobRecord) error
	Remove(ctx context.Context, key string) error
}

// Task is a job and all that it needs.
type Task struct {
	Record   tranter.JobRecord
	Settings plan.Settings
	Executor tranter.Executor
	Reporter trace.Reporter
	Records  Records
	Dir      string // of this job alone
	Log      *slog.Logger
	Stage    func(string) // told what the job is doing; may be nil
	Freed    func()       // called once the environment is given back and only the report is left; may be nil

	Interval     time.Duration // between reports until the coordinator names another; 0: the stock runner's
	SignOfLife   time.Duration // without a report after which one is made anyway; 0: the stock runner's
	DynamicForce bool
	Tries        int           // of the final report before it goes on slowly
	Prepare      time.Duration // limit for making the environment; 0: the job's timeout
}

const (
	prepareTries = 3
	prepareWait  = 3 * time.Second
	// patience is how long after its deadline a job's agent may still be at work: cleaning up, uploading what it must.
	patience    = 5 * time.Minute
	closeLimit  = 5 * time.Minute
	killGrace   = 10 * time.Second
	attachRetry = time.Second
)

// ErrInterrupted ends a job because the manager has been told to stop at once. It is given as the cause of the context.
var ErrInterrupted = errors.New("the runner was told to stop")

type run struct {
	Task
	trace *trace.Trace
	plan  *plan.Plan

	session tranter.Session

	mu      sync.Mutex
	stop    tranter.Stop // what the coordinator has asked for
	started string       // id of the phase that is running
}

// Run runs the job, or goes on with it where its record leaves off, until the coordinator knows how it ended. When ctx
// ends, the job is interrupted. When report ends, what is not reported stays recorded, and the error says so. The
// result is also given with an error.
func Run(ctx, report context.Context, t Task) (tranter.Result, error) {
	r := &run{Task: t}
	if r.Stage == nil {
		r.Stage = func(string) {}
	}
	if r.Freed == nil {
		r.Freed = func() {}
	}
	if err := os.MkdirAll(t.Dir, 0o700); err != nil {
		return r.refuse(report, fmt.Errorf("make the job's directory: %w", err))
	}
	tr, err := trace.Open(trace.Options{
		Reporter: t.Reporter, Job: r.ref(), Path: filepath.Join(t.Dir, "trace.log"), Log: t.Log,
		Interval: t.Interval, ForceSend: t.SignOfLife, Dynamic: t.DynamicForce, Tries: t.Tries,
	})
	if err != nil {
		return r.refuse(report, err)
	}
	r.trace = tr
	resumed := r.Record.Result != nil
	if !resumed {
		result, err := r.untilResult(ctx, report)
		if err != nil {
			return result, errors.Join(err, tr.Close())
		}
		r.Record.Result, r.Record.ResultAt = &result, tr.Size()
		r.save(report)
	}
	r.lastLines()
	r.close(report, resumed)
	r.Freed()
	r.Stage("reporting")
	if err := tr.Finish(report, *r.Record.Result, r.Record.Job.Features.FailureReasons); err != nil {
		return *r.Record.Result, errors.Join(err, tr.Close())
	}
	// From here on a failure leaves rubbish, not an unreported job.
	if err := errors.Join(tr.Remove(), os.RemoveAll(t.Dir), t.Records.Remove(context.WithoutCancel(report), t.Record.Key)); err != nil {
		t.Log.Warn("What a finished job leaves could not be removed", "job", r.Record.Job.ID, "error", err)
	}
	return *r.Record.Result, nil
}

func (r *run) ref() tranter.JobRef {
	ref := r.Record.Job.Ref()
	for _, key := range []string{"CI_DEBUG_TRACE", "CI_DEBUG_SERVICES"} {
		if on, _ := variables.List(r.Record.Job.Variables).Bool(key); on && !r.Settings.DebugTraceDisabled {
			ref.Debug = true
		}
	}
	return ref
}

// save records how far the job is. That it can't be must not end the job: only a restart would miss it.
func (r *run) save(ctx context.Context) {
	if err := r.Records.Save(context.WithoutCancel(ctx), r.Record); err != nil {
		r.Log.Error("The job could not be recorded; a restart of the runner would lose it", "job", r.Record.Job.ID, "error", err)
	}
}

// untilResult does all of the job but to report it, and meanwhile sends the log and heeds what the coordinator says. The
// error is report's cause if that ended first: the job's agent is left to the next start.
func (r *run) untilResult(ctx, report context.Context) (tranter.Result, error) {
	if len(r.Record.Session) == 0 {
		if stop := r.accept(ctx); stop != tranter.StopNone {
			return Outcome(tranter.PhaseResult{}, errStopped(stop), nil), nil
		}
	}
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	work, cancel := context.WithCancelCause(ctx)
	var owned sync.WaitGroup
	owned.Go(func() { r.trace.Run(sending) })
	owned.Go(func() { r.heed(sending, work, cancel) })
	defer owned.Wait()
	defer stop()
	defer cancel(nil)
	result, err := r.work(work, report)
	if errors.Is(err, errLeft) {
		return tranter.Result{}, err
	}
	interrupt := context.Cause(ctx)
	if interrupt == nil && r.Record.Interrupt != "" { // before a restart
		interrupt = errors.New(r.Record.Interrupt)
	}
	return Outcome(result, err, interrupt), nil
}

// heed passes on what the coordinator asks for, and an interrupt, to the running phase.
func (r *run) heed(ctx, work context.Context, cancel context.CancelCauseFunc) {
	interrupted := work.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-interrupted:
			interrupted = nil
			r.endPhase(ctx, tranter.StopAbort)
		case s := <-r.trace.Stops():
			r.Log.Info("The server ends the job", "job", r.Record.Job.ID, "abort", s == tranter.StopAbort)
			if !r.endPhase(ctx, s) || s == tranter.StopAbort {
				cancel(errStopped(s))
			}
		}
	}
}

// errStopped is why work ends when the coordinator ends the job.
func errStopped(s tranter.Stop) error {
	if s == tranter.StopAbort {
		return errAborted
	}
	return errCanceled
}

var (
	errCanceled = errors.New("canceled")
	errAborted  = errors.New("aborted")
	errTimeout  = errors.New("timeout")
	errLeft     = errors.New("the job goes on by itself")
)

// endPhase keeps a request and tells the running phase's agent. It is false when none runs.
func (r *run) endPhase(ctx context.Context, s tranter.Stop) bool {
	r.mu.Lock()
	r.stop = max(r.stop, s)
	phase, session := r.started, r.session
	r.mu.Unlock()
	if phase == "" {
		return false
	}
	if err := session.Cancel(ctx, phase, s == tranter.StopAbort, killGrace); err != nil {
		r.Log.Warn("The job's agent could not be told to end", "job", r.Record.Job.ID, "error", err)
	}
	return true
}

// work plans the job, gets an environment and has the phases carried out.
func (r *run) work(ctx, report context.Context) (tranter.PhaseResult, error) {
	first := len(r.Record.Session) == 0
	p, err := plan.Build(r.Record.Job, r.Settings, variables.Slots{Runner: r.Record.RunnerSlot, Project: r.Record.Slot})
	if err != nil {
		r.failedBeforePlan()
		return tranter.PhaseResult{}, err
	}
	r.plan = p
	if r.Record.Deadline.IsZero() {
		r.Record.Deadline = time.Now().Add(p.Timeout)
	}
	limited, stop := context.WithDeadlineCause(ctx, r.Record.Deadline, errTimeout)
	defer stop()
	if first {
		r.save(ctx)
		r.Stage("prepare_executor")
		if err := r.prepare(limited); err != nil {
			return tranter.PhaseResult{}, err
		}
	} else if r.session, err = r.Executor.Reopen(limited, r.Record.Session); err != nil {
		return tranter.PhaseResult{}, fmt.Errorf("take the job up again after a restart of the runner: %w", err)
	}
	var last tranter.PhaseResult
	for _, phase := range p.Phases {
		phase.Prior = last
		phase.Deadline = r.Record.Deadline
		if last, err = r.phase(ctx, report, phase); err != nil {
			return last, err
		}
	}
	return last, nil
}

// failedBeforePlan writes the header of a log that gets no other.
func (r *run) failedBeforePlan() {
	l := joblog.New(r.trace, plan.Format(r.Record.Job, r.Settings), time.Now)
	l.Plain("Running with tranter %s (%s)", r.Settings.Program.Version, r.Settings.Program.Commit)
	l.Plain("  on %s %s, system ID: %s", r.Settings.Name, r.Settings.ShortToken, r.Settings.SystemID)
	r.closeLog(l)
}

func (r *run) closeLog(l *joblog.Log) {
	if err := l.Close(); err != nil {
		r.Log.Error("The job's log could not be written", "job", r.Record.Job.ID, "error", err)
	}
}

// prepare writes the head of the log and makes the environment (runner contract, section 3.2, steps 2 to 7).
func (r *run) prepare(ctx context.Context) error {
	if r.Prepare > 0 && r.Prepare < r.plan.Timeout {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, r.Prepare, errTimeout)
		defer stop()
	}
	l := joblog.New(r.trace, r.plan.Format(), time.Now)
	defer r.closeLog(l)
	for _, line := range r.plan.Header {
		l.Plain("%s", line)
	}
	if len(r.plan.Warnings) > 0 {
		l.Warning("%s", strings.Join(r.plan.Warnings, "; "))
	}
	const section = "prepare_executor"
	l.SectionStart(section)
	defer l.SectionEnd(section)
	l.Headline(fmt.Sprintf("Preparing the %q executor", r.Settings.Executor))
	for try := 1; ; try++ {
		session, err := r.Executor.Open(ctx, tranter.SessionSpec{
			Name: r.Record.Key, Dir: r.Dir, Job: r.Record.Job, Dirs: r.plan.Dirs, Log: lineWriter{l},
		})
		if err == nil {
			r.mu.Lock()
			r.session = session
			r.mu.Unlock()
			r.Record.Session = session.Ref()
			r.save(ctx)
			return nil
		}
		var config *tranter.ConfigError
		if errors.As(err, &config) || try == prepareTries || ctx.Err() != nil {
			return prepareError(ctx, err)
		}
		l.Error("Preparation failed: %v", err)
		l.Plain("Will be retried in %v ...", prepareWait)
		if !wait(ctx, prepareWait) {
			return prepareError(ctx, err)
		}
	}
}

func prepareError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("prepare the environment: %w", cause)
	}
	return fmt.Errorf("prepare the environment: %w", err)
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// lineWriter writes what an executor has to say as messages of the log.
type lineWriter struct{ log *joblog.Log }

func (w lineWriter) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		w.log.Plain("%s", strings.TrimSuffix(line, "\n"))
	}
	return len(p), nil
}

// phase has one phase carried out and its journal put into the log.
func (r *run) phase(ctx, report context.Context, p tranter.Phase) (tranter.PhaseResult, error) {
	r.Stage(p.ID)
	if r.Record.Phase != p.ID {
		r.Record.Phase, r.Record.PhaseStart = p.ID, r.trace.Size()
		r.save(ctx)
	}
	if limit := p.Log.LimitBytes; limit > 0 {
		p.Log.LimitBytes = max(1, limit-r.Record.PhaseStart)
	}
	if cause := context.Cause(ctx); cause != nil {
		return tranter.PhaseResult{}, cause
	}
	if err := r.session.Start(ctx, p); err != nil {
		return tranter.PhaseResult{}, fmt.Errorf("start the job's agent: %w", err)
	}
	r.mu.Lock()
	r.started = p.ID
	pending := r.stop
	r.mu.Unlock()
	if pending != tranter.StopNone { // it came before there was an agent to tell
		r.endPhase(ctx, pending)
	}
	result, err := r.attach(ctx, report, p.ID)
	r.mu.Lock()
	r.started = ""
	r.mu.Unlock()
	return result, err
}

// attach copies the phase's journal to the log until the phase has ended. An interrupt or an abort does not end it: the
// agent does, having been told. The end of report ends it with errLeft.
func (r *run) attach(ctx, report context.Context, id string) (tranter.PhaseResult, error) {
	defer r.recordInterrupt(ctx)()
	limit := time.Until(r.Record.Deadline) + patience
	ctx, stop := context.WithTimeoutCause(context.WithoutCancel(ctx), limit, errTimeout)
	defer stop()
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	defer context.AfterFunc(report, func() { leave(errLeft) })()
	for {
		w := &spoolWriter{trace: r.trace}
		result, err := r.session.Attach(ctx, id, r.trace.Size()-r.Record.PhaseStart, w)
		if err == nil || errors.Is(err, tranter.ErrAgentLost) || ctx.Err() != nil {
			return result, err
		}
		if w.err != nil { // nobody will see what the job prints from here on
			r.endPhase(ctx, tranter.StopAbort)
			return result, w.err
		}
		r.Log.Warn("The connection to the job's agent was lost; it is made again", "job", r.Record.Job.ID, "error", err)
		if !wait(ctx, attachRetry) {
			return result, err
		}
	}
}

// recordInterrupt keeps why the job is interrupted, for a start after which the agent's result is all there is. Nothing
// else may change the record until the returned function was called.
func (r *run) recordInterrupt(ctx context.Context) func() {
	attached, end := context.WithCancel(context.WithoutCancel(ctx))
	var owned sync.WaitGroup
	owned.Go(func() {
		select {
		case <-attached.Done():
			return
		case <-ctx.Done():
		}
		if cause := context.Cause(ctx); errors.Is(cause, ErrInterrupted) {
			r.Record.Interrupt = cause.Error()
			r.save(ctx)
		}
	})
	return func() {
		end()
		owned.Wait()
	}
}

// spoolWriter tells a spool that can't be written from a journal that can't be read.
type spoolWriter struct {
	trace io.Writer
	err   error
}

func (w *spoolWriter) Write(p []byte) (int, error) {
	n, err := w.trace.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// lastLines writes how the job ended, once (runner contract, section 3.10).
func (r *run) lastLines() {
	if r.trace.Size() > r.Record.ResultAt {
		return
	}
	format := plan.Format(r.Record.Job, r.Settings)
	if r.plan != nil {
		format = r.plan.Format()
	}
	var lines buffer // one write, so that a crash leaves all or nothing
	l := joblog.New(&lines, format, time.Now)
	switch result := r.Record.Result; {
	case result.State == tranter.JobSuccess:
		l.FinalInfo("Job succeeded")
	case result.Reason == tranter.RunnerSystemFailure:
		l.FinalError("Job failed (system failure): %s", result.Message)
	default:
		l.FinalError("Job failed: %s", result.Message)
	}
	r.closeLog(l)
	if _, err := r.trace.Write(lines); err != nil {
		r.Log.Error("The job's log could not be written", "job", r.Record.Job.ID, "error", err)
	}
}

type buffer []byte

func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// close gives the environment back.
func (r *run) close(ctx context.Context, resumed bool) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
	defer stop()
	if resumed && len(r.Record.Session) > 0 {
		session, err := r.Executor.Reopen(ctx, r.Record.Session)
		if err != nil {
			r.Log.Warn("The environment of a job from before the restart is not there any more", "job", r.Record.Job.ID, "error", err)
			return
		}
		r.session = session
	}
	if r.session == nil {
		return
	}
	r.Stage("cleanup")
	if err := r.session.Close(ctx); err != nil {
		r.Log.Error("The job's environment could not be removed", "job", r.Record.Job.ID, "error", err)
	}
}
