// Package pool looks after the machines of one runner: a loop round packages fleet and scale that creates, prepares, lends,
// checks and removes them, remembers all that in its book, and after a restart goes on where it was.
//
// It knows providers by the root package's interface, and what is on a machine by the interfaces here: package main passes
// the adapters in.
package pool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/scale"
)

// Book remembers a pool over restarts. Package store fills it.
type Book interface {
	// Load returns the machines of a pool, also with an error that names those whose entries can't be read: they are to be
	// removed.
	Load(ctx context.Context, pool string) ([]fleet.Machine, error)
	// Append keeps, in one transaction, what has happened and how the machines that it has changed stand; those named in
	// gone are forgotten, their events are not.
	Append(ctx context.Context, pool string, events []fleet.Event, changed []fleet.Machine, gone []string) error
}

// Host is a machine that is ready, and the connection to it.
type Host interface {
	// Check asks the machine and its engine for a sign of life, and puts off the machine's own end.
	Check(ctx context.Context) error
	// Close gives the connection up. The machine is not touched.
	Close() error
}

// Hands are what works on machines, made by package main from adapters.
type Hands struct {
	// Check returns what is wrong with the settings of the rest, before there is a machine; nil: nothing can be said.
	Check func() error
	// Prepare makes a machine ready for jobs and connects to it. With kept empty it does all; otherwise it takes up what an
	// earlier call has made, whose kept it is. It calls report after each step.
	Prepare func(ctx context.Context, m tranter.Machine, kept json.RawMessage, report func(tranter.Timing)) (Host, json.RawMessage, error)
	// Executor makes what runs jobs on a machine. What it returns may also be a Warmer, a tranter.Sweeper, an io.Closer.
	Executor func(m tranter.Machine, h Host) (tranter.Executor, error)
	// Watch calls found when the machine is about to be taken away, at a time if that is known, until ctx ends; nil: nobody
	// can tell.
	Watch func(ctx context.Context, h Host, found func(reason string, at time.Time))
}

// Warmer is an Executor that can do beforehand what its first job would wait for. A job may come meanwhile.
type Warmer interface {
	Warm(ctx context.Context) error
}

// Settings are what a configuration says of a pool. They may be replaced while it runs.
type Settings struct {
	Runner       string // name, for people
	ProviderName string
	Provider     tranter.Provider
	Hands        Hands
	Policy       scale.Policy
	NewName      func() string                   // of a machine; unique
	Options      func(set, name string) []string // of an option set, for a machine; nil: none
	Price        func(set string) float64        // of an hour; nil: not known
	LostAfter    time.Duration                   // without a sign of life; 0: 2 minutes
}

// Options are what a pool is made with and keeps.
type Options struct {
	Name     string       // unique among all pools: the runner's short token
	Mark     tranter.Mark // put on all machines
	Book     Book
	Log      *slog.Logger
	Changed  func() // called when there may be room for a job that there was none for; may be nil
	Parallel int    // operations at providers and machines at once; 0: 64
}

// Pool looks after machines. It is safe for concurrent use.
type Pool struct {
	options Options
	calls   chan func(*loop)
	done    chan struct{} // closed once Run has ended
	first   Settings
	verdict atomic.Pointer[verdict]
}

// Errors of what people and jobs ask a pool for.
var (
	ErrUnknown = errors.New("there is no such machine")
	ErrEnded   = errors.New("the pool has ended")
	ErrFull    = errors.New("the limit of machines is reached")
)

// New returns a pool that does nothing before Run.
func New(o Options, s Settings) *Pool {
	p := &Pool{options: o, calls: make(chan func(*loop)), done: make(chan struct{}), first: s}
	p.verdict.Store(&verdict{Verdict: scale.Verdict{Reason: "the pool starts"}, changed: make(chan struct{})})
	return p
}

// Name returns the pool's name.
func (p *Pool) Name() string { return p.options.Name }

// Run takes up the machines of the book and looks after them until ctx ends, or until the pool is retired and empty. What
// is under way at providers then is given up and recorded as such: the next start finds it.
func (p *Pool) Run(ctx context.Context) error {
	defer close(p.done)
	l := newLoop(p)
	machines, err := p.options.Book.Load(ctx, p.options.Name)
	if err != nil {
		if len(machines) == 0 {
			return fmt.Errorf("read the machines of pool %s: %w", p.options.Name, err)
		}
		p.options.Log.Error("Some machines of the book can't be read; they are removed", "pool", p.options.Name, "error", err)
	}
	listing{l}.restore(machines)
	l.run(ctx)
	return nil
}

// Wait waits for the end of Run. The error is ctx's cause if that ended first.
func (p *Pool) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// do has f run by the loop, and returns when it has.
func (p *Pool) do(ctx context.Context, f func(*loop)) error {
	ran := make(chan struct{})
	call := func(l *loop) {
		defer close(ran)
		f(l)
	}
	select {
	case p.calls <- call:
	case <-p.done:
		return ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	<-ran
	return nil
}

// post has f run by the loop, which is waiting for it.
func (p *Pool) post(f func(*loop)) {
	select {
	case p.calls <- f:
	case <-p.done:
	}
}

// Change replaces the settings. Machines stay; what is under way goes on as it was begun. A pool that is retired and has
// not ended yet is taken back into use.
func (p *Pool) Change(ctx context.Context, s Settings) error {
	return p.do(ctx, func(l *loop) {
		l.settings, l.proof.next = s, time.Now()
		l.retired, l.pace.due = false, true
	})
}

// Retire has the pool take no more jobs and remove all machines, each once its jobs have ended, those that wait included.
// Run returns then.
func (p *Pool) Retire(ctx context.Context, reason string) error {
	return p.do(ctx, func(l *loop) { byHand{l}.retire(reason) })
}

// verdict is what those who ask for jobs are told.
type verdict struct {
	scale.Verdict
	fault   bool          // the settings are wrong
	changed chan struct{} // closed when there is another one
}

// Ready returns why no job can be taken now, as far as the pool is concerned; nil: one can. Unless the settings are wrong the
// error is a tranter.ErrBusy.
func (p *Pool) Ready() error {
	v := p.verdict.Load()
	switch {
	case v.OK || (!v.Retry.IsZero() && !time.Now().Before(v.Retry)):
		return nil
	case v.fault:
		return errors.New(v.Reason)
	}
	return busyError(v.Reason)
}

// busyError says why there is no machine for a job, and none can be made.
type busyError string

func (e busyError) Error() string { return string(e) }

// Is tells what it is.
func (e busyError) Is(target error) bool { return target == tranter.ErrBusy }

// Changed returns a channel that is closed when Ready may say something else than at the time of the call.
func (p *Pool) Changed() <-chan struct{} { return p.verdict.Load().changed }
