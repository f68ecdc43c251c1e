package scale

import (
	"fmt"
	"slices"

	"github.com/tranter-ci/tranter/internal/fleet"
)

// target is how many idle machines are wanted once the jobs are placed.
func (d *decision) target() int { return d.idle.target(d.busy) }

// grow starts and creates what is missing for jobs that wait and for the idle target, as far as the growth rate and the
// limit allow. Machines that are coming count for the jobs first.
func (d *decision) grow() {
	if d.places != nil {
		return
	}
	per := d.p.each()
	used := (d.jobs + per - 1) / per
	forJobs := max(0, used-d.coming)
	forIdle := max(0, d.target()-len(d.free)-max(0, d.coming-used))
	missing := forJobs + forIdle
	if missing == 0 || !d.due(d.book.Throttle) {
		return
	}
	if d.p.Growth > 0 {
		missing = min(missing, max(0, d.p.Growth-d.coming))
	}
	whys := whys{forJobs: forJobs, jobs: count(d.jobs, "job") + " without a machine"}
	if forIdle > 0 {
		whys.idle = fmt.Sprintf("idle machines: %d of %d", d.target()-forIdle, d.target())
	}
	started := d.start(missing, whys)
	if started == missing {
		return
	}
	set, ok := d.set()
	if !ok {
		return
	}
	made := d.create(missing-started, set, started, whys)
	d.blocked = max(0, min(missing, forJobs)-started-made)
}

// whys are the reasons of what grow does: the first ones are for jobs, the others for the idle target.
type whys struct {
	forJobs    int
	jobs, idle string
}

func (w whys) of(i int) string {
	if i < w.forJobs {
		return w.jobs
	}
	return w.idle
}

// start switches on up to n machines, the one that was stopped last first.
func (d *decision) start(n int, w whys) int {
	n = min(n, len(d.off))
	for i := range n {
		last := len(d.off) - 1
		d.do = append(d.do, Action{Do: Start, Machine: d.off[last].Name, Reason: w.of(i)})
		d.off = d.off[:last]
	}
	d.coming += n
	return n
}

// create creates up to n machines.
func (d *decision) create(n int, set string, from int, w whys) int {
	if d.p.Limit > 0 {
		n = min(n, max(0, d.p.Limit-d.book.Live()))
	}
	d.do = slices.Grow(d.do, n)
	for i := range n {
		d.do = append(d.do, Action{Do: Create, Set: set, Reason: w.of(from + i)})
	}
	d.coming += n
	d.made = n
	return n
}

// set returns the first option set that may be tried. If there is none, it notes when there will be.
func (d *decision) set() (string, bool) {
	for _, s := range d.p.Sets {
		if !d.book.Offers[s.Name].Until.After(d.now) {
			return s.Name, true
		}
	}
	d.at(soonest(d.book, d.p.Sets).Until)
	return "", false
}

// fixed takes the machines into use that are always there. What is learned of one is learned of it alone: its set is its name.
func (d *decision) fixed() {
	for i, name := range d.p.Fixed {
		switch {
		case d.book.Machines[name] != nil || slices.Contains(d.p.Fixed[:i], name):
		case d.p.Growth > 0 && d.coming >= d.p.Growth:
		case d.due(d.book.Throttle) && d.due(d.book.Offers[name].Until):
			d.coming++
			d.do = append(d.do, Action{Do: Create, Machine: name, Set: name, Reason: "it is configured"})
		}
	}
}

// soonest returns what is known of the option set that may be tried again first.
func soonest(b *fleet.Book, sets []Set) (first fleet.Offer) {
	for _, s := range sets {
		o := b.Offers[s.Name]
		if first.Until.IsZero() || o.Until.Before(first.Until) {
			first = o
		}
	}
	return first
}
