package pool

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
)

// tending is the loop, seeing to machines in service.
type tending struct{ *loop }

// How often a machine is asked for a sign of life: one that runs jobs, one that waits, one that has just failed to answer.
const (
	checkBusy  = 30 * time.Second
	checkIdle  = time.Minute
	checkAgain = 5 * time.Second
	checkLimit = 20 * time.Second
)

// idlePatience is how long a machine without a job may give no sign of life.
const idlePatience = 30 * time.Second

// rhythm is how often a machine is asked for a sign of life.
type rhythm struct{ busy, again, limit time.Duration }

// rhythmFor returns a rhythm at which it is known in time that a machine is lost: those above, or a faster one.
func rhythmFor(lostAfter time.Duration) rhythm {
	if lostAfter <= 0 {
		lostAfter = defaultLostAfter
	}
	return rhythm{busy: min(checkBusy, max(time.Second, lostAfter/4)), again: min(checkAgain, max(time.Second, lostAfter/8)), limit: min(checkLimit, max(2*time.Second, lostAfter/2))}
}

// defaultLostAfter is Settings.LostAfter unless given.
const defaultLostAfter = 2 * time.Minute

// tender looks after one machine that is ready, or was when the manager ended: it connects, if it must, asks for signs of
// life, and hears of interruptions. It ends when the machine leaves service.
type tender struct {
	name    string
	set     string // of options, with which the machine was made
	machine tranter.Machine
	kept    []byte
	hands   Hands
	pool    *Pool
	rhythm  rhythm
	every   time.Duration // set by the loop before the tender starts, and by ask

	connected chan struct{} // closed once host and executor are set
	host      Host
	executor  tranter.Executor

	kick  chan struct{} // has an element when a check is wanted at once
	lost  chan struct{} // closed when the machine leaves service
	why   string        // once lost is closed
	moved bool          // the same, and another tender looks after the machine, at another address; once lost is closed
	end   context.CancelFunc

	failing time.Time       // since when it gives no sign of life; the loop's
	looking bool            // the provider is being asked for it; the loop's
	told    []chan error    // want to know how the next check ends; the loop's
	opening map[string]bool // jobs that are being prepared on it; the loop's
}

// tend has a machine looked after; with r it is connected already.
func (l tending) tend(name string, r *ready) {
	m := l.book.Machines[name]
	ctx, end := context.WithCancel(l.life)
	t := &tender{
		name: name, set: m.Set, machine: m.Seen, kept: m.Kept, hands: l.settings.Hands, pool: l.pool, every: checkIdle, rhythm: rhythmFor(l.settings.LostAfter),
		connected: make(chan struct{}), kick: make(chan struct{}, 1), lost: make(chan struct{}), end: end, opening: map[string]bool{},
	}
	if r != nil {
		t.host, t.executor = r.host, r.executor
		close(t.connected)
	}
	l.tenders[name] = t
	l.owned.Go(func() { t.run(ctx) })
}

// letGo ends a machine's tender, if it has one. Those who use the machine see it.
func (l tending) letGo(name, why string) {
	t := l.tenders[name]
	if t == nil {
		return
	}
	delete(l.tenders, name)
	t.why = why
	close(t.lost)
	t.end()
}

// await waits until the machine is connected.
func (t *tender) await(ctx context.Context) error {
	select {
	case <-t.connected:
		return nil
	case <-t.lost:
		return t.gone()
	case <-t.pool.done:
		return ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// gone says that the machine is lost, once it is.
func (t *tender) gone() error {
	return fmt.Errorf("%w: %s: %s", tranter.ErrMachineLost, t.name, t.why)
}

// isLost says whether the machine has left service, or is reached otherwise now.
func (t *tender) isLost() bool {
	select {
	case <-t.lost:
		return true
	default:
		return false
	}
}

func (t *tender) hasMoved() bool { return t.isLost() && t.moved }

// full returns why the machine has no room for another job, if its executor can tell; nil: it has.
func (t *tender) full() error {
	if r, ok := t.executor.(interface{ Ready() error }); ok {
		return r.Ready()
	}
	return nil
}

// alive says whether the machine has answered when it was asked last. It is for the loop.
func (t *tender) alive() bool {
	if !t.failing.IsZero() {
		return false
	}
	select {
	case <-t.connected:
		return true
	default:
		return false
	}
}

// ask wants a check at once.
func (t *tender) ask() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

func (t *tender) run(ctx context.Context) {
	defer t.close()
	if !t.connect(ctx) {
		return
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { t.warm(ctx) })
	if t.hands.Watch != nil {
		watching.Go(func() {
			t.hands.Watch(ctx, t.host, func(reason string, at time.Time) {
				t.pool.post(func(l *loop) { tending{l}.interrupted(t, reason, at) })
			})
		})
	}
	wait := t.every
	for t.sleep(ctx, wait) {
		err := t.check(ctx)
		if ctx.Err() != nil {
			return
		}
		wait = t.rhythm.again
		_ = t.pool.do(ctx, func(l *loop) {
			tending{l}.checked(t, err)
			if err == nil {
				wait = t.every
			}
		})
	}
}

// check asks for a sign of life. None comes from a call that does not end when it is told to.
func (t *tender) check(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, t.rhythm.limit)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- t.host.Check(ctx) }() // it is waited for, as long as that makes sense
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(checkAgain)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		return errStray
	}
}

// warmAfter is how long a machine is left alone before it is warmed up: one that has got a job by then has no need of it.
const warmAfter = 300 * time.Millisecond

// rest waits for a time. It is false when ctx has ended.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// inUse says whether the machine has got a job.
func (t *tender) inUse(ctx context.Context) bool {
	used := true
	_ = t.pool.do(ctx, func(l *loop) {
		m := l.book.Machines[t.name]
		used = m == nil || len(m.Leases) > 0
	})
	return used
}

// warm has the machine's executor do beforehand what its first job would wait for. A job that comes meanwhile need not wait:
// what can't be had, such as an image, may be what no job asks for.
func (t *tender) warm(ctx context.Context) {
	w, ok := t.executor.(Warmer)
	if !ok || !rest(ctx, warmAfter) || t.inUse(ctx) {
		return
	}
	warming, stop := context.WithTimeout(ctx, warmLimit)
	defer stop()
	log := t.pool.options.Log.With("pool", t.pool.options.Name, "machine", t.name)
	start := time.Now()
	switch err := w.Warm(warming); {
	case err == nil:
		log.Debug("The machine is warm", "took", round(time.Since(start)))
	case ctx.Err() == nil:
		log.Warn("Not all that jobs will need could be put on the machine beforehand", "error", brief(err))
	}
}

// connect connects to the machine, unless it is connected, trying again until it works or ctx ends.
func (t *tender) connect(ctx context.Context) bool {
	select {
	case <-t.connected:
		return true
	default:
	}
	for {
		r := &ready{}
		connecting, stop := context.WithTimeout(ctx, checkLimit)
		r.host, _, r.err = t.hands.Prepare(connecting, t.machine, t.kept, func(tranter.Timing) {})
		stop()
		r.arm(t.hands, t.machine)
		if ctx.Err() != nil {
			if r.err == nil {
				r.close()
			}
			return false
		}
		_ = t.pool.do(ctx, func(l *loop) { tending{l}.checked(t, r.err) })
		if r.err == nil {
			t.host, t.executor = r.host, r.executor
			close(t.connected)
			return true
		}
		if !t.sleep(ctx, t.rhythm.again) {
			return false
		}
	}
}

// sleep waits for a time, or until a check is wanted. It is false when ctx has ended.
func (t *tender) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-t.kick:
	}
	return ctx.Err() == nil
}

func (t *tender) close() {
	select {
	case <-t.connected:
		(&ready{host: t.host, executor: t.executor}).close()
	default:
	}
}

// checked takes notice of a sign of life, or of none.
func (l tending) checked(t *tender, err error) {
	m := l.book.Machines[t.name]
	if m == nil || l.tenders[t.name] != t || l.ending {
		return
	}
	for _, c := range t.told {
		c <- err
	}
	t.told, t.every = nil, checkIdle
	if len(m.Leases) > 0 {
		t.every = t.rhythm.busy
	}
	now := time.Now()
	if err == nil {
		if !t.failing.IsZero() {
			l.log.Info("The machine answers again", "machine", t.name, "after", now.Sub(t.failing).Round(time.Second))
		}
		t.failing = time.Time{}
		return
	}
	if t.failing.IsZero() {
		t.failing = now
		l.log.Warn("The machine gives no sign of life", "machine", t.name, "error", brief(err))
	}
	patience := idlePatience
	if len(m.Leases) > len(t.opening) { // a job that has not begun gets another machine
		if patience = l.settings.LostAfter; patience <= 0 {
			patience = defaultLostAfter
		}
	}
	if silent := now.Sub(t.failing); silent >= patience {
		l.remove(m, fmt.Sprintf("no sign of life for %s: %s", silent.Round(time.Second), brief(err)))
		return
	}
	l.look(t)
}

// look asks the provider for one machine that gives no sign of life: if it knows that it is gone, nobody need wait.
func (l tending) look(t *tender) {
	if t.looking || l.ops[t.name] != nil {
		return
	}
	t.looking = true
	s, ref, mark := l.settings, l.ref(t.name), l.pool.options.Mark
	ended := func(seen []tranter.Machine, err error) {
		t.looking = false
		if l.tenders[t.name] == t && err == nil && !l.ending {
			l.found(t, seen)
		}
	}
	l.begin(task{
		name: t.name, limit: checkLimit,
		work: func(ctx context.Context) func() {
			seen, err := s.Provider.List(ctx, mark, []tranter.MachineRef{ref})
			return func() { ended(seen, err) }
		},
		fail: func(err error) { ended(nil, err) },
	})
}

// found takes notice of what the provider says of a machine that gives no sign of life.
func (l tending) found(t *tender, seen []tranter.Machine) {
	m := l.book.Machines[t.name]
	if m == nil {
		return
	}
	for i := range seen {
		s := &seen[i]
		if s.Name != t.name {
			continue
		}
		switch {
		case s.Power == tranter.PowerOff:
			l.remove(m, "its provider says that it is switched off")
		case s.Power == tranter.PowerOn && s.Login.Host != "" && s.Login != m.Seen.Login:
			l.move(t, m, *s)
		}
		return
	}
	if m.Missed > 0 {
		l.remove(m, "its provider does not have it any more")
		return
	}
	l.record(fleet.Event{Kind: fleet.MachineMissed, Machine: m.Name, Reason: "its provider does not name it"})
	t.ask()
}

// move takes up a machine at another address.
func (l tending) move(t *tender, m *fleet.Machine, s tranter.Machine) {
	l.log.Info("The machine has another address", "machine", t.name, "address", s.Login.Host)
	failing := t.failing
	operations(l).see(t.name, s, "its address is "+s.Login.Host)
	t.moved = true
	l.letGo(t.name, "its address has changed")
	l.tend(m.Name, nil)
	l.tenders[m.Name].failing = failing
}

// interrupted takes notice that a machine is about to be taken away.
func (l tending) interrupted(t *tender, reason string, at time.Time) {
	m := l.book.Machines[t.name]
	if m == nil || l.tenders[t.name] != t || l.ending {
		return
	}
	if !at.After(time.Now()) { // the clocks differ, or it lives on: its jobs run as long as it does
		at = time.Time{}
	}
	l.drain(m, "about to be taken away: "+reason, at)
}
