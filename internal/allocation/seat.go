package allocation

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// key is what must be equal for a job to run in an allocation.
type key struct {
	user, partition, account, qos, constraint, gpuType, reservation, options string
	nodes                                                                    int
	exclusive                                                                bool
}

func keyOf(user string, s *tranter.Shape) key {
	k := key{
		user: user, partition: s.Partition, account: s.Account, qos: s.QOS, constraint: s.Constraint, gpuType: s.GPUType, reservation: s.Reservation,
		nodes: s.Nodes, exclusive: s.Exclusive,
	}
	if len(s.Options) > 0 {
		k.options = strings.Join(s.Options, "\x00")
	}
	return k
}

// size is what one job has.
type size struct {
	cpus, gpus int
	memory     int64
}

func (s size) holds(o size) bool { return o.cpus <= s.cpus && o.gpus <= s.gpus && o.memory <= s.memory }

func sizeOf(s *tranter.Shape, places int) size {
	return size{cpus: s.CPUs / places, gpus: s.GPUs / places, memory: s.Memory / int64(places)}
}

// seat is an allocation that may get jobs.
type seat struct {
	a       *Allocation
	key     key
	share   size
	left    int // places that nobody has or gets
	kept    int // of those, the ones that waiting jobs have in prospect
	domain  string
	open    bool    // it never had a job: its domain is that of the first one
	started bool    // a job can be placed now
	needs   []*need // that have a place in prospect
	placed  bool    // a job is placed now
	asked   time.Time
}

// group are the seats of one key, the best first.
type group struct {
	started, coming shelf
}

// shelf is where seats are looked for.
type shelf struct {
	own  map[string]*row // by domain: those that are the domain's
	open row             // those that never had a job
}

// row is a list of seats. Full ones at its head are passed over for good.
type row struct {
	seats []*seat
	head  int
}

func (r *row) find(ok func(*seat) bool) *seat {
	if r == nil {
		return nil
	}
	for r.head < len(r.seats) && r.seats[r.head].left <= 0 {
		r.head++
	}
	for _, s := range r.seats[r.head:] {
		if s.left > 0 && ok(s) {
			return s
		}
	}
	return nil
}

func (s *shelf) find(domain string, ok func(*seat) bool) *seat {
	if found := s.own[domain].find(ok); found != nil {
		return found
	}
	return s.open.find(ok)
}

func (s *shelf) add(domain string, one *seat) {
	if s.own == nil {
		s.own = map[string]*row{}
	}
	r := s.own[domain]
	if r == nil {
		r = &row{}
		s.own[domain] = r
	}
	r.seats = append(r.seats, one)
}

// seat takes in an allocation that may stay.
func (d *decision) seat(a *Allocation) {
	s := &seat{
		a: a, key: keyOf(a.User, &a.Shape), share: sizeOf(&a.Shape, max(a.Places, 1)), left: a.Places - len(a.Leases), domain: a.Domain, open: a.Uses == 0, started: a.State == Started,
		asked: a.Times.Asked,
	}
	switch {
	case a.Drain:
		s.left = 0
	case a.Order == SelfTaking:
		s.left, s.open = a.Places-a.Uses, true
	case d.p.MaxUses > 0:
		s.left = min(s.left, d.p.MaxUses-a.Uses)
	}
	if at := a.leaving(d.p); !at.IsZero() && d.due(at) {
		s.left = 0
	}
	d.seats = append(d.seats, s)
	d.seatOf[a.Name] = s
}

// lingerSlack is how long before its time, or half of that, what lingers in an allocation gets no job any more: it ends by a clock of its own.
const lingerSlack = 2 * time.Second

// leaving is from when on an allocation that has had a job gets no other one, because what runs in it ends by itself; zero:
// it does not. Without that a job would leave the batch job that it has waited for to others, and come to an empty place.
func (a *Allocation) leaving(p Policy) time.Time {
	if a.State != Started || a.Order == SelfTaking || a.Uses == 0 || len(a.Leases) > 0 {
		return time.Time{}
	}
	return a.Times.Idle.Add(p.Linger - min(lingerSlack, p.Linger/2))
}

// shelve sorts the seats, the ones that are nearest to a job first, and puts them where they are looked for.
func (d *decision) shelve() {
	sorted := slices.Clone(d.seats)
	slices.SortFunc(sorted, nearest)
	for _, s := range sorted {
		if s.left <= 0 {
			continue
		}
		g := d.group(s.key)
		shelf := &g.coming
		if s.started {
			shelf = &g.started
		}
		shelf.add(s.domain, s)
		if s.open {
			shelf.open.seats = append(shelf.open.seats, s)
		}
	}
}

func (d *decision) group(k key) *group {
	g := d.groups[k]
	if g == nil {
		g = &group{}
		d.groups[k] = g
	}
	return g
}

// nearest sorts seats by how soon a job can have them.
func nearest(x, y *seat) int {
	return cmp.Or(
		cmp.Compare(progress(x.a), progress(y.a)),
		x.a.Times.Started.Compare(y.a.Times.Started),
		x.a.Times.Queued.Compare(y.a.Times.Queued),
		x.asked.Compare(y.asked),
		x.a.Times.Planned.Compare(y.a.Times.Planned),
		strings.Compare(x.a.Name, y.a.Name),
	)
}

func progress(a *Allocation) int {
	switch {
	case a.State == Started:
		return 0
	case !a.Times.Ran.IsZero():
		return 1
	case a.State == Queued:
		return 2
	case a.State == Submitting:
		return 3
	default:
		return 4
	}
}

// fits tells whether a seat, of the job's group, is one for it. Whether it has a place left is another question.
func (d *decision) fits(s *seat, n *need) bool {
	w := n.w
	switch {
	case !s.share.holds(n.size), !s.open && s.domain != w.Domain:
		return false
	case len(w.Avoid) > 0 && slices.Contains(w.Avoid, s.a.Name):
		return false
	case n.past != nil && s.started && s.a.Batch.Nodes != "" && (s.a.Batch.Nodes == n.past.Batch.Nodes || slices.Contains(n.past.Past.Avoid, s.a.Batch.Nodes)):
		return false
	}
	return d.lasts(s, w)
}

// lasts tells whether an allocation will last for as long as a job may take. One that has had no job yet is taken as new.
func (d *decision) lasts(s *seat, w *Want) bool {
	takes := w.Shape.Walltime
	if total := or(s.a.Shape.Walltime, d.p.Walltime); !s.started || s.a.Uses == 0 {
		if w.Lasts > 0 && w.Lasts < takes {
			takes = w.Lasts
		}
		return total == 0 || takes <= total
	} else if s.a.Times.Until.IsZero() {
		return total == 0
	}
	if w.Lasts > 0 {
		takes = w.Lasts + d.p.Margin
	}
	left := s.a.Times.Until.Sub(d.now)
	return left > d.p.Margin && left >= takes
}
