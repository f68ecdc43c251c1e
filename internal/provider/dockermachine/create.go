package dockermachine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
)

const (
	// slowPolls is the number of polls after which Create is asked five times less often what it has learned: a driver reads
	// its state for that without regard to what it does meanwhile.
	slowPolls = 50
	slower    = 5
	// fastPoll is the pause when there is no time any more.
	fastPoll = 50 * time.Millisecond
	// lastLook is the time that a driver has to say what it knows when Create has ended badly.
	lastLook = 2 * time.Second
	// settlePoll is the pause between two questions for a new machine's address.
	settlePoll = time.Second
)

// Create makes a machine. One process does all of it, since drivers keep some options in memory only. The first note is made
// before the driver creates anything.
//
// When the folder of the name holds what an earlier call has noted, nothing is created: what that has made is found, or it is
// an error, and Destroy makes the name free again.
func (p *Provider) Create(ctx context.Context, spec tranter.MachineSpec, note func(ref json.RawMessage)) (tranter.Machine, error) {
	if err := checkName(spec.Name); err != nil {
		return tranter.Machine{}, err
	}
	unlock, err := p.lock(ctx, spec.Name)
	if err != nil {
		return tranter.Machine{}, err
	}
	defer unlock()
	r, begun, err := p.folder.kept(spec.Name)
	if err != nil {
		return tranter.Machine{}, err
	}
	c := &creation{p: p, spec: spec, note: note}
	if begun {
		return c.find(ctx, r)
	}
	if p.folder.foreign(spec.Name) {
		return tranter.Machine{}, fmt.Errorf("%w: %s is a machine of docker-machine's", tranter.ErrRejected, p.folder.of(spec.Name))
	}
	m, err := c.make(ctx)
	return m, classify(err)
}

// creation is one call of Create.
type creation struct {
	p     *Provider
	spec  tranter.MachineSpec
	note  func(json.RawMessage)
	first json.RawMessage // the driver's state before Create
	ref   ref             // as it was noted last
}

// find looks for what an earlier call has made.
func (c *creation) find(ctx context.Context, r ref) (m tranter.Machine, err error) {
	raw, err := r.raw()
	if err != nil {
		return m, err
	}
	c.note(raw)
	err = c.p.visit(ctx, c.spec.Name, r, func(ctx context.Context, d *plugin.Process, _ bool) error {
		c.ref = r
		if _, err := c.p.state(ctx, d); err != nil {
			return err
		}
		m, err = c.settle(ctx, d)
		return err
	})
	if absent(err) || errors.Is(err, errGone) {
		return m, fmt.Errorf("machine %s was begun before and is not there; destroy it, then create it again: %w", c.spec.Name, err)
	}
	return m, classify(err)
}

// make creates the machine.
func (c *creation) make(ctx context.Context) (m tranter.Machine, err error) {
	d, err := c.begin(ctx)
	if err != nil {
		if _, begun, e := c.p.folder.kept(c.spec.Name); e == nil && !begun {
			err = errors.Join(err, os.RemoveAll(c.p.folder.of(c.spec.Name)))
		}
		return m, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := c.create(ctx, d); err != nil {
		return m, err
	}
	return c.settle(ctx, d)
}

// begin starts a driver and tells it what is wanted. One that hangs or dies is started again, once.
func (c *creation) begin(ctx context.Context) (*plugin.Process, error) {
	d, err := c.tell(ctx)
	if worthRestart(err) && ctx.Err() == nil {
		c.p.o.Log.Warn("driver failed; it is started again", "machine", c.spec.Name, "driver", c.p.o.Driver, "error", err)
		d, err = c.tell(ctx)
	}
	return d, err
}

func (c *creation) tell(ctx context.Context) (*plugin.Process, error) {
	d, err := c.p.start(ctx, c.p.o.Driver, c.spec.Name)
	if err != nil {
		return nil, err
	}
	if err := c.configure(ctx, d); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// configure goes the way to Create (docker-machine, section 1.7), and notes what Destroy needs.
func (c *creation) configure(ctx context.Context, d *plugin.Process) error {
	if err := c.p.configure(ctx, d, c.p.o.Dir, c.spec); err != nil {
		return err
	}
	var config json.RawMessage
	err := limited(ctx, c.p.limits.ask, func(ctx context.Context) (err error) {
		config, err = d.Config(ctx)
		return err
	})
	if err != nil {
		return err
	}
	c.first = config
	return c.learned(config)
}

// configure tells a driver its options and lets it look whether they do.
func (p *Provider) configure(ctx context.Context, d *plugin.Process, store string, spec tranter.MachineSpec) error {
	base, err := json.Marshal(map[string]string{"MachineName": spec.Name, "StorePath": store})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folders(store).of(spec.Name), dirMode); err != nil {
		return fmt.Errorf("make the folder of machine %s: %w", spec.Name, err)
	}
	var flags []plugin.Flag
	err = limited(ctx, p.limits.flags, func(ctx context.Context) (err error) {
		if err := d.SetConfig(ctx, base); err != nil {
			return err
		}
		flags, err = d.Flags(ctx)
		return err
	})
	if err != nil {
		return err
	}
	values, err := p.values(flags, spec)
	if err != nil {
		return err
	}
	d.Hide(secretValues(values))
	if err := fillTemplates(values, folders(store).of(spec.Name), spec); err != nil {
		return err
	}
	if err := limited(ctx, p.limits.flags, func(ctx context.Context) error { return d.SetFlags(ctx, values) }); err != nil {
		return withVariables(classifyFlags(err), flags)
	}
	return withVariables(classify(limited(ctx, p.limits.check, d.PreCreateCheck)), flags)
}

// create runs Create, and meanwhile notes what the driver learns. When ctx ends, the driver goes on until it has said which
// machine it makes, for a while at most: what it has asked for then is made, whether somebody knows it or not.
func (c *creation) create(ctx context.Context, d *plugin.Process) error {
	if err := context.Cause(ctx); err != nil {
		return errors.Join(err, c.nothing())
	}
	asking, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer giveUp(nil)
	created := make(chan error, 1)
	go func() { created <- d.Create(asking) }() // it ends with its context or the process, and is waited for
	poll := time.NewTicker(c.p.limits.poll)
	defer poll.Stop()
	ended, leaving, grace := ctx.Done(), false, (<-chan time.Time)(nil)
	for n := 1; ; n++ {
		select {
		case err := <-created:
			return c.created(context.WithoutCancel(ctx), d, err)
		case <-ended:
			ended, leaving, grace = nil, true, time.After(c.p.limits.grace)
			poll.Reset(fastPoll)
		case <-grace:
			giveUp(context.Cause(ctx))
		case <-poll.C:
		}
		_ = c.look(asking, d) // Create tells what is wrong with the driver
		if leaving && c.ref.Changed && !namedByName(c.p.o.Driver) {
			giveUp(context.Cause(ctx))
		}
		if n == slowPolls && !leaving {
			poll.Reset(slower * c.p.limits.poll)
		}
	}
}

// created is what follows the end of Create: a last look at what the driver knows.
func (c *creation) created(ctx context.Context, d *plugin.Process, err error) error {
	looked := c.look(ctx, d)
	if err == nil {
		return looked
	}
	if looked == nil && !c.ref.Changed && (isKind(classify(err)) || answered(err)) {
		return errors.Join(err, c.nothing())
	}
	return err
}

// answered says whether a driver has ended its work with an error of its own, other than one of the way to its provider: had
// it made a machine, it would know it. All others may have been made by a request whose answer was lost.
func answered(err error) bool {
	_, said := errors.AsType[*plugin.DriverError](err)
	return said && !says(err, passingText())
}

// nothing notes that no machine was made.
func (c *creation) nothing() error {
	c.ref.Nothing = true
	return c.write()
}

// look asks the driver for its state and notes it.
func (c *creation) look(ctx context.Context, d *plugin.Process) error {
	var config json.RawMessage
	err := limited(ctx, lastLook, func(ctx context.Context) (err error) {
		config, err = d.Config(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := c.learned(config); err != nil { // the caller knows it nevertheless
		c.p.o.Log.Warn("what a machine needs to be found again could not be written to its folder", "machine", c.spec.Name, "error", err)
	}
	return nil
}

// learned notes a driver's state if it is new.
func (c *creation) learned(config json.RawMessage) error {
	if bytes.Equal(config, c.ref.Config) {
		return nil
	}
	now := ref{Driver: c.p.o.Driver, Config: config, Changed: c.ref.Changed || named(c.p.o.Driver, c.first, config)}
	if c.ref.Driver != "" {
		now.Driver = c.ref.Driver
	}
	c.ref = now
	return c.write()
}

// write keeps the reference. The caller is told even if the folder can't be written to.
func (c *creation) write() error {
	raw, err := c.ref.raw()
	if err != nil {
		return err
	}
	err = c.p.folder.keep(c.spec.Name, raw)
	c.note(raw)
	return err
}

// settle waits until a machine that is there has an address, and describes it.
func (c *creation) settle(ctx context.Context, d *plugin.Process) (m tranter.Machine, err error) {
	if err := limited(ctx, c.p.limits.settle, func(ctx context.Context) (err error) {
		m, err = c.p.settled(ctx, d)
		return err
	}); err != nil {
		return m, fmt.Errorf("machine %s is there, but does not get an address: %w", c.spec.Name, err)
	}
	if err := c.look(ctx, d); err != nil {
		return m, err
	}
	m.Name, m.ID = c.spec.Name, machineID(c.ref.Driver, c.ref.Config)
	m.Ref, err = c.ref.raw()
	return m, err
}
