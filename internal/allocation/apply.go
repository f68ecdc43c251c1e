package allocation

import (
	"slices"
	"time"

	"github.com/tranter-ci/tranter"
)

// Apply changes the book by what has happened. After an error, which is an ErrUnfit, nothing has changed.
func (b *Book) Apply(e Event) error {
	if e.At.IsZero() {
		return unfit(e, "it has no time")
	}
	switch e.Kind {
	case Plan:
		return ledger{b}.plan(e)
	case Fresh:
		ledger{b}.listed()
		b.looked = e.At
		return nil
	default:
	}
	a := b.all[e.Allocation]
	if a == nil {
		return unfit(e, "there is no allocation %q", e.Allocation)
	}
	if !fits(e.Kind, a.State) {
		return unfit(e, "allocation %s is %s", a.Name, a.State)
	}
	if err := (ledger{b}).check(a, e); err != nil {
		return err
	}
	if b.awake.IsZero() {
		b.awake = e.At
	}
	before := a.State
	if (ledger{b}).change(a, e) {
		b.dirty[a.Name] = true
	}
	b.counts[before]--
	b.counts[a.State]++
	return nil
}

// ledger is a book that is being changed.
type ledger struct{ *Book }

// fits tells whether an event is possible for an allocation in a state.
func fits(k EventKind, s State) bool {
	switch k {
	case Ask:
		return s == Planned || s == Submitting
	case Defer:
		return s == Submitting || s == Ending
	case Accept, Reject:
		return s != Planned
	case Grant:
		return s == Started
	case Sign, Tell, Leave, Missed, Assign, Drain:
		return s != Ended
	case Saw, Inquire, Silent, Release, Began, End:
		return true
	default:
		return false
	}
}

// check tells whether what an event has besides its kind is as it must be.
func (b ledger) check(a *Allocation, e Event) error {
	switch e.Kind {
	case Saw:
		if e.Batch == nil {
			return unfit(e, "it does not say what was seen")
		}
	case Grant:
		return b.checkGrant(a, e)
	case Began, Release:
		if e.Job == "" || b.homes[e.Job] != a {
			return unfit(e, "job %q has no lease of allocation %s", e.Job, a.Name)
		}
	default:
	}
	return nil
}

func (b ledger) checkGrant(a *Allocation, e Event) error {
	switch l := e.Lease; {
	case l == nil || l.Job == "":
		return unfit(e, "it names no job")
	case b.homes[l.Job] != nil:
		return unfit(e, "job %s has a lease of allocation %s already", l.Job, b.homes[l.Job].Name)
	case a.Drain || len(a.Leases) >= a.Places:
		return unfit(e, "allocation %s has no place for job %s", a.Name, l.Job)
	}
	return nil
}

func (b ledger) plan(e Event) error {
	switch {
	case e.New == nil || e.New.Name == "":
		return unfit(e, "it names no allocation")
	case b.all[e.New.Name] != nil:
		return unfit(e, "allocation %s is there already", e.New.Name)
	}
	a := e.New.copy()
	a.State, a.Leases, a.Places, a.Times.Planned = Planned, nil, max(a.Places, 1), e.At
	if e.Reason != "" {
		a.Reason = e.Reason
	}
	b.enter(&a)
	return nil
}

// change changes an allocation by an event that fits, and tells whether that is to be stored.
func (b ledger) change(a *Allocation, e Event) bool {
	switch e.Kind {
	case Ask:
		a.State, a.Times.Asked, a.Absent = Submitting, e.At, 0
		b.pace.take(b.policy.Limits, e.At)
	case Accept:
		b.accept(a, e.BatchID, e.At)
	case Reject:
		a.Past.Refused = true
		b.end(a, e.At, e.Reason)
	case Defer:
		b.deferred(a, e)
	case Sign:
		return b.sign(a, e)
	case Grant, Began, Release:
		b.lease(a, e)
	case Assign:
		a.assign(e.Jobs, e.At)
	case Drain:
		a.Drain, a.Reason = true, e.Reason
	default:
		return b.watch(a, e)
	}
	return true
}

// watch changes an allocation by what was seen of it, or by what leads to its end.
func (b ledger) watch(a *Allocation, e Event) bool {
	switch e.Kind {
	case Saw:
		return b.saw(a, e)
	case Missed:
		return b.missed(a, e.At)
	case Inquire:
		a.Times.Inquired = e.At
	case Silent:
		if !a.answered() && a.State != Ended {
			b.end(a, e.At, "neither the scheduler nor its accounting knows it any more")
		}
	case Tell:
		b.tell(a, e)
	case Leave:
		a.leave(e.At, e.Reason)
	default: // End
		if a.State == Ended {
			return false
		}
		b.end(a, e.At, e.Reason)
	}
	return true
}

func (b ledger) accept(a *Allocation, id string, at time.Time) {
	if id != "" {
		a.BatchID = id
	}
	if a.Times.Queued.IsZero() {
		a.Times.Queued = at
		b.pace.accept()
	}
	if a.State == Submitting || a.State == Planned {
		a.State, a.Absent = Queued, 0
	}
}

func (b ledger) deferred(a *Allocation, e Event) {
	b.pace.refuse(b.counts[Queued]+b.counts[Submitting]-1, e.Until, e)
	if a.State == Ending { // it is not wanted any more, and was not submitted
		b.end(a, e.At, a.Reason)
		return
	}
	a.State, a.Reason, a.Times.NotBefore = Planned, e.Reason, b.pace.until
}

// signEvery is how old the last sign of life that is stored may be: it is of use only after a restart.
const signEvery = time.Minute

func (b ledger) sign(a *Allocation, e Event) bool {
	store := e.At.Sub(b.stored[a.Name]) >= signEvery
	if e.At.After(a.Times.LastSeen) {
		a.Times.LastSeen = e.At
	}
	if !e.Until.IsZero() && !e.Until.Equal(a.Times.Until) {
		a.Times.Until, store = e.Until, true
	}
	if a.Times.Started.IsZero() {
		a.Times.Started, a.Times.Idle, store = e.At, e.At, true
		if time := or(a.Shape.Walltime, b.policy.Walltime); a.Times.Until.IsZero() && time > 0 {
			a.Times.Until = e.At.Add(time)
		}
		a.Reason = e.Reason
	}
	if a.State != Ending && a.State != Started {
		a.State, store = Started, true
		b.pace.accept()
	}
	if store {
		b.stored[a.Name] = e.At
	}
	return store
}

func (b ledger) lease(a *Allocation, e Event) {
	// New slices: copies of the entry may still be read.
	leases := slices.Clone(a.Leases)
	switch e.Kind {
	case Grant:
		l := *e.Lease
		if l.Since.IsZero() {
			l.Since = e.At
		}
		if a.Uses == 0 && l.Domain != "" {
			a.Domain = l.Domain
		}
		leases = append(leases, l)
		a.Uses++
		a.For = without(a.For, l.ID)
		a.Times.Idle, a.Past.Spare = time.Time{}, 0
		b.homes[l.Job] = a
	case Began:
		leases[slices.IndexFunc(leases, func(l Lease) bool { return l.Job == e.Job })].Began = true
	default: // Release
		leases = slices.DeleteFunc(leases, func(l Lease) bool { return l.Job == e.Job })
		delete(b.homes, e.Job)
		if len(leases) == 0 {
			leases, a.Times.Idle = nil, e.At
		}
	}
	a.Leases = leases
}

func without(ids []int64, id int64) []int64 {
	if !slices.Contains(ids, id) {
		return ids
	}
	return slices.DeleteFunc(slices.Clone(ids), func(other int64) bool { return other == id })
}

// assign makes an allocation be for other jobs. What takes its jobs by itself has taken those that it is not for any more,
// once it runs.
func (a *Allocation) assign(jobs []int64, _ time.Time) {
	if a.Order == SelfTaking && !a.Times.Ran.IsZero() {
		for _, id := range a.For {
			if !slices.Contains(jobs, id) {
				a.Uses++
			}
		}
	}
	if a.For = slices.Clone(jobs); len(jobs) > 0 {
		a.Past.Spare, a.Past.Waits = 0, 0
	}
}

func (b ledger) saw(a *Allocation, e Event) bool {
	same := a.Batch == *e.Batch && a.Absent == 0
	a.Batch, a.Absent = *e.Batch, 0
	if a.State == Ended {
		return a.answered() || !same
	}
	if a.State == Submitting || a.State == Planned || a.BatchID == "" {
		same = false
		b.accept(a, e.Batch.ID, e.At)
	}
	if e.Batch.State.Final() {
		b.end(a, e.At, "")
		return true
	}
	waits := a.waits()
	return a.stands(e.At) || waits || !same
}

// waits counts the lists in which what takes its jobs by itself waited, although its jobs do not: they were not taken by it
// then. It tells whether that has changed.
func (a *Allocation) waits() bool {
	n := 0
	if a.Order == SelfTaking && len(a.For) == 0 && a.Past.Spare > 0 && a.Batch.State == tranter.BatchQueued {
		n = min(a.Past.Waits+1, waitLooks)
	}
	changed := n != a.Past.Waits
	a.Past.Waits = n
	return changed
}

// waitLooks is how many lists have to say that. The first may have been made before the jobs were taken.
const waitLooks = 2

// stands notes since when a batch job runs, or is said never to start, and tells whether that has changed.
func (a *Allocation) stands(at time.Time) bool {
	never := a.Batch.Never && a.Batch.State == tranter.BatchQueued
	switch {
	case a.Batch.State == tranter.BatchRunning && a.Times.Ran.IsZero():
		a.Times.Ran, a.Times.Never = at, time.Time{}
	case never && a.Times.Never.IsZero():
		a.Times.Never = at
	case !never && !a.Times.Never.IsZero() && a.State != Ending:
		a.Times.Never = time.Time{}
	default:
		return false
	}
	return true
}

// missed counts a list that does not name an allocation. What was only just submitted may not be in it yet.
func (b ledger) missed(a *Allocation, begun time.Time) bool {
	unknown := a.BatchID == "" && a.Times.Started.IsZero()
	switch {
	case a.State == Planned:
		return false
	case unknown && begun.Before(a.Times.Asked.Add(b.policy.SubmitWithin)):
		return false
	case !begun.After(a.Times.Queued):
		return false
	}
	a.Absent++
	if a.Absent >= absentLists && unknown && a.State == Ending {
		b.end(a, begun, a.Reason)
	}
	return true
}

// absentLists is how many lists in a row have to be without a batch job before that says something (hpc, section 5.3).
const absentLists = 2

func (b ledger) tell(a *Allocation, e Event) {
	if !a.Times.Never.IsZero() && a.Times.Started.IsZero() && e.At.Sub(a.Times.Never) >= b.policy.NeverAfter {
		a.Past.Refused = true
	}
	a.Times.Told = e.At
	if a.State == Planned {
		b.end(a, e.At, e.Reason)
		return
	}
	a.leave(e.At, e.Reason)
}

// answered notes that the accounting, asked after an allocation's end, has said what it knows.
func (a *Allocation) answered() bool {
	if a.State != Ended || a.Times.Inquired.Before(a.Times.Ended) || a.Past.Accounted {
		return false
	}
	a.Past.Accounted = true
	return true
}

func (a *Allocation) leave(at time.Time, reason string) {
	if a.State == Ending {
		return // again: since when and why stay as they are
	}
	a.State, a.Reason, a.Times.Ending, a.Absent = Ending, reason, at, 0
}

// end ends an allocation. Leases of jobs that had begun stay until they are released; the others are what it failed to do.
func (b ledger) end(a *Allocation, at time.Time, reason string) {
	served := a.Uses > 0
	var begun []Lease
	jobs := slices.Clone(a.For)
	for _, l := range a.Leases {
		if l.Began {
			begun = append(begun, l)
			continue
		}
		delete(b.homes, l.Job)
		jobs, served = append(jobs, l.ID), false
	}
	slices.Sort(jobs)
	a.For, a.Leases = slices.Compact(jobs), begun
	told := !a.Times.Ending.IsZero()
	switch {
	case told && !a.Past.Refused: // why it had to go is known
	case a.Batch.State.Final() && reason == "" && !a.Past.Refused:
		a.Reason = fallen(a.Batch)
	case reason != "":
		a.Reason = reason
	}
	a.State, a.Times.Ended = Ended, at
	a.Past.Idle = served && !a.Past.Refused && (a.Batch.State == tranter.BatchCompleted || told)
}

// listed notes that all jobs that wait were looked up anew. What is for nobody is counted; it goes when that is so for two
// looks (hpc, section 5.3).
func (b ledger) listed() {
	for _, a := range b.sorted {
		if coming(a) && len(a.For) == 0 && a.Past.Spare < spareLooks {
			a.Past.Spare++
			b.dirty[a.Name] = true
		}
	}
}

// spareLooks is how many looks an allocation that waits stays after the one that found it to be for nobody.
const spareLooks = 1

// coming tells whether an allocation is on its way and can still get a job.
func coming(a *Allocation) bool {
	return a.State == Planned || a.State == Submitting || a.State == Queued
}
