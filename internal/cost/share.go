package cost

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// span is a stretch of time, in Unix nanoseconds; the end is not in it.
type span struct{ from, to int64 }

// Bounds of the times that count, so that no sum of two overflows.
const (
	longAgo  = -1 << 61
	farAhead = 1 << 62
	longest  = 100 * 365 * 24 * time.Hour // that a life can be, whatever its times say
)

// spanOf is the stretch between two times; a zero one is no bound.
func spanOf(from, to time.Time) span {
	s := span{longAgo, farAhead}
	if !from.IsZero() {
		s.from = nanos(from)
	}
	if !to.IsZero() {
		s.to = nanos(to)
	}
	return s
}

// nanos is a time in nanoseconds; one that has no number is the nearest that has.
func nanos(t time.Time) int64 {
	switch year := t.Year(); {
	case year < 1900:
		return longAgo
	case year > 2110:
		return farAhead
	}
	return t.UnixNano()
}

// cut is the part of s that is in other.
func (s span) cut(other span) span { return span{max(s.from, other.from), min(s.to, other.to)} }

func (s span) length() int64 { return max(0, s.to-s.from) }

func (s span) has(t time.Time) bool { n := nanos(t); return n >= s.from && n < s.to }

// paidSpan is what is paid for of a life, at its rate: what a minimum or whole steps add lies behind its end. Thus what is paid in a
// time adds up, however a time is divided.
func (l *Life) paidSpan(r Rate, now time.Time) (there, paid span) {
	made := nanos(l.Made)
	if made == longAgo || made == farAhead {
		return span{}, span{}
	}
	length := min(l.end(now).Sub(l.Made), longest)
	return span{made, made + int64(length)}, span{made, made + int64(min(r.paid(length), 2*longest))}
}

// walk visits the stretches of a life in which the same jobs held the machine, in the order of time; those without a job too. The
// jobs are only good during the call.
func (l *Life) walk(there, paid span, visit func(s span, jobs []string)) {
	holds := l.holdsIn(there)
	at := paid.from
	var active []heldSpan
	var jobs []string
	step := func(to int64) {
		if to = min(to, paid.to); to <= at {
			return
		}
		jobs = jobs[:0]
		for _, a := range active {
			jobs = append(jobs, a.job)
		}
		visit(span{at, to}, jobs)
		at = to
	}
	leave := func(until int64) { // those that leave until then, in their order
		for len(active) > 0 {
			first := slices.MinFunc(active, func(a, b heldSpan) int { return cmp.Compare(a.to, b.to) })
			if first.to > until {
				return
			}
			step(first.to)
			active = slices.DeleteFunc(active, func(a heldSpan) bool { return a.to <= first.to })
		}
	}
	for _, h := range holds {
		leave(h.from)
		step(h.from)
		active = append(active, h)
	}
	leave(math.MaxInt64)
	step(paid.to)
}

// heldSpan is when a job held a machine.
type heldSpan struct {
	span

	job string
}

// holdsIn are the holds of a life while it was there, by their beginning.
func (l *Life) holdsIn(there span) []heldSpan {
	out := make([]heldSpan, 0, len(l.Holds))
	sorted := true
	for _, h := range l.Holds {
		s := spanOf(h.Start, h.End).cut(there)
		if s.length() == 0 {
			continue
		}
		sorted = sorted && (len(out) == 0 || out[len(out)-1].from <= s.from)
		out = append(out, heldSpan{s, h.Job})
	}
	if !sorted {
		slices.SortStableFunc(out, func(a, b heldSpan) int { return cmp.Compare(a.from, b.from) })
	}
	return out
}

// part is the share of one of several jobs in a time: equal parts, whose sum is the whole.
func part(length int64, i, n int) time.Duration {
	d := length / int64(n)
	if int64(i) < length%int64(n) {
		d++
	}
	return time.Duration(d)
}
