package scale

import (
	"fmt"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"pgregory.net/rapid"
)

func start() time.Time { return time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC) }

func seconds(low, high int) *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.IntRange(low, high), func(n int) time.Duration { return time.Duration(n) * time.Second })
}

func drawPolicy(t *rapid.T) Policy {
	p := Policy{
		Limit: rapid.IntRange(0, 8).Draw(t, "limit"), Growth: rapid.IntRange(0, 4).Draw(t, "growth"),
		Capacity: rapid.IntRange(1, 4).Draw(t, "capacity"), MaxUses: rapid.SampledFrom([]int{0, 0, 1, 2, 5}).Draw(t, "uses"),
		Idle: Idle{
			Count: rapid.IntRange(0, 4).Draw(t, "idle"), Min: rapid.IntRange(0, 2).Draw(t, "min"),
			Factor: rapid.SampledFrom([]float64{0, 0, 0.5, 1, 1.5}).Draw(t, "factor"), Time: seconds(0, 300).Draw(t, "idle time"),
		},
		Sets: []Set{{"small"}, {"large"}}[:rapid.IntRange(1, 2).Draw(t, "sets")], Stopped: rapid.IntRange(0, 2).Draw(t, "stopped"),
		StoppedTime: rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(t, "stopped time"),
		Times:       Times{Create: 2 * time.Minute, Boot: 2 * time.Minute},
	}
	if rapid.Bool().Draw(t, "ages") {
		p.MaxAge = seconds(600, 7200).Draw(t, "age")
	}
	return p
}

func drawFate(t *rapid.T, faults bool) func(string) fate {
	return func(what string) fate {
		f := fate{took: seconds(0, 100).Draw(t, what)}
		if !faults {
			return f
		}
		switch n := rapid.IntRange(0, 19).Draw(t, what+" fault"); {
		case what == "remove" || what == "job":
			f.fails = n < 5
		case n < 2:
			f.never = true
		case n < 7:
			f.class = []fleet.Class{fleet.Passing, fleet.Passing, fleet.NoCapacity, fleet.Rejected, fleet.Passing}[n-2]
		}
		return f
	}
}

// disturb does what people, notices and lists do to machines.
func disturb(t *rapid.T, w *world) {
	names := make([]string, 0, len(w.book.Machines))
	for name := range w.book.Machines {
		names = append(names, name)
	}
	if len(names) == 0 {
		return
	}
	m := w.book.Machines[rapid.SampledFrom(sorted(names)).Draw(t, "machine")]
	switch rapid.IntRange(0, 5).Draw(t, "what happens") {
	case 0:
		if m.State == fleet.Idle || m.State == fleet.Leased || m.State == fleet.Stopped {
			w.apply(fleet.Event{Kind: fleet.MachineDraining, Machine: m.Name, Reason: "notice", Deadline: w.now.Add(time.Minute)})
		}
	case 1:
		if m.State != fleet.Removing {
			w.remove(m, "it was lost")
		}
	case 2:
		w.apply(fleet.Event{Kind: fleet.Throttled, Retry: w.now.Add(seconds(1, 600).Draw(t, "throttled"))})
	case 3:
		if !m.Leaked() && (w.policy.Limit == 0 || w.book.Live() < w.policy.Limit) {
			w.made++
			name := fmt.Sprintf("m%03d", w.made)
			w.apply(fleet.Event{Kind: fleet.MachineAdopted, Machine: name, Seen: &tranter.Machine{}, Deadline: w.now.Add(w.policy.Times.Boot)})
			w.boot(name, fate{})
		}
	}
}

// Whatever fails, hangs and gets lost on the way: the limits hold at every moment, no job is forgotten, and in the end there
// are as many machines as are wanted.
func TestThePoolComesToRestWithAllJobsDone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(drawPolicy(t), start(), drawFate(t, true), func(form string, args ...any) { t.Helper(); t.Fatalf(form, args...) })
		w.avoid = func() (avoid []string) {
			if rapid.IntRange(0, 3).Draw(t, "avoids") == 0 {
				for name, m := range w.book.Machines {
					if m.State == fleet.Idle || m.State == fleet.Leased {
						avoid = append(avoid, name)
					}
				}
			}
			return avoid
		}
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			w.push(rapid.IntRange(0, 12).Draw(t, "jobs"))
			w.run(w.now.Add(seconds(0, 300).Draw(t, "pause")))
			// The growth rate and such hold for what we create; what people adopt comes on top.
			if w.policy.Growth == 0 {
				disturb(t, w)
			}
		}
		w.fate = drawFate(t, false)
		w.run(w.now.Add(30 * time.Hour))
		if len(w.book.Waiting) > 0 || w.book.Jobs() > 0 || len(w.done) != w.queue {
			t.Fatalf("%d of %d jobs were done: %s", len(w.done), w.queue, w.states())
		}
		for job, times := range w.done {
			if times != 1 {
				t.Fatalf("%s was done %d times", job, times)
			}
		}
		atRest(t, w)
	})
}

func atRest(t *rapid.T, w *world) {
	idle, target := w.book.In(fleet.Idle), Target(w.book, w.policy, w.now)
	if w.policy.Limit > 0 {
		target = min(target, w.policy.Limit)
	}
	if idle > target || idle < target && w.policy.MaxAge == 0 {
		t.Fatalf("%d idle machines are wanted: %s", target, w.states())
	}
	if w.policy.MaxAge > 0 {
		return // as they age, there are always some that come and go
	}
	if w.book.In(fleet.Stopped) > w.policy.Stopped || len(w.book.Machines) != idle+w.book.In(fleet.Stopped) {
		t.Fatalf("something is left: %s", w.states())
	}
}

// coming counts the machines that there will be after a decision.
func coming(b *fleet.Book, do []Action) int {
	n := b.Live() - b.In(fleet.Removing)
	for _, a := range do {
		switch a.Do {
		case Create:
			n++
		case Remove, Stop:
			if b.Machines[a.Machine].State != fleet.Removing {
				n--
			}
		case Start: // it counts as capacity already, and is there to stay
		default:
		}
	}
	return n
}

// One more job that waits never makes for fewer machines.
func TestMoreJobsNeverMeanFewerMachines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(drawPolicy(t), start(), drawFate(t, true), func(form string, args ...any) { t.Fatalf(form, args...) })
		w.push(rapid.IntRange(0, 12).Draw(t, "jobs"))
		w.run(w.now.Add(seconds(0, 600).Draw(t, "pause")))
		before, _ := Decide(w.book, w.policy, w.now)
		n := coming(w.book, before)
		verdict := Admit(w.book, w.policy, w.now)
		w.push(1)
		after, _ := Decide(w.book, w.policy, w.now)
		if m := coming(w.book, after); m < n {
			t.Fatalf("%d machines for one job more, %d without it\n%v\n%v", m, n, before, after)
		}
		if more := Admit(w.book, w.policy, w.now); more.OK && !verdict.OK {
			t.Fatalf("one more job is taken only after one more waits: %+v", verdict)
		}
	})
}

// A job that was admitted gets a machine by itself, without another one having to end.
func TestAnAdmittedJobGetsAMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		p.MaxAge = 0
		f := drawFate(t, false)
		w := newWorld(p, start(), func(what string) fate {
			if what == "job" {
				return fate{took: 1000 * time.Hour}
			}
			return f(what)
		}, func(form string, args ...any) { t.Fatalf(form, args...) })
		for range rapid.IntRange(1, 40).Draw(t, "jobs") {
			if Admit(w.book, w.policy, w.now).OK {
				w.push(1)
			}
			w.run(w.now.Add(seconds(0, 60).Draw(t, "pause")))
		}
		w.run(w.now.Add(time.Hour))
		if len(w.book.Waiting) > 0 {
			t.Fatalf("%s", w.states())
		}
		if v := Admit(w.book, w.policy, w.now); v.OK != (p.Limit == 0 || w.queue < p.Limit*p.each()) {
			t.Fatalf("%d jobs: %+v", w.queue, v)
		}
	})
}
