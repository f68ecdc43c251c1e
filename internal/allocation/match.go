package allocation

import (
	"cmp"
	"slices"
	"time"
)

// need is a job that needs a place.
type need struct {
	w     *Want
	key   key
	size  size
	got   *seat       // the place that it gets or has in prospect
	own   *seat       // the place that it had in prospect so far
	past  *Allocation // that was for it and failed
	after time.Time   // no allocation is made for it before
	rank  int
}

// matching is the decision which job gets which place.
type matching struct{ *decision }

// admitWants sorts the wants, most urgent first, and fails those that can't be had.
func (d matching) admitWants(wants []Want) {
	own := map[int64]*seat{}
	for _, s := range d.seats {
		for _, id := range s.a.For {
			if own[id] == nil {
				own[id] = s
			}
		}
	}
	taken := make(map[int64]bool, len(wants))
	for i := range wants {
		w := &wants[i]
		if d.leased[w.ID] || w.Key != "" && d.book.homes[w.Key] != nil {
			continue // it was listed a moment before it was taken
		}
		n := &need{w: w, key: keyOf(w.User, &w.Shape), size: sizeOf(&w.Shape, 1), own: own[w.ID], past: d.failed[w.ID]}
		if w.Key == "" {
			d.waiting = append(d.waiting, n)
			continue
		}
		taken[w.ID] = true
		d.taken = append(d.taken, n)
	}
	slices.SortFunc(d.taken, urgent)
	slices.SortFunc(d.waiting, urgent)
	d.taken = slices.DeleteFunc(slices.CompactFunc(d.taken, same), d.give)
	d.waiting = slices.DeleteFunc(slices.CompactFunc(d.waiting, same), func(n *need) bool { return taken[n.w.ID] })
	for i, n := range slices.Concat(d.taken, d.waiting) {
		n.rank = i
		if n.after = d.again(n.past); d.held[n.w.ID].After(n.after) {
			n.after = d.held[n.w.ID]
		}
	}
}

func urgent(x, y *need) int {
	return cmp.Or(cmp.Compare(y.w.Priority, x.w.Priority), x.w.Since.Compare(y.w.Since), cmp.Compare(x.w.ID, y.w.ID), cmp.Compare(x.w.Key, y.w.Key))
}

func same(x, y *need) bool { return x.w.ID == y.w.ID }

// give fails a taken job for which nothing more is to be tried.
func (d matching) give(n *need) bool {
	a := n.past
	fail := Action{Kind: Fail, Job: n.w.Key, ID: n.w.ID}
	switch {
	case a == nil:
		return false
	case a.Past.Refused && a.Places == 1:
		fail.Class, fail.Reason = Impossible, first(a.Reason, "the scheduler refuses the batch job")
	case a.Attempt >= d.p.Attempts && n.own == nil:
		text, _ := Outcome(*a, false)
		if a.Reason != "" && !a.Batch.State.Final() {
			text = a.Reason
		}
		fail.Class, fail.Reason = Lost, text+triesText(a.Attempt)
	default:
		return false
	}
	d.do = append(d.do, fail)
	return true
}

// match gives the jobs what is there, or on its way: those that were taken first.
func (d matching) match() {
	d.shelve()
	for _, n := range d.waiting {
		if d.good(n.own, n) {
			n.own.kept++
		}
	}
	d.matchTaken()
	var rest []*need
	for _, n := range d.waiting {
		if d.good(n.own, n) {
			d.commit(n.own, n)
		} else {
			rest = append(rest, n)
		}
	}
	for _, n := range rest {
		g := d.group(n.key)
		ok := func(s *seat) bool { return d.fits(s, n) && !d.foreign(s) }
		s := g.started.find(n.w.Domain, ok)
		if s == nil {
			s = g.coming.find(n.w.Domain, ok)
		}
		if s == nil {
			d.lacking = append(d.lacking, n)
			continue
		}
		d.commit(s, n)
	}
}

// foreign tells whether a seat is not for jobs that wait: what takes its jobs by itself, once it runs, knows for which it is.
func (d matching) foreign(s *seat) bool {
	return s.a.Order == SelfTaking && !s.a.Times.Ran.IsZero()
}

// good tells whether a job may keep the place that it has in prospect.
func (d matching) good(s *seat, n *need) bool {
	return s != nil && s.left > 0 && s.key == n.key && d.fits(s, n)
}

// matchTaken gives the jobs that were taken their places. One that takes the place made for a waiting job leaves it its own
// (hpc, section 5.3): that is found when the waiting jobs are matched.
func (d matching) matchTaken() {
	left := d.taken
	for _, try := range [...]func(*need) *seat{
		func(n *need) *seat { // its own, which has started
			if d.good(n.own, n) && n.own.started {
				return n.own
			}
			return nil
		},
		func(n *need) *seat { // a free one that has started
			return d.group(n.key).started.find(n.w.Domain, func(s *seat) bool { return s.left > s.kept && d.fits(s, n) })
		},
		func(n *need) *seat { // one that has started, and that a waiting job has in prospect
			return d.group(n.key).started.find(n.w.Domain, func(s *seat) bool { return d.fits(s, n) })
		},
		func(n *need) *seat { // its own, which is on its way
			if d.good(n.own, n) {
				return n.own
			}
			return nil
		},
		func(n *need) *seat {
			return d.group(n.key).coming.find(n.w.Domain, func(s *seat) bool { return s.left > s.kept && d.fits(s, n) })
		},
		func(n *need) *seat {
			return d.group(n.key).coming.find(n.w.Domain, func(s *seat) bool { return d.fits(s, n) })
		},
	} {
		var rest []*need
		for _, n := range left {
			s := try(n)
			if s == nil {
				rest = append(rest, n)
				continue
			}
			d.commit(s, n)
		}
		left = rest
	}
	d.lacking = append(d.lacking, left...)
}

// commit gives a job a place: now, if it was taken and the allocation has started, else in prospect.
func (d matching) commit(s *seat, n *need) {
	s.left--
	if n.own == s && n.w.Key == "" {
		s.kept--
	}
	n.got = s
	if s.open && s.a.Order != SelfTaking {
		s.open = false
		if s.domain != n.w.Domain {
			s.domain = n.w.Domain
			g := d.group(n.key)
			shelf := &g.coming
			if s.started {
				shelf = &g.started
			}
			shelf.add(s.domain, s)
		}
	}
	if s.started && n.w.Key != "" {
		s.placed = true
		lease := Lease{Job: n.w.Key, ID: n.w.ID, Shape: n.w.Shape, Since: d.now, Domain: n.w.Domain}
		d.do = append(d.do, Action{Kind: Place, Allocation: s.a.Name, Job: n.w.Key, ID: n.w.ID, Lease: &lease})
		return
	}
	s.needs = append(s.needs, n)
}

// prefer has waiting jobs wait for the older ones of equal allocations, so that the youngest are the ones for nobody (hpc,
// section 5.3).
func (d matching) prefer() {
	type kind struct {
		key   key
		share size
	}
	kinds := map[kind][]*seat{}
	spare := false
	for _, s := range d.seats {
		if s.a.Order != TakeFirst && coming(s.a) && s.a.Times.Ran.IsZero() && !s.a.Drain {
			k := kind{s.key, s.share}
			kinds[k] = append(kinds[k], s)
			spare = spare || len(s.needs) == 0
		}
	}
	if !spare {
		return
	}
	for _, seats := range kinds {
		slices.SortFunc(seats, nearest)
		d.preferOld(seats)
	}
}

// preferOld moves jobs from the last of these seats to the first ones that are for nobody.
func (d matching) preferOld(seats []*seat) {
	young := len(seats) - 1
	for old, s := range seats {
		if len(s.needs) > 0 {
			continue
		}
		for young > old && (len(seats[young].needs) == 0 || !d.takesOver(s, seats[young])) {
			young--
		}
		if young <= old {
			return
		}
		s.needs, seats[young].needs = seats[young].needs, nil
		for _, n := range s.needs {
			n.got = s
		}
	}
}

func (d matching) takesOver(s, from *seat) bool {
	if len(from.needs) > s.a.Places-s.a.Uses {
		return false
	}
	return !slices.ContainsFunc(from.needs, func(n *need) bool {
		return len(n.w.Avoid) > 0 || !d.lasts(s, n.w) || !s.share.holds(n.size)
	})
}

// reserve records for whom the allocations are.
func (d matching) reserve() {
	for _, s := range d.seats {
		ids := make([]int64, 0, len(s.needs))
		for _, n := range s.needs {
			ids = append(ids, n.w.ID)
		}
		slices.Sort(ids)
		if !slices.Equal(ids, s.a.For) {
			d.do = append(d.do, Action{Kind: Reserve, Allocation: s.a.Name, Jobs: ids})
		}
	}
}
