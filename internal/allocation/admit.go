package allocation

import "time"

// Verdict says whether a job may be taken from GitLab.
type Verdict struct {
	OK     bool
	Reason string    // why not, for people
	Retry  time.Time // when to ask again if no event happens before; zero: only an event can change it
	Free   int       // places that run and that no taken job waits for; 0 if it is not for them that a job may be taken
}

// Admit says whether one job more may be taken, with so many taken ones that have no place yet: a job that is taken here is
// taken from other runners. Allocate first: if a place for it runs. Take first: if a place runs, or a batch job may be
// submitted for it. What takes its jobs itself: never.
func Admit(b *Book, waiting int, now time.Time) Verdict {
	p := b.policy
	if p.Order == SelfTaking {
		return Verdict{Reason: "what is launched takes its jobs by itself"}
	}
	free, made := 0, 0
	for _, a := range b.sorted {
		free += a.room(p, now)
		if coming(a) {
			made += len(a.For)
		}
	}
	switch {
	case free > waiting:
		return Verdict{OK: true, Free: free - waiting}
	case p.Order == AllocateFirst:
		return Verdict{Reason: "no place for a job runs"}
	}
	return b.admitOne(max(0, waiting-made-free), now)
}

// Room says whether one allocation more may be made now, as far as limits and what the scheduler has said go.
func Room(b *Book, now time.Time) Verdict { return b.admitOne(0, now) }

// admitOne says whether an allocation may be made when so many jobs need one already.
func (b *Book) admitOne(needed int, now time.Time) Verdict {
	l, queued := b.policy.Limits, needed
	for _, a := range b.sorted {
		if coming(a) && a.Times.Ran.IsZero() {
			queued++
		}
	}
	learned := b.pace.limit(now)
	switch {
	case b.pace.until.After(now):
		return Verdict{Reason: "the scheduler has no room: " + b.pace.why, Retry: b.pace.until}
	case l.Queued > 0 && queued >= l.Queued:
		return Verdict{Reason: "as many batch jobs wait as may"}
	case l.Total > 0 && b.Live()+needed >= l.Total:
		return Verdict{Reason: "there are as many batch jobs as may be"}
	case learned > 0 && queued >= learned:
		return Verdict{Reason: "the scheduler had no room for more batch jobs a while ago", Retry: now.Add(recovery)}
	case b.pace.level(l, now) < float64(1+needed+b.counts[Planned]):
		return Verdict{Reason: "no more batch jobs are to be submitted at a time", Retry: b.pace.next(l, now, 1+needed+b.counts[Planned])}
	}
	return Verdict{OK: true}
}
