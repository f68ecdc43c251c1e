package cluster

import (
	"context"

	"github.com/tranter-ci/tranter/internal/allocation"
)

// Status is how a cluster stands.
type Status struct {
	Class       string                  `json:"class"`
	Runner      string                  `json:"runner"`
	System      string                  `json:"system"`
	Order       allocation.Order        `json:"order"`
	Waiting     int                     `json:"waiting"` // jobs in GitLab
	Taken       int                     `json:"taken"`   // jobs that were taken and have no place yet
	Problem     string                  `json:"problem,omitempty"`
	Allocations []allocation.Allocation `json:"allocations"`
}

// Status returns how the cluster stands.
func (c *Cluster) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, func(l *loop) {
		s = Status{
			Class: c.options.Class, Runner: l.settings.Runner, System: l.settings.System, Order: l.settings.Policy.Order,
			Waiting: len(l.pending), Taken: len(l.waiters), Problem: l.looks.problem, Allocations: []allocation.Allocation{},
		}
		for _, a := range l.book.All() {
			s.Allocations = append(s.Allocations, *a)
		}
	})
	return s, err
}

// End ends an allocation, whatever it does.
func (c *Cluster) End(ctx context.Context, name, reason string) error {
	var unknown error
	if err := c.do(ctx, func(l *loop) {
		a := l.book.Get(name)
		if a == nil || a.State == allocation.Ended {
			unknown = ErrUnknown
			return
		}
		if l.record(allocation.Event{Kind: allocation.Tell, Allocation: name, Reason: reason}) {
			l.then(func() { operations{l}.cancel([]end{{name: name}}) })
		}
	}); err != nil {
		return err
	}
	return unknown
}
