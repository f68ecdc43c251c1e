package pool

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/scale"
)

// loop is the one goroutine that owns a pool's state. Whatever takes time runs in goroutines that it starts, whose ends come
// back to it as calls.
type loop struct {
	pool     *Pool
	settings Settings
	log      *slog.Logger
	book     *fleet.Book

	life    context.Context //nolint:containedctx // of all that the loop has started
	end     context.CancelFunc
	owned   sync.WaitGroup
	turns   chan struct{}
	ops     map[string]*operation // under way, by machine; "" is the list
	tenders map[string]*tender    // of machines that are ready, or were when the manager ended
	waiters map[string]*waiter    // jobs that wait
	unsaved unsaved
	looks   looks

	proof   proof
	problem string // of the provider, when it was listed last
	retired bool
	ending  bool
}

// unsaved is what has happened and is not in the book's store yet.
type unsaved struct {
	events  []fleet.Event
	changed map[string]bool // machines; those that are not in the book any more are gone
	then    []func()        // what may be done once it is
	retry   time.Time       // after a failure
}

func newLoop(p *Pool) *loop {
	life, end := context.WithCancel(context.Background())
	parallel := p.options.Parallel
	if parallel <= 0 {
		parallel = 64
	}
	return &loop{
		pool: p, settings: p.first, log: p.options.Log.With("pool", p.options.Name), book: fleet.New(),
		life: life, end: end, turns: make(chan struct{}, parallel),
		ops: map[string]*operation{}, tenders: map[string]*tender{}, waiters: map[string]*waiter{},
		unsaved: unsaved{changed: map[string]bool{}}, looks: looks{strangers: map[string]int{}, left: map[string]time.Time{}}, proof: proof{next: time.Now()},
	}
}

// run decides and acts after every call and at every wake-up, until ctx ends or the pool is retired and empty.
func (l *loop) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !(l.retired && len(l.book.Machines) == 0) {
		timer.Reset(time.Until(l.step()))
		select {
		case f := <-l.pool.calls:
			f(l)
			l.more()
		case <-timer.C:
		case <-ctx.Done():
			l.shutDown()
			return
		}
	}
	l.shutDown()
}

// more runs the calls that are waiting already: one decision serves them all.
func (l *loop) more() {
	for range 256 {
		select {
		case f := <-l.pool.calls:
			f(l)
		default:
			return
		}
	}
}

// shutDown gives up all that is under way and waits for its end.
func (l *loop) shutDown() {
	l.ending = true
	l.end()
	ended := make(chan struct{})
	go func() { // it ends with those that it waits for, which this function waits for too
		l.owned.Wait()
		close(ended)
	}()
	for {
		select {
		case f := <-l.pool.calls:
			f(l)
			l.commit(time.Now())
		case <-ended:
			l.commit(time.Now())
			return
		}
	}
}

// longest is how long the loop sleeps at most.
const longest = time.Hour

// step decides, keeps what was decided, begins it, and returns when to do so again.
func (l *loop) step() time.Time {
	now := time.Now()
	wake := now.Add(longest)
	if l.ending {
		return wake
	}
	for range 8 { // each round finds less to do; what is left waits for the next step
		actions, next := scale.Decide(l.book, l.settings.Policy, now)
		for _, a := range actions {
			l.act(a, now)
		}
		if len(actions) == 0 {
			wake = sooner(wake, next)
			break
		}
		wake = now
	}
	listing{l}.dueList(now)
	l.dueCheck(now)
	wake = sooner(sooner(wake, l.looks.next), l.proof.next)
	l.commit(now)
	wake = sooner(wake, l.unsaved.retry)
	l.judge(now)
	return wake
}

func sooner(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// judge says to those who ask for jobs whether one more could be run.
func (l *loop) judge(now time.Time) {
	v := scale.Admit(l.book, l.settings.Policy, now)
	if wrong, ok := l.doubt(); ok {
		v = wrong
	}
	if l.retired {
		v = scale.Verdict{Reason: "the pool removes its machines"}
	}
	before := l.pool.verdict.Load()
	if v.OK == before.OK && v.Reason == before.Reason && v.Retry.Equal(before.Retry) {
		return
	}
	l.pool.verdict.Store(&verdict{Verdict: v, changed: make(chan struct{})})
	close(before.changed)
}

// act begins one action: the intent is recorded now, the work is begun once that is durable.
func (l *loop) act(a scale.Action, now time.Time) {
	m := l.book.Machines[a.Machine]
	switch a.Do {
	case scale.Create:
		l.want(a, false)
	case scale.Start:
		if l.record(fleet.Event{Kind: fleet.MachineStarting, Machine: a.Machine, Reason: a.Reason, Deadline: now.Add(l.settings.Policy.Times.Boot)}) {
			l.then(func() { operations{l}.startMachine(a.Machine) })
		}
	case scale.Stop:
		if l.record(fleet.Event{Kind: fleet.MachineStopping, Machine: a.Machine, Reason: a.Reason}) {
			l.then(func() { operations{l}.stopMachine(a.Machine) })
		}
	case scale.Drain:
		l.drain(m, a.Reason, time.Time{})
	case scale.Remove:
		l.remove(m, a.Reason)
	case scale.Lease:
		l.lease(a)
	}
}

// want records that a machine is to be created, and has that begun. It returns the machine's name.
func (l *loop) want(a scale.Action, byHand bool) string {
	name := a.Machine
	if name == "" {
		name = l.settings.NewName()
	}
	if l.record(fleet.Event{
		Kind: fleet.MachineWanted, Machine: name, Set: a.Set, Reason: a.Reason, ByHand: byHand, Deadline: time.Now().Add(l.settings.Policy.Times.Create),
	}) {
		l.then(func() { operations{l}.createMachine(name, a.Set) })
	}
	return name
}

func (l *loop) lease(a scale.Action) {
	if l.record(fleet.Event{Kind: fleet.LeaseGranted, Machine: a.Machine, Job: a.Job, Reason: a.Reason}) {
		l.then(func() { queue{l}.tell(a.Job) })
	}
}

// drain has a machine take no new jobs. With a deadline, jobs that are on it then are lost.
func (l *loop) drain(m *fleet.Machine, reason string, deadline time.Time) {
	if m.State == fleet.Draining && (deadline.IsZero() || m.Deadline.Equal(deadline)) {
		return
	}
	l.record(fleet.Event{Kind: fleet.MachineDraining, Machine: m.Name, Reason: reason, Deadline: deadline})
}

// drainTime is until when the jobs of a machine may run that is to go by someone's wish; zero: as long as they take.
func (l *loop) drainTime() time.Time {
	if limit := l.settings.Policy.Times.Drain; limit > 0 {
		return time.Now().Add(limit)
	}
	return time.Time{}
}

// remove has a machine removed. Jobs that are on it are lost.
func (l *loop) remove(m *fleet.Machine, reason string) {
	name := m.Name
	if l.record(fleet.Event{Kind: fleet.MachineRemoving, Machine: name, Reason: reason}) {
		l.then(func() { operations{l}.removeMachine(name) })
	}
}

// record applies an event to the book and keeps it for the store. It is false when the event does not fit, which is a fault
// of this program, or of a book that was changed by others.
func (l *loop) record(e fleet.Event) bool {
	e.At = time.Now()
	if err := l.book.Apply(e); err != nil {
		l.log.Error("The pool's book does not take an event", "kind", e.Kind, "machine", e.Machine, "job", e.Job, "error", err)
		return false
	}
	l.unsaved.events = append(l.unsaved.events, e)
	if e.Machine != "" {
		l.unsaved.changed[e.Machine] = true
	}
	l.told(e)
	return true
}

// then has something begun once all that was recorded is durable.
func (l *loop) then(f func()) { l.unsaved.then = append(l.unsaved.then, f) }

// saveRetry is the wait before the store is tried again.
const saveRetry = time.Second

// commit keeps what has happened, then begins what was waiting for that. Without a store nothing is begun.
func (l *loop) commit(now time.Time) {
	for len(l.unsaved.events) > 0 || len(l.unsaved.then) > 0 {
		if now.Before(l.unsaved.retry) {
			return
		}
		if err := l.save(); err != nil {
			l.log.Error("The pool's book can't be kept; nothing is begun until it can", "error", err)
			l.unsaved.retry = now.Add(saveRetry)
			return
		}
		l.unsaved.retry = time.Time{}
		begin := l.unsaved.then
		l.unsaved.then = nil
		for _, f := range begin {
			if !l.ending {
				f()
			}
		}
	}
}

func (l *loop) save() error {
	if len(l.unsaved.events) == 0 {
		return nil
	}
	var changed []fleet.Machine
	var gone []string
	for name := range l.unsaved.changed {
		if m := l.book.Machines[name]; m != nil {
			changed = append(changed, *m)
		} else {
			gone = append(gone, name)
		}
	}
	// Not l.life: what has happened is kept also while the pool ends.
	if err := l.pool.options.Book.Append(context.Background(), l.pool.options.Name, l.unsaved.events, changed, gone); err != nil {
		return err
	}
	l.unsaved.events, l.unsaved.changed = nil, map[string]bool{}
	return nil
}

// told logs an event and does what follows from it here.
func (l *loop) told(e fleet.Event) {
	log := l.log.With("machine", e.Machine)
	switch e.Kind {
	case fleet.MachineWanted:
		log.Info("A machine is to be created", "reason", e.Reason, "set", e.Set)
	case fleet.MachineReady:
		log.Info("The machine is ready", "steps", stepsText(e.Boot))
	case fleet.MachineFailed:
		log.Warn("The machine could not be made", "error", e.Reason, "class", e.Class)
		queue{l}.tellAll("Machine %s could not be made: %s", e.Machine, e.Reason)
	case fleet.MachineRemoving:
		log.Info("The machine is removed", "reason", e.Reason)
		tending{l}.letGo(e.Machine, e.Reason)
	case fleet.MachineStopping:
		log.Info("The machine is switched off", "reason", e.Reason)
		tending{l}.letGo(e.Machine, e.Reason)
	case fleet.MachineDraining:
		log.Info("The machine takes no more jobs", "reason", e.Reason)
	case fleet.RemovalFailed:
		log.Warn("The machine could not be removed; it will be tried again", "error", e.Reason, "again_in", time.Until(e.Retry).Round(time.Second))
	case fleet.MachineGone:
		log.Info("The machine is gone", "reason", e.Reason)
		l.looks.left[e.Machine] = e.At
	case fleet.LeaseGranted:
		log.Debug("A job gets the machine", "job", e.Job)
	case fleet.Throttled:
		l.log.Warn("The provider wants fewer requests; no machine is created for now", "until", e.Retry, "error", e.Reason)
		queue{l}.tellAll("No machine is created for now: %s", e.Reason)
	default:
	}
}
