package scale

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
)

// fate is how an operation ends.
type fate struct {
	took  time.Duration
	never bool        // it hangs: only a deadline ends it
	class fleet.Class // a creation fails
	fails bool        // a removal fails, a job leaves its machine dirty
}

// world plays the pool and its provider with a clock of its own: a few lines where package pool has the real thing.
type world struct {
	book   *fleet.Book
	policy Policy
	now    time.Time
	fate   func(what string) fate // create, boot, start, job, remove
	fault  func(form string, args ...any)
	told   func(now time.Time, a Action)
	avoid  func() []string // for the next job

	later timers
	ops   map[string]int // the operation that counts, by machine: what an earlier one brings is ignored
	made  int
	queue int
	done  map[string]int // times that each job ended
	lost  int            // jobs whose machine was removed
	wake  time.Time
}

type timer struct {
	at  time.Time
	seq int
	do  func()
}

type timers struct {
	all []timer
	seq int
}

func (t *timers) Len() int { return len(t.all) }
func (t *timers) Less(i, j int) bool {
	if t.all[i].at.Equal(t.all[j].at) {
		return t.all[i].seq < t.all[j].seq
	}
	return t.all[i].at.Before(t.all[j].at)
}
func (t *timers) Swap(i, j int) { t.all[i], t.all[j] = t.all[j], t.all[i] }
func (t *timers) Push(x any)    { t.all = append(t.all, x.(timer)) }
func (t *timers) Pop() any {
	last := t.all[len(t.all)-1]
	t.all = t.all[:len(t.all)-1]
	return last
}

func newWorld(p Policy, start time.Time, fate func(string) fate, fault func(string, ...any)) *world {
	return &world{
		book: fleet.New(), policy: p, now: start, fate: fate, fault: fault, told: func(time.Time, Action) {}, avoid: func() []string { return nil },
		ops: map[string]int{}, done: map[string]int{},
	}
}

func (w *world) after(d time.Duration, do func()) {
	w.later.seq++
	heap.Push(&w.later, timer{at: w.now.Add(d), seq: w.later.seq, do: do})
}

func (w *world) apply(e fleet.Event) {
	e.At = w.now
	if err := w.book.Apply(e); err != nil {
		w.fault("%v", err)
	}
}

// push queues so many jobs.
func (w *world) push(n int) {
	for range n {
		w.queue++
		w.apply(fleet.Event{Kind: fleet.JobQueued, Job: fmt.Sprintf("job-%03d", w.queue), Avoid: w.avoid()})
	}
}

// decide does all that is to be done now, and checks what must always be so.
func (w *world) decide() {
	w.wake = time.Time{}
	before := w.book.Live()
	if again := w.round(); !again {
		return
	}
	w.check(before)
	if w.round() {
		w.fault("the same question had a second answer at %s", w.now)
	}
}

func (w *world) round() bool {
	actions, wake := Decide(w.book, w.policy, w.now)
	if !wake.IsZero() && !wake.After(w.now) {
		w.fault("wake-up at %s, it is %s", wake, w.now)
	}
	w.wake = wake
	for _, a := range actions {
		w.act(a)
	}
	return len(actions) > 0
}

func (w *world) check(before int) {
	if err := w.book.Check(); err != nil {
		w.fault("%v", err)
	}
	if p := w.policy; p.Limit > 0 && w.book.Live() > max(p.Limit, len(p.Fixed), before) {
		w.fault("%d machines, the limit is %d", w.book.Live(), p.Limit)
	}
	if p := w.policy; p.Growth > 0 && w.book.In(fleet.Wanted)+w.book.In(fleet.Booting) > p.Growth {
		w.fault("more than %d machines are coming", p.Growth)
	}
	for _, m := range w.book.Machines {
		if len(m.Leases) > w.policy.capacity(m.Name) {
			w.fault("%s has %d jobs", m.Name, len(m.Leases))
		}
		if w.policy.MaxUses > 0 && m.Uses > w.policy.MaxUses {
			w.fault("%s has had %d jobs", m.Name, m.Uses)
		}
	}
}

func (w *world) act(a Action) {
	w.told(w.now, a)
	m := w.book.Machines[a.Machine]
	switch a.Do {
	case Create:
		w.create(a)
	case Start:
		w.apply(fleet.Event{Kind: fleet.MachineStarting, Machine: a.Machine, Reason: a.Reason, Deadline: w.now.Add(w.policy.Times.Boot)})
		w.boot(a.Machine, w.fate("start"))
	case Stop:
		w.apply(fleet.Event{Kind: fleet.MachineStopping, Machine: a.Machine, Reason: a.Reason})
	case Drain:
		w.apply(fleet.Event{Kind: fleet.MachineDraining, Machine: a.Machine, Reason: a.Reason})
	case Remove:
		if overdue := m.State == fleet.Draining && !m.Deadline.IsZero() && !w.now.Before(m.Deadline); len(m.Leases) > 0 && !overdue {
			w.fault("%s has jobs and is removed: %s", m.Name, a.Reason)
		}
		w.remove(m, a.Reason)
	case Lease:
		w.lease(a)
	}
}

// begin makes an operation the one that counts for a machine.
func (w *world) begin(name string, f fate, end func()) {
	w.ops[name]++
	this := w.ops[name]
	if f.never {
		return
	}
	w.after(f.took, func() {
		if w.ops[name] == this {
			end()
		}
	})
}

func (w *world) create(a Action) {
	name := a.Machine
	if name == "" {
		w.made++
		name = fmt.Sprintf("m%03d", w.made)
	}
	w.apply(fleet.Event{Kind: fleet.MachineWanted, Machine: name, Set: a.Set, Reason: a.Reason, Deadline: w.now.Add(w.policy.Times.Create)})
	f := w.fate("create")
	w.begin(name, f, func() {
		if f.class != "" {
			w.apply(fleet.Event{Kind: fleet.MachineFailed, Machine: name, Class: f.class, Reason: "it failed"})
			return
		}
		w.apply(fleet.Event{Kind: fleet.MachineCreated, Machine: name, Seen: &tranter.Machine{Name: name}, Deadline: w.now.Add(w.policy.Times.Boot)})
		w.boot(name, w.fate("boot"))
	})
}

func (w *world) boot(name string, f fate) {
	w.begin(name, f, func() {
		if f.class != "" {
			w.apply(fleet.Event{Kind: fleet.MachineFailed, Machine: name, Class: fleet.Unready, Reason: "it did not boot"})
			return
		}
		w.apply(fleet.Event{Kind: fleet.MachineReady, Machine: name})
	})
}

// lostJobs queues the jobs of a machine again.
func (w *world) lostJobs(leases []fleet.Lease) {
	for _, l := range leases {
		w.lost++
		w.apply(fleet.Event{Kind: fleet.JobQueued, Job: l.Job, Avoid: w.avoid()})
	}
}

func (w *world) remove(m *fleet.Machine, reason string) {
	name, leases, tries := m.Name, slices.Clone(m.Leases), m.Tries
	w.apply(fleet.Event{Kind: fleet.MachineRemoving, Machine: name, Reason: reason})
	w.after(0, func() { w.lostJobs(leases) })
	f := w.fate("remove")
	f.never = false // its operation has a limit of its own
	w.begin(name, f, func() {
		if f.fails {
			w.apply(fleet.Event{Kind: fleet.RemovalFailed, Machine: name, Reason: "busy", Retry: w.now.Add(fleet.RemovalRetry(tries + 1))})
			return
		}
		w.apply(fleet.Event{Kind: fleet.MachineGone, Machine: name})
	})
}

func (w *world) lease(a Action) {
	w.apply(fleet.Event{Kind: fleet.LeaseGranted, Machine: a.Machine, Job: a.Job, Reason: a.Reason})
	f := w.fate("job")
	granted := w.now
	w.after(f.took, func() {
		m := w.book.Find(a.Job)
		if m == nil || m.Name != a.Machine || !slices.Contains(m.Leases, fleet.Lease{Job: a.Job, Since: granted}) {
			return // it was lost
		}
		w.apply(fleet.Event{Kind: fleet.LeaseReleased, Machine: a.Machine, Job: a.Job, Clean: !f.fails})
		w.done[a.Job]++
	})
}

// run goes on until nothing is left to happen, or to a time.
func (w *world) run(until time.Time) {
	for steps := 0; ; steps++ {
		if steps > 100_000 {
			w.fault("it does not come to rest")
			return
		}
		w.decide()
		next := w.wake
		if len(w.later.all) > 0 && (next.IsZero() || w.later.all[0].at.Before(next)) {
			next = w.later.all[0].at
		}
		if next.IsZero() || next.After(until) {
			w.now = until
			return
		}
		w.now = next
		for len(w.later.all) > 0 && !w.later.all[0].at.After(w.now) {
			heap.Pop(&w.later).(timer).do()
		}
	}
}

// states lists how many machines are in which state.
func (w *world) states() string {
	var parts []string
	for _, s := range []fleet.State{fleet.Wanted, fleet.Booting, fleet.Idle, fleet.Stopped, fleet.Leased, fleet.Draining, fleet.Removing} {
		if n := w.book.In(s); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return strings.Join(append(parts, count(len(w.book.Waiting), "job")+" waiting"), ", ")
}
