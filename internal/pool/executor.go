package pool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
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
	defer h.begun()
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
	h.pool.options.Log.Debug("A job is prepared on the machine", "pool", h.pool.options.Name, "machine", h.tender.name, "job", h.job, "waited", round(waited))
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
	inner, err := h.reopen(on, r.Session)
	if err != nil {
		return nil, err
	}
	return &session{lease: h, inner: inner}, nil
}

// reopen takes up a session of the machine's executor.
func (h *lease) reopen(ctx context.Context, ref json.RawMessage) (tranter.Session, error) {
	if err := h.tender.await(ctx); err != nil {
		return nil, err
	}
	inner, err := h.tender.executor.Reopen(ctx, ref)
	if err != nil {
		return nil, h.fault(ctx, err)
	}
	return inner, nil
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

// session is a job's session on a machine. It does not say when it is quiet: a job is reported once its machine was given back,
// so that the next job of its pipeline finds that and needs no other.
type session struct {
	mu    sync.Mutex
	lease *lease
	inner tranter.Session
}

// on returns the session on the machine as it is reached now: one whose address has changed is another connection.
func (s *session) on(ctx context.Context) (*lease, tranter.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.lease.tender.hasMoved() {
		next, err := s.lease.follow(ctx)
		if err != nil {
			return nil, nil, err
		}
		on, stop := next.while(ctx)
		inner, err := next.reopen(on, s.inner.Ref())
		stop()
		if err != nil && !next.tender.hasMoved() {
			return nil, nil, err
		}
		if err == nil {
			s.inner = inner
		}
		s.lease = next
	}
	return s.lease, s.inner, nil
}

// Start implements tranter.Session.
func (s *session) Start(ctx context.Context, p tranter.Phase) error {
	return s.do(ctx, func(on context.Context, inner tranter.Session) error { return inner.Start(on, p) })
}

// do does something with the session on the machine, again if the machine has another address meanwhile.
func (s *session) do(ctx context.Context, f func(context.Context, tranter.Session) error) error {
	for {
		h, inner, err := s.on(ctx)
		if err != nil {
			return err
		}
		on, stop := h.while(ctx)
		if err = f(on, inner); err != nil {
			err = h.fault(on, err)
		}
		stop()
		if err == nil || !h.tender.hasMoved() || ctx.Err() != nil {
			return err
		}
	}
}

// Attach implements tranter.Session. When the machine is lost the error is ErrMachineLost.
func (s *session) Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	var result tranter.PhaseResult
	mine := &writer{w: w}
	err := s.do(ctx, func(on context.Context, inner tranter.Session) (err error) {
		result, err = inner.Attach(on, phaseID, offset+mine.n, mine)
		if mine.err != nil {
			return nil //nolint:nilerr // it is not the machine's fault
		}
		return err
	})
	if mine.err != nil {
		return result, mine.err
	}
	return result, err
}

// writer knows how much was written to it, and whether its own end has failed.
type writer struct {
	w   io.Writer
	n   int64
	err error
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.n += int64(n)
	if err != nil {
		w.err = err
	}
	return n, err
}

// Cancel implements tranter.Session.
func (s *session) Cancel(ctx context.Context, phaseID string, abort bool, grace time.Duration) error {
	h, inner, err := s.on(ctx)
	if err != nil {
		return err
	}
	on, stop := h.while(ctx)
	defer stop()
	return inner.Cancel(on, phaseID, abort, grace)
}

// lostClose is how long the executor of a machine that is lost gets to close a session.
const lostClose = 5 * time.Second

// Close implements tranter.Session. A machine on which something is left, or that has no room, runs no other job.
func (s *session) Close(ctx context.Context) error {
	h, inner, err := s.on(ctx)
	if err != nil || h.tender.isLost() {
		closing, stop := context.WithTimeout(ctx, lostClose)
		defer stop()
		_ = s.inner.Close(closing) // what is on the machine goes with it
		s.lease.release(false, "the machine is lost")
		return nil
	}
	on, stop := h.while(ctx)
	err = inner.Close(on)
	stop()
	switch full := h.tender.full(); {
	case err != nil:
		h.release(false, "what a job left could not be removed: "+brief(err))
	case full != nil:
		h.release(false, brief(full))
	default:
		h.release(true, "the job has ended")
	}
	return nil
}

// Ref implements tranter.Session.
func (s *session) Ref() json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	ref, err := json.Marshal(reference{Pool: s.lease.pool.options.Name, Machine: s.lease.tender.name, Job: s.lease.job, Session: s.inner.Ref()})
	if err != nil {
		return nil
	}
	return ref
}

// Terminal implements tranter.TerminalSession.
func (s *session) Terminal(ctx context.Context, phaseID string) (tranter.Terminal, error) {
	_, inner, err := s.on(ctx)
	if err != nil {
		return nil, err
	}
	t, ok := inner.(tranter.TerminalSession)
	if !ok {
		return nil, tranter.ErrNoTerminal
	}
	return t.Terminal(ctx, phaseID)
}

// Place implements tranter.Placed.
func (s *session) Place() tranter.JobPlace {
	s.mu.Lock()
	defer s.mu.Unlock()
	return tranter.JobPlace{Machine: s.lease.tender.name, Set: s.lease.tender.set}
}

// Selector implements tranter.Measured.
func (s *session) Selector() string { return fmt.Sprintf("instance=%q", s.lease.tender.name) }
