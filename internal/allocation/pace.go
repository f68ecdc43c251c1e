package allocation

import (
	"math"
	"time"
)

// Back-off after the scheduler had no room.
const (
	firstDefer   = 10 * time.Second
	longestDefer = 10 * time.Minute
	recovery     = time.Minute // in which the learned limit of what may wait grows by a tenth, at least by one
	capForgotten = time.Hour   // after which there is none
)

// pace is how fast may be submitted: a bucket of tokens, and what was learned of the scheduler's own limits (hpc, section 5.7).
type pace struct {
	tokens float64 // at the time full
	at     time.Time
	wait   time.Duration // of the last back-off
	until  time.Time     // nothing is submitted before
	cap    int           // most that may wait, as learned at capAt; 0: nothing was learned
	capAt  time.Time
	why    string
}

// level returns how many tokens there are.
func (p *pace) level(l Limits, now time.Time) float64 {
	if l.Rate <= 0 {
		return math.MaxInt32
	}
	burst := float64(max(l.Burst, 1))
	if p.at.IsZero() {
		return burst
	}
	return min(burst, p.tokens+max(0, now.Sub(p.at).Seconds())*l.Rate)
}

// take uses a token up.
func (p *pace) take(l Limits, now time.Time) {
	p.tokens, p.at = max(p.level(l, now)-1, 0), now
}

// next returns when there will be so many whole tokens, or as many as there may be; zero: there are already.
func (p *pace) next(l Limits, now time.Time, tokens int) time.Time {
	lack := float64(min(tokens, max(l.Burst, 1))) - p.level(l, now)
	if l.Rate <= 0 || lack <= 0 {
		return time.Time{}
	}
	return now.Add(time.Duration(math.Ceil(lack/l.Rate*float64(time.Second))) + time.Millisecond)
}

// refuse notes that there was no room, with so many waiting at the scheduler.
func (p *pace) refuse(waiting int, until time.Time, e Event) {
	if p.until.After(e.At) && until.IsZero() {
		return // many were asked for at once: they say the same thing again
	}
	p.wait = min(max(2*p.wait, firstDefer), longestDefer)
	if until.IsZero() {
		until = e.At.Add(p.wait)
		p.cap, p.capAt = max(waiting/2, 1), e.At
	}
	if until.After(p.until) {
		p.until = until
	}
	p.why = e.Reason
}

// accept notes that there was room.
func (p *pace) accept() { p.wait = 0 }

// limit returns how many may wait at the scheduler as far as was learned; 0: no limit is known.
func (p *pace) limit(now time.Time) int {
	since := now.Sub(p.capAt)
	if p.cap == 0 || since >= capForgotten {
		return 0
	}
	return p.cap + int(since/recovery)*max(p.cap/10, 1)
}
