package manager

import (
	"math"
	"time"
)

// outcome is how a request for a job went.
type outcome int

const (
	gotJob   outcome = iota
	noJob            // and the server is fine
	refused          // the token is not valid, or the runner was removed
	unwell           // the server can't or won't answer now
	notAsked         // the request was not sent, or its end was wanted
)

// pace decides when a runner asks next and how many requests it may have under way. It is a value: no clock, no lock.
type pace struct {
	interval time.Duration
	limits   Limits

	next     time.Time // no request before
	width    float64   // requests that may be under way (runner contract, section 1.9)
	refusals int       // in a row
	paused   bool      // until next, because of refusals
}

// after takes in the outcome of a request that was started at start and ended at now; later is the server's own wish
// for a pause, or 0. A runner that was refused too often pauses, and asks once when the pause is over.
func (p pace) after(o outcome, start, now time.Time, later time.Duration) pace {
	p.width = max(p.width, 1)
	switch o {
	case gotJob:
		p.refusals, p.paused = 0, false
		p.width *= 1.1
		p.next = now
		if p.limits.Strict {
			p.next = start.Add(p.interval)
		}
	case noJob:
		p.refusals, p.paused = 0, false
		p.width *= 0.95
		p.next = start.Add(p.interval)
	case refused:
		p.refusals++
		p.next = start.Add(p.interval)
		if p.refusals >= p.limits.faults() {
			p.paused = true
			p.next = now.Add(p.limits.pause())
		}
	case unwell:
		p.width *= 0.5
		p.next = start.Add(p.interval)
	case notAsked:
		p.next = start.Add(p.interval)
	}
	if wish := now.Add(later); later > 0 && wish.After(p.next) {
		p.next = wish
	}
	p.width = min(max(p.width, 1), float64(p.limits.requests()))
	return p
}

// requests is how many requests may be under way.
func (p pace) requests() int { return min(max(1, int(math.Ceil(p.width))), p.limits.requests()) }
