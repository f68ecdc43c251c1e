package dockermachine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
)

// Destroy removes a machine and its folder. A running one is not stopped before: that only takes time (docker-machine,
// section 7). Without a reference and without a folder no driver was asked for it, and it is not there.
func (p *Provider) Destroy(ctx context.Context, m tranter.MachineRef) error {
	if err := checkName(m.Name); err != nil {
		return err
	}
	unlock, err := p.lock(ctx, m.Name)
	if err != nil {
		return err
	}
	defer unlock()
	r, begun, err := p.folder.latest(m.Name, m.Ref)
	if err != nil {
		return err
	}
	if begun {
		if err := p.removeBy(ctx, m.Name, r); err != nil {
			return fmt.Errorf("remove machine %s: %w", m.Name, err)
		}
	}
	if !begun && p.folder.foreign(m.Name) {
		return nil // it is not ours
	}
	if err := os.RemoveAll(p.folder.of(m.Name)); err != nil {
		return fmt.Errorf("remove the folder of machine %s: %w", m.Name, err)
	}
	if begun && !r.Changed && !r.Nothing {
		return &tranter.OrphanError{Name: m.Name, Hint: fmt.Sprintf(
			"driver %s was told to create it and had not yet said its id; look for a machine of that name at the provider", plugin.Name(r.Driver))}
	}
	return nil
}

// removeBy starts a driver and has it remove its machine. One that does not know the machine's id may fail at that for good,
// which says nothing.
func (p *Provider) removeBy(ctx context.Context, name string, r ref) error {
	err := classify(p.visit(ctx, name, r, func(ctx context.Context, d *plugin.Process, again bool) error {
		return p.remove(ctx, d, again)
	}))
	_, said := errors.AsType[*plugin.DriverError](err)
	_, throttled := errors.AsType[*tranter.ThrottledError](err)
	if r.Changed || !said || throttled || says(err, passingText()) {
		return err
	}
	p.o.Log.Warn("driver can't remove a machine whose id it was never told", "machine", name, "driver", r.Driver, "error", err)
	return nil
}

// remove has a driver remove its machine. The state is asked for first, because some drivers fail to remove what is not there
// (docker-machine, section 2.2); a driver that was started again because it hung over that is not asked again.
func (p *Provider) remove(ctx context.Context, d *plugin.Process, again bool) error {
	gone := false
	if !again {
		_, err := p.state(ctx, d)
		if worthRestart(err) || ctx.Err() != nil {
			return err
		}
		gone = absent(err)
	}
	err := limited(ctx, p.limits.change, d.Remove)
	switch {
	case err == nil, gone && absentSomething(err):
		return nil
	case !absent(err):
		return err
	}
	state, asked := p.state(ctx, d)
	if asked == nil && state != plugin.None {
		return err // it is something else that was not found
	}
	return nil
}
