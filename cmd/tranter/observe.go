package main

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
)

// toldMachines is a book of machines of which the observatory is told what is written into it.
type toldMachines struct {
	pool.Book
	to *observatory
}

// machineBook returns a book of which the observatory is told; nil leaves it as it is.
func (o *observatory) machineBook(b pool.Book) pool.Book {
	if o == nil {
		return b
	}
	return toldMachines{b, o}
}

// Append implements pool.Book.
func (b toldMachines) Append(ctx context.Context, name string, evs []fleet.Event, changed []fleet.Machine, gone []string) error {
	if err := b.Book.Append(ctx, name, evs, changed, gone); err != nil {
		return err
	}
	for i := range evs {
		e := &evs[i]
		if e.Kind == fleet.MachineSeen || e.Kind == fleet.MachineNoted { // nobody's news
			continue
		}
		text := eventText(*e)
		if decides(e.Kind) {
			b.to.decided(name, sentence(text), e.At)
		}
		b.to.publish(tranter.Event{
			Time: e.At, Kind: kindOfMachineEvent(e.Kind), Level: levelOfMachineEvent(e), Runner: name, Job: e.Job, Machine: e.Machine,
			Text: sentence(text), Took: tookOf(e),
		})
	}
	if len(changed)+len(gone) > 0 {
		b.to.rates.learn(b.to.poolOf(name), changed, gone)
		b.to.keep(happening{pool: name, changed: withoutSecrets(changed), gone: gone, at: time.Now()})
	}
	return nil
}

// withoutSecrets returns what the history needs of machines.
func withoutSecrets(ms []fleet.Machine) []fleet.Machine {
	out := make([]fleet.Machine, len(ms))
	for i := range ms {
		out[i] = ms[i]
		out[i].Seen, out[i].Kept, out[i].Leases = tranter.Machine{}, nil, append([]fleet.Lease(nil), ms[i].Leases...)
	}
	return out
}

// kindOfMachineEvent is a kind as all events have it.
func kindOfMachineEvent(k fleet.Kind) tranter.EventKind {
	return tranter.EventKind(k)
}

// decides says whether an event of a pool is a decision about how many machines there are.
func decides(k fleet.Kind) bool {
	switch k {
	case fleet.MachineWanted, fleet.MachineDraining, fleet.MachineRemoving:
		return true
	default:
		return false
	}
}

func levelOfMachineEvent(e *fleet.Event) tranter.EventLevel {
	switch {
	case e.Orphan:
		return tranter.EventError
	case e.Kind == fleet.MachineFailed, !e.Retry.IsZero():
		return tranter.EventWarning
	default:
		return tranter.EventInfo
	}
}

// tookOf is how long what an event tells of has taken: the making of a machine.
func tookOf(e *fleet.Event) time.Duration {
	var sum time.Duration
	for _, step := range e.Boot {
		sum += step.Took
	}
	return sum
}

// sentence is a text with a capital letter and a full stop.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// toldAllocations is a book of batch jobs of which the observatory is told how they change.
type toldAllocations struct {
	cluster.Book
	to *observatory

	mu   sync.Mutex
	seen map[string]allocation.State // by name
}

// allocationBook returns a book of which the observatory is told; nil leaves it as it is.
func (o *observatory) allocationBook(book cluster.Book) cluster.Book {
	if o == nil {
		return book
	}
	return &toldAllocations{Book: book, to: o, seen: map[string]allocation.State{}}
}

// Save implements cluster.Book.
func (b *toldAllocations) Save(ctx context.Context, class string, changed []allocation.Allocation, gone []string) error {
	if err := b.Book.Save(ctx, class, changed, gone); err != nil {
		return err
	}
	for i := range changed {
		if a := &changed[i]; b.news(a) {
			b.to.publish(batchEvent(class, a))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range gone {
		delete(b.seen, name)
	}
	return nil
}

// news says whether an allocation is in another state than it was.
func (b *toldAllocations) news(a *allocation.Allocation) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen[a.Name] == a.State {
		return false
	}
	b.seen[a.Name] = a.State
	return true
}

func batchEvent(class string, a *allocation.Allocation) tranter.Event {
	e := tranter.Event{Time: time.Now(), Kind: tranter.EventKind("batch_" + string(a.State)), Runner: class, Batch: a.Name}
	text := "batch job " + a.Name
	if a.BatchID != "" {
		text += " (" + a.BatchID + ")"
	}
	text += " is " + string(a.State)
	if a.Reason != "" {
		text += ": " + a.Reason
	}
	e.Text = sentence(text)
	switch {
	case a.State == allocation.Ended && !a.Past.Idle:
		e.Level = tranter.EventWarning
	case a.State == allocation.Started:
		e.Took = a.Times.Started.Sub(a.Times.Planned)
	}
	return e
}
