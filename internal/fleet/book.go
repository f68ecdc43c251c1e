package fleet

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// tally is what is kept counted, so that nobody has to walk over the machines for it.
type tally struct {
	states map[State]int
	free   []int // idle and leased machines by how many leases they have
	busy   int   // machines with a lease
	live   int   // machines that count as capacity
}

// New returns an empty book.
func New() *Book {
	return &Book{
		Machines: map[string]*Machine{},
		Offers:   map[string]Offer{},
		homes:    map[string]*Machine{},
		places:   map[string]uint64{},
		tally:    tally{states: map[State]int{}},
	}
}

// Restore replaces all that the book has by machines as they stood before a restart. No operation is under way any more:
// a removal is due at once. Jobs that wait have to be queued anew.
func (b *Book) Restore(ms []Machine) {
	*b = *New()
	for _, m := range ms {
		if b.Machines[m.Name] != nil {
			continue
		}
		m.mend(b.homes)
		b.Machines[m.Name] = &m
		b.tally.count(&m, 1)
		for _, l := range m.Leases {
			b.homes[l.Job] = &m
		}
	}
}

// mend makes an entry fit the rules of Check, should it have been kept half-way.
func (m *Machine) mend(homes map[string]*Machine) {
	m.Leases = slices.DeleteFunc(slices.Clone(m.Leases), func(l Lease) bool { return homes[l.Job] != nil })
	if m.Since.IsZero() {
		m.Since = time.Unix(0, 0)
	}
	switch m.State {
	case Idle, Leased:
		if m.State = Idle; len(m.Leases) > 0 {
			m.State = Leased
		}
	case Wanted, Booting:
		m.Leases = nil
		if m.Deadline.IsZero() {
			m.Deadline = m.Since
		}
	case Removing:
		m.Leases = nil
		if m.Retry.IsZero() && !m.Orphan {
			m.Retry = m.Since
		}
	case Stopped:
		m.Leases = nil
	case Draining:
	}
}

// Find returns the machine that has a lease of the job, or nil.
func (b *Book) Find(job string) *Machine { return b.homes[job] }

// Waits tells whether the job waits for a machine.
func (b *Book) Waits(job string) bool { _, ok := b.places[job]; return ok }

// Count returns how many machines are in each state.
func (b *Book) Count() map[State]int { return maps.Clone(b.tally.states) }

// In returns how many machines are in a state.
func (b *Book) In(s State) int { return b.tally.states[s] }

// Live returns how many machines count as capacity: all but those of which Leaked says otherwise.
func (b *Book) Live() int { return b.tally.live }

// Busy returns how many machines have a lease, those that are draining included.
func (b *Book) Busy() int { return b.tally.busy }

// Jobs returns how many leases there are.
func (b *Book) Jobs() int { return len(b.homes) }

// Free returns how many jobs more the idle and leased machines have room for, at so many on each.
func (b *Book) Free(capacity int) int {
	n := 0
	for leases, machines := range b.tally.free {
		n += machines * max(0, capacity-leases)
	}
	return n
}

// Leaked says whether a machine does not count as capacity any more: its removal fails time and again, or nobody can name
// what may be left of it.
func (m *Machine) Leaked() bool { return m.Orphan || m.Stuck() }

// count puts a machine into the tally (by 1), or takes it out (by -1) before it changes.
func (t *tally) count(m *Machine, by int) {
	t.states[m.State] += by
	if !m.Leaked() {
		t.live += by
	}
	if len(m.Leases) > 0 {
		t.busy += by
	}
	if m.State == Idle || m.State == Leased {
		for len(t.free) <= len(m.Leases) {
			t.free = append(t.free, 0)
		}
		t.free[len(m.Leases)] += by
	}
}

// Check returns an error if the book contradicts itself. It walks over all of it: it is for tests and for finding faults.
func (b *Book) Check() error {
	again := Book{tally: tally{states: map[State]int{}, free: make([]int, len(b.tally.free))}}
	var problems []error
	fault := func(form string, args ...any) { problems = append(problems, fmt.Errorf(form, args...)) }
	leases := 0
	for name, m := range b.Machines {
		again.tally.count(m, 1)
		leases += len(m.Leases)
		if name != m.Name {
			fault("machine %s is listed as %s", m.Name, name)
		}
		if problem := m.problem(); problem != "" {
			fault("machine %s (%s) %s", m.Name, m.State, problem)
		}
		for _, l := range m.Leases {
			if b.homes[l.Job] != m {
				fault("job %s has a lease of %s that is not known, or two", l.Job, m.Name)
			}
		}
	}
	if leases != len(b.homes) {
		fault("%d leases are known and %d are there", len(b.homes), leases)
	}
	problems = append(problems, b.checkQueue(), b.tally.check(&again.tally))
	return errors.Join(problems...)
}

func (b *Book) checkQueue() error {
	last := uint64(0)
	for _, w := range b.Waiting {
		switch {
		case b.homes[w.Job] != nil:
			return fmt.Errorf("job %s waits and has a lease", w.Job)
		case b.places[w.Job] != w.place || w.place <= last:
			return fmt.Errorf("job %s is not where it should be in the queue", w.Job)
		}
		last = w.place
	}
	if len(b.places) != len(b.Waiting) {
		return fmt.Errorf("%d jobs wait and %d are known to", len(b.Waiting), len(b.places))
	}
	return nil
}

func (t *tally) check(again *tally) error {
	if t.busy != again.busy || t.live != again.live || !slices.Equal(t.free, again.free) {
		return fmt.Errorf("the tally is %+v and should be %+v", *t, *again)
	}
	for _, s := range []State{Wanted, Booting, Idle, Stopped, Leased, Draining, Removing} {
		if t.states[s] != again.states[s] {
			return fmt.Errorf("%d machines are counted as %s and %d are", t.states[s], s, again.states[s])
		}
	}
	return nil
}

// problem says what is wrong with an entry by itself.
func (m *Machine) problem() string {
	switch m.State {
	case Wanted, Booting:
		if m.Deadline.IsZero() {
			return "has no deadline"
		}
	case Leased:
		if len(m.Leases) == 0 {
			return "has no lease"
		}
	default:
	}
	switch {
	case m.Since.IsZero():
		return "does not say since when"
	case m.State != Leased && m.State != Draining && len(m.Leases) > 0:
		return "has a lease"
	case m.State != Removing && (!m.Retry.IsZero() || m.Orphan):
		return "is not being removed, yet waits for that"
	}
	return ""
}
