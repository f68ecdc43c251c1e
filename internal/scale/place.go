package scale

import (
	"slices"

	"github.com/tranter-ci/tranter/internal/fleet"
)

// place gives the jobs that wait their machines, in their order: machines that have jobs and room first, so that the others
// can go; then of the idle ones the one that was used last. After it free has the idle machines that stay idle.
func (d *decision) place() {
	if len(d.book.Waiting) == 0 {
		return
	}
	slices.SortFunc(d.open, byFullness)
	slices.SortFunc(d.free, func(a, b seat) int { return byAge(b, a) })
	seats := make([]seat, 0, len(d.open)+len(d.free))
	seats = append(append(seats, d.open...), d.free...)
	first := 0
	for i, w := range d.book.Waiting {
		for first < len(seats) && seats[first].room == 0 {
			first++
		}
		if first == len(seats) {
			d.jobs += len(d.book.Waiting) - i
			break
		}
		s := d.seatFor(w, seats[first:])
		if s == nil {
			d.jobs++
			continue
		}
		d.lease(w.Job, s)
	}
	d.settle(seats)
}

// seatFor returns the first seat that the job may have.
func (d *decision) seatFor(w fleet.Waiting, seats []seat) *seat {
	avoid := w.Avoid
	if len(avoid) > 0 && d.places != nil && !d.otherThan(avoid) {
		avoid = nil // better one that has failed the job than none
	}
	for i := range seats {
		if seats[i].room > 0 && !slices.Contains(avoid, seats[i].m.Name) {
			return &seats[i]
		}
	}
	return nil
}

// otherThan tells whether there are machines, ready or soon, besides those.
func (d *decision) otherThan(avoid []string) bool {
	for name := range d.places {
		m := d.book.Machines[name]
		if m != nil && m.State != fleet.Removing && m.State != fleet.Draining && !slices.Contains(avoid, name) {
			return true
		}
	}
	return false
}

func (d *decision) lease(job string, s *seat) {
	why := "it has room beside other jobs"
	if s.m.State == fleet.Idle && s.gets == 0 {
		d.busy++
		why = "it was idle"
	}
	s.room--
	s.gets++
	d.do = append(d.do, Action{Do: Lease, Machine: s.m.Name, Job: job, Reason: why})
}

// settle keeps the idle machines that got no job in free, and ends those that have got their last ones.
func (d *decision) settle(seats []seat) {
	d.free = d.free[:0]
	for _, s := range seats {
		switch {
		case s.m.State == fleet.Idle && s.gets == 0:
			d.free = append(d.free, s)
		case s.gets > 0 && d.p.MaxUses > 0 && s.m.Uses+s.gets >= d.p.MaxUses:
			d.do = append(d.do, Action{Do: Drain, Machine: s.m.Name, Reason: d.p.wornText()})
		}
	}
}
