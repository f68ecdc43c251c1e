// Package dockermachine makes machines with the drivers of Docker Machine, without that program: each driver is a program of
// its own, which package plugin starts and talks to.
//
// A driver knows a machine by the state that it keeps for it, a JSON text with secrets in it. That text is what a machine's
// reference holds, together with the driver's name. The latest one lies in the machine's folder as well, beside the key that
// the driver makes: Create writes it before the driver is asked for anything that costs, so where there is none, there is no
// machine (docker-machine, sections 1.7, 2.2 and 7).
package dockermachine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
)

// Options are a provider's settings.
type Options struct {
	Driver      string   // a driver's name, or the path of its program
	Options     []string // NAME=VALUE or NAME, without dashes in front: the driver's own (Split)
	Dir         string   // for the machines' folders, DIR/machines/NAME
	Log         *slog.Logger
	Debug       bool     // log what drivers print for the search of faults; the variable MACHINE_DEBUG does the same
	Environment []string // NAME=VALUE, added to ours, for the drivers
}

// Provider makes machines with one driver. It destroys, lists, starts and stops those of others too, whose names are in their
// references.
type Provider struct {
	o      Options
	folder folders
	limits limits
	mu     sync.Mutex
	busy   map[string]chan struct{} // by machine; closed when what works at it has ended
}

// limits are how long a driver may take for an answer. Drivers know none (docker-machine, section 1.6).
type limits struct {
	ask    time.Duration // a state or an address
	flags  time.Duration // options, which some drivers look up at the provider
	check  time.Duration // PreCreateCheck
	change time.Duration // Remove, Start, Stop
	settle time.Duration // until a machine has an address, once it is there
	grace  time.Duration // for a driver that has not said yet what it makes, when nobody waits for that any more
	poll   time.Duration // of what Create has learned, at first
}

var (
	errSlow = errors.New("it hangs")
	errGone = errors.New("the machine is not there")
)

// folders of machines and what is in them are for us only: drivers put keys there.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

// New returns a provider. Whether its settings are right is for Check to tell.
func New(o Options) (*Provider, error) {
	if o.Driver == "" || o.Dir == "" {
		return nil, errors.New("a driver and a folder for its machines have to be set")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("folder for machines %s: %w", o.Dir, err)
	}
	o.Dir = dir
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Debug = o.Debug || debugWanted(os.Getenv("MACHINE_DEBUG"))
	return &Provider{o: o, folder: folders(dir), busy: map[string]chan struct{}{}, limits: limits{
		ask: time.Minute, flags: 2 * time.Minute, check: 3 * time.Minute, change: 15 * time.Minute, settle: 5 * time.Minute,
		grace: 10 * time.Second,
		poll:  200 * time.Millisecond,
	}}, nil
}

func debugWanted(value string) bool { return value != "" && value != "0" && value != "false" }

// lock waits until nothing else works at the machine.
func (p *Provider) lock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		p.mu.Lock()
		other, taken := p.busy[name]
		if !taken {
			mine := make(chan struct{})
			p.busy[name] = mine
			p.mu.Unlock()
			return func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				delete(p.busy, name)
				close(mine)
			}, nil
		}
		p.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

var machineName = lazy.Regexp(`^[a-zA-Z0-9][a-zA-Z0-9.-]{0,199}$`)

// checkName says whether docker-machine would take a name. It is part of a path too.
func checkName(name string) error {
	if !machineName().MatchString(name) {
		return fmt.Errorf("%w: %.100q can't be a machine's name: letters, digits, dashes and dots, a letter or digit first",
			tranter.ErrRejected, name)
	}
	return nil
}

// start starts the plugin of a driver for a machine.
func (p *Provider) start(ctx context.Context, driver, machine string) (*plugin.Process, error) {
	if _, err := plugin.Find(driver, append(os.Environ(), p.o.Environment...)); err != nil {
		return nil, fmt.Errorf("%w: %w", tranter.ErrRejected, err)
	}
	return plugin.Start(ctx, plugin.Options{
		Driver: driver, Machine: machine, Environment: p.o.Environment, Log: p.o.Log, Debug: p.o.Debug,
	})
}

// visit runs do with a plugin that has the state of r. One that hangs or dies gets a successor, once.
func (p *Provider) visit(ctx context.Context, name string, r ref, do func(ctx context.Context, d *plugin.Process, again bool) error) error {
	for again := false; ; again = true {
		err := p.visitOnce(ctx, name, r, again, do)
		if again || !worthRestart(err) || ctx.Err() != nil {
			return err
		}
		p.o.Log.Warn("driver failed; it is started again", "machine", name, "driver", r.Driver, "error", err)
	}
}

func worthRestart(err error) bool {
	_, ended := errors.AsType[*plugin.EndedError](err)
	return ended || errors.Is(err, errSlow)
}

func (p *Provider) visitOnce(ctx context.Context, name string, r ref, again bool, do func(context.Context, *plugin.Process, bool) error) (err error) {
	driver := r.Driver
	if plugin.Name(driver) == plugin.Name(p.o.Driver) {
		driver = p.o.Driver // its program may have moved since
	}
	d, err := p.start(ctx, driver, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	d.Hide(secretsIn(r.Config))
	if err := limited(ctx, p.limits.ask, func(ctx context.Context) error { return d.SetConfig(ctx, r.Config) }); err != nil {
		return err
	}
	return do(ctx, d, again)
}

// limited runs do with a time limit, after which the error is errSlow.
func limited(ctx context.Context, limit time.Duration, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: no answer in %v", errSlow, limit))
	defer cancel()
	return do(ctx)
}
