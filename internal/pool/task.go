package pool

import (
	"context"
	"errors"
	"time"
)

// task is something that takes time, to be done at a provider or on a machine.
type task struct {
	name    string        // of the machine; "" is the list
	removes bool          // it removes the machine
	limit   time.Duration // from its beginning on; 0: none
	turns   chan struct{} // of which it takes one; nil: it needs none
	// work does it. What it returns is run by the loop.
	work func(ctx context.Context) (end func())
	// fail is run by the loop in place of end when work was not begun, or has not ended though it was told to.
	fail func(err error)
	// late is run when work ends after fail was run, by nobody in particular; it may be nil.
	late func()
}

// operation is a task that is under way. There is one at a time for a machine.
type operation struct {
	cancel  context.CancelFunc
	removes bool
	then    func() // begun when it has ended
}

// patience is how long work that was told to end may take to do so. Whatever takes longer is not waited for any more: no
// provider that ignores its context may keep a machine from being removed, or the manager from ending.
const patience = 30 * time.Second

// errStray is why a task that was told to end and has not counts as failed.
var errStray = errors.New("it was told to end and has not")

// begin has a task done in a goroutine of its own, once the one before it on the same machine has ended, which is told to. A
// removal that is under way goes on, whoever asks for another one.
func (l *loop) begin(t task) {
	if before := l.ops[t.name]; before != nil {
		if before.removes && t.removes {
			return
		}
		before.then = func() { l.begin(t) }
		before.cancel()
		return
	}
	ctx, cancel := context.WithCancel(l.life)
	o := &operation{cancel: cancel, removes: t.removes}
	l.ops[t.name] = o
	p := l.pool
	l.owned.Go(func() {
		defer cancel()
		end := t.run(ctx)
		_ = p.do(context.WithoutCancel(ctx), func(l *loop) {
			delete(l.ops, t.name)
			l.pace.due = true
			end()
			if o.then != nil && !l.ending {
				o.then()
			}
		})
	})
}

// run does the task, once it has a turn, and returns what the loop has to do at its end.
func (t *task) run(ctx context.Context) (end func()) {
	if t.turns != nil {
		select {
		case t.turns <- struct{}{}:
			defer func() { <-t.turns }()
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return func() { t.fail(context.Cause(ctx)) }
	}
	ctx, stop := context.WithCancel(ctx)
	if t.limit > 0 {
		ctx, stop = context.WithTimeout(ctx, t.limit)
	}
	defer stop()
	return t.attempt(ctx)
}

// attempt does the task, and does not wait for ever for work that does not end when it is told to.
func (t *task) attempt(ctx context.Context) (end func()) {
	ended, stray := make(chan func()), make(chan struct{})
	go func() { // it is waited for, as long as that makes sense
		end := t.work(ctx)
		select {
		case ended <- end:
		case <-stray:
			if t.late != nil {
				t.late()
			}
		}
	}()
	select {
	case end := <-ended:
		return end
	case <-ctx.Done():
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case end := <-ended:
		return end
	case <-timer.C:
		close(stray)
		return func() { t.fail(errStray) }
	}
}
