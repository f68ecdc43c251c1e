package fleet

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrUnfit is what every error of Apply is: the event is not possible as the book stands.
var ErrUnfit = errors.New("the event does not fit")

func unfit(e Event, form string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrUnfit, e.Kind, fmt.Sprintf(form, args...))
}

// Apply changes the book by what has happened. After an error, which is an ErrUnfit, nothing has changed. It takes about
// the same time however large the book is.
//
// A machine that begins to be removed while it has leases loses them: who has to be told is in its entry before.
func (b *Book) Apply(e Event) error {
	if lack := e.lack(); lack != "" {
		return unfit(e, "it has no %s", lack)
	}
	switch e.Kind {
	case JobQueued, JobLeft:
		return b.applyQueue(e)
	case MachineWanted, MachineAdopted:
		return b.enter(e)
	case Throttled:
		b.Throttle = later(b.Throttle, e.Retry)
		return nil
	default:
		return b.applyMachine(e)
	}
}

// applyMachine applies an event of a machine that is in the book.
func (b *Book) applyMachine(e Event) error {
	m := b.Machines[e.Machine]
	if m == nil {
		return unfit(e, "there is no machine %q", e.Machine)
	}
	if !fits(e.Kind, m.State) {
		return unfit(e, "machine %s is %s", m.Name, m.State)
	}
	if err := b.checkJob(m, e); err != nil {
		return err
	}
	b.tally.count(m, -1)
	b.change(m, e)
	if e.Kind == MachineGone && !e.Orphan {
		delete(b.Machines, m.Name)
		return nil
	}
	b.tally.count(m, 1)
	return nil
}

// lack names a field that an event of its kind must have and has not.
func (e *Event) lack() string {
	var deadline, retry, job, seen bool
	switch e.Kind {
	case MachineWanted, MachineStarting:
		deadline = true
	case MachineCreated, MachineAdopted:
		deadline, seen = true, true
	case MachineNoted, MachineSeen:
		seen = true
	case RemovalFailed, Throttled:
		retry = true
	case JobQueued, JobLeft, LeaseGranted, LeaseReleased:
		job = true
	default:
	}
	for _, field := range [...]struct {
		name string
		lack bool
	}{
		{"time", e.At.IsZero()},
		{"deadline", deadline && e.Deadline.IsZero()},
		{"time of the next try", retry && e.Retry.IsZero()},
		{"job", job && e.Job == ""},
		{"word of the provider", seen && e.Seen == nil},
	} {
		if field.lack {
			return field.name
		}
	}
	return ""
}

// fits tells whether an event is possible for a machine in a state.
func fits(k Kind, s State) bool {
	switch k {
	case MachineSeen, MachineMissed, MachineRemoving:
		return true
	case MachineNoted: // the call that creates may end later than we have given it up
		return s == Wanted || s == Booting || s == Removing
	case MachineCreated:
		return s == Wanted
	case MachineFailed:
		return s == Wanted || s == Booting
	case MachineReady:
		return s == Booting
	default:
		return fitsLater(k, s)
	}
}

func fitsLater(k Kind, s State) bool {
	switch k {
	case MachineStopping:
		return s == Idle
	case MachineStarting:
		return s == Stopped
	case MachineDraining:
		return s == Idle || s == Leased || s == Stopped || s == Draining
	case RemovalFailed, MachineGone:
		return s == Removing
	case LeaseGranted:
		return s == Idle || s == Leased
	case LeaseReleased:
		return s == Leased || s == Draining
	default:
		return false
	}
}

// checkJob tells whether a job's event fits what the job has.
func (b *Book) checkJob(m *Machine, e Event) error {
	switch {
	case e.Kind == LeaseGranted && !b.Waits(e.Job):
		return unfit(e, "job %s does not wait", e.Job)
	case e.Kind == LeaseReleased && b.homes[e.Job] != m:
		return unfit(e, "job %s has no lease of machine %s", e.Job, m.Name)
	}
	return nil
}

func (b *Book) applyQueue(e Event) error {
	waits := b.Waits(e.Job)
	if e.Kind == JobLeft {
		if !waits {
			return unfit(e, "job %s does not wait", e.Job)
		}
		b.leave(e.Job)
		return nil
	}
	switch m := b.homes[e.Job]; {
	case waits:
		return unfit(e, "job %s waits already", e.Job)
	case m != nil:
		return unfit(e, "job %s has a lease of machine %s", e.Job, m.Name)
	}
	b.queued++
	b.places[e.Job] = b.queued
	b.Waiting = append(b.Waiting, Waiting{Job: e.Job, Since: e.At, Avoid: e.Avoid, place: b.queued})
	return nil
}

// leave takes a job out of the queue. Most are at its head.
func (b *Book) leave(job string) {
	place := b.places[job]
	delete(b.places, job)
	i, _ := slices.BinarySearchFunc(b.Waiting, place, func(w Waiting, place uint64) int { return int(w.place) - int(place) })
	if i == 0 {
		b.Waiting[0] = Waiting{}
		b.Waiting = b.Waiting[1:]
		return
	}
	b.Waiting = slices.Delete(b.Waiting, i, i+1)
}

// enter takes a new machine into the book.
func (b *Book) enter(e Event) error {
	if e.Machine == "" {
		return unfit(e, "it names no machine")
	}
	if m := b.Machines[e.Machine]; m != nil {
		return unfit(e, "machine %s is there already, %s", m.Name, m.State)
	}
	m := &Machine{Name: e.Machine, Set: e.Set, Made: e.At, ByHand: e.ByHand}
	m.enter(Wanted, e)
	if e.Kind == MachineAdopted {
		m.State, m.Seen = Booting, *e.Seen
	}
	b.Machines[m.Name] = m
	b.tally.count(m, 1)
	return nil
}

// enter puts a machine into a state.
func (m *Machine) enter(s State, e Event) {
	m.State, m.Since, m.Deadline, m.Reason, m.Retry = s, e.At, e.Deadline, e.Reason, time.Time{}
}

// change changes a machine by an event that fits.
func (b *Book) change(m *Machine, e Event) {
	switch e.Kind {
	case MachineNoted:
		m.Seen.Ref = e.Seen.Ref
	case MachineSeen:
		m.see(e)
	case MachineMissed:
		m.Missed++
	case MachineCreated:
		m.enter(Booting, e)
		m.see(e)
	case MachineReady:
		b.learnReady(m)
		m.enter(Idle, e)
		m.ready(e)
	case MachineStopping:
		m.enter(Stopped, e)
	case MachineStarting:
		m.enter(Booting, e)
	case LeaseGranted:
		b.grant(m, e)
	case LeaseReleased:
		b.release(m, e)
	default:
		b.end(m, e)
	}
}

// end changes a machine by an event of the way to its end.
func (b *Book) end(m *Machine, e Event) {
	switch e.Kind {
	case MachineFailed:
		b.learnFailure(m, e)
		m.enter(Removing, e)
		m.Problem, m.Deadline, m.Retry = e.Reason, time.Time{}, e.At
	case MachineDraining:
		since := m.Since
		again := m.State == Draining
		m.enter(Draining, e)
		if again {
			m.Since = since
		}
	case MachineRemoving:
		b.remove(m, e)
	case RemovalFailed:
		if e.Class != Deferred {
			m.Tries++
		}
		m.Retry, m.Problem = e.Retry, e.Reason
	default: // MachineGone
		m.Orphan, m.Retry, m.Problem = e.Orphan, time.Time{}, e.Reason
	}
}

// see takes over what the provider has told.
func (m *Machine) see(e Event) {
	m.Seen, m.Missed = *e.Seen, 0
	if e.Kept != nil {
		m.Kept = e.Kept
	}
}

func (m *Machine) ready(e Event) {
	m.Used, m.Problem = e.At, ""
	if e.Kept != nil {
		m.Kept = e.Kept
	}
	if m.Ready.IsZero() {
		m.Ready, m.Boot = e.At, e.Boot
	}
}

func (b *Book) grant(m *Machine, e Event) {
	b.leave(e.Job)
	b.homes[e.Job] = m
	if m.State == Idle {
		m.enter(Leased, e)
		m.Deadline = time.Time{}
	}
	m.Leases = append(m.Leases, Lease{Job: e.Job, Since: e.At})
	m.Uses++
}

func (b *Book) release(m *Machine, e Event) {
	delete(b.homes, e.Job)
	// A new slice: copies of the entry may still be read.
	m.Leases = slices.DeleteFunc(slices.Clone(m.Leases), func(l Lease) bool { return l.Job == e.Job })
	m.Used = e.At
	empty := len(m.Leases) == 0
	switch {
	case !e.Clean && empty:
		m.enter(Removing, e)
		m.Deadline, m.Retry = time.Time{}, e.At
	case !e.Clean && m.State == Leased:
		m.enter(Draining, e)
	case empty && m.State == Leased:
		m.enter(Idle, e)
		m.Deadline = time.Time{}
	}
}

func (b *Book) remove(m *Machine, e Event) {
	if m.State == Removing { // again: since when and why stay as they are
		m.Retry, m.Orphan = e.Retry, false
		return
	}
	if late := !e.At.Before(m.Deadline); late && (m.State == Wanted || m.State == Booting) {
		if e.Class = Passing; m.State == Booting {
			e.Class = Unready
		}
		b.learnFailure(m, Event{At: e.At, Class: e.Class, Reason: e.Reason})
		m.Problem = e.Reason
	}
	for _, l := range m.Leases {
		delete(b.homes, l.Job)
	}
	m.Leases = nil
	m.enter(Removing, e)
	m.Deadline, m.Retry = time.Time{}, e.Retry
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
