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
	Caches   CacheSigner                 // of the distributed cache; nil: there is none
	Secrets  func() tranter.SecretReader // opens a hold on external secrets for this job; nil: there are none
	Dir      string                      // of this job alone
	Log      *slog.Logger
	Measure  Measure      // of the environment while the job ran; nil: nothing is
	Stage    func(string) // told what the job is doing; may be nil
	Freed    func()       // called once the environment is given back and only the report is left; may be nil

	Prepare time.Duration // limit for making the environment; 0: the job's timeout
	Reporting
	Ties

	Door   *Door           // for interactive terminals; nil: there are none
	Linger time.Duration   // how long an environment stays after the job's end for a terminal that is attached
	Ending <-chan struct{} // closed when the manager wants to end and nothing to linger; may be nil
}

// Reporting says how a job's log and its end are told to the coordinator.
type Reporting struct {
	Interval     time.Duration // between reports until the coordinator names another; 0: the stock runner's
	SignOfLife   time.Duration // without a report after which one is made anyway; 0: the stock runner's
	DynamicForce bool
	Tries        int // of the final report before it goes on slowly
}

const (
	prepareTries = 3
	prepareWait  = 3 * time.Second
	closeLimit   = 5 * time.Minute
	killGrace    = 10 * time.Second
	attachRetry  = time.Second
)

// ErrInterrupted ends a job because the manager has been told to stop at once. It is given as the cause of the context.
var ErrInterrupted = errors.New("the runner was told to stop")

type run struct {
	Task
	trace *trace.Trace
	plan  *plan.Plan

	session tranter.Session

	beforePrepare buffer    // lines of the log for between its head and the preparation
	early         io.Writer // the log before the first phase; what an interrupted start has written of it stays

	recording sync.Mutex // guards the record while something is changed in it besides this goroutine's own steps

	mu      sync.Mutex
	stop    tranter.Stop // what the coordinator has asked for
	started string       // id of the phase that is running
	later   bool         // none runs, but one will soon that is to be told: it is not found again yet after a restart, or not started
}

// Run runs the job, or goes on with it where its record leaves off, until the coordinator knows how it ended. When ctx
// ends, the job is interrupted. When report ends, what is not reported stays recorded, and the error says so. The
// result is also given with an error.
func Run(ctx, report context.Context, t Task) (tranter.Result, error) {
	r := &run{Task: t.whole()}
	defer r.Door.shut()
	if err := os.MkdirAll(t.Dir, 0o700); err != nil {
		return r.refuse(report, fmt.Errorf("make the job's directory: %w", err))
	}
	tr, err := trace.Open(trace.Options{
		Reporter: t.Reporter, Job: r.ref(), Path: spool(t.Dir), Log: t.Log,
		Interval: t.Interval, ForceSend: t.SignOfLife, Dynamic: t.DynamicForce, Tries: t.Tries,
		Reserve: logReserve(t.Settings.OutputLimit),
	})
	if err != nil {
		return r.refuse(report, err)
	}
	r.trace, r.early = tr, tr
	r.History.follow(tr)
	handedOver := r.Record.ResultAt > 0 && tr.Size() == 0 // by a start that was interrupted then
	if len(r.Record.Session) == 0 {
		r.early = after(tr, t.Dir, r.Record.Head)
	}
	resumed := r.Record.Result != nil
	if !resumed {
		result, err := r.untilResult(ctx, report)
		if err != nil {
			return result, errors.Join(err, tr.Close())
		}
		bill := r.bill(report)
		r.History.end(result, bill)
		r.keep(report, func(rec *tranter.JobRecord) { rec.Result, rec.ResultAt, rec.Bill = &result, tr.Size(), bill })
	}
	if resumed {
		r.History.ended(*r.Record.Result)
	} else {
		r.measure(report)
	}
	r.lastLines()
	closed := r.closing(report, resumed)
	err = tr.Finish(report, *r.Record.Result, r.Record.Job.Features.FailureReasons)
	<-closed
	if err != nil {
		return *r.Record.Result, errors.Join(err, tr.Close())
	}
	// From here on a failure leaves rubbish, not an unreported job.
	cachesOf(r).abort(report, r.Record.Uploads)
	remember(report, r)
	if err := errors.Join(putAway(r, handedOver), os.RemoveAll(t.Dir), t.Records.Remove(context.WithoutCancel(report), t.Record.Key)); err != nil {
		t.Log.Warn("What a finished job leaves could not be removed", "job", r.Record.Job.ID, "error", err)
	}
	return *r.Record.Result, nil
}

// whole returns the task with what it may leave out.
func (t Task) whole() Task {
	if t.Freed == nil {
		t.Freed = func() {}
	}
	if t.Placed == nil {
		t.Placed = func() {}
	}
	if t.Door == nil {
		t.Door = NewDoor()
	}
	if t.History == nil {
		t.History = NewHistory(t.Record, t.Settings.Name, t.Settings.Executor)
	}
	stage := t.Stage
	t.Stage = func(name string) {
		t.History.begin(name)
		if stage != nil {
			stage(name)
		}
	}
	return t
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

// untilResult does all of the job but to report it, and meanwhile sends the log and heeds what the coordinator says. The
// error is report's cause if that ended first: the job's agent is left to the next start.
func (r *run) untilResult(ctx, report context.Context) (tranter.Result, error) {
	r.stop, r.later = r.Record.Stop, r.Record.Phase != "" // before a restart
	if len(r.Record.Session) == 0 && r.stop == tranter.StopNone {
		r.stop = r.accept(ctx)
	}
	if r.Record.Phase == "" && r.stop != tranter.StopNone {
		return r.History.outcome(Outcome(tranter.PhaseResult{}, errStopped(r.stop), nil)), nil
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
	outcome := r.History.outcome(Outcome(result, err, interrupt))
	linger(work, r)
	return outcome, nil
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
			// What the coordinator has asked for is passed on below, as it was asked for.
			if cause := context.Cause(work); !errors.Is(cause, errCanceled) && !errors.Is(cause, errAborted) {
				r.endPhase(ctx, tranter.StopAbort)
			}
		case s := <-r.trace.Stops():
			r.Log.Info("The server ends the job", "job", r.Record.Job.ID, "abort", s == tranter.StopAbort)
			obey(ctx, r, s, cancel)
		case by := <-r.History.cancel:
			r.mu.Lock()
			first := r.stop == tranter.StopNone
			r.mu.Unlock()
			if first { // else the server was earlier
				r.History.canceledBy(by)
			}
			obey(ctx, r, tranter.StopCancel, cancel)
		}
	}
}

// obey ends the job as it is asked for.
func obey(ctx context.Context, r *run, s tranter.Stop, cancel context.CancelCauseFunc) {
	// A server may say it only once, or not again for long.
	r.keep(ctx, func(rec *tranter.JobRecord) { rec.Stop = max(rec.Stop, s) })
	if !r.endPhase(ctx, s) || s == tranter.StopAbort {
		cancel(errStopped(s))
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

// endPhase keeps a request and tells the running phase's agent, or has it told once that is found again after a restart.
// It is false when no agent will be told.
func (r *run) endPhase(ctx context.Context, s tranter.Stop) bool {
	r.mu.Lock()
	r.stop = max(r.stop, s)
	phase, session, later := r.started, r.session, r.later
	r.mu.Unlock()
	if phase == "" {
		return later
	}
	if err := session.Cancel(ctx, phase, s == tranter.StopAbort, killGrace); err != nil {
		r.Log.Warn("The job's agent could not be told to end", "job", r.Record.Job.ID, "error", err)
	}
	return true
}

// work plans the job, gets an environment and has the phases carried out.
func (r *run) work(ctx, report context.Context) (tranter.PhaseResult, error) {
	if len(r.Record.Job.Secrets) > 0 {
		if err := r.resolveSecrets(ctx); err != nil {
			return tranter.PhaseResult{}, err
		}
	}
	p, err := r.makePlan()
	if err != nil {
		r.failedBeforePlan()
		return tranter.PhaseResult{}, err
	}
	r.plan = p
	if r.Record.Deadline.IsZero() {
		r.note(func(rec *tranter.JobRecord) { rec.Deadline = time.Now().Add(p.Timeout) })
	}
	limited, stop := context.WithDeadlineCause(ctx, r.Record.Deadline, errTimeout)
	defer stop()
	return again{r}.attempts(ctx, limited, report)
}

// reopen finds the environment again in which a job was before a restart.
func (r *run) reopen(ctx context.Context) error {
	finding, stop := alive(ctx)
	defer stop()
	session, err := r.Executor.Reopen(finding, r.Record.Session)
	if err != nil {
		return fmt.Errorf("take the job up again after a restart of the runner: %w", err)
	}
	r.mu.Lock()
	r.session = session
	r.mu.Unlock()
	r.History.place(session)
	return nil
}

func (r *run) closeLog(l *joblog.Log) {
	if err := l.Close(); err != nil {
		r.Log.Error("The job's log could not be written", "job", r.Record.Job.ID, "error", err)
	}
}

// What the lines of the log begin with between which there are tries to prepare the job that have failed.
const (
	preparing = "Preparing the "
	retried   = "Will be retried in "
)

// prepare makes the environment (runner contract, section 3.2, steps 5 to 7).
func (r *run) prepare(ctx, report context.Context) error {
	if r.Prepare > 0 && r.Prepare < r.plan.Timeout {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, r.Prepare, errTimeout)
		defer stop()
	}
	l := joblog.New(r.early, r.plan.Format(), time.Now)
	defer r.closeLog(l)
	const section = "prepare_executor"
	l.SectionStart(section)
	defer l.SectionEnd(section)
	l.Headline(fmt.Sprintf(preparing+"%q executor", r.Settings.Executor))
	for try := 1; ; try++ {
		session, err := r.Executor.Open(ctx, tranter.SessionSpec{
			Name: r.Record.Key, Dir: r.Dir, Job: r.Record.Job, Dirs: r.plan.Dirs, Log: lineWriter{l},
			Variables: r.plan.Variables(), Settle: r.settle, Leaving: report.Done(),
		})
		if err == nil {
			r.mu.Lock()
			r.session = session
			r.mu.Unlock()
			r.History.place(session)
			r.keep(ctx, func(rec *tranter.JobRecord) { rec.Session, rec.Helper = session.Ref(), r.Settings.Helper })
			r.Placed()
			return nil
		}
		if report.Err() != nil && ctx.Err() == nil {
			return errLeft // the next start makes the environment
		}
		if lasting(err) || try == prepareTries || ctx.Err() != nil {
			return prepareError(ctx, err)
		}
		l.Error("Preparation failed: %v", err)
		l.Plain(retried+"%v ...", prepareWait)
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

// lastLines writes how the job ended, once (runner contract, section 3.10).
func (r *run) lastLines() {
	format := plan.Format(r.Record.Job, r.Settings)
	if r.plan != nil {
		format = r.plan.Format()
	}
	l := joblog.New(after(r.trace, r.Dir, r.Record.ResultAt), format, time.Now)
	if r.Record.Bill != nil {
		l.Plain("%s", r.Record.Bill)
	}
	switch result := r.Record.Result; {
	case result.State == tranter.JobSuccess:
		l.FinalInfo("Job succeeded")
	case result.Reason == tranter.RunnerSystemFailure:
		l.FinalError("Job failed (system failure): %s", result.Message)
	default:
		l.FinalError("Job failed: %s", result.Message)
	}
	r.closeLog(l)
}

// billLimit is how long an environment may take to say what was used.
const billLimit = 5 * time.Second

// bill asks what the job has used.
func (r *run) bill(ctx context.Context) *tranter.Bill {
	s, ok := r.session.(tranter.Accounted)
	if !ok {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, billLimit)
	defer stop()
	return s.Account(ctx)
}

type buffer []byte

func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// close gives the environment back.
func (r *run) close(ctx context.Context, resumed bool) {
	ctx = context.WithoutCancel(ctx)
	again{r}.giveUpLost(ctx)
	if (resumed || r.session == nil) && len(r.Record.Session) > 0 { // it may have been given up before it was found again
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
	r.Door.shut()
	ctx, stop := context.WithTimeout(ctx, timeToClose(r.session))
	defer stop()
	if err := r.session.Close(ctx); err != nil {
		r.Log.Error("The job's environment could not be removed", "job", r.Record.Job.ID, "error", err)
	}
}
