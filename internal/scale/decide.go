package scale

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/fleet"
)

// Decide says what is to be done now, in this order, and when to ask again if nothing happens before; wake is zero if only
// an event can change anything. Once the intents of all actions are in the book, the same question has no more actions.
func Decide(b *fleet.Book, p Policy, now time.Time) (do []Action, wake time.Time) {
	d := survey(b, p, now)
	for _, rule := range [...]func(*decision){
		(*decision).place,
		(*decision).grow,
		(*decision).fixed,
		(*decision).makeRoom,
		(*decision).emptyTier,
		(*decision).shrink,
		(*decision).periods,
	} {
		rule(d)
	}
	return d.do, d.wake
}

// decision is what the rules have found and decided so far.
type decision struct {
	book   *fleet.Book
	p      Policy
	now    time.Time
	idle   Idle           // of the policy, now
	places map[string]int // of the machines of a policy with fixed ones

	do   []Action
	wake time.Time

	open   []seat           // leased machines that take one more job
	free   []seat           // idle machines, once place has run those that stay idle
	off    []*fleet.Machine // stopped machines that may be started, the one that was stopped last is the last
	coming int              // machines that are wanted or booting
	made   int              // machines that are to be created
	going  int              // of those that count as capacity, the ones on their way out
	busy   int              // machines with a job

	jobs    int // that wait and get no machine now
	blocked int // machines that are missing for jobs and that the limit forbids
}

// seat is a machine and how many more jobs it takes.
type seat struct {
	m    *fleet.Machine
	room int
	used int64 // when it was used last, for comparing
	gets int   // jobs that it is given now
}

// at notes that something changes at t.
func (d *decision) at(t time.Time) {
	if t.After(d.now) && (d.wake.IsZero() || t.Before(d.wake)) {
		d.wake = t
	}
}

// due tells whether t has come; if not, that is when to look again.
func (d *decision) due(t time.Time) bool {
	if !t.After(d.now) {
		return true
	}
	d.at(t)
	return false
}

func (d *decision) remove(m *fleet.Machine, why string) {
	d.do = append(d.do, Action{Do: Remove, Machine: m.Name, Reason: why})
	if m.State != fleet.Removing {
		d.going++
		if len(m.Leases) > 0 {
			d.busy--
		}
	}
}

// survey looks at every machine once: what its own state and age demand is decided, the others are sorted by what they are
// good for.
func survey(b *fleet.Book, p Policy, now time.Time) *decision {
	d := &decision{book: b, p: p, now: now, idle: p.IdleAt(now), busy: b.Busy(), places: p.places()}
	d.free = make([]seat, 0, b.In(fleet.Idle))
	for _, m := range b.Machines {
		do, why := retire(d, m)
		switch do {
		case Remove:
			d.remove(m, why)
		case Drain:
			d.do = append(d.do, Action{Do: Drain, Machine: m.Name, Reason: why})
		default:
			d.sort(m)
		}
	}
	slices.SortFunc(d.off, func(a, b *fleet.Machine) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Name, b.Name))
	})
	slices.SortFunc(d.do, func(a, b Action) int { return strings.Compare(a.Machine, b.Machine) })
	return d
}

// sort puts a machine where the rules look for it.
func (d *decision) sort(m *fleet.Machine) {
	switch m.State {
	case fleet.Wanted, fleet.Booting:
		d.coming++
	case fleet.Idle:
		d.free = append(d.free, seat{m: m, room: d.p.room(m), used: m.Used.UnixNano()})
	case fleet.Leased:
		if room := d.p.room(m); room > 0 {
			d.open = append(d.open, seat{m: m, room: room, used: m.Used.UnixNano()})
		}
	case fleet.Stopped:
		d.off = append(d.off, m)
	case fleet.Removing:
		if !m.Leaked() {
			d.going++
		}
	default: // what is draining has its jobs and gets no more
	}
}

// byAge sorts the machines that were left alone longest to the front.
func byAge(a, b seat) int {
	if a.used != b.used {
		return cmp.Compare(a.used, b.used)
	}
	return strings.Compare(a.m.Name, b.m.Name)
}

// byFullness sorts the machines with the least room to the front, of equal ones the one that was used last.
func byFullness(a, b seat) int {
	if a.room != b.room {
		return cmp.Compare(a.room, b.room)
	}
	return byAge(b, a)
}

// periods wakes when the idle settings change.
func (d *decision) periods() {
	for _, period := range d.p.Periods {
		t := d.now.In(period.zone())
		for _, c := range period.Times {
			d.at(c.NextChange(t))
		}
	}
}
