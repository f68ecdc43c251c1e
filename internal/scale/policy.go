package scale

import (
	"fmt"
	"time"

	"github.com/tranter-ci/tranter/internal/fleet"
)

// IdleAt returns the idle settings that hold at a time: those of the last period that matches, or the policy's own (runner
// contract, section 9.13).
func (p Policy) IdleAt(now time.Time) Idle {
	for i := len(p.Periods) - 1; i >= 0; i-- {
		if p.Periods[i].matches(now) {
			return p.Periods[i].Idle
		}
	}
	return p.Idle
}

func (p *Period) zone() *time.Location {
	if p.Zone == nil {
		return time.Local
	}
	return p.Zone
}

func (p *Period) matches(now time.Time) bool {
	t := now.In(p.zone())
	for _, c := range p.Times {
		if c.Match(t) {
			return true
		}
	}
	return false
}

// Target returns how many idle machines are wanted now.
func Target(b *fleet.Book, p Policy, now time.Time) int { return p.IdleAt(now).target(b.Busy()) }

// target is the number of idle machines that are wanted while so many have a job (docker-machine, section 3.3).
func (i Idle) target(busy int) int {
	if i.Factor <= 0 {
		return max(0, i.Count)
	}
	scaled := float64(busy) * i.Factor
	if scaled >= float64(i.Count) {
		return max(0, i.Count)
	}
	return max(0, min(i.Count, max(i.Min, 1, int(scaled))))
}

// places returns how many jobs each of the fixed machines takes, or nil if there are none.
func (p *Policy) places() map[string]int {
	if len(p.Fixed) == 0 {
		return nil
	}
	places := make(map[string]int, len(p.Fixed))
	for _, name := range p.Fixed {
		places[name] = p.capacity(name)
	}
	return places
}

func (p *Policy) capacity(machine string) int {
	if n := p.Places[machine]; n > 0 {
		return n
	}
	return max(1, p.Capacity)
}

// room is how many jobs more a machine takes.
func (p *Policy) room(m *fleet.Machine) int {
	room := p.capacity(m.Name) - len(m.Leases)
	if p.MaxUses > 0 {
		room = min(room, p.MaxUses-m.Uses)
	}
	return max(0, room)
}

// each is how many jobs a new machine takes at once.
func (p *Policy) each() int {
	if p.MaxUses > 0 {
		return min(max(1, p.Capacity), p.MaxUses)
	}
	return max(1, p.Capacity)
}

func (p *Policy) wornText() string { return "it has had " + count(p.MaxUses, "job") }

// count says how many there are of something.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
