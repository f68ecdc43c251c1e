package allocation

import (
	"fmt"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

// crowd returns a book with n allocations in the queue, and as many wants, each of which has one.
func crowd(tb testing.TB, n int, order Order, own bool) (*Book, []Want) {
	b := NewBook(Policy{Order: order, Prefix: "t"})
	apply := func(e Event) {
		if e.At = start(); b.Apply(e) != nil {
			tb.Fatal(b.Apply(e))
		}
	}
	wants := make([]Want, n)
	for i := range n {
		id := int64(i + 1)
		wants[i] = want(id)
		wants[i].Domain, wants[i].User = fmt.Sprint("p", i%50), fmt.Sprint("u", i%20)
		wants[i].Shape.CPUs = 1 + i%7
		wants[i].Since = start()
		if order == TakeFirst {
			wants[i].Key = fmt.Sprint("job-", i)
		}
		name := fmt.Sprintf("t-%04d", i)
		a := Allocation{Name: name, Order: order, User: wants[i].User, Domain: wants[i].Domain, Shape: wants[i].Shape, Places: 1, Attempt: 1}
		if own {
			a.For = []int64{id}
		}
		apply(Event{Kind: Plan, New: &a})
		apply(Event{Kind: Ask, Allocation: name})
		apply(Event{Kind: Accept, Allocation: name, BatchID: fmt.Sprint(i)})
		apply(Event{Kind: Saw, Allocation: name, Batch: &tranter.BatchJob{ID: fmt.Sprint(i), State: tranter.BatchQueued}})
	}
	return b, wants
}

func BenchmarkDecide(b *testing.B) {
	for _, order := range []Order{AllocateFirst, TakeFirst} {
		for _, own := range []bool{true, false} {
			book, wants := crowd(b, 1000, order, own)
			b.Run(fmt.Sprintf("%s/assigned=%v", order, own), func(b *testing.B) {
				for b.Loop() {
					Decide(book, wants, start().Add(time.Minute))
				}
			})
		}
		book, wants := NewBook(Policy{Order: order}), func() []Want { _, w := crowd(b, 1000, order, true); return w }()
		b.Run(fmt.Sprintf("%s/new", order), func(b *testing.B) {
			for b.Loop() {
				Decide(book, wants, start().Add(time.Minute))
			}
		})
	}
}
