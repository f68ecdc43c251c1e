package scale

import (
	"slices"
	"time"

	"github.com/tranter-ci/tranter/internal/fleet"
)

// keeps tells whether a machine is not to be removed for being spare.
func (d *decision) keeps(m *fleet.Machine) bool { return m.ByHand || d.places != nil }

// makeRoom removes what has no job where there are more machines than the limit allows, such as after it was lowered, or
// where jobs wait for a machine that the limit forbids: all that are idle have failed them.
func (d *decision) makeRoom() {
	if d.p.Limit == 0 || d.places != nil {
		return
	}
	n := d.book.Live() + d.made + d.blocked - d.going - d.p.Limit
	if n <= 0 {
		return
	}
	why := "there are more machines than the limit of " + count(d.p.Limit, "machine")
	if d.blocked > 0 {
		why = "it has failed a job that waits, and there may be no more than " + count(d.p.Limit, "machine")
	}
	off := min(n, len(d.off))
	for _, m := range d.off[:off] {
		d.remove(m, why)
	}
	d.off = d.off[off:]
	slices.SortFunc(d.free, byAge)
	n -= off
	d.free = slices.DeleteFunc(d.free, func(s seat) bool {
		if n <= 0 || d.keeps(s.m) {
			return false
		}
		n--
		d.remove(s.m, why)
		return true
	})
}

// emptyTier removes stopped machines that are too many or have been off for too long, the longest first.
func (d *decision) emptyTier() {
	spare := len(d.off) - d.p.Stopped
	kept := d.off[:0]
	for i, m := range d.off {
		switch {
		case i < spare:
			d.remove(m, "no more than "+count(d.p.Stopped, "machine")+" may be kept switched off")
		case d.p.StoppedTime > 0 && d.due(m.Since.Add(d.p.StoppedTime)):
			d.remove(m, "it was switched off for "+d.p.StoppedTime.String())
		default:
			kept = append(kept, m)
		}
	}
	d.off = kept
}

// shrink stops or removes idle machines that nobody needs, the one that was idle longest first, once it was idle for as long
// as it should. It asks what grow asks: what it removes, grow would not create.
func (d *decision) shrink() {
	surplus := len(d.free) - d.target()
	if surplus <= 0 {
		return
	}
	before := d.now.Add(-d.idle.Time).UnixNano()
	var spare []seat
	var next time.Time
	for _, s := range d.free {
		switch {
		case d.keeps(s.m):
		case s.used <= before:
			spare = append(spare, s)
		case next.IsZero() || s.m.Used.Before(next):
			next = s.m.Used
		}
	}
	slices.SortFunc(spare, byAge)
	n := min(surplus, len(spare))
	for _, s := range spare[:n] {
		d.rest(s.m)
	}
	if n < surplus && !next.IsZero() {
		d.at(next.Add(d.idle.Time))
	}
}

// rest stops a machine if some more may be kept so, or else removes it.
func (d *decision) rest(m *fleet.Machine) {
	why := "it was not needed for " + d.now.Sub(m.Used).Truncate(time.Second).String()
	if len(d.off) >= d.p.Stopped {
		d.remove(m, why)
		return
	}
	d.off = append(d.off, m)
	d.do = append(d.do, Action{Do: Stop, Machine: m.Name, Reason: why})
	if d.p.StoppedTime > 0 {
		d.at(d.now.Add(d.p.StoppedTime))
	}
}
