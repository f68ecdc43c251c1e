package pool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
)

// Executor runs jobs on the machines of a pool: it is a tranter.Executor that gets each job a machine, and leaves the rest
// to that machine's own executor.
type Executor struct{ pool *Pool }

// Executor returns the executor of the pool's machines.
func (p *Pool) Executor() *Executor { return &Executor{pool: p} }

// machineTries is how many machines a job is tried on in one preparation.
const machineTries = 3

// connectLimit is how long a job waits for the connection to the machine that it got. One that has been idle is connected.
const connectLimit = time.Minute

// reference is what Ref of a session gives.
type reference struct {
	Pool    string          `json:"pool"`
	Machine string          `json:"machine"`
	Job     string          `json:"job"`
	Session json.RawMessage `json:"session"` // the machine's executor's
}

// Refers says whether a reference is one of this executor, and of which pool.
func Refers(ref json.RawMessage) (pool string, ok bool) {
	var r reference
	err := json.Unmarshal(ref, &r)
	return r.Pool, err == nil && r.Machine != "" && len(r.Session) > 0
}

// Open implements tranter.Executor. A machine that fails while the job is prepared is replaced by another one.
func (x *Executor) Open(ctx context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	var avoid []string
	for {
		since := time.Now()
		h, err := x.pool.acquire(ctx, spec, avoid)
		if err != nil {
			return nil, fmt.Errorf("get a machine: %w", err)
		}
		name := h.tender.name
		inner, err := h.open(ctx, spec, time.Since(since))
		if err == nil {
			return &session{lease: h, inner: inner}, nil
		}
		if ctx.Err() != nil || jobsOwn(err) || ended(spec.Leaving) {
			h.release(true, "the job could not be prepared")
			return nil, err
		}
		h.release(false, "it failed while a job was prepared: "+brief(err))
		avoid = append(avoid, name)
		if len(avoid) == machineTries {
			return nil, err
		}
		fmt.Fprintf(spec.Log, "Machine %s failed: %v\nThe job goes on with another machine\n", name, err)
	}
}

func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// jobsOwn says whether an error is in what the job asks for, so that another machine would not help.
func jobsOwn(err error) bool {
	var config *tranter.ConfigError
	var build *tranter.BuildError
	var pull *tranter.PullError
	var dependency *tranter.DependencyError
	return errors.As(err, &config) || errors.As(err, &build) || errors.As(err, &pull) || errors.As(err, &dependency)
}

// open prepares the job on the machine that it got.
func (h *lease) open(ctx context.Context, spec tranter.SessionSpec, waited time.Duration) (tranter.Session, error) {
	on, stop := h.while(ctx)
	defer stop()
	connecting, end := context.WithTimeoutCause(on, connectLimit, errors.New("no connection to the machine"))
	err := h.tender.await(connecting)
	end()
	if err != nil {
		return nil, fmt.Errorf("connect to machine %s: %w", h.tender.name, err)
	}
	text := ""
	if waited >= 100*time.Millisecond {
		text = ", after a wait of " + round(waited)
	}
	fmt.Fprintf(spec.Log, "Using machine %s%s\n", h.tender.name, text)
	inner, err := h.tender.executor.Open(on, spec)
	if err != nil {
		if jobsOwn(err) {
			return nil, err
		}
		return nil, h.fault(on, err)
	}
	return inner, nil
}

// Reopen implements tranter.Executor. The machine is connected to again first, if the manager was restarted.
func (x *Executor) Reopen(ctx context.Context, ref json.RawMessage) (tranter.Session, error) {
	var r reference
	if _, ok := Refers(ref); !ok || json.Unmarshal(ref, &r) != nil {
		return nil, fmt.Errorf("reopen a session: malformed reference %q", ref)
	}
	var t *tender
	if err := x.pool.do(ctx, func(l *loop) {
		if m := l.book.Find(r.Job); m != nil && m.Name == r.Machine {
			t = l.tenders[m.Name]
		}
	}); err != nil {
		return nil, err
	}
	if t == nil {
		return nil, fmt.Errorf("%w: %s does not hold the job any more", tranter.ErrMachineLost, r.Machine)
	}
	h := &lease{pool: x.pool, job: r.Job, tender: t}
	on, stop := h.while(ctx)
	defer stop()
	if err := t.await(on); err != nil {
		return nil, err
	}
	inner, err := t.executor.Reopen(on, r.Session)
	if err != nil {
		return nil, h.fault(on, err)
	}
	return &session{lease: h, inner: inner}, nil
}

// Ready returns why no job can be taken now.
func (x *Executor) Ready() error { return x.pool.Ready() }

// Changed returns a channel that is closed when Ready may say something else.
func (x *Executor) Changed() <-chan struct{} { return x.pool.Changed() }

// Sweep implements tranter.Sweeper: it takes machines back from jobs that are not there any more, and has those that run
// jobs, or did since the last time, remove what is left on them.
func (x *Executor) Sweep(ctx context.Context, live func(name string) bool) error {
	var sweepers []tranter.Sweeper
	held := map[string]bool{}
	if err := x.pool.do(ctx, func(l *loop) {
		for name, t := range l.tenders {
			m := l.book.Machines[name]
			for _, lease := range m.Leases {
				held[lease.Job] = true
			}
			if s, ok := t.sweeper(); ok && (len(m.Leases) > 0 || m.Uses > 0) {
				sweepers = append(sweepers, s)
			}
		}
		for job := range l.waiters {
			delete(held, job)
		}
	}); err != nil {
		return err
	}
	for job := range held {
		if !live(job) {
			x.pool.options.Log.Warn("A machine was held by a job that is not there any more", "pool", x.pool.options.Name, "job", job)
			(&lease{pool: x.pool, job: job}).release(false, "its job is not there any more")
		}
	}
	var sweeps errgroup.Group
	sweeps.SetLimit(sweepersAtOnce)
	for _, s := range sweepers {
		sweeps.Go(func() error { return s.Sweep(ctx, live) })
	}
	return sweeps.Wait()
}

const sweepersAtOnce = 8

// sweeper returns the machine's executor, if it is connected and can sweep.
func (t *tender) sweeper() (tranter.Sweeper, bool) {
	select {
	case <-t.connected:
		s, ok := t.executor.(tranter.Sweeper)
		return s, ok
	default:
		return nil, false
	}
}

// session is a job's session on a machine.
type session struct {
	lease *lease
	inner tranter.Session
}

// Start implements tranter.Session.
func (s *session) Start(ctx context.Context, p tranter.Phase) error {
	on, stop := s.lease.while(ctx)
	defer stop()
	if err := s.inner.Start(on, p); err != nil {
		return s.lease.fault(on, err)
	}
	return nil
}

// Attach implements tranter.Session. When the machine is lost the error is ErrMachineLost.
func (s *session) Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	on, stop := s.lease.while(ctx)
	defer stop()
	mine := &writer{w: w}
	result, err := s.inner.Attach(on, phaseID, offset, mine)
	if err != nil && mine.err == nil {
		return result, s.lease.fault(on, err)
	}
	return result, err
}

// writer knows whether its own end has failed.
type writer struct {
	w   io.Writer
	err error
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// Cancel implements tranter.Session.
func (s *session) Cancel(ctx context.Context, phaseID string, abort bool, grace time.Duration) error {
	on, stop := s.lease.while(ctx)
	defer stop()
	return s.inner.Cancel(on, phaseID, abort, grace)
}

// lostClose is how long the executor of a machine that is lost gets to close a session.
const lostClose = 5 * time.Second

// Close implements tranter.Session. A machine on which something is left runs no other job.
func (s *session) Close(ctx context.Context) error {
	select {
	case <-s.lease.tender.lost:
		closing, stop := context.WithTimeout(ctx, lostClose)
		defer stop()
		_ = s.inner.Close(closing) // what is on the machine goes with it
		return nil
	default:
	}
	on, stop := s.lease.while(ctx)
	err := s.inner.Close(on)
	stop()
	if err != nil {
		s.lease.release(false, "what a job left could not be removed: "+brief(err))
		return nil
	}
	s.lease.release(true, "the job has ended")
	return nil
}

// Ref implements tranter.Session.
func (s *session) Ref() json.RawMessage {
	ref, err := json.Marshal(reference{Pool: s.lease.pool.options.Name, Machine: s.lease.tender.name, Job: s.lease.job, Session: s.inner.Ref()})
	if err != nil {
		return nil
	}
	return ref
}

// Terminal implements tranter.TerminalSession.
func (s *session) Terminal(ctx context.Context, phaseID string) (tranter.Terminal, error) {
	inner, ok := s.inner.(tranter.TerminalSession)
	if !ok {
		return nil, tranter.ErrNoTerminal
	}
	return inner.Terminal(ctx, phaseID)
}

// Selector implements tranter.Measured.
func (s *session) Selector() string { return fmt.Sprintf("instance=%q", s.lease.tender.name) }

// Quiet tells that nothing of the job is left running, so that its end can be reported before it is closed.
func (s *session) Quiet() bool {
	q, ok := s.inner.(interface{ Quiet() bool })
	return ok && q.Quiet()
}
