package pool

import (
	"context"
	"maps"
	"math"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/scale"
)

// listing is the loop, comparing its book with what the provider has.
type listing struct{ *loop }

// How often the provider is asked what there is: as a rule, and while something does not agree.
const (
	listEvery = 3 * time.Minute
	listSoon  = 20 * time.Second
	listLimit = 2 * time.Minute
)

// forgetAfter is how long a machine that was removed is not taken for a stranger: lists may lag behind.
const forgetAfter = 15 * time.Minute

// looks is what lists have shown.
type looks struct {
	next      time.Time            // of the next list
	strangers map[string]int       // machines with our mark that the book does not have: how many lists in a row had them
	left      map[string]time.Time // machines that were removed, and when
}

// dueList asks the provider what there is, if it is time to.
func (l listing) dueList(now time.Time) {
	if now.Before(l.looks.next) || l.ops[""] != nil {
		return
	}
	l.looks.next = now.Add(listEvery)
	maps.DeleteFunc(l.looks.left, func(_ string, at time.Time) bool { return now.Sub(at) > forgetAfter })
	s, mark := l.settings, l.pool.options.Mark
	known := make([]tranter.MachineRef, 0, len(l.book.Machines))
	for name, m := range l.book.Machines {
		if m.State != fleet.Wanted { // there is nothing to find, or nothing to be sure of
			known = append(known, l.ref(name))
		}
	}
	l.begin(task{
		limit: listLimit,
		work: func(ctx context.Context) func() {
			seen, err := s.Provider.List(ctx, mark, known)
			return func() { l.listed(known, seen, err) }
		},
		fail: func(err error) { l.listed(known, nil, err) },
	})
}

// listed compares what the provider says with the book.
func (l listing) listed(known []tranter.MachineRef, seen []tranter.Machine, err error) {
	if l.ending {
		return
	}
	if err != nil {
		if l.problem == "" {
			l.log.Warn("The provider could not be asked which machines there are", "error", brief(err))
		}
		l.problem = brief(err)
		return
	}
	l.problem = ""
	there := make(map[string]*tranter.Machine, len(seen))
	for i := range seen {
		there[seen[i].Name] = &seen[i]
	}
	for _, ref := range known {
		if m := l.book.Machines[ref.Name]; m != nil {
			l.compare(m, there[ref.Name])
		}
	}
	l.strangers(seen)
}

// compare takes notice of what a list says of a machine; s is nil if it does not name it.
func (l listing) compare(m *fleet.Machine, s *tranter.Machine) {
	switch {
	case m.State == fleet.Removing:
	case s == nil:
		l.missed(m)
	case s.Power == tranter.PowerOff && m.State != fleet.Stopped && m.State != fleet.Booting:
		l.remove(m, "its provider says that it is switched off")
	case s.Power == tranter.PowerOn && m.State == fleet.Stopped && l.ops[m.Name] == nil: // a restart has cut that off
		operations(l).stopMachine(m.Name)
	case m.Missed > 0 && s.Power != tranter.PowerUnknown:
		operations(l).see(m.Name, *s, "its provider names it again")
	}
}

// missed takes notice that a list does not name a machine. Lists may lag behind: the second one in a row counts.
func (l listing) missed(m *fleet.Machine) {
	t := l.tenders[m.Name]
	switch {
	case m.Missed == 0:
		l.record(fleet.Event{Kind: fleet.MachineMissed, Machine: m.Name, Reason: "its provider does not name it"})
		l.looks.next = sooner(l.looks.next, time.Now().Add(listSoon))
	case len(m.Leases) > 0 && t != nil && t.alive(): // who is wrong? its jobs run as long as it answers
		t.ask()
	default:
		l.remove(m, "its provider does not have it any more")
	}
}

// isName is what the names of machines that we create are like.
var isName = lazy.Regexp(`^[a-zA-Z0-9][a-zA-Z0-9.-]{0,199}$`)

// strangers removes machines that bear our mark and that the book does not have, once two lists in a row have shown them:
// what is on them is not known, so no job gets them.
func (l listing) strangers(seen []tranter.Machine) {
	now := time.Now()
	still := map[string]int{}
	for i := range seen {
		s := seen[i]
		if _, left := l.looks.left[s.Name]; left || l.book.Machines[s.Name] != nil || !isName().MatchString(s.Name) {
			continue // with a name that none of ours has, somebody else has written the mark
		}
		if l.looks.strangers[s.Name] == 0 {
			still[s.Name] = 1
			l.looks.next = sooner(l.looks.next, now.Add(listSoon))
			continue
		}
		l.log.Warn("A machine bears our mark and is not in the book", "machine", s.Name, "id", s.ID)
		if l.record(fleet.Event{Kind: fleet.MachineAdopted, Machine: s.Name, Seen: &s, Reason: "it bears our mark and nobody knew of it", Deadline: now.Add(l.settings.Policy.Times.Boot)}) {
			l.remove(l.book.Machines[s.Name], "it bears our mark and nobody knew of it")
		}
	}
	l.looks.strangers = still
}

// restore takes up the machines of the book after a restart.
func (l listing) restore(machines []fleet.Machine) {
	now, times := time.Now(), l.settings.Policy.Times
	for i := range machines {
		rewind(&machines[i], now, times)
	}
	l.book.Restore(machines)
	for name, m := range l.book.Machines {
		switch m.State {
		case fleet.Wanted:
			l.remove(m, "its creation was cut off by a restart of the manager")
		case fleet.Booting:
			l.then(func() { l.resumeBoot(name) })
		case fleet.Idle, fleet.Leased, fleet.Draining:
			tending(l).tend(name, nil)
		case fleet.Removing, fleet.Stopped: // scale sees to them
		}
	}
	if len(machines) > 0 {
		l.log.Info("Taking up the machines of the book", "machines", len(machines))
	}
}

// rewind mends an entry that was kept when the clock was ahead of what it is now: nothing has happened in the future, and no
// state lasts longer than it may. From here on setting the clock changes nothing.
func rewind(m *fleet.Machine, now time.Time, times scale.Times) {
	most := func(t *time.Time, d time.Duration) {
		if !t.IsZero() {
			*t = now.Add(min(t.Sub(now), d)) // which runs with the clock that nobody sets
		}
	}
	past := func(t *time.Time) { most(t, 0) }
	limit := func(d time.Duration) time.Duration {
		if d <= 0 {
			return math.MaxInt64
		}
		return d
	}
	past(&m.Since)
	past(&m.Made)
	past(&m.Ready)
	past(&m.Used)
	most(&m.Retry, fleet.RemovalRetry(m.Tries))
	switch m.State {
	case fleet.Wanted:
		most(&m.Deadline, limit(times.Create))
	case fleet.Booting:
		most(&m.Deadline, limit(times.Boot))
	default: // one of draining may be anybody's
		most(&m.Deadline, limit(0))
	}
}

// resumeBoot makes a machine ready whose boot a restart has cut off. It may be one that was being switched on.
func (l listing) resumeBoot(name string) {
	m := l.book.Machines[name]
	if m == nil || m.State != fleet.Booting {
		return
	}
	if _, ok := l.settings.Provider.(tranter.Starter); ok && !m.Ready.IsZero() {
		operations(l).startMachine(name)
		return
	}
	operations(l).bootMachine(name, nil)
}
