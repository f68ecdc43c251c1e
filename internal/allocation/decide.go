package allocation

import "time"

// ActionKind is what is to be done.
type ActionKind string

// The kinds of actions. Each names the fields of Action that it has, and the events that the caller applies before (and
// stores) and after it.
const (
	Create  ActionKind = "create"  // New: Plan; the next decision submits it
	Submit  ActionKind = "submit"  // Allocation, a planned one: Ask, then submit it; then Accept, Reject, Defer, or after any other error nothing
	Look    ActionKind = "look"    // Allocation, of which nobody knows whether it was submitted, and which no list names: Ask, then submit it again under the same name
	Place   ActionKind = "place"   // Allocation, Job, ID, Lease: Grant with the job's lease, then the job is told
	Fail    ActionKind = "fail"    // Job, ID, Reason, Class, and Allocation if the job has a lease (of one that has ended): the job is told; then Release if it has a lease, else it is no want any more
	Cancel  ActionKind = "cancel"  // Allocation, Reason, Hard: Tell, then at the scheduler (a planned one: nothing more), or if it has started and not Hard by telling the worker
	Account ActionKind = "account" // Allocation: Inquire at once, then ask for its Final: Saw or Silent; after an error nothing
	Reserve ActionKind = "reserve" // Allocation, Jobs: Assign
	Drop    ActionKind = "drop"    // Allocation, an ended one: remove what there is of it, and Book.Forget
)

// Class is why a job can't be had.
type Class string

// The classes.
const (
	Impossible Class = "impossible" // the scheduler will never run it as it is
	Lost       Class = "lost"       // what it ran in, or was to run in, died: it may go better another time
)

// Action is one thing that is to be done.
type Action struct {
	Kind       ActionKind
	Allocation string
	New        *Allocation // all but the times of events
	Job        string      // Want.Key
	ID         int64
	Lease      *Lease // of Place, for Grant
	Jobs       []int64
	Reason     string
	Class      Class
	Hard       bool // the worker can't be relied on: cancel it at the scheduler
}

// Decide says what is to be done now, in this order, and when to ask again if nothing happens before; wake is zero if only
// an event can change anything. wants are all jobs that wait in GitLab (Key empty) and all that were taken and have no
// lease (Key set). Once the events of all actions are applied, the same question has no more actions, but that what was
// planned is submitted. The book is not changed.
func Decide(b *Book, wants []Want, now time.Time) (do []Action, wake time.Time) {
	d := &decision{
		book: b, p: b.policy, now: now, seatOf: map[string]*seat{}, groups: map[key]*group{}, failed: map[int64]*Allocation{}, blocks: map[form]block{},
		leased: map[int64]bool{}, held: map[int64]time.Time{},
	}
	inspection{d}.survey()
	m := matching{d}
	m.admitWants(wants)
	m.match()
	m.prefer()
	making{d}.create()
	m.reserve()
	c := closing{d}
	c.surplus()
	c.submit()
	c.drop()
	return d.do, d.wake
}

// decision is what the rules have found and decided so far.
type decision struct {
	book *Book
	p    Policy
	now  time.Time

	do   []Action
	wake time.Time

	seats  []*seat // of what is alive, by name
	seatOf map[string]*seat
	groups map[key]*group
	ended  []*Allocation
	failed map[int64]*Allocation // by job: the last allocation that was for it and did not serve it
	blocks map[form]block        // what the scheduler refuses
	leased map[int64]bool        // jobs that have a lease
	held   map[int64]time.Time   // by job that had a place in prospect in what is on its way out: nothing is made for it before

	taken, waiting []*need // jobs without a place, the most urgent first
	lacking        []*need // those that get none of what is there
	pressed        bool    // a limit forbids what is needed: what is idle goes at once
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

func (d *decision) cancel(a *Allocation, hard bool, why string) {
	d.do = append(d.do, Action{Kind: Cancel, Allocation: a.Name, Reason: why, Hard: hard})
}
