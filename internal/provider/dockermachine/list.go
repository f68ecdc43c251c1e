package dockermachine

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
)

// listAtOnce is how many drivers are asked at the same time: each is a process.
const listAtOnce = 4

// List asks a driver for each of the machines in known: the protocol has no question for all. Machines of which nothing was
// noted are not there.
func (p *Provider) List(ctx context.Context, _ tranter.Mark, known []tranter.MachineRef) ([]tranter.Machine, error) {
	found := make([]*tranter.Machine, len(known))
	var asking sync.WaitGroup
	next := make(chan int)
	for range min(listAtOnce, len(known)) {
		asking.Go(func() {
			for i := range next {
				found[i] = p.inspect(ctx, known[i])
			}
		})
	}
	for i := range known {
		next <- i
	}
	close(next)
	asking.Wait()
	var machines []tranter.Machine
	for _, m := range found {
		if m != nil {
			machines = append(machines, *m)
		}
	}
	return machines, context.Cause(ctx)
}

// inspect returns a machine as it is now; nil if it is not there.
func (p *Provider) inspect(ctx context.Context, known tranter.MachineRef) *tranter.Machine {
	m := &tranter.Machine{Name: known.Name, Power: tranter.PowerUnknown, Ref: known.Ref}
	r, begun, err := p.find(known)
	if err == nil && !begun {
		return nil
	}
	if err == nil {
		m.ID = machineID(r.Driver, r.Config)
		err = p.visit(ctx, known.Name, r, func(ctx context.Context, d *plugin.Process, _ bool) error {
			state, err := p.state(ctx, d)
			if err != nil {
				return err
			}
			m.Power = power(state)
			if m.Power == tranter.PowerOn {
				m.Login, err = p.login(ctx, d)
			}
			return err
		})
	}
	if absent(err) {
		return nil
	}
	if err != nil && ctx.Err() == nil {
		p.o.Log.Warn("machine could not be asked for", "machine", known.Name, "error", err)
	}
	return m
}

func (p *Provider) find(m tranter.MachineRef) (ref, bool, error) {
	if err := checkName(m.Name); err != nil {
		return ref{}, false, err
	}
	return p.folder.latest(m.Name, m.Ref)
}

// Start starts a machine that was stopped, and waits for its address, which may be another.
func (p *Provider) Start(ctx context.Context, m tranter.MachineRef) (started tranter.Machine, err error) {
	err = p.change(ctx, m, func(ctx context.Context, d *plugin.Process, r ref) error {
		state, err := p.state(ctx, d)
		if err != nil {
			return err
		}
		if state != plugin.Running {
			if err := limited(ctx, p.limits.change, d.Start); err != nil {
				return err
			}
		}
		c := &creation{p: p, spec: tranter.MachineSpec{Name: m.Name}, note: func(json.RawMessage) {}, first: r.Config, ref: r}
		started, err = c.settle(ctx, d)
		return err
	})
	if err != nil {
		return tranter.Machine{}, fmt.Errorf("start machine %s: %w", m.Name, classify(err))
	}
	return started, nil
}

// Stop stops a machine.
func (p *Provider) Stop(ctx context.Context, m tranter.MachineRef) error {
	err := p.change(ctx, m, func(ctx context.Context, d *plugin.Process, _ ref) error {
		if state, err := p.state(ctx, d); err != nil || state == plugin.Stopped {
			return err
		}
		return limited(ctx, p.limits.change, d.Stop)
	})
	if err != nil {
		return fmt.Errorf("stop machine %s: %w", m.Name, classify(err))
	}
	return nil
}

// change does something to a machine that has to be there.
func (p *Provider) change(ctx context.Context, m tranter.MachineRef, do func(context.Context, *plugin.Process, ref) error) error {
	r, begun, err := p.find(m)
	if err != nil {
		return err
	}
	if !begun {
		return errGone
	}
	unlock, err := p.lock(ctx, m.Name)
	if err != nil {
		return err
	}
	defer unlock()
	return p.visit(ctx, m.Name, r, func(ctx context.Context, d *plugin.Process, _ bool) error { return do(ctx, d, r) })
}
