package pool

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
)

// queue is the loop, seeing to jobs that wait or hold machines.
type queue struct{ *loop }

// waiter is a job that waits for a machine.
type waiter struct {
	granted chan *tender // of size one
	notes   chan string  // what the job's user may want to know; those that nobody reads are dropped
}

// lease is a job's hold on a machine.
type lease struct {
	pool   *Pool
	job    string
	tender *tender
}

// acquire waits for a machine for a job, none of those to avoid. A job that holds one already gets that again. What
// happens meanwhile is written to the job's log.
func (p *Pool) acquire(ctx context.Context, spec tranter.SessionSpec, avoid []string) (*lease, error) {
	job, out := spec.Name, spec.Log
	w := &waiter{granted: make(chan *tender, 1), notes: make(chan string, 16)}
	var unfit error
	if err := p.do(ctx, func(l *loop) { unfit = queue{l}.queue(job, avoid, w) }); err != nil {
		return nil, err
	}
	if unfit != nil {
		return nil, unfit
	}
	for {
		select {
		case t := <-w.granted:
			if t == nil { // it was lost before the job had begun: another one does as well
				return p.acquire(ctx, spec, avoid)
			}
			return &lease{pool: p, job: job, tender: t}, nil
		case note := <-w.notes:
			fmt.Fprintln(out, note)
		case <-p.done:
			return nil, ErrEnded
		case <-spec.Leaving:
			p.leave(job, w)
			return nil, ErrEnded
		case <-ctx.Done():
			p.leave(job, w)
			return nil, context.Cause(ctx)
		}
	}
}

// queue lets a job wait. It does not when another caller waits with it already.
func (l queue) queue(job string, avoid []string, w *waiter) error {
	if l.waiters[job] != nil {
		return fmt.Errorf("job %s waits for a machine already", job)
	}
	if l.book.Find(job) == nil && !l.record(fleet.Event{Kind: fleet.JobQueued, Job: job, Avoid: avoid}) {
		return fmt.Errorf("job %s can't wait for a machine", job)
	}
	l.waiters[job] = w
	if l.book.Find(job) != nil { // from before a restart
		l.tell(job)
		return nil
	}
	l.pace.fresh = append(l.pace.fresh, job)
	return nil
}

// greet says to the jobs that have come since the last decision, and have to wait, what for.
func (l queue) greet() {
	if len(l.pace.fresh) == 0 {
		return
	}
	text := l.waitText()
	for _, job := range l.pace.fresh {
		if w := l.waiters[job]; w != nil {
			w.note(text)
		}
	}
	l.pace.fresh = nil
}

func (l queue) waitText() string {
	switch coming := l.book.In(fleet.Wanted) + l.book.In(fleet.Booting); {
	case coming == 1:
		return "Waiting for a machine: one is being created"
	case coming > 1:
		return fmt.Sprintf("Waiting for a machine: %d are being created", coming)
	}
	if v := l.pool.verdict.Load(); !v.OK && v.Reason != "" {
		reason, _, _ := strings.Cut(v.Reason, ": ") // without its cause, as in publicWords
		return "Waiting for a machine: " + reason
	}
	return "Waiting for a machine"
}

// publicWords are what jobs' logs say of a machine that could not be made. Whoever reads those need not be one who may know
// what providers and drivers say: the names of accounts and networks, or worse.
func publicWords(c fleet.Class) string {
	switch c {
	case fleet.NoCapacity:
		return "the provider has no room for it now"
	case fleet.Rejected:
		return "the provider refuses it as it is"
	case fleet.Unready:
		return "it did not become ready for jobs"
	case fleet.Passing, fleet.Deferred:
	}
	return "its creation has failed"
}

// leave takes a job out of the queue, or gives back what it got meanwhile.
func (p *Pool) leave(job string, w *waiter) {
	p.post(func(l *loop) {
		if l.waiters[job] == w {
			delete(l.waiters, job)
		} else {
			select {
			case <-w.granted: // as it left
			default:
				return
			}
		}
		switch m := l.book.Find(job); {
		case m != nil:
			l.record(fleet.Event{Kind: fleet.LeaseReleased, Job: job, Machine: m.Name, Clean: true, Reason: "the job has ended before it began"})
		case l.book.Waits(job):
			l.record(fleet.Event{Kind: fleet.JobLeft, Job: job})
		}
	})
}

// tell gives a job the machine that it has a lease of.
func (l queue) tell(job string) {
	w := l.waiters[job]
	if w == nil {
		return
	}
	delete(l.waiters, job)
	var t *tender
	if m := l.book.Find(job); m != nil {
		if t = l.tenders[m.Name]; t == nil {
			l.release(job, "", false, "nobody looks after the machine")
		}
	}
	if t != nil {
		t.opening[job] = true
		t.ask() // whoever has been idle for long may be dead
	}
	w.granted <- t
}

// begun tells that the job's preparation is over: from now on it is worth to wait for the machine.
func (h *lease) begun() {
	h.pool.post(func(*loop) { delete(h.tender.opening, h.job) })
}

// note is dropped when nobody reads it.
func (w *waiter) note(text string) {
	select {
	case w.notes <- text:
	default:
	}
}

// tellAll has all jobs that wait say something in their logs.
func (l queue) tellAll(format string, args ...any) {
	note := fmt.Sprintf(format, args...)
	for _, w := range l.waiters {
		w.note(note)
	}
}

// release gives a machine back. One that is not clean runs no other job.
func (h *lease) release(clean bool, reason string) {
	machine := ""
	if h.tender != nil {
		machine = h.tender.name
	}
	h.pool.post(func(l *loop) { queue{l}.release(h.job, machine, clean, reason) })
}

// release ends a job's lease of a machine, whichever it is if none is named. The job may have another one by now.
func (l queue) release(job, machine string, clean bool, reason string) {
	m := l.book.Find(job)
	if m == nil || machine != "" && m.Name != machine {
		return
	}
	l.record(fleet.Event{Kind: fleet.LeaseReleased, Machine: m.Name, Job: job, Clean: clean, Reason: reason})
}

// follow returns the lease of the same job on the same machine, which has moved.
func (h *lease) follow(ctx context.Context) (*lease, error) {
	var t *tender
	if err := h.pool.do(ctx, func(l *loop) {
		if m := l.book.Find(h.job); m != nil && m.Name == h.tender.name {
			t = l.tenders[m.Name]
		}
	}); err != nil {
		return nil, err
	}
	if t == nil {
		return nil, h.tender.gone()
	}
	return &lease{pool: h.pool, job: h.job, tender: t}, nil
}

// while returns a context that ends with ctx, or with ErrMachineLost as its cause when the machine leaves service.
func (h *lease) while(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() { // ends with ctx, which the returned function ends, and waits for it
		defer close(ended)
		select {
		case <-h.tender.lost:
			cancel(h.tender.gone())
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}

// fault returns ErrMachineLost in place of an error that the machine's executor gave if the machine is lost, or turns out to
// be within the time that it takes to be sure.
func (h *lease) fault(ctx context.Context, err error) error {
	lost := lostCause(ctx)
	if lost == nil && ctx.Err() == nil {
		lost = h.settle(ctx)
	}
	if lost != nil {
		return lost
	}
	return err
}

// settle waits until it is clear whether the machine is alive, which it returns nil for, or lost.
func (h *lease) settle(ctx context.Context) error {
	t := h.tender
	t.ask() // once: the checks that follow a failed one come by themselves
	for {
		next := make(chan error, 1)
		if err := h.pool.do(ctx, func(*loop) { t.told = append(t.told, next) }); err != nil {
			return lostCause(ctx)
		}
		select {
		case err := <-next:
			if err == nil {
				return nil
			}
		case <-t.lost:
			return t.gone()
		case <-h.pool.done: // nobody looks any more
			return lostCause(ctx)
		case <-ctx.Done():
			return lostCause(ctx)
		}
	}
}

// lostCause returns why ctx has ended if that is that the machine was lost; otherwise nothing can be said of the machine.
func lostCause(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, tranter.ErrMachineLost) {
		return cause
	}
	return nil
}
