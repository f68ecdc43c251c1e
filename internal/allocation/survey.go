package allocation

import (
	"fmt"
	"time"

	"github.com/tranter-ci/tranter"
)

// How often what had no effect is done again.
const (
	tellAgain    = time.Minute      // since it was cancelled
	leaveWithin  = 2 * time.Minute  // for what runs in it to end by itself, once it has started
	endWithin    = 2 * time.Minute  // for what was cancelled to be over, before another one is made for its jobs
	inquireAgain = 10 * time.Second // the accounting
	accountLimit = time.Minute      // for the accounting to say what one that has ended has used
)

// inspection is the decision about each allocation by itself.
type inspection struct{ *decision }

// survey looks at every allocation once: what its own state and age demand is decided, the others are seats.
func (d inspection) survey() {
	for _, a := range d.book.sorted {
		for i := range a.Leases {
			d.leased[a.Leases[i].ID] = true
		}
		switch {
		case a.State == Ended:
			d.fallen(a)
		case d.lost(a):
		case d.retire(a):
			d.hold(a)
		case a.State != Ending:
			d.seat(a)
		}
	}
}

// hold has the jobs of an allocation that is on its way out wait for what its end tells, before another one is made.
func (d inspection) hold(a *Allocation) {
	until := d.now.Add(endWithin)
	if !a.Times.Ending.IsZero() {
		until = a.Times.Ending.Add(endWithin)
	}
	for _, id := range a.For {
		d.held[id] = until
	}
}

// fallen tells the jobs that had begun in an allocation that has ended, and notes what it means for the others.
func (d inspection) fallen(a *Allocation) {
	d.failLeases(a)
	d.ended = append(d.ended, a)
	if a.Past.Refused {
		d.block(a)
	}
	if a.Past.Idle {
		return
	}
	for _, id := range a.For {
		if o := d.failed[id]; o == nil || a.Attempt > o.Attempt || a.Attempt == o.Attempt && a.Times.Ended.After(o.Times.Ended) {
			d.failed[id] = a
		}
	}
}

func (d inspection) failLeases(a *Allocation) {
	for _, l := range a.Leases {
		if l.Began {
			text, _ := Outcome(*a, true)
			d.do = append(d.do, Action{Kind: Fail, Allocation: a.Name, Job: l.Job, ID: l.ID, Reason: text, Class: Lost})
		}
	}
}

// lost decides about an allocation that the scheduler does not name, or of which nobody knows whether it has it.
func (d inspection) lost(a *Allocation) bool {
	if a.Absent < absentLists || a.State == Planned {
		return false
	}
	if a.BatchID == "" && a.Times.Started.IsZero() {
		if a.State == Submitting && len(a.For) > 0 {
			d.do = append(d.do, Action{Kind: Look, Allocation: a.Name})
			d.seat(a)
			return true
		}
		return false
	}
	if a.Times.Inquired.IsZero() || d.due(a.Times.Inquired.Add(inquireAgain)) {
		d.do = append(d.do, Action{Kind: Account, Allocation: a.Name})
	}
	return false
}

// retire decides about an allocation that has to go whatever waits. It is false for one that may stay.
func (d inspection) retire(a *Allocation) bool {
	switch a.State {
	case Ending:
		d.ending(a)
		return true
	case Queued, Submitting:
		return d.stuck(a)
	case Started:
		return d.over(a)
	default:
		return false
	}
}

// ending cancels again what was told to end and has not.
func (d inspection) ending(a *Allocation) {
	if d.silent(a) {
		d.failLeases(a)
	}
	if a.BatchID == "" {
		return // what the scheduler is being asked for can't be cancelled yet; it is once it is accepted
	}
	why := a.Reason
	switch {
	case a.Times.Told.IsZero():
		if d.due(a.Times.Ending.Add(leaveWithin)) {
			d.cancel(a, true, why)
		}
	case a.Times.Started.IsZero() && a.Times.Told.Before(a.Times.Queued):
		d.cancel(a, true, why)
	case a.Times.Started.IsZero() || a.Times.Told.Sub(a.Times.Ending) >= leaveWithin:
		if d.due(a.Times.Told.Add(tellAgain)) {
			d.cancel(a, true, why)
		}
	default:
		if d.due(a.Times.Ending.Add(leaveWithin)) {
			d.cancel(a, true, why)
		}
	}
}

// stuck decides about what never starts, or runs and never says so.
func (d inspection) stuck(a *Allocation) bool {
	switch never := a.Times.Never; {
	case !never.IsZero() && d.due(never.Add(d.p.NeverAfter)):
		d.cancel(a, false, "the scheduler says that it can never start: "+first(a.Batch.Reason, "no reason is given"))
		return true
	case a.Order == SelfTaking || a.Times.Ran.IsZero() || a.Batch.State != tranter.BatchRunning:
		return false
	case d.due(a.Times.Ran.Add(d.p.StartAfter)):
		d.cancel(a, true, fmt.Sprintf("it runs for %s without a sign of life", d.p.StartAfter))
		return true
	}
	return false
}

// over decides about what has started and is of no more use.
func (d inspection) over(a *Allocation) bool {
	if d.silent(a) {
		d.cancel(a, true, fmt.Sprintf("there was no sign of life for %s", d.p.LostAfter))
		return true
	}
	if len(a.Leases) > 0 {
		return false
	}
	why := ""
	switch {
	case a.Drain:
		why = first(a.Reason, "it takes no more jobs")
	case d.p.MaxUses > 0 && a.Uses >= d.p.MaxUses:
		why = "it has had all the jobs that it may have"
	case !a.Times.Until.IsZero() && d.due(a.Times.Until.Add(-d.p.Margin)) && a.Uses > 0,
		!a.Times.Until.IsZero() && d.due(a.Times.Until):
		why = "its time is over"
	default:
		return false
	}
	d.cancel(a, false, why)
	return true
}

// silent tells whether what runs in an allocation has given no sign of life for too long, although the scheduler does not
// say that it has ended. Silence from before a restart of ours does not count.
func (d inspection) silent(a *Allocation) bool {
	seen := a.Times.LastSeen
	if a.Times.Started.IsZero() || d.book.awake.IsZero() || a.Batch.State == tranter.BatchQueued {
		return false
	}
	if d.book.awake.After(seen) {
		seen = d.book.awake
	}
	return d.due(seen.Add(d.p.LostAfter))
}
