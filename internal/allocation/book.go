package allocation

import (
	"slices"
	"strings"
	"time"
)

// Book is all that is known of the allocations of one class. It is one goroutine's. NewBook makes one.
//
// Its memory is in its allocations: what is stored of them is enough to go on after a restart. Only the pace of submissions
// is learned anew.
type Book struct {
	policy Policy
	all    map[string]*Allocation
	sorted []*Allocation          // by name
	homes  map[string]*Allocation // by job with a lease
	dirty  map[string]bool        // changed since Changed was called
	stored map[string]time.Time   // by allocation: the last sign of life that was to be stored
	awake  time.Time              // of the first event: silence before it was ours
	looked time.Time              // when the jobs that wait were looked up last
	counts map[State]int
	pace   pace
}

// NewBook returns an empty book.
func NewBook(p Policy) *Book {
	b := &Book{}
	b.reset()
	b.Change(p)
	return b
}

func (b *Book) reset() {
	*b = Book{
		policy: b.policy, all: map[string]*Allocation{}, homes: map[string]*Allocation{}, dirty: map[string]bool{}, stored: map[string]time.Time{},
		counts: map[State]int{},
	}
}

// Change gives the book another policy. What is there stays as it is.
func (b *Book) Change(p Policy) { b.policy = p.full() }

// Policy returns the policy, with its defaults filled in.
func (b *Book) Policy() Policy { return b.policy }

// full fills in what is 0 and has a default.
func (p Policy) full() Policy {
	if p.Order == SelfTaking {
		p.MaxUses = 0 // it ends by itself
	}
	if p.Places = max(p.Places, 1); p.MaxUses > 0 {
		p.Places = min(p.Places, p.MaxUses)
	}
	p.Attempts = or(p.Attempts, 3)
	p.TakeTimeout = or(p.TakeTimeout, 2*time.Minute)
	p.NeverAfter = or(p.NeverAfter, 30*time.Second)
	p.LostAfter = or(p.LostAfter, 2*time.Minute)
	p.SubmitWithin = or(p.SubmitWithin, 2*time.Minute)
	p.StartAfter = or(p.StartAfter, 5*time.Minute)
	p.Limits.Burst = max(p.Limits.Burst, 1)
	return p
}

func or[T int | time.Duration](value, otherwise T) T {
	if value <= 0 {
		return otherwise
	}
	return value
}

// Restore replaces all that the book has by allocations as they were stored. Signs of life that are old do not count
// against them before there were events.
func (b *Book) Restore(as []Allocation) {
	b.reset()
	for _, a := range as {
		if a.Name == "" || b.all[a.Name] != nil {
			continue
		}
		a.mend(b.homes)
		b.enter(&a)
		for _, l := range a.Leases {
			b.homes[l.Job] = &a
		}
	}
	clear(b.dirty)
}

// mend makes an entry fit the rules of the book, should it have been kept half-way or written by another version.
func (a *Allocation) mend(homes map[string]*Allocation) {
	seen := map[string]bool{}
	a.Leases = slices.DeleteFunc(slices.Clone(a.Leases), func(l Lease) bool {
		bad := homes[l.Job] != nil || seen[l.Job]
		seen[l.Job] = true
		return bad
	})
	a.Places = max(a.Places, len(a.Leases), 1)
	switch a.State {
	case Planned, Submitting, Queued, Started, Ending, Ended:
	default:
		a.State = Ending // it may be there: it is cancelled as soon as the scheduler names it
	}
}

// enter puts an allocation into the book.
func (b *Book) enter(a *Allocation) {
	b.all[a.Name] = a
	i, _ := b.search(a.Name)
	b.sorted = slices.Insert(b.sorted, i, a)
	b.counts[a.State]++
	b.dirty[a.Name] = true
}

func (b *Book) search(name string) (int, bool) {
	return slices.BinarySearchFunc(b.sorted, name, func(a *Allocation, name string) int { return strings.Compare(a.Name, name) })
}

// Get returns the allocation of that name, or nil. What it points to is for reading.
func (b *Book) Get(name string) *Allocation { return b.all[name] }

// Find returns the allocation that has a lease for the job (Want.Key), or nil. What it points to is for reading.
func (b *Book) Find(job string) *Allocation { return b.homes[job] }

// All returns all allocations by name, ended ones included. What they point to is for reading.
func (b *Book) All() []*Allocation { return slices.Clone(b.sorted) }

// Count returns how many allocations are in a state.
func (b *Book) Count(s State) int { return b.counts[s] }

// Live returns how many allocations have not ended.
func (b *Book) Live() int { return len(b.sorted) - b.counts[Ended] }

// Changed returns the allocations that have changed since the last call, by name: they are to be stored, ended ones too.
func (b *Book) Changed() []Allocation {
	out := make([]Allocation, 0, len(b.dirty))
	for name := range b.dirty {
		if a := b.all[name]; a != nil {
			out = append(out, a.copy())
		}
	}
	slices.SortFunc(out, func(x, y Allocation) int { return strings.Compare(x.Name, y.Name) })
	clear(b.dirty)
	return out
}

// copy returns one that shares nothing that the book changes.
func (a *Allocation) copy() Allocation {
	c := *a
	c.For, c.Leases = slices.Clone(a.For), slices.Clone(a.Leases)
	return c
}

// Forget takes an allocation that has ended out of the book, with the leases that it may have.
func (b *Book) Forget(name string) {
	a := b.all[name]
	if a == nil || a.State != Ended {
		return
	}
	for _, l := range a.Leases {
		delete(b.homes, l.Job)
	}
	delete(b.all, name)
	delete(b.dirty, name)
	delete(b.stored, name)
	b.counts[Ended]--
	if i, ok := b.search(name); ok {
		b.sorted = slices.Delete(b.sorted, i, i+1)
	}
}
