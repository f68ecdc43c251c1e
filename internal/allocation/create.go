package allocation

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tranter-ci/tranter"
)

// Pauses before another allocation is made.
const (
	firstRetry    = 5 * time.Second  // after one that failed, doubling with each
	longestRetry  = 10 * time.Minute // of those
	firstBlock    = 10 * time.Minute // after the scheduler has refused one, doubling with each
	longestBlock  = time.Hour        // of those: whoever has mended it does not tell
	keptRefusals  = 2                // how many times as long as it blocks, a refusal is remembered
	mostNodes     = 16               // that are avoided
	walltimeSteps = time.Minute      // in which schedulers count
)

// form is what the scheduler is asked for: what it refuses once it refuses again.
type form struct {
	key      key
	size     size
	walltime time.Duration
}

func formOf(user string, s *tranter.Shape) form {
	return form{keyOf(user, s), sizeOf(s, 1), s.Walltime}
}

// block says until when a form is not tried for jobs that wait.
type block struct {
	until    time.Time
	refusals int
}

func pause(start time.Duration, times int, most time.Duration) time.Duration {
	for range times {
		if start *= 2; start >= most {
			return most
		}
	}
	return start
}

// block notes that something like an allocation was refused.
func (d *decision) block(a *Allocation) {
	f := formOf(a.User, &a.Shape)
	one := block{until: a.Times.Ended.Add(pause(firstBlock, a.Past.Refusals, longestBlock)), refusals: a.Past.Refusals + 1}
	if old := d.blocks[f]; one.until.After(old.until) {
		d.blocks[f] = one
	}
}

// again returns when the next allocation may be made after one that failed.
func (d *decision) again(past *Allocation) time.Time {
	if past == nil || past.Past.Refused {
		return time.Time{}
	}
	return past.Times.Ended.Add(pause(firstRetry, max(past.Attempt-1, 0), longestRetry))
}

func triesText(n int) string {
	if n <= 1 {
		return ""
	}
	return fmt.Sprintf(" (after %d batch jobs)", n)
}

// bundle are jobs that an allocation is made for.
type bundle struct {
	needs []*need
	solo  bool // one that failed before is not packed with others
}

// pack is what jobs of one bundle have in common.
type pack struct {
	key    key
	size   size
	domain string
}

// making is the decision what is made for jobs for which there is nothing.
type making struct{ *decision }

// create makes allocations for the jobs for which there is none.
func (d making) create() {
	bundles := d.bundle()
	if len(bundles) == 0 {
		return
	}
	l := d.limits()
	for i, b := range bundles {
		a := d.plan(b)
		if a == nil {
			continue
		}
		if !l.allows(d.decision, a) {
			if l.full {
				break
			}
			continue
		}
		a.Name = d.name(i)
		d.do = append(d.do, Action{Kind: Create, New: a, Reason: a.Reason})
	}
}

// bundle packs jobs that go together (hpc, section 5.6); a bundle that is not full waits for others for a while.
func (d making) bundle() []*bundle {
	var all []*bundle
	open := map[pack]*bundle{}
	for _, n := range d.lacking {
		if !d.due(n.after) || d.stale(n) {
			continue
		}
		places := d.places(n)
		if places == 1 {
			all = append(all, &bundle{needs: []*need{n}, solo: true})
			continue
		}
		p := pack{n.key, n.size, n.w.Domain}
		b := open[p]
		if b == nil {
			b = &bundle{}
			open[p] = b
			all = append(all, b)
		}
		if b.needs = append(b.needs, n); len(b.needs) == places {
			delete(open, p)
		}
	}
	return slices.DeleteFunc(all, func(b *bundle) bool {
		return !b.solo && len(b.needs) < d.p.Places && !d.due(b.since().Add(d.p.PackWindow))
	})
}

// stale tells whether a job that waits may have been taken by what was made for it, and only nobody has looked since.
func (d making) stale(n *need) bool {
	return n.w.Key == "" && n.past != nil && !d.book.looked.After(n.past.Times.Ended)
}

// since is when the first of a bundle's jobs came.
func (b *bundle) since() time.Time {
	first := b.needs[0].w.Since
	for _, n := range b.needs {
		if n.w.Since.Before(first) {
			first = n.w.Since
		}
	}
	return first
}

// places is how many jobs may share an allocation with a job.
func (d making) places(n *need) int {
	if d.p.Places == 1 || n.past != nil {
		return 1
	}
	shape := packed(n.w.Shape, d.p.Places)
	if b, ok := d.blocks[formOf(n.w.User, &shape)]; ok && b.until.After(d.now) {
		return 1
	}
	return d.p.Places
}

// packed is the shape for so many jobs of a shape.
func packed(s tranter.Shape, places int) tranter.Shape {
	s.Options = slices.Clone(s.Options)
	if places > 1 {
		s.CPUs = max(s.CPUs, 1) * places
		s.Memory *= int64(places)
		s.GPUs *= places
	}
	if rest := s.Walltime % walltimeSteps; rest > 0 {
		s.Walltime += walltimeSteps - rest
	}
	return s
}

// plan says what is made for a bundle; nil: nothing, as the scheduler has refused it.
func (d making) plan(b *bundle) *Allocation {
	first := b.needs[0]
	shape := first.w.Shape
	a := &Allocation{
		Order: d.p.Order, User: first.w.User, Domain: first.w.Domain, Places: len(b.needs), Attempt: 1, State: Planned, Reason: "a job needs it",
	}
	urgent := false
	for _, n := range b.needs {
		a.For = append(a.For, n.w.ID)
		shape.Walltime = max(shape.Walltime, n.w.Shape.Walltime)
		urgent = urgent || n.w.Key != ""
		if p := n.past; p != nil {
			a.Attempt = max(a.Attempt, p.Attempt+1)
			a.Past.Avoid = avoid(a.Past.Avoid, p)
		}
	}
	slices.Sort(a.For)
	a.Shape = packed(shape, a.Places)
	if a.Places > 1 {
		a.Reason = strconv.Itoa(a.Places) + " jobs need it"
	}
	if block, ok := d.blocks[formOf(a.User, &a.Shape)]; ok {
		if !urgent && !d.due(block.until) {
			return nil
		}
		a.Past.Refusals = block.refusals
	}
	return a
}

// avoid adds the nodes on which an allocation failed. Those of one that was refused or preempted, or that ended well without
// having had a job, did nothing wrong.
func avoid(nodes []string, p *Allocation) []string {
	for _, node := range p.Past.Avoid {
		nodes = addNode(nodes, node)
	}
	switch p.Batch.State {
	case tranter.BatchCompleted, tranter.BatchPreempted:
		return nodes
	case tranter.BatchCancelled:
		if p.Times.Told.IsZero() {
			return nodes
		}
	default:
	}
	return addNode(nodes, p.Batch.Nodes)
}

func addNode(nodes []string, node string) []string {
	if node == "" || slices.Contains(nodes, node) || len(nodes) >= mostNodes {
		return nodes
	}
	return append(nodes, node)
}

// name returns the name of the allocation that is made for the bundle of that number: time makes it unique, also over
// restarts, and what is in the book is looked at in case a clock was set.
func (d making) name(i int) string {
	for at := d.now.UnixMilli(); ; at++ {
		name := d.p.Prefix + "-" + strconv.FormatInt(at, 36) + "-" + strconv.Itoa(i)
		if d.book.all[name] == nil {
			return name
		}
	}
}

// limits are what may be made now.
type limits struct {
	queued, total int
	users         map[string]int
	tokens        float64
	full          bool // no more at all
}

func (d making) limits() *limits {
	b := d.book
	l := &limits{total: b.Live(), users: map[string]int{}, tokens: b.pace.level(d.p.Limits, d.now)}
	for _, a := range b.sorted {
		if a.State == Ended {
			continue
		}
		l.users[payer(a)]++
		if coming(a) && a.Times.Ran.IsZero() {
			l.queued++
		}
		if a.State == Planned {
			l.tokens--
		}
	}
	return l
}

// payer is who is counted for an allocation.
func payer(a *Allocation) string {
	if a.User != "" {
		return "user " + a.User
	}
	return "domain " + a.Domain
}

// allows tells whether one more allocation may be made, and counts it.
func (l *limits) allows(d *decision, a *Allocation) bool {
	most, learned := d.p.Limits, d.book.pace.limit(d.now)
	switch {
	case !d.due(d.book.pace.until):
		l.full = true
	case l.tokens < 1:
		l.full = true
		d.at(d.book.pace.next(most, d.now, 1))
	case most.Queued > 0 && l.queued >= most.Queued:
		l.full = true
	case learned > 0 && l.queued >= learned:
		l.full = true
		d.at(d.now.Add(recovery))
	case most.Total > 0 && l.total >= most.Total:
		l.full, d.pressed = true, true
	case most.PerUser > 0 && l.users[payer(a)] >= most.PerUser:
		d.pressed = true
	default:
		l.queued++
		l.total++
		l.users[payer(a)]++
		l.tokens--
		return true
	}
	return false
}
