package pool

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/scale"
)

// MachineStatus is one machine as it stands, for people and programs. There is no secret in it.
type MachineStatus struct {
	Name     string           `json:"name"`
	Pool     string           `json:"pool"` // short token of the runner
	Set      string           `json:"set,omitempty"`
	State    fleet.State      `json:"state"`
	Reason   string           `json:"reason,omitempty"` // why it is in that state
	Since    time.Time        `json:"since"`
	Deadline *time.Time       `json:"deadline,omitempty"` // of the state
	Made     time.Time        `json:"made"`
	Ready    *time.Time       `json:"ready,omitempty"`
	Jobs     []string         `json:"jobs"` // keys of the jobs on it
	Uses     int              `json:"uses"`
	Address  string           `json:"address,omitempty"`
	ID       string           `json:"id,omitempty"`   // the provider's
	Cost     float64          `json:"cost,omitempty"` // so far, in the currency of price_per_hour
	Boot     []tranter.Timing `json:"boot,omitempty"`
	Problem  string           `json:"problem,omitempty"`
	Tries    int              `json:"tries,omitempty"` // removals that failed
	Leak     string           `json:"leak,omitempty"`  // why it is a leak; empty: it is none
	ByHand   bool             `json:"by_hand,omitempty"`
}

// Status is one pool as it stands.
type Status struct {
	Pool     string                 `json:"pool"`
	Runner   string                 `json:"runner,omitempty"`
	Provider string                 `json:"provider"`
	Machines []MachineStatus        `json:"machines"`
	Waiting  int                    `json:"waiting"` // jobs
	Limit    int                    `json:"limit,omitempty"`
	Target   int                    `json:"idle_target"` // idle machines wanted now
	IdleTime time.Duration          `json:"idle_time"`   // that a machine more than that is kept idle; nanoseconds
	Fixed    bool                   `json:"fixed,omitempty"`
	Count    map[fleet.State]int    `json:"count"`
	Offers   map[string]fleet.Offer `json:"offers,omitempty"` // option sets that failed
	Throttle *time.Time             `json:"throttled_until,omitempty"`
	Problem  string                 `json:"problem,omitempty"` // of the provider, when it was listed last
}

// Status returns the pool as it stands.
func (p *Pool) Status(ctx context.Context) (Status, error) {
	var s Status
	err := p.do(ctx, func(l *loop) { s = l.status(time.Now()) })
	return s, err
}

func (l *loop) status(now time.Time) Status {
	policy := l.settings.Policy
	s := Status{
		Pool: l.pool.options.Name, Runner: l.settings.Runner, Provider: l.settings.ProviderName, Machines: make([]MachineStatus, 0, len(l.book.Machines)),
		Waiting: len(l.book.Waiting), Limit: policy.Limit, Target: scale.Target(l.book, policy, now), IdleTime: policy.IdleAt(now).Time, Fixed: len(policy.Fixed) > 0, Count: map[fleet.State]int{},
		Offers: maps.Clone(l.book.Offers), Throttle: when(l.book.Throttle), Problem: cmp.Or(l.proof.wrong, l.problem),
	}
	for _, m := range l.book.Machines {
		s.Count[m.State]++
		s.Machines = append(s.Machines, StatusOf(*m, s.Pool, l.price(m.Set), now))
	}
	slices.SortFunc(s.Machines, func(a, b MachineStatus) int {
		return cmp.Or(a.Made.Compare(b.Made), cmp.Compare(a.Name, b.Name))
	})
	return s
}

func (l *loop) price(set string) float64 {
	if l.settings.Price == nil {
		return 0
	}
	return l.settings.Price(set)
}

// StatusOf shows a machine of a pool, with the price of an hour, at a time.
func StatusOf(m fleet.Machine, pool string, price float64, now time.Time) MachineStatus {
	s := MachineStatus{
		Name: m.Name, Pool: pool, Set: m.Set, State: m.State, Reason: m.Reason, Since: m.Since, Deadline: when(m.Deadline),
		Made: m.Made, Ready: when(m.Ready), Jobs: make([]string, 0, len(m.Leases)), Uses: m.Uses, ID: m.Seen.ID,
		Cost: price * now.Sub(m.Made).Hours(), Boot: slices.Clone(m.Boot), Problem: m.Problem, Tries: m.Tries, ByHand: m.ByHand,
	}
	for _, lease := range m.Leases {
		s.Jobs = append(s.Jobs, lease.Job)
	}
	if host := m.Seen.Login.Host; host != "" {
		s.Address = host
		if port := m.Seen.Login.Port; port != 0 && port != 22 {
			s.Address = net.JoinHostPort(host, strconv.Itoa(port))
		}
	}
	switch {
	case m.Orphan:
		s.Leak = "something may have been left at the provider that can't be named: " + m.Problem
	case m.Stuck():
		s.Leak = "its removal has failed " + strconv.Itoa(m.Tries) + " times: " + m.Problem
	}
	return s
}

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Machine returns an entry of the book. It holds secrets.
func (p *Pool) Machine(ctx context.Context, name string) (fleet.Machine, error) {
	var found fleet.Machine
	err := ErrUnknown
	if e := p.do(ctx, func(l *loop) {
		if m := l.book.Machines[name]; m != nil {
			found, err = *m, nil
			found.Leases = slices.Clone(m.Leases)
		}
	}); e != nil {
		return found, e
	}
	return found, err
}

// Host returns the connection to a machine, which it waits for if there is none yet.
func (p *Pool) Host(ctx context.Context, name string) (Host, error) {
	var t *tender
	err := ErrUnknown
	if e := p.do(ctx, func(l *loop) {
		if l.book.Machines[name] != nil {
			t, err = l.tenders[name], nil
		}
	}); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, errors.New("there is no connection to the machine: it is not ready, or on its way out")
	}
	if err := t.await(ctx); err != nil {
		return nil, err
	}
	return t.host, nil
}
