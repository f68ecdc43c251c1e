package cluster

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/allocation"
)

// loop is the one goroutine that owns a cluster's state. Whatever takes time runs in goroutines that it starts, whose ends
// come back to it as calls.
type loop struct {
	cluster  *Cluster
	settings Settings
	log      *slog.Logger
	book     *allocation.Book

	life  context.Context //nolint:containedctx // of all that the loop has started
	end   context.CancelFunc
	owned sync.WaitGroup
	underWay
	tenders map[string]*tender  // of allocations that have begun
	waiters map[string]*waiter  // jobs that wait, by key
	pending []allocation.Want   // jobs that wait in GitLab
	refused []WaitingJob        // jobs that wait in GitLab and ask for what they may not have
	tags    map[int64][]string  // of jobs that wait, or did a moment ago
	taken   map[int64]time.Time // jobs that were taken, and when: GitLab's list of those that wait may have them for a while
	before  before
	unsaved unsaved
	looks   looks

	due     bool // something has changed since the last decision
	retired bool
	ending  bool
}

// underWay is what is done for allocations, and where.
type underWay struct {
	busy      map[string]bool  // allocations with an operation under way
	asking    int              // submissions under way
	elsewhere map[string]Hands // of allocations that were prepared before the settings had another place for them
	watched   map[string]bool  // places where signs of life are looked for
}

// before are jobs for which there are allocations from before a restart: until it is known anew which jobs there are, they
// are thought to be wanted still.
type before struct {
	wants []allocation.Want
	until time.Time
}

// beforeLimit is how long jobs that were taken have to ask for their places again after a restart.
const beforeLimit = time.Minute

// unsaved is what is not in the book's store yet.
type unsaved struct {
	changed map[string]allocation.Allocation
	gone    []string
	then    []func()  // what may be done once it is
	retry   time.Time // after a failure
}

func newLoop(c *Cluster) *loop {
	life, end := context.WithCancel(context.Background())
	s := *c.settings.Load()
	return &loop{
		cluster: c, settings: s, log: c.options.Log.With("runner", s.Runner), book: allocation.NewBook(s.Policy),
		life: life, end: end, tenders: map[string]*tender{}, waiters: map[string]*waiter{}, taken: map[int64]time.Time{},
		unsaved: unsaved{changed: map[string]allocation.Allocation{}}, looks: looks{strangers: map[string]int{}}, due: true,
		underWay: underWay{busy: map[string]bool{}, elsewhere: map[string]Hands{}, watched: map[string]bool{}},
	}
}

// restore takes up what the book has remembered.
func (l *loop) restore(found []allocation.Allocation) {
	for i := range found {
		if found[i].State == allocation.Submitting { // the command that submits it may still be at it
			found[i].Times.Asked = time.Now()
		}
	}
	l.book.Restore(found)
	l.before.until = time.Now().Add(beforeLimit)
	for _, a := range found {
		if a.State != allocation.Ended {
			l.before.wants = append(l.before.wants, jobsOf(a)...)
		}
		if a.Order == allocation.SelfTaking || a.State == allocation.Ended || a.State == allocation.Planned {
			continue
		}
		l.handsOf(a.Name).Follow(a.Name)
		if a.State == allocation.Started || len(a.Leases) > 0 {
			l.tend(a.Name)
		}
	}
	if len(found) > 0 {
		l.log.Info("Taking up batch jobs from before the restart", "allocations", len(found))
	}
}

// jobsOf are the jobs that an allocation is for.
func jobsOf(a allocation.Allocation) []allocation.Want {
	shape, places := a.Shape, max(1, a.Places)
	shape.CPUs, shape.Memory, shape.GPUs = shape.CPUs/places, shape.Memory/int64(places), shape.GPUs/places
	var wants []allocation.Want
	for _, id := range a.For {
		wants = append(wants, allocation.Want{ID: id, User: a.User, Domain: a.Domain, Shape: shape, Since: a.Times.Planned})
	}
	return wants
}

// run decides and acts after every call that has changed something and at every wake-up, until ctx ends or the cluster is
// retired and has nothing to do any more.
func (l *loop) run(ctx context.Context) {
	l.watch()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var wake time.Time
	for !l.over() {
		if l.due || !time.Now().Before(wake) {
			wake = l.step()
		}
		timer.Reset(time.Until(wake))
		select {
		case f := <-l.cluster.calls:
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

// watch has signs of life looked for where allocations are prepared now, if that is not done already.
func (l *loop) watch() {
	hands := l.settings.Hands
	if hands.Watch == nil || l.watched[hands.Place] {
		return
	}
	l.watched[hands.Place] = true
	l.owned.Go(func() {
		for l.life.Err() == nil {
			err := hands.Watch(l.life, func(s Sign) { l.cluster.post(func(l *loop) { l.sign(s) }) })
			if l.life.Err() != nil {
				return
			}
			l.log.Error("What runs in the batch jobs can't be followed; it will be tried again", "in", watchRetry, "error", err)
			timer := time.NewTimer(watchRetry)
			select {
			case <-timer.C:
			case <-l.life.Done():
				timer.Stop()
			}
		}
	})
}

// watchRetry is the wait before signs of life are looked for again, after a failure.
const watchRetry = 30 * time.Second

// handsOf are what works in an allocation: that with which it was prepared.
func (l *loop) handsOf(name string) Hands {
	if h, ok := l.elsewhere[name]; ok {
		return h
	}
	return l.settings.Hands
}

// change replaces the settings. What was prepared at another place stays there.
func (l *loop) change(s Settings) {
	if before := l.settings.Hands; before.Place != s.Hands.Place {
		for _, a := range l.book.All() {
			if _, known := l.elsewhere[a.Name]; !known {
				l.elsewhere[a.Name] = before
			}
		}
	}
	l.cluster.settings.Store(&s)
	l.settings, l.retired, l.due = s, false, true
	l.book.Change(s.Policy)
	l.watch()
}

// moreCalls is how many calls one decision serves at most.
const moreCalls = 1024

// more runs the calls that are waiting already.
func (l *loop) more() {
	for range moreCalls {
		select {
		case f := <-l.cluster.calls:
			f(l)
		default:
			return
		}
	}
}

// over says whether a cluster that is retired has ended. Refusals are not remembered any more then.
func (l *loop) over() bool {
	if !l.retired || l.book.Live() > 0 || len(l.waiters) > 0 {
		return false
	}
	rest := l.book.All()
	for _, a := range rest {
		if len(a.Leases) > 0 || !a.Past.Refused {
			return false
		}
	}
	for _, a := range rest {
		operations{l}.forget(a.Name)
	}
	l.commit(time.Now())
	return len(l.unsaved.gone)+len(l.unsaved.then) == 0
}

// shutDown gives up all that is under way and waits for its end. Batch jobs stay.
func (l *loop) shutDown() {
	l.ending = true
	l.end()
	ended := make(chan struct{})
	go func() { // it ends with those that it waits for
		l.owned.Wait()
		close(ended)
	}()
	patience := time.NewTimer(hangs)
	defer patience.Stop()
	for waiting := true; waiting; {
		select {
		case f := <-l.cluster.calls:
			f(l)
		case <-ended:
			waiting = false
		case <-patience.C:
			l.log.Error("Something that was begun for a batch job does not end, as when a file system hangs: it is left", "after", hangs)
			waiting = false
		}
	}
	l.collect()
	l.unsaved.retry = time.Time{}
	l.commit(time.Now())
}

// hangs is how long what can't be interrupted is waited for at the end.
const hangs = 30 * time.Second

// longest is how long the loop sleeps at most.
const longest = time.Hour

// step decides, keeps what was decided, begins it, and returns when to do so again.
func (l *loop) step() time.Time {
	now := time.Now()
	if l.settings.Policy.Order == allocation.TakeFirst && !now.Before(l.before.until) {
		l.before.wants = nil
	}
	wake := sooner(now.Add(longest), l.decide(now))
	wake = sooner(wake, listing{l}.due(now))
	l.commit(now)
	wake = sooner(wake, l.unsaved.retry)
	if len(l.before.wants) > 0 && l.settings.Policy.Order == allocation.TakeFirst {
		wake = sooner(wake, l.before.until)
	}
	l.judge(now)
	queue{l}.greet()
	return wake
}

// decide decides and records what was decided, and returns when to decide again.
func (l *loop) decide(now time.Time) time.Time {
	for range 8 { // each round finds less to do; what is left waits for the next step
		l.due = false
		actions, wake := allocation.Decide(l.book, l.wants(), now)
		if len(actions) == 0 {
			return wake
		}
		together := together{loop: l}
		for _, a := range actions {
			together.act(a, now)
		}
		together.begin()
		if together.unfit { // the same would be decided at once, again and again
			l.due = false
			return now.Add(unfitPause)
		}
	}
	return now
}

// unfitPause is how long the loop waits when the book does not take what was decided.
const unfitPause = time.Second

func sooner(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// wants are the jobs that need a place: those that were taken and have none, and those that wait in GitLab.
func (l *loop) wants() []allocation.Want {
	wants := make([]allocation.Want, 0, len(l.waiters)+len(l.pending))
	taken := map[int64]bool{} // GitLab may have listed a job as waiting a moment before it was taken
	for _, a := range l.book.All() {
		for _, lease := range a.Leases {
			taken[lease.ID] = true
		}
	}
	for _, w := range l.waiters {
		taken[w.want.ID] = true
		if l.book.Find(w.want.Key) == nil {
			wants = append(wants, w.want)
		}
	}
	for _, p := range l.pending {
		if _, before := l.taken[p.ID]; !taken[p.ID] && !before {
			wants = append(wants, p)
			taken[p.ID] = true
		}
	}
	promised := l.promised()
	for _, w := range l.before.wants {
		if !taken[w.ID] && promised[w.ID] { // nothing new is made for one that may be gone
			wants = append(wants, w)
		}
	}
	return wants
}

// promised are the jobs that an allocation is for.
func (l *loop) promised() map[int64]bool {
	ids := map[int64]bool{}
	if len(l.before.wants) == 0 {
		return ids
	}
	for _, a := range l.book.All() {
		if a.State == allocation.Ended {
			continue
		}
		for _, id := range a.For {
			ids[id] = true
		}
	}
	return ids
}

// admit says whether one job more may be taken, with so many taken ones that have no place yet.
func (l *loop) admit(waiting int, now time.Time) allocation.Verdict {
	v := allocation.Admit(l.book, waiting, now)
	switch {
	case l.retired:
		v = allocation.Verdict{Reason: "the runner's batch jobs are ended"}
	case l.looks.problem != "" && l.settings.Policy.Order == allocation.TakeFirst:
		v = allocation.Verdict{Reason: l.looks.problem}
	case l.settings.Policy.Order == allocation.AllocateFirst && !v.OK && waiting < len(l.refused):
		v = allocation.Verdict{OK: true} // no place is made for those: they are taken to be told why
	}
	return v
}

// judge says to those who ask for jobs whether one more could be run.
func (l *loop) judge(now time.Time) {
	waiting := 0
	for key := range l.waiters {
		if l.book.Find(key) == nil {
			waiting++
		}
	}
	v := l.admit(waiting, now)
	before, come := l.cluster.verdict.Load(), l.cluster.expected.come(l.taken)
	if v.OK == before.OK && v.Reason == before.Reason && v.Free == before.Free && come == 0 {
		if !v.Retry.Equal(before.Retry) { // nobody need look again for that
			l.cluster.verdict.Store(&verdict{Verdict: v, changed: before.changed})
		}
		return
	}
	l.cluster.verdict.Store(&verdict{Verdict: v, changed: make(chan struct{})})
	l.cluster.expected.forget(l.taken)
	close(before.changed)
}

// record applies an event to the book. It is false when the event does not fit, which is a fault of this program.
func (l *loop) record(e allocation.Event) bool {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	e.Reason = oneLine(e.Reason)
	if err := l.book.Apply(e); err != nil {
		l.log.Error("The cluster's book does not take an event", "kind", e.Kind, "allocation", e.Allocation, "job", e.Job, "error", err)
		return false
	}
	l.due = true
	return true
}

// then has something begun once all that was recorded is durable.
func (l *loop) then(f func()) { l.unsaved.then = append(l.unsaved.then, f) }

// collect takes over what has changed in the book.
func (l *loop) collect() {
	for _, a := range l.book.Changed() {
		l.unsaved.changed[a.Name] = a
	}
}

// saveRetry is the wait before the store is tried again.
const saveRetry = time.Second

// commit keeps what has happened, then begins what was waiting for that. Without a store nothing is begun.
func (l *loop) commit(now time.Time) {
	for {
		l.collect()
		if len(l.unsaved.changed)+len(l.unsaved.gone)+len(l.unsaved.then) == 0 || now.Before(l.unsaved.retry) {
			return
		}
		if err := l.save(); err != nil {
			if l.unsaved.retry.IsZero() {
				l.log.Error("The cluster's book can't be kept; nothing is begun until it can", "error", err)
			}
			l.unsaved.retry = now.Add(saveRetry)
			return
		}
		if !l.unsaved.retry.IsZero() {
			l.log.Info("The cluster's book can be kept again")
		}
		begin := l.unsaved.then
		l.unsaved.then, l.unsaved.retry = nil, time.Time{}
		for _, f := range begin {
			if !l.ending {
				f()
			}
		}
	}
}

// save keeps what has happened, also while the loop ends.
func (l *loop) save() error {
	if len(l.unsaved.changed)+len(l.unsaved.gone) == 0 {
		return nil
	}
	changed := make([]allocation.Allocation, 0, len(l.unsaved.changed))
	for _, a := range l.unsaved.changed {
		changed = append(changed, a)
	}
	if err := l.cluster.options.Book.Save(context.Background(), l.cluster.options.Class, changed, l.unsaved.gone); err != nil {
		return err
	}
	l.unsaved.changed, l.unsaved.gone = map[string]allocation.Allocation{}, nil
	return nil
}

// maxReason bounds what is kept of a scheduler's words.
const maxReason = 1000

// oneLine returns text as one line of at most maxReason bytes.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "..."
	}
	return text
}
