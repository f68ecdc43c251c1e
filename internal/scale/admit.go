package scale

import (
	"time"

	"github.com/tranter-ci/tranter/internal/fleet"
)

// Admit says whether one more job could be run: on a machine that has room for it besides the jobs that wait already, on one
// that is coming, or on one that may be created. That machines are created a few at a time only makes it wait.
func Admit(b *fleet.Book, p Policy, now time.Time) Verdict {
	needed := len(b.Waiting) + 1
	room := p.roomAll(b, now, needed)
	if room >= needed {
		return Verdict{OK: true}
	}
	if len(p.Fixed) > 0 {
		return Verdict{Reason: "all machines are busy or away"}
	}
	if p.Limit > 0 && room+max(0, p.Limit-b.Live())*p.each() < needed {
		return Verdict{Reason: "all machines are busy, and there may be no more than " + count(p.Limit, "machine")}
	}
	if now.Before(b.Throttle) {
		return Verdict{Reason: "the provider wants no requests for now", Retry: b.Throttle}
	}
	if len(p.Sets) == 0 {
		return Verdict{Reason: "no way to create a machine is configured"}
	}
	if o := soonest(b, p.Sets); now.Before(o.Until) {
		return Verdict{Reason: because("no machine can be had for now", o.Why), Retry: o.Until}
	}
	return Verdict{OK: true}
}

// roomAll is for how many jobs there is room, or will be without another machine being created. It does not count beyond
// enough.
func (p *Policy) roomAll(b *fleet.Book, now time.Time, enough int) int {
	room := 0
	asked := !now.Before(b.Throttle)
	for _, m := range b.Machines {
		if room >= enough {
			break
		}
		if p.MaxAge > 0 && !now.Before(m.Made.Add(p.MaxAge)) {
			continue
		}
		switch m.State {
		case fleet.Idle, fleet.Leased:
			room += p.room(m)
		case fleet.Wanted, fleet.Booting:
			if now.Before(m.Deadline) {
				room += p.room(m)
			}
		case fleet.Stopped:
			if asked {
				room += p.room(m)
			}
		default:
		}
	}
	return room
}
