package allocation

import (
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// closing is the decision about what is for nobody, and about what has only to be begun or forgotten.
type closing struct{ *decision }

// surplus ends what is for nobody.
func (d closing) surplus() {
	for _, s := range d.seats {
		a := s.a
		if len(s.needs) > 0 || s.placed || len(a.Leases) > 0 {
			continue
		}
		switch {
		case a.State == Started:
			d.linger(a)
		case a.Order == SelfTaking && a.State != Planned:
			d.served(a)
		case a.State == Planned, a.Order == TakeFirst, a.Past.Spare > spareLooks-1 && len(a.For) == 0:
			d.cancel(a, false, "no job waits for it any more")
		}
	}
}

// served ends what takes its jobs by itself and is for nobody, unless jobs may run in it: then it ends by itself.
func (d closing) served(a *Allocation) {
	switch {
	case a.State == Queued && a.Past.Waits >= waitLooks, a.State == Submitting && a.Absent >= absentLists && len(a.For) == 0:
		d.cancel(a, false, "no job waits for it any more")
	case !a.Batch.Ended.IsZero() && a.Batch.State == tranter.BatchRunning: // its command has ended: nothing more is seen of it
		d.cancel(a, false, "all its jobs were taken")
	}
}

// linger ends what has started and has no job for long enough.
func (d closing) linger(a *Allocation) {
	until, why := a.Times.Idle.Add(d.p.Linger), "its jobs are done"
	if a.Uses == 0 {
		until, why = a.Times.Started.Add(d.p.TakeTimeout), "no job has come for it"
	}
	if a.Uses > 0 && d.pressed || d.due(until) {
		d.cancel(a, false, why)
	}
}

// submit hands in what is planned, the most urgent first.
func (d closing) submit() {
	pace, waiting := &d.book.pace, d.book.counts[Submitting]+d.book.counts[Queued]
	var ready []*seat
	for _, s := range d.seats {
		if s.a.State == Planned && len(s.needs) > 0 && d.due(s.a.Times.NotBefore) {
			ready = append(ready, s)
		}
	}
	if len(ready) == 0 || !d.due(pace.until) {
		return
	}
	slices.SortFunc(ready, func(x, y *seat) int {
		if by := x.rank() - y.rank(); by != 0 {
			return by
		}
		return strings.Compare(x.a.Name, y.a.Name)
	})
	tokens, learned := pace.level(d.p.Limits, d.now), pace.limit(d.now)
	for _, s := range ready {
		switch {
		case tokens < 1:
			d.at(pace.next(d.p.Limits, d.now, 1))
			return
		case learned > 0 && waiting >= learned:
			d.at(d.now.Add(recovery))
			return
		}
		tokens--
		waiting++
		d.do = append(d.do, Action{Kind: Submit, Allocation: s.a.Name})
	}
}

// rank is how urgent the most urgent of a seat's jobs is.
func (s *seat) rank() int {
	least := s.needs[0].rank
	for _, n := range s.needs {
		least = min(least, n.rank)
	}
	return least
}

// drop forgets what has ended and is of no more use: it tells no job why it failed, and blocks nothing.
func (d closing) drop() {
	needed := map[*Allocation]bool{}
	for _, ns := range [...][]*need{d.taken, d.waiting} {
		for _, n := range ns {
			if n.past != nil {
				needed[n.past] = true
			}
		}
	}
	for _, a := range d.ended {
		if len(a.Leases) > 0 || !d.accounted(a) || needed[a] || d.remembered(a) || d.failsNow(a) {
			continue
		}
		d.do = append(d.do, Action{Kind: Drop, Allocation: a.Name})
	}
}

// failsNow tells whether a job is only just told that it fails because of an allocation.
func (d closing) failsNow(a *Allocation) bool {
	return slices.ContainsFunc(d.do, func(do Action) bool { return do.Kind == Fail && d.failed[do.ID] == a })
}

// remembered tells whether a refusal still counts.
func (d closing) remembered(a *Allocation) bool {
	return a.Past.Refused && !d.due(a.Times.Ended.Add(keptRefusals*pause(firstBlock, a.Past.Refusals, longestBlock)))
}

// accounted tells whether all is known that the accounting may say of one that has ended.
func (d closing) accounted(a *Allocation) bool {
	switch {
	case a.BatchID == "" || a.Times.Ran.IsZero() && a.Times.Started.IsZero() || a.Past.Accounted || a.Batch.Usage != (tranter.Usage{}):
		return true
	case a.Times.Inquired.Before(a.Times.Ended):
		d.do = append(d.do, Action{Kind: Account, Allocation: a.Name})
		return false
	}
	return d.due(a.Times.Inquired.Add(accountLimit))
}

// room is how many places of what has started are free for jobs that are not taken yet.
func (a *Allocation) room(p Policy, now time.Time) int {
	if a.State != Started || a.Drain {
		return 0
	}
	left := a.Places - len(a.Leases)
	if p.MaxUses > 0 {
		left = min(left, p.MaxUses-a.Uses)
	}
	leaving := a.leaving(p)
	switch until := a.Times.Until; {
	case left <= 0, !leaving.IsZero() && !now.Before(leaving), !until.IsZero() && until.Sub(now) <= p.Margin && a.Uses > 0, !until.IsZero() && !now.Before(until):
		return 0
	case a.Uses > 0 && !until.IsZero() && p.Order == AllocateFirst:
		return min(left, len(a.For)) // only for the jobs of which it is known that they still fit
	}
	return left
}
