package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"pgregory.net/rapid"
)

func start() time.Time { return time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC) }

func states() []State {
	return []State{Wanted, Booting, Idle, Stopped, Leased, Draining, Removing}
}

func kinds() []Kind {
	return []Kind{
		MachineWanted, MachineNoted, MachineCreated, MachineFailed, MachineReady, MachineStopping, MachineStarting, MachineAdopted, MachineSeen, MachineMissed,
		MachineDraining, MachineRemoving, RemovalFailed, MachineGone, JobQueued, JobLeft, LeaseGranted, LeaseReleased, Throttled,
	}
}

// full is an event that has every field that its kind may need.
func full(k Kind, machine, job string, at time.Time) Event {
	e := Event{
		At: at, Kind: k, Machine: machine, Job: job, Reason: "because", Set: "small", Class: Passing, Clean: true,
		Seen: &tranter.Machine{Name: machine, Ref: json.RawMessage(`{"id":7}`)}, Kept: json.RawMessage(`{"key":1}`),
	}
	switch k {
	case MachineWanted, MachineCreated, MachineStarting, MachineAdopted, MachineDraining:
		e.Deadline = at.Add(time.Minute)
	case RemovalFailed, Throttled:
		e.Retry = at.Add(time.Minute)
	default:
	}
	return e
}

func must(t testing.TB, b *Book, events ...Event) {
	t.Helper()
	for _, e := range events {
		if err := b.Apply(e); err != nil {
			t.Fatal(err)
		}
		if err := b.Check(); err != nil {
			t.Fatalf("after %s: %v", e.Kind, err)
		}
	}
}

// in makes a book with machine m in a state, j on it if it has jobs, and w that waits.
func in(t testing.TB, s State) *Book {
	t.Helper()
	b := New()
	e := func(k Kind, job string) { must(t, b, full(k, "m", job, start())) }
	e(JobQueued, "w")
	e(MachineWanted, "")
	if s != Wanted && s != Removing {
		e(MachineCreated, "")
	}
	if s != Wanted && s != Removing && s != Booting {
		e(MachineReady, "")
	}
	if s == Leased || s == Draining {
		e(JobQueued, "j")
		e(LeaseGranted, "j")
	}
	switch s {
	case Stopped:
		e(MachineStopping, "")
	case Draining:
		e(MachineDraining, "")
	case Removing:
		e(MachineRemoving, "")
	default:
	}
	if got := b.Machines["m"].State; got != s {
		t.Fatalf("it is %s", got)
	}
	return b
}

// What each event makes of a machine in each state; where there is nothing, it does not fit.
func TestEventsAndStates(t *testing.T) {
	type row = map[State]State
	all := func(s State) row {
		r := row{}
		for _, from := range states() {
			r[from] = s
		}
		return r
	}
	same := row{}
	for _, s := range states() {
		same[s] = s
	}
	want := map[Kind]row{
		MachineNoted:    {Wanted: Wanted, Booting: Booting, Removing: Removing},
		MachineCreated:  {Wanted: Booting},
		MachineFailed:   {Wanted: Removing, Booting: Removing},
		MachineReady:    {Booting: Idle},
		MachineStopping: {Idle: Stopped},
		MachineStarting: {Stopped: Booting},
		MachineSeen:     same,
		MachineMissed:   same,
		MachineDraining: {Idle: Draining, Stopped: Draining, Leased: Draining, Draining: Draining},
		MachineRemoving: all(Removing),
		RemovalFailed:   {Removing: Removing},
		MachineGone:     {Removing: ""},
		LeaseGranted:    {Idle: Leased, Leased: Leased},
		LeaseReleased:   {Leased: Idle, Draining: Draining},
	}
	for kind, row := range want {
		for _, s := range states() {
			b := in(t, s)
			job := "w"
			if kind == LeaseReleased {
				job = "j"
			}
			before := copyOf(b)
			err := b.Apply(full(kind, "m", job, start().Add(time.Second)))
			to, fits := row[s]
			if fits != (err == nil) {
				t.Errorf("%s of a machine that is %s: %v", kind, s, err)
				continue
			}
			if err != nil {
				if !errors.Is(err, ErrUnfit) || !reflect.DeepEqual(before, copyOf(b)) {
					t.Errorf("%s of a machine that is %s has changed something: %v", kind, s, err)
				}
				continue
			}
			if m := b.Machines["m"]; m == nil && to != "" || m != nil && m.State != to {
				t.Errorf("%s of a machine that is %s: %+v, want %s", kind, s, m, to)
			}
			if err := b.Check(); err != nil {
				t.Errorf("%s of a machine that is %s: %v", kind, s, err)
			}
		}
	}
}

// snapshot is a book without what it shares with others.
type snapshot struct {
	Machines map[string]Machine
	Waiting  []Waiting
	Offers   map[string]Offer
	Throttle time.Time
	Homes    map[string]string
	Tally    map[State]int
	Live     int
	Free     int
}

func copyOf(b *Book) snapshot {
	s := snapshot{
		Machines: map[string]Machine{}, Waiting: slices.Clone(b.Waiting), Offers: maps.Clone(b.Offers), Throttle: b.Throttle, Homes: map[string]string{},
		Tally: b.Count(), Live: b.Live(), Free: b.Free(3),
	}
	for name, m := range b.Machines {
		s.Machines[name] = *m
	}
	for job, m := range b.homes {
		s.Homes[job] = m.Name
	}
	return s
}

func TestAnyEventsInAnyOrderLeaveABookThatIsRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, now := New(), start()
		for range rapid.IntRange(0, 200).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "pause")) * time.Second)
			e := full(rapid.SampledFrom(kinds()).Draw(t, "kind"), fmt.Sprint("m", rapid.IntRange(0, 4).Draw(t, "machine")), fmt.Sprint("j", rapid.IntRange(0, 6).Draw(t, "job")), now)
			e.Clean, e.Orphan = rapid.Bool().Draw(t, "clean"), rapid.IntRange(0, 9).Draw(t, "orphan") == 0
			e.Class = rapid.SampledFrom([]Class{Passing, NoCapacity, Rejected, Unready}).Draw(t, "class")
			if m := b.Find(e.Job); e.Kind == LeaseReleased && m != nil {
				e.Machine = m.Name
			}
			switch rapid.IntRange(0, 30).Draw(t, "lack") {
			case 0:
				e.Seen = nil
			case 1:
				e.Deadline, e.Retry = time.Time{}, time.Time{}
			case 2:
				e.Job, e.Machine = "", ""
			case 3:
				e.At = time.Time{}
			}
			before := copyOf(b)
			if err := b.Apply(e); err != nil && !reflect.DeepEqual(before, copyOf(b)) {
				t.Fatalf("%v, and yet something has changed", err)
			}
			if err := b.Check(); err != nil {
				t.Fatalf("after %+v: %v", e, err)
			}
		}
		kept := make([]Machine, 0, len(b.Machines))
		for _, m := range b.Machines {
			kept = append(kept, *m)
		}
		again := New()
		again.Restore(kept)
		if err := again.Check(); err != nil {
			t.Fatalf("restored: %v", err)
		}
		if again.Live() != b.Live() || again.Jobs() != b.Jobs() || again.Busy() != b.Busy() || again.Free(2) != b.Free(2) {
			t.Fatalf("restored: %+v\n%+v", again, b)
		}
	})
}

func TestAMachinesWay(t *testing.T) {
	b := New()
	at := func(s int) time.Time { return start().Add(time.Duration(s) * time.Second) }
	must(t, b,
		Event{At: at(0), Kind: MachineWanted, Machine: "m", Set: "spot", Reason: "1 job", Deadline: at(100)},
		Event{At: at(1), Kind: MachineNoted, Machine: "m", Seen: &tranter.Machine{Ref: json.RawMessage(`1`)}},
		Event{At: at(2), Kind: MachineCreated, Machine: "m", Seen: &tranter.Machine{ID: "i-1", Ref: json.RawMessage(`2`)}, Deadline: at(200)},
		Event{At: at(9), Kind: MachineReady, Machine: "m", Kept: json.RawMessage(`3`), Boot: []tranter.Timing{{Step: "ssh", Took: time.Second}}},
		Event{At: at(10), Kind: JobQueued, Job: "a"}, Event{At: at(10), Kind: JobQueued, Job: "b"},
		Event{At: at(11), Kind: LeaseGranted, Machine: "m", Job: "a"}, Event{At: at(12), Kind: LeaseGranted, Machine: "m", Job: "b"},
		Event{At: at(20), Kind: LeaseReleased, Machine: "m", Job: "a", Clean: true},
	)
	m := b.Machines["m"]
	if m.State != Leased || !m.Since.Equal(at(11)) || m.Uses != 2 || b.Find("a") != nil || b.Find("b") != m || b.Free(4) != 3 || b.Busy() != 1 {
		t.Errorf("with one job left: %+v", m)
	}
	must(t, b, Event{At: at(30), Kind: LeaseReleased, Machine: "m", Job: "b", Clean: true})
	if m.State != Idle || !m.Used.Equal(at(30)) || !m.Ready.Equal(at(9)) || !m.Deadline.IsZero() || string(m.Kept) != "3" || len(m.Boot) != 1 || m.Seen.ID != "i-1" {
		t.Errorf("without a job: %+v", m)
	}
	must(t, b,
		Event{At: at(40), Kind: MachineStopping, Machine: "m"},
		Event{At: at(50), Kind: MachineStarting, Machine: "m", Deadline: at(90)},
		Event{At: at(60), Kind: MachineReady, Machine: "m", Boot: []tranter.Timing{{}, {}}},
		Event{At: at(70), Kind: MachineRemoving, Machine: "m", Reason: "idle"},
		Event{At: at(71), Kind: RemovalFailed, Machine: "m", Reason: "busy", Retry: at(80)},
		Event{At: at(80), Kind: MachineRemoving, Machine: "m", Reason: "again"},
	)
	if !m.Ready.Equal(at(9)) || len(m.Boot) != 1 || m.Tries != 1 || m.Reason != "idle" || m.Problem != "busy" || !m.Retry.IsZero() || !m.Since.Equal(at(70)) {
		t.Errorf("while it is removed: %+v", m)
	}
	must(t, b, Event{At: at(90), Kind: MachineGone, Machine: "m", Orphan: true, Reason: "look there"})
	if !m.Orphan || m.Problem != "look there" || b.Live() != 0 || len(b.Machines) != 1 {
		t.Errorf("as an orphan: %+v", m)
	}
	must(t, b, Event{At: at(99), Kind: MachineGone, Machine: "m"})
	if len(b.Machines) != 0 || b.In(Removing) != 0 {
		t.Errorf("it is still there: %+v", b.Machines)
	}
}

func TestADirtyMachineIsEmptiedThenRemoved(t *testing.T) {
	b := in(t, Leased)
	m := b.Machines["m"]
	must(t, b,
		full(LeaseGranted, "m", "w", start()),
		Event{At: start(), Kind: LeaseReleased, Machine: "m", Job: "j", Reason: "its files could not be removed"},
	)
	if m.State != Draining || len(m.Leases) != 1 {
		t.Errorf("with a job left: %+v", m)
	}
	must(t, b, Event{At: start().Add(time.Minute), Kind: LeaseReleased, Machine: "m", Job: "w"})
	if m.State != Removing || !m.Retry.Equal(start().Add(time.Minute)) {
		t.Errorf("without: %+v", m)
	}
}

func TestAMachineThatIsRemovedLosesItsJobs(t *testing.T) {
	b := in(t, Leased)
	must(t, b, full(MachineRemoving, "m", "", start()), full(JobQueued, "", "j", start()))
	if b.Find("j") != nil || b.Jobs() != 0 || b.Busy() != 0 || len(b.Machines["m"].Leases) != 0 {
		t.Errorf("%+v", b.Machines["m"])
	}
}

func TestTheQueueKeepsItsOrder(t *testing.T) {
	b := New()
	for i := range 6 {
		must(t, b, full(JobQueued, "", fmt.Sprint(i), start()))
	}
	must(t, b, full(JobLeft, "", "3", start()), full(JobLeft, "", "0", start()), full(JobLeft, "", "5", start()), full(JobQueued, "", "0", start()))
	var got []string
	for _, w := range b.Waiting {
		got = append(got, w.Job)
	}
	if want := []string{"1", "2", "4", "0"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := b.Apply(full(JobQueued, "", "4", start())); !errors.Is(err, ErrUnfit) {
		t.Errorf("a job that waits already: %v", err)
	}
}

func TestWhatWasKeptHalfWayIsMended(t *testing.T) {
	b := New()
	lease := []Lease{{Job: "j", Since: start()}}
	b.Restore([]Machine{
		{Name: "a", State: Idle, Leases: lease},
		{Name: "b", State: Leased, Leases: lease},
		{Name: "c", State: Wanted},
		{Name: "d", State: Removing, Leases: lease},
		{Name: "e", State: Draining, Since: start()},
		{Name: "e", State: Idle},
		{Name: "f", State: Removing, Orphan: true},
		{Name: "g", State: Stopped, Leases: lease},
	})
	if err := b.Check(); err != nil {
		t.Error(err)
	}
	if b.Find("j") != b.Machines["a"] || b.In(Leased) != 1 || b.In(Idle) != 1 || b.Machines["d"].Retry.IsZero() || !b.Machines["f"].Retry.IsZero() || len(b.Machines) != 7 {
		t.Errorf("%+v", b.Machines)
	}
}

// Creations that fail one after the other, each asked for after the one before: how long the set is passed over.
func TestASetThatFailsIsPassedOver(t *testing.T) {
	for class, want := range map[Class][]time.Duration{
		NoCapacity: {5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, time.Hour, time.Hour},
		Rejected:   {10 * time.Minute, 20 * time.Minute, 40 * time.Minute, time.Hour, time.Hour},
		Passing:    {0, 0, 5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute},
		Unready:    {0, 0, 5 * time.Second, 10 * time.Second},
	} {
		b, now := New(), start()
		for i, d := range want {
			now = now.Add(time.Hour)
			name := fmt.Sprint("m", i)
			must(t, b, full(MachineWanted, name, "", now))
			e := full(MachineFailed, name, "", now.Add(time.Second))
			e.Class = class
			must(t, b, e)
			if got := b.Offers["small"].Until.Sub(e.At); got != d {
				t.Errorf("failure %d (%s): %s, want %s", i+1, class, got, d)
			}
		}
		must(t, b, full(MachineWanted, "good", "", now.Add(time.Hour)), full(MachineCreated, "good", "", now.Add(time.Hour)), full(MachineReady, "good", "", now.Add(time.Hour)))
		if o, there := b.Offers["small"]; there {
			t.Errorf("after a success (%s): %+v", class, o)
		}
	}
}

func TestManyThatFailAtOnceAreOneFailure(t *testing.T) {
	b := New()
	for i := range 10 {
		must(t, b, full(MachineWanted, fmt.Sprint("m", i), "", start()))
	}
	must(t, b, full(MachineCreated, "m9", "", start()))
	for i := range 9 {
		e := full(MachineFailed, fmt.Sprint("m", i), "", start().Add(time.Duration(i+1)*time.Second))
		e.Class = NoCapacity
		must(t, b, e)
	}
	until := start().Add(5*time.Minute + 9*time.Second)
	if o := b.Offers["small"]; o.Failures != 1 || !o.Until.Equal(until) || o.Why != "because" {
		t.Errorf("%+v", o)
	}
	must(t, b, full(MachineReady, "m9", "", start().Add(time.Minute)))
	if o := b.Offers["small"]; !o.Until.Equal(until) {
		t.Errorf("a machine that was asked for while there was capacity ends the wait: %+v", o)
	}
}

func TestAMachineThatIsGivenUpAtItsDeadlineCountsAsFailed(t *testing.T) {
	for _, s := range []State{Wanted, Booting} {
		b := in(t, s)
		must(t, b, full(MachineRemoving, "m", "", start().Add(59*time.Second)))
		if len(b.Offers) > 0 {
			t.Errorf("%s, removed before its deadline: %+v", s, b.Offers)
		}
		b = in(t, s)
		must(t, b, full(MachineRemoving, "m", "", start().Add(time.Minute)))
		if o := b.Offers["small"]; o.Failures != 1 {
			t.Errorf("%s: %+v", s, o)
		}
	}
}

func TestTheCallerMaySayWhenASetIsTriedAgain(t *testing.T) {
	b := in(t, Wanted)
	e := full(MachineFailed, "m", "", start())
	e.Retry = start().Add(42 * time.Second)
	must(t, b, e)
	if got := b.Offers["small"].Until; !got.Equal(e.Retry) {
		t.Errorf("%s", got)
	}
}

func TestRemovalsAreTriedAgainLessAndLessOften(t *testing.T) {
	for i, want := range []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute} {
		if got := RemovalRetry(i + 1); got != want {
			t.Errorf("after %d failures: %s, want %s", i+1, got, want)
		}
	}
	if got := RemovalRetry(1 << 40); got != 10*time.Minute {
		t.Errorf("after very many: %s", got)
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	for name, spoil := range map[string]func(b *Book){
		"state":    func(b *Book) { b.Machines["m"].State = Idle },
		"lease":    func(b *Book) { b.Machines["m"].Leases = nil },
		"name":     func(b *Book) { b.Machines["m"].Name = "n" },
		"since":    func(b *Book) { b.Machines["m"].Since = time.Time{} },
		"retry":    func(b *Book) { b.Machines["m"].Retry = start() },
		"home":     func(b *Book) { b.homes["x"] = b.Machines["m"] },
		"queue":    func(b *Book) { b.Waiting = nil },
		"order":    func(b *Book) { b.Waiting[0].place = 9 },
		"both":     func(b *Book) { b.homes["w"] = b.Machines["m"] },
		"tally":    func(b *Book) { b.tally.busy++ },
		"deadline": func(b *Book) { b.Machines["m"].State = Booting; b.Machines["m"].Deadline = time.Time{} },
	} {
		b := in(t, Leased)
		spoil(b)
		if b.Check() == nil {
			t.Errorf("%s: nothing was found", name)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	book := New()
	for i := range 10_000 {
		for _, k := range []Kind{MachineWanted, MachineCreated, MachineReady, JobQueued} {
			if err := book.Apply(full(k, fmt.Sprint("m", i), fmt.Sprint("j", i), start())); err != nil {
				b.Fatal(err)
			}
		}
	}
	granted, released := full(LeaseGranted, "m77", "job", start()), full(LeaseReleased, "m77", "job", start())
	queued := full(JobQueued, "", "job", start())
	b.ReportAllocs()
	for b.Loop() {
		for _, e := range []Event{queued, granted, released} {
			if err := book.Apply(e); err != nil {
				b.Fatal(err)
			}
		}
	}
}
