package cluster

import (
	"context"
	"time"

	"github.com/tranter-ci/tranter"
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
	Again       time.Time               `json:"again,omitzero"` // when a scheduler that has not answered is asked again
	Busy        string                  `json:"busy,omitempty"` // why no job is taken at the moment
	Full        string                  `json:"full,omitempty"` // why no allocation can be made at the moment
	Retry       time.Time               `json:"retry,omitzero"` // when that may have passed by itself
	Retired     bool                    `json:"retired,omitempty"`
	Terms       Terms                   `json:"terms"`
	Jobs        []WaitingJob            `json:"jobs"`
	Allocations []allocation.Allocation `json:"allocations"`
}

// Terms are what the configuration says of the allocations, as far as it is a reason for how they stand. 0: no limit. Times are
// in nanoseconds.
type Terms struct {
	Queued      int           `json:"max_queued,omitempty"`
	Total       int           `json:"max_allocations,omitempty"`
	PerUser     int           `json:"max_per_user,omitempty"`
	Places      int           `json:"places,omitempty"`
	MaxUses     int           `json:"max_uses,omitempty"`
	PackWindow  time.Duration `json:"pack_window,omitempty"`
	Linger      time.Duration `json:"linger,omitempty"`
	TakeTimeout time.Duration `json:"take_timeout,omitempty"`
}

// WaitingJob is a job that has no place yet.
type WaitingJob struct {
	ID         int64     `json:"id"`
	Key        string    `json:"key,omitempty"` // of one that was taken; empty: it waits in GitLab
	Name       string    `json:"name,omitempty"`
	Project    string    `json:"project,omitempty"`
	User       string    `json:"user,omitempty"`
	Domain     string    `json:"domain,omitempty"`
	Since      time.Time `json:"since,omitzero"`
	Allocation string    `json:"allocation,omitempty"` // that was made for it
	Refused    string    `json:"refused,omitempty"`    // why none is made for it, if that is for what it asks for

	Shape tranter.Shape `json:"shape"`
}

// Status returns how the cluster stands.
func (c *Cluster) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, func(l *loop) { s = l.status(time.Now()) })
	return s, err
}

func (l *loop) status(now time.Time) Status {
	p := l.settings.Policy
	s := Status{
		Class: l.cluster.options.Class, Runner: l.settings.Runner, System: l.settings.System, Order: p.Order,
		Waiting: len(l.pending) + len(l.refused), Taken: len(l.waiters), Problem: l.looks.problem, Retired: l.retired,
		Terms: Terms{
			Queued: p.Limits.Queued, Total: p.Limits.Total, PerUser: p.Limits.PerUser, Places: p.Places, MaxUses: p.MaxUses,
			PackWindow: p.PackWindow, Linger: p.Linger, TakeTimeout: p.TakeTimeout,
		},
		Jobs: []WaitingJob{}, Allocations: []allocation.Allocation{},
	}
	if s.Problem != "" {
		s.Again = l.looks.next
	}
	if v := l.cluster.verdict.Load(); !v.OK {
		s.Busy = v.Reason
	}
	if v := allocation.Room(l.book, now); !v.OK {
		s.Full, s.Retry = v.Reason, v.Retry
	}
	made := map[int64]string{}
	for _, a := range l.book.All() {
		one := *a
		one.Class = s.Class
		s.Allocations = append(s.Allocations, one)
		if a.State != allocation.Ended {
			for _, id := range a.For {
				made[id] = a.Name
			}
		}
	}
	add := func(w allocation.Want) {
		s.Jobs = append(s.Jobs, WaitingJob{
			ID: w.ID, Key: w.Key, Name: w.Name, Project: w.Project, User: w.User, Domain: w.Domain, Since: w.Since, Allocation: made[w.ID],
			Shape: w.Shape,
		})
	}
	for _, w := range l.waiters {
		add(w.want)
	}
	for _, w := range l.pending {
		add(w)
	}
	s.Jobs = append(s.Jobs, l.refused...)
	return s
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
