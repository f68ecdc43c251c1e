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
	turns   turns
	ops     map[string]*operation // under way, by machine; "" is the list
	tenders map[string]*tender    // of machines that are ready, or were when the manager ended
	waiters map[string]*waiter    // jobs that wait
	unsaved unsaved
	looks   looks

	proof   proof
	problem string // of the provider, when it was listed last
	retired bool
	ending  bool
	pace    pace
}

// turns bound what is under way at once. What takes machines out of service has its own: it does not wait for what hangs.
type turns struct{ making, ridding chan struct{} }

// pace is when the loop decides.
type pace struct {
	due   bool      // something has changed since the last decision
	unfit bool      // the book has not taken what was decided
	next  time.Time // of the next decision, at the earliest
	fresh []string  // jobs that have come since then
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
		life: life, end: end, turns: turns{make(chan struct{}, parallel), make(chan struct{}, parallel)}, pace: pace{due: true},
		ops: map[string]*operation{}, tenders: map[string]*tender{}, waiters: map[string]*waiter{},
		unsaved: unsaved{changed: map[string]bool{}}, looks: looks{strangers: map[string]int{}, left: map[string]time.Time{}}, proof: proof{next: time.Now(), pending: true},
	}
}

// run decides and acts after every call that has changed something and at every wake-up, until ctx ends or the pool is
// retired and has nothing to do any more.
func (l *loop) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var wake time.Time
	for !l.over() {
		if l.pace.due || !time.Now().Before(wake) {
			wake = l.step()
		}
		timer.Reset(time.Until(wake))
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

// over says whether a pool that is retired has ended. Jobs that it has taken it still runs, unless its machines are a fixed list.
func (l *loop) over() bool {
	return l.retired && len(l.book.Machines) == 0 && (len(l.waiters) == 0 || len(l.settings.Policy.Sets) == 0)
}

// Limits of more and rest.
const (
	moreCalls = 4096
	shortStep = time.Millisecond
	longStep  = 50 * time.Millisecond
)

// rest has the loop decide half of its time at most where that takes long, after one decision that began at start: there are
// many machines then, and one decision serves all that happens meanwhile.
func (p *pace) rest(start time.Time) {
	p.next = time.Time{}
	end := time.Now()
	if took := end.Sub(start); took > shortStep {
		p.next = end.Add(min(took, longStep))
	}
}

// more runs the calls that are waiting already, and those that come before the next decision may be taken.
func (l *loop) more() {
	var over <-chan time.Time
	if wait := time.Until(l.pace.next); l.pace.due && wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	for range moreCalls {
		select {
		case f := <-l.pool.calls:
			f(l)
			continue
		default:
		}
		if over == nil {
			return
		}
		select {
		case f := <-l.pool.calls:
			f(l)
		case <-over:
			return
		}
	}
}

// endLimit bounds how long the end of a pool waits for what was told to end.
const endLimit = patience + 15*time.Second

// shutDown gives up all that is under way and waits for its end.
func (l *loop) shutDown() {
	l.ending = true
	l.end()
	ended := make(chan struct{})
	go func() { // it ends with those that it waits for, which this function waits for too
		l.owned.Wait()
		close(ended)
	}()
	limit := time.NewTimer(endLimit)
	defer limit.Stop()
	for {
		select {
		case f := <-l.pool.calls:
			f(l)
			l.commit(time.Now())
		case <-ended:
			l.lastCommit()
			return
		case <-limit.C:
			l.log.Error("The pool ends although something that was told to end has not: a provider or a connection hangs", "after", endLimit)
			l.lastCommit()
			return
		}
	}
}

// lastCommit tries to keep what has happened, however recently that has failed.
func (l *loop) lastCommit() {
	l.unsaved.retry = time.Time{}
	l.commit(time.Now())
}

// longest is how long the loop sleeps at most.
const longest = time.Hour

// step decides, keeps what was decided, begins it, and returns when to do so again.
func (l *loop) step() time.Time {
	now := time.Now()
	wake := sooner(now.Add(longest), l.decide(now))
	listing{l}.dueList(now)
	proving{l}.dueCheck(now)
	if l.ops[""] == nil { // its end brings us back here
		wake = sooner(wake, l.looks.next)
	}
	wake = sooner(wake, l.proof.next)
	l.commit(now)
	wake = sooner(wake, l.unsaved.retry)
	l.judge(now)
	queue{l}.greet()
	l.pace.rest(now)
	return wake
}

// decide decides and records what was decided, and returns when to decide again.
func (l *loop) decide(now time.Time) time.Time {
	for range 8 { // each round finds less to do; what is left waits for the next step
		l.pace.due, l.pace.unfit = false, false
		actions, wake := scale.Decide(l.book, l.policy(), now)
		if len(actions) == 0 {
			return wake
		}
		for _, a := range actions {
			l.act(a, now)
		}
		if l.pace.unfit { // the same would be decided at once, again and again
			l.pace.due = false
			return now.Add(unfitPause)
		}
	}
	return now
}

// policy is the configured one, but that no more machines are made at once than there are turns: the time that one may take
// begins when it is wanted.
func (l *loop) policy() scale.Policy {
	p := l.settings.Policy
	if n := cap(l.turns.making); p.Growth == 0 || p.Growth > n {
		p.Growth = n
	}
	return p
}

// unfitPause is how long the loop waits when the book does not take what was decided.
const unfitPause = time.Second

func sooner(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// judge says to those who ask for jobs whether one more could be run.
func (l *loop) judge(now time.Time) {
	v := scale.Admit(l.book, l.settings.Policy, now)
	doubt, fault := proving{l}.doubt()
	if doubt.Reason != "" {
		v = doubt
	}
	if l.retired {
		v = scale.Verdict{Reason: "the pool removes its machines"}
	}
	before := l.pool.verdict.Load()
	if v.OK == before.OK && v.Reason == before.Reason && v.Retry.Equal(before.Retry) && fault == before.fault {
		return
	}
	l.pool.verdict.Store(&verdict{Verdict: v, fault: fault, changed: make(chan struct{})})
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
	e.At, e.Reason = time.Now(), oneLine(e.Reason, 2*maxReason)
	if err := l.book.Apply(e); err != nil {
		l.log.Error("The pool's book does not take an event", "kind", e.Kind, "machine", e.Machine, "job", e.Job, "error", err)
		l.pace.unfit = true
		return false
	}
	l.pace.due = true
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

// save keeps what has happened, also while the pool ends.
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
		queue{l}.tellAll("Machine %s could not be made: %s. The runner's log says more", e.Machine, publicWords(e.Class))
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
		queue{l}.tellAll("No machine is created for now: the provider wants fewer requests")
	default:
	}
}
