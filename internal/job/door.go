package job

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/joblog"
)

// Door is by which one user at a time gets into a job's environment with an interactive terminal (runner contract,
// section 1.14). It is made before the job runs and safe for concurrent use.
type Door struct {
	mu      sync.Mutex
	session tranter.Session
	phase   string
	opened  chan struct{} // closed once session and phase are set
	ended   bool
	inside  *visit
}

// visit is a user on the way in or inside.
type visit struct {
	cancel   context.CancelCauseFunc
	terminal *visited // nil: on the way
	gone     chan struct{}
}

// NewDoor returns the door of a job that has not begun.
func NewDoor() *Door { return &Door{opened: make(chan struct{})} }

// Open opens a terminal. It waits until the job's environment and sources are there. The error is tranter.ErrTerminalBusy
// while another one is open or on its way, tranter.ErrJobEnded after the end of the job, tranter.ErrNoTerminal if the
// executor has none.
func (d *Door) Open(ctx context.Context) (tranter.Terminal, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := &visit{cancel: cancel, gone: make(chan struct{})}
	d.mu.Lock()
	switch {
	case d.ended:
		d.mu.Unlock()
		return nil, tranter.ErrJobEnded
	case d.inside != nil:
		d.mu.Unlock()
		return nil, tranter.ErrTerminalBusy
	}
	d.inside = v
	d.mu.Unlock()
	t, err := d.open(ctx)
	if err != nil {
		d.leave(v)
		return nil, err
	}
	entered := &visited{Terminal: t, leave: sync.OnceFunc(func() { d.leave(v) })}
	d.mu.Lock()
	v.terminal = entered
	ended := d.ended
	d.mu.Unlock()
	if ended {
		return nil, errors.Join(tranter.ErrJobEnded, entered.Close())
	}
	return entered, nil
}

// open waits for the environment and opens a terminal in it.
func (d *Door) open(ctx context.Context) (tranter.Terminal, error) {
	d.mu.Lock()
	opened := d.opened
	d.mu.Unlock()
	select {
	case <-opened:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the job's environment: %w", context.Cause(ctx))
	}
	d.mu.Lock()
	session, phase := d.session, d.phase
	d.mu.Unlock()
	s, ok := session.(tranter.TerminalSession)
	if !ok {
		return nil, tranter.ErrNoTerminal
	}
	return s.Terminal(ctx, phase)
}

func (d *Door) leave(v *visit) {
	d.mu.Lock()
	d.inside = nil
	d.mu.Unlock()
	close(v.gone)
}

// visited gives the door free when it is closed.
type visited struct {
	tranter.Terminal
	leave func()
}

// Close ends the terminal.
func (v *visited) Close() error {
	defer v.leave()
	return v.Terminal.Close()
}

// Attached says whether somebody is inside. A nil door is none.
func (d *Door) Attached() bool { return d != nil && d.attached() != nil }

// attached returns what is closed when the user who is inside leaves; nil if there is none.
func (d *Door) attached() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inside == nil || d.inside.terminal == nil {
		return nil
	}
	return d.inside.gone
}

// unlock lets users in: the phase runs in the session.
func (d *Door) unlock(s tranter.Session, phase string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := d.session == nil
	d.session, d.phase = s, phase
	if first {
		close(d.opened)
	}
}

// lock makes users wait again: the environment has gone, and the user who was inside is out.
func (d *Door) lock() {
	d.mu.Lock()
	var inside *visited
	if d.inside != nil {
		inside = d.inside.terminal
	}
	if d.session != nil {
		d.session, d.opened = nil, make(chan struct{})
	}
	d.mu.Unlock()
	if inside != nil {
		_ = inside.Close()
	}
}

// shut lets nobody in any more, and ends the terminal of the user who is inside.
func (d *Door) shut() {
	d.mu.Lock()
	d.ended = true
	v := d.inside
	var t *visited
	if v != nil {
		t = v.terminal
	}
	d.mu.Unlock()
	if v == nil {
		return
	}
	v.cancel(tranter.ErrJobEnded)
	if t != nil {
		_ = t.Close()
	}
	<-v.gone
}

// linger keeps the environment after the job's end while a user's terminal is attached, for a limited time and not past
// the job's timeout. The end of ctx, and the manager's wish to end, end it.
func linger(ctx context.Context, r *run) {
	gone := r.Door.attached()
	until := time.Now().Add(r.Linger)
	if r.Record.Deadline.Before(until) {
		until = r.Record.Deadline
	}
	left := time.Until(until)
	if gone == nil || left <= 0 || ctx.Err() != nil {
		return
	}
	r.Stage("terminal open, until " + until.Local().Format(time.TimeOnly))
	l := joblog.New(r.trace, r.plan.Format(), time.Now)
	l.Plain("A terminal is attached: the job's environment stays until it is closed, at most %v", left.Round(time.Second))
	r.closeLog(l)
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
	case <-ctx.Done():
	case <-r.Ending:
	}
}
