//go:build linux

package main

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/store"
)

// cloud is a provider that behaves: machines take a while to come, go at once, and all answer.
type cloud struct {
	least, most time.Duration // of a creation
	made, gone  atomic.Int64
}

func (c *cloud) Create(ctx context.Context, spec tranter.MachineSpec, note func(json.RawMessage)) (tranter.Machine, error) {
	c.made.Add(1)
	m := machine(spec.Name)
	note(m.Ref)
	return m, pause(ctx, between(c.least, c.most))
}

func (c *cloud) Destroy(context.Context, tranter.MachineRef) error {
	c.gone.Add(1)
	return nil
}

func (c *cloud) List(_ context.Context, _ tranter.Mark, known []tranter.MachineRef) ([]tranter.Machine, error) {
	out := make([]tranter.Machine, 0, len(known))
	for _, m := range known {
		out = append(out, machine(m.Name))
	}
	return out, nil
}

// machine is what the provider says of one, about as much as a real one does.
func machine(name string) tranter.Machine {
	return tranter.Machine{
		Name: name, ID: "i-0123456789abcdef0", Power: tranter.PowerOn, Login: tranter.Login{Host: "10.11.12.13", User: "ubuntu", Identity: "/var/lib/tranter/machines/" + name + "/id_rsa"},
		Ref: json.RawMessage(`{"driver":"amazonec2","data":"` + string(make64()) + `"}`),
	}
}

// make64 stands for what a driver keeps of a machine.
func make64() []byte {
	b := make([]byte, 2000)
	for i := range b {
		b[i] = 'A' + byte(i%26)
	}
	return b
}

// host is a machine that answers.
type host struct{ checks *atomic.Int64 }

func (h host) Check(context.Context) error {
	h.checks.Add(1)
	return nil
}
func (h host) Close() error { return nil }

// work is a machine's executor. A session's only phase takes as long as its id says.
type work struct{}

type session struct{}

func (work) Open(context.Context, tranter.SessionSpec) (tranter.Session, error) {
	return session{}, nil
}

func (work) Reopen(context.Context, json.RawMessage) (tranter.Session, error) { return session{}, nil }

func (session) Start(context.Context, tranter.Phase) error { return nil }

func (session) Attach(ctx context.Context, phase string, _ int64, _ io.Writer) (tranter.PhaseResult, error) {
	d, err := time.ParseDuration(phase)
	if err != nil {
		return tranter.PhaseResult{}, err
	}
	return tranter.PhaseResult{Status: tranter.PhaseSucceeded}, pause(ctx, d)
}

func (session) Cancel(context.Context, string, bool, time.Duration) error { return nil }
func (session) Close(context.Context) error                               { return nil }
func (session) Ref() json.RawMessage                                      { return json.RawMessage(`{}`) }

// book counts what is written.
type book struct {
	*store.Machines
	writes, events, entries atomic.Int64
	took                    atomic.Int64 // nanoseconds
}

func (b *book) Append(ctx context.Context, name string, events []fleet.Event, changed []fleet.Machine, gone []string) error {
	start := time.Now()
	defer func() { b.took.Add(int64(time.Since(start))) }()
	b.writes.Add(1)
	b.events.Add(int64(len(events)))
	b.entries.Add(int64(len(changed) + len(gone)))
	return b.Machines.Append(ctx, name, events, changed, gone)
}

var _ pool.Book = (*book)(nil)

func between(least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + rand.N(most-least)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
