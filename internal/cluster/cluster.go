// Package cluster runs the jobs of one runner in batch jobs of a cluster: a loop round package allocation that submits,
// watches and cancels batch jobs, gives their places to jobs, remembers all that in its book, and after a restart goes on
// where it was.
//
// It knows batch systems by the root package's interface, and what runs in a batch job by the functions of Hands: package
// main passes the adapters in.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
)

// Book remembers a cluster over restarts. Package store fills it.
type Book interface {
	// Load returns the allocations of a class that are not forgotten.
	Load(ctx context.Context, class string) ([]allocation.Allocation, error)
	// Save keeps, in one transaction, how the allocations stand that have changed; those named in gone are over.
	Save(ctx context.Context, class string, changed []allocation.Allocation, gone []string) error
}

// SignKind is what a sign of life says.
type SignKind int

// The signs that come from what runs in an allocation.
const (
	Began SignKind = iota // it is ready for jobs
	Alive
	Over // it has ended, or is about to
)

// Sign is a sign of life of what runs in an allocation.
type Sign struct {
	Name   string
	Kind   SignKind
	At     time.Time
	Until  time.Time // when its walltime is over; zero: unknown
	Host   string
	Reason string // of an end
}

// Hands are what works in allocations, made by package main from adapters.
type Hands struct {
	// Place tells apart where allocations are prepared: after a change of it those that there are stay with what they had.
	Place string
	// Prepare makes ready what an allocation needs, and returns the script of its batch job. It may be repeated.
	Prepare func(a allocation.Allocation, as *tranter.Account) (script string, err error)
	// Follow has the signs of an allocation looked for, from now on.
	Follow func(name string)
	// Watch hands signs on until ctx ends.
	Watch func(ctx context.Context, found func(Sign)) error
	// Executor makes what runs jobs in an allocation that has begun.
	Executor func(name string) (tranter.Executor, error)
	// Lost ends all calls that wait for something of an allocation.
	Lost func(name string, cause error)
	// End tells what runs in an allocation to end.
	End func(ctx context.Context, name, reason string) error
	// Remove removes what Prepare has made.
	Remove func(name string) error
}

// Lister lists the batch jobs of a whole manager. The time is when the scheduler was asked.
type Lister func(ctx context.Context, notBefore time.Time) ([]tranter.BatchJob, time.Time, error)

// User is for whom a job runs, as GitLab knows them.
type User struct {
	Name    string
	ID      int64
	Project string
}

// Settings are what a configuration says of a cluster. They may be replaced while it runs.
type Settings struct {
	Runner    string // name, for people
	System    string // name of the batch system, for people
	Scheduler tranter.Scheduler
	List      Lister
	Policy    allocation.Policy
	Hands     Hands
	// Size says what a job needs, from its tags and variables, and what of that its user should know. The error is the user's.
	Size func(n Need) (tranter.Shape, []string, error)
	// Accounts maps users of GitLab to accounts of the system; nil: all jobs are ours. The error is a *tranter.ConfigError for a
	// user who has none; others may pass.
	Accounts func(ctx context.Context, u User) (*tranter.Account, error)
	// Account finds an account by its name; needed with Accounts.
	Account func(name string) (*tranter.Account, error)
	// Home says where the jobs of an account work, if that is not for all the same; nil: it is.
	Home   func(a *tranter.Account) tranter.Surroundings
	Output func(name string) string // file for what a batch job prints
	Dir    string                   // working directory of batch jobs
	Every  time.Duration            // between two questions to the scheduler; 0: 5 s
}

// Need is what is known of what a job needs.
type Need struct {
	Tags      []string // nil: not known
	Waiting   bool     // it waits in GitLab: what follows is not known
	Variables []tranter.Variable
	Timeout   time.Duration
}

// Options are what a cluster is made with and keeps.
type Options struct {
	Class string // unique among all clusters: the runner's short token
	Book  Book
	Log   *slog.Logger
}

// Cluster has jobs run in batch jobs. It is safe for concurrent use.
type Cluster struct {
	options  Options
	calls    chan func(*loop)
	done     chan struct{} // closed once Run has ended
	settings atomic.Pointer[Settings]
	verdict  atomic.Pointer[verdict]
	expected expected

	demanding sync.Mutex
	users     users
	told      map[int64]string // of jobs that wait: why no batch job is made for them, as the log has it
}

// Errors of what jobs and people ask for.
var (
	ErrEnded   = errors.New("the cluster's loop has ended")
	ErrUnknown = errors.New("there is no such allocation")
)

// New returns a cluster that does nothing before Run.
func New(o Options, s Settings) *Cluster {
	s.Policy.SubmitWithin = cmp.Or(s.Policy.SubmitWithin, submitting)
	c := &Cluster{options: o, calls: make(chan func(*loop)), done: make(chan struct{})}
	c.settings.Store(&s)
	c.verdict.Store(&verdict{Verdict: allocation.Verdict{Reason: "the cluster is being looked at"}, changed: make(chan struct{})})
	return c
}

// Run takes up the allocations of the book and looks after them until ctx ends, or until the cluster is retired and empty.
// Batch jobs that wait or run then stay: the next start takes them up.
func (c *Cluster) Run(ctx context.Context) error {
	defer close(c.done)
	found, err := c.options.Book.Load(ctx, c.options.Class)
	if err != nil {
		return fmt.Errorf("read the allocations of %s: %w", c.options.Class, err)
	}
	l := newLoop(c)
	l.restore(found)
	l.run(ctx)
	return nil
}

// do has f run by the loop, and returns when it has.
func (c *Cluster) do(ctx context.Context, f func(*loop)) error {
	ran := make(chan struct{})
	call := func(l *loop) {
		defer close(ran)
		f(l)
	}
	select {
	case c.calls <- call:
	case <-c.done:
		return ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	<-ran
	return nil
}

// post has f run by the loop, which is waiting for it.
func (c *Cluster) post(f func(*loop)) {
	select {
	case c.calls <- f:
	case <-c.done:
	}
}

// Change replaces the settings. Allocations stay. A cluster that is retired and has not ended yet is taken back into use.
func (c *Cluster) Change(ctx context.Context, s Settings) error {
	s.Policy.SubmitWithin = cmp.Or(s.Policy.SubmitWithin, submitting)
	var late error
	if err := c.do(ctx, func(l *loop) {
		if l.ending {
			late = ErrEnded
			return
		}
		l.change(s)
	}); err != nil {
		return err
	}
	return late
}

// Retire has the cluster take no more jobs and end all allocations, each once its jobs have ended. Run returns then.
func (c *Cluster) Retire(ctx context.Context) error {
	return c.do(ctx, func(l *loop) { l.retired, l.due, l.pending = true, true, nil })
}

// verdict is what those who ask for jobs are told.
type verdict struct {
	allocation.Verdict
	changed chan struct{} // closed when there is another one
}

// Ready returns why no job can be taken now; nil: one can. The error is a tranter.ErrBusy.
func (c *Cluster) Ready() error {
	coming := c.expected.count() // before the verdict, in which those are that have come meanwhile
	v := c.verdict.Load()
	if v.OK && v.Free > 0 && coming >= v.Free && c.settings.Load().Policy.Order == allocation.AllocateFirst {
		return busyError("the places that run are for jobs that have just been taken")
	}
	if v.OK || (!v.Retry.IsZero() && !time.Now().Before(v.Retry)) {
		return nil
	}
	return busyError(v.Reason)
}

// busyError says why there is no place for a job.
type busyError string

func (e busyError) Error() string { return string(e) }

// Is tells what it is.
func (e busyError) Is(target error) bool { return target == tranter.ErrBusy }

// Changed returns a channel that is closed when Ready may say something else than at the time of the call.
func (c *Cluster) Changed() <-chan struct{} { return c.verdict.Load().changed }
