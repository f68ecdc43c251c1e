package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

const (
	// startLimit is how long a phase may take to start whose job has ended already, so that only what always runs is left.
	startLimit = 30 * time.Second
	// cleanupLimit is how long such a phase may take: what an agent allows for cleaning up, and a little more.
	cleanupLimit = 3 * time.Minute
)

// course is a job's way through its phases.
type course struct{ *run }

// all has the job's phases carried out, each with how those before it have left the job. After a restart it goes on
// with the one that was started last. A fault of the machinery ends the job, but what always runs of later phases still
// does: it removes what must not stay.
func (r course) all(ctx, report context.Context) (tranter.PhaseResult, error) {
	left, prior, err := r.leftOff()
	if err != nil {
		return prior, err
	}
	var fault error
	for _, p := range left { // the environment may have changed it
		resumed := p.ID == r.Record.Phase
		if !resumed {
			prior = r.between(ctx, prior)
		}
		p.Prior, p.Deadline = prior, r.Record.Deadline
		if !resumed && !p.Wanted() {
			continue
		}
		result, err := r.phase(ctx, report, p)
		switch {
		case errors.Is(err, errLeft):
			return result, err
		case errors.Is(err, tranter.ErrMachineLost) && fine(prior): // nothing is left to clean up
			return resultOf(err), err
		case err == nil:
			prior = result
		case fine(prior):
			prior, fault = resultOf(err), err
		default: // the first failure is the one that counts
			r.Log.Error("The end of a job that has failed could not be carried out", "job", r.Record.Job.ID, "phase", p.ID, "error", err)
			prior.Over = true
		}
		r.expect(prior.ScriptReached)
	}
	r.expect(false)
	return prior, fault
}

// leftOff returns the phases from the one on that was started last before a restart, and how those before it had left the
// job.
func (r course) leftOff() ([]tranter.Phase, tranter.PhaseResult, error) {
	var prior tranter.PhaseResult
	if r.Record.Phase == "" {
		return r.plan.Phases, prior, nil
	}
	i := slices.IndexFunc(r.plan.Phases, func(p tranter.Phase) bool { return p.ID == r.Record.Phase })
	if i < 0 {
		return nil, prior, fmt.Errorf("the job was left in its phase %q, which this version does not have", r.Record.Phase)
	}
	if r.Record.Prior != nil {
		prior = *r.Record.Prior
	}
	for _, over := range r.plan.Phases[:i] {
		r.unlock(&over) // users are told at once that they are too late
	}
	return r.plan.Phases[i:], prior, nil
}

// fine says whether nothing has failed yet.
func fine(p tranter.PhaseResult) bool { return p.Status == "" || p.Status == tranter.PhaseSucceeded }

// expect says whether a wish of the coordinator that comes while no phase runs is for the next one. Once a script has
// been started, a graceful cancel ends nothing that comes after it; before, the job ends without another phase.
func (r course) expect(later bool) {
	r.mu.Lock()
	r.later = later
	r.mu.Unlock()
}

// between returns how the job stands before its next phase: it may have been ended after the one before it.
func (r course) between(ctx context.Context, prior tranter.PhaseResult) tranter.PhaseResult {
	if prior.Status == "" || prior.Over { // nothing has run, or nothing will
		return prior
	}
	r.mu.Lock()
	stop := r.stop
	r.mu.Unlock()
	cause := context.Cause(ctx)
	if cause == nil && (stop == tranter.StopAbort || stop == tranter.StopCancel && !prior.ScriptReached) {
		cause = errStopped(stop)
	}
	if cause == nil {
		return prior
	}
	ended := resultOf(cause)
	ended.ScriptReached, ended.Steps = prior.ScriptReached, prior.Steps
	return ended
}

// resultOf is the result of a phase that has none of its own, because of err: the job is over.
func resultOf(err error) tranter.PhaseResult {
	if errors.Is(err, ErrInterrupted) {
		return tranter.PhaseResult{Status: tranter.PhaseAborted, Reason: tranter.RunnerInterrupted, Message: fmt.Sprintf("aborted: %v", err), Over: true}
	}
	o := Outcome(tranter.PhaseResult{}, err, nil)
	p := tranter.PhaseResult{Status: tranter.PhaseFailed, Reason: o.Reason, ExitCode: o.ExitCode, Message: o.Message, Over: true}
	switch o.Reason {
	case tranter.JobExecutionTimeout:
		p.Status = tranter.PhaseTimedOut
	case tranter.JobCanceled:
		p.Status = tranter.PhaseCanceled
	default:
	}
	return p
}

// alive returns ctx, or if that has ended one in whose little time what is left of the job can still be begun.
func alive(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), startLimit)
}

// phase has one phase carried out and its journal put into the log.
func (r course) phase(ctx, report context.Context, p tranter.Phase) (tranter.PhaseResult, error) {
	r.Stage(p.ID)
	resumed := r.Record.Phase == p.ID // its agent may be at work
	if !resumed {
		r.begin(ctx, &p)
	}
	if limit := p.Log.LimitBytes; limit > 0 {
		p.Log.LimitBytes = max(1, limit-r.Record.PhaseStart)
		p.Log.Full = p.Prior.Status != "" && r.Record.PhaseStart >= limit // which the log says already
	}
	if cause := context.Cause(ctx); cause != nil && !resumed && p.Prior.Status == "" {
		return tranter.PhaseResult{}, cause
	}
	if err := r.start(ctx, p); err != nil {
		return tranter.PhaseResult{}, err
	}
	r.unlock(&p)
	r.History.work()
	r.mu.Lock()
	r.started, r.later = p.ID, false
	pending := r.stop
	r.mu.Unlock()
	if pending != tranter.StopNone { // it came before there was an agent to tell
		telling, stop := alive(ctx)
		r.endPhase(telling, pending)
		stop()
	}
	result, err := r.attach(ctx, report, &p)
	if !errors.Is(err, errLeft) {
		result = r.History.phase(p.Prior, result)
	}
	r.mu.Lock()
	r.started, r.later = "", result.ScriptReached
	r.mu.Unlock()
	return result, err
}

// unlock lets users in if the phase is one whose scripts they may want to look at.
func (r course) unlock(p *tranter.Phase) {
	if p.Container == nil || p.Container.Place == tranter.PlaceBuild {
		r.Door.unlock(r.session, p.ID)
	}
}

// begin records that a phase is started and, with it, how those before it have ended: they are not run again. The phase's
// caches are signed before.
func (r course) begin(ctx context.Context, p *tranter.Phase) {
	uploads := r.Record.Uploads
	if !p.Prior.Over { // else no caches are moved
		uploads = slices.Concat(uploads, cachesOf(r.run).sign(ctx, p, r.Record.Deadline.Add(signMargin)))
	}
	var prior *tranter.PhaseResult
	if p.Prior.Status != "" {
		prior = &p.Prior
	}
	r.keep(ctx, func(rec *tranter.JobRecord) {
		rec.Phase, rec.PhaseStart, rec.Prior, rec.Uploads = p.ID, r.trace.Size(), prior, uploads
	})
}

// start has the phase's agent put to work. That the job ends meanwhile ends the attempt.
func (r course) start(ctx context.Context, p tranter.Phase) error {
	starting, stop := alive(ctx)
	defer stop()
	err := r.session.Start(starting, p)
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("start the job's agent: %w", err)
}

// attach copies the phase's journal to the log until the phase has ended. An interrupt or an abort does not end it: the
// agent does, having been told. The end of report ends it with errLeft.
func (r course) attach(ctx, report context.Context, p *tranter.Phase) (tranter.PhaseResult, error) {
	defer r.recordInterrupt(ctx)()
	limit := max(0, time.Until(p.Deadline))
	if p.Prior.Over {
		limit = min(limit, cleanupLimit)
	}
	work, limit := ctx, limit+killGrace+agentPatience
	ctx, stop := context.WithTimeoutCause(context.WithoutCancel(ctx), limit, errTimeout)
	defer stop()
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	defer giveUpOn(work, leave)()
	defer context.AfterFunc(report, func() { leave(errLeft) })()
	for {
		w := &spoolWriter{trace: r.trace, room: -1}
		if limit := p.Log.LimitBytes; limit > 0 {
			w.room = max(0, limit+overLimit-(r.trace.Size()-r.Record.PhaseStart))
		}
		result, err := r.session.Attach(ctx, p.ID, r.trace.Size()-r.Record.PhaseStart, w)
		if err == nil || errors.Is(err, tranter.ErrAgentLost) || errors.Is(err, tranter.ErrMachineLost) || ctx.Err() != nil {
			return saneUsage(sane(result), r.Record.Taken, time.Now()), err
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

// overLimit is how much longer a journal may be than its limit: an agent tells in it that the limit is reached.
const overLimit = 64 << 10

var errJournal = errors.New("the job's agent writes more than the log may have: the job has put something else in its place")

// mostMessage and mostSteps are more than an agent's result has.
const (
	mostMessage = 16 << 10
	mostSteps   = 1000
	mostName    = 100 // of a step
)

var reasonPattern = lazy.Regexp(`^[a-z_]{0,64}$`)

// sane returns a result without what no agent writes: a job may have taken its agent's place.
func sane(p tranter.PhaseResult) tranter.PhaseResult {
	p.Message = strings.ToValidUTF8(p.Message[:min(len(p.Message), mostMessage)], "")
	p.Steps = p.Steps[:min(len(p.Steps), mostSteps)]
	for i := range p.Steps {
		p.Steps[i].Name = strings.ToValidUTF8(p.Steps[i].Name[:min(len(p.Steps[i].Name), mostName)], "")
	}
	if !reasonPattern().MatchString(string(p.Reason)) {
		p.Reason = ""
	}
	return p
}

// What no job uses more of, as far as its agent tells.
const (
	mostCPUs  = 1 << 20
	mostBytes = 1 << 60
	mostCPU   = 100 * 365 * 24 * time.Hour
)

// saneUsage returns a result whose times are those of a job from start to now, give or take a day of another machine's clock, and whose
// numbers can be added up.
func saneUsage(p tranter.PhaseResult, start, now time.Time) tranter.PhaseResult {
	const day = 24 * time.Hour
	start, now = start.Add(-day), now.Add(day)
	p.CPUTime = min(max(p.CPUTime, 0), mostCPU)
	p.MaxMemory, p.MaxDisk = min(max(p.MaxMemory, 0), mostBytes), min(max(p.MaxDisk, 0), mostBytes)
	for i := range p.Steps {
		s := &p.Steps[i]
		s.Started = min(max(s.Started, start.UnixMilli()), now.UnixMilli())
		s.Ended = min(max(s.Ended, s.Started), now.UnixMilli())
	}
	if len(p.Samples) == 0 {
		return p
	}
	samples := make([]tranter.UsageSample, 0, min(len(p.Samples), tranter.MaxSamples))
	for _, s := range p.Samples {
		if len(samples) == tranter.MaxSamples || s.At.Before(start) || s.At.After(now) {
			continue
		}
		s.CPU = min(max(s.CPU, 0), mostCPUs)
		s.Memory, s.Disk = min(max(s.Memory, 0), mostBytes), min(max(s.Disk, 0), mostBytes)
		samples = append(samples, s)
	}
	p.Samples = tranter.JoinSamples(nil, samples)
	return p
}

// spoolWriter tells a spool that can't be written from a journal that can't be read. The agent keeps to the limit of the
// log; what says that it is the agent need not.
type spoolWriter struct {
	trace io.Writer
	room  int64 // how many bytes may follow; -1: any number
	err   error
}

func (w *spoolWriter) Write(p []byte) (int, error) {
	if w.room >= 0 {
		if int64(len(p)) > w.room {
			w.err = errJournal
			return 0, w.err
		}
		w.room -= int64(len(p))
	}
	n, err := w.trace.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}
