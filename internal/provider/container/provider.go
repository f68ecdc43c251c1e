package container

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/moby/moby/client"

	tranter "github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// Options says which machines are made, and where.
type Options struct {
	Host    string // of the engine, as DOCKER_HOST has it; empty: the usual one
	Image   string // empty: BuildImage makes it
	Network string // a bridge that the machines are on; it is made if it is not there. Empty: "tranter-machines"
	Subnet  string // of the network if it is made, such as 172.30.0.0/24; empty: the engine chooses
	Memory  string // of each machine, such as 2g; empty: no limit
	CPUs    string // of each machine, such as 1.5; empty: no limit
	Dir     string // a directory for the key with which one logs in to the machines; it is made if it is not there
	Log     *slog.Logger
}

// The labels of machines. They are others than those of what belongs to a job, which is swept when the job has ended.
const (
	labelMachine = "io.tranter.machine" // the name
	labelOwner   = "io.tranter.machine.owner"
	labelPool    = "io.tranter.machine.pool"
)

const defaultNetwork = "tranter-machines"

// Provider makes machines of containers. It is a tranter.Provider, tranter.Starter and tranter.Checker.
type Provider struct {
	options Options
	subnet  netip.Prefix
	size    size
	key     *key
	log     *slog.Logger

	busy   slot // whoever connects to the engine
	engine *engine.Engine
	making slot // whoever makes image and network

	image   string // that BuildImage has made
	cgroups string // version of the engine's
}

// New returns a provider. Nothing is asked of the engine yet. The error is a *tranter.ConfigError when an option is wrong.
func New(o Options) (*Provider, error) {
	p := &Provider{options: o, log: o.Log, busy: make(slot, 1), making: make(slot, 1)}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.options.Network == "" {
		p.options.Network = defaultNetwork
	}
	var err error
	if p.size, err = (size{}).with(o.Memory, o.CPUs); err != nil {
		return nil, &tranter.ConfigError{Err: err}
	}
	if o.Subnet != "" {
		if p.subnet, err = netip.ParsePrefix(o.Subnet); err != nil {
			return nil, &tranter.ConfigError{Err: fmt.Errorf("subnet is %q: it must be a network such as 172.30.0.0/24", o.Subnet)}
		}
		p.subnet = p.subnet.Masked()
	}
	if p.key, err = openKey(o.Dir); err != nil {
		return nil, err
	}
	return p, nil
}

// Close gives up the connections to the engine.
func (p *Provider) Close() error {
	p.busy <- struct{}{}
	defer func() { <-p.busy }()
	if p.engine == nil {
		return nil
	}
	return p.engine.Close()
}

// ref is what finds a machine again.
type ref struct {
	ID string `json:"id"` // of the container
}

func (r ref) json() json.RawMessage {
	data, _ := json.Marshal(r) // a string can always be written
	return data
}

// container returns the engine's name for a machine.
func containerOf(m tranter.MachineRef) string {
	var r ref
	if json.Unmarshal(m.Ref, &r) == nil && r.ID != "" {
		return r.ID
	}
	return m.Name
}

// slot is a mutex that one waits for no longer than a context lasts.
type slot chan struct{}

func (s slot) take(ctx context.Context) (free func(), err error) {
	select {
	case s <- struct{}{}:
		return func() { <-s }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// api returns the client of the engine.
func (p *Provider) api(ctx context.Context) (*client.Client, error) {
	free, err := p.busy.take(ctx)
	if err != nil {
		return nil, err
	}
	defer free()
	if p.engine == nil {
		if p.engine, err = engine.Open(ctx, engine.Options{Host: p.options.Host, Log: p.log}); err != nil {
			return nil, fmt.Errorf("connect to the engine for machines: %w", err)
		}
	}
	if _, err := p.engine.Current(ctx); err != nil {
		return nil, fmt.Errorf("connect to the engine for machines: %w", err)
	}
	return p.engine.API(), nil
}

// Check says whether the engine can be reached and has the image, or this machine all that it is made of.
func (p *Provider) Check(ctx context.Context) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	if facts := p.engine.Facts(); facts.OS != "linux" {
		return &tranter.ConfigError{Err: fmt.Errorf("machines are containers of Linux, and the engine at %s has %s", p.engine.Host(), facts.OS)}
	}
	if p.options.Image == "" {
		if _, err := machineFiles(); err != nil {
			return &tranter.ConfigError{Err: err}
		}
		return nil
	}
	return p.pull(ctx, api, p.options.Image)
}

// Prepare makes the image and the network, for which the first machine would wait otherwise.
func (p *Provider) Prepare(ctx context.Context) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	_, err = p.ready(ctx, api, p.options.Image)
	return err
}

// pull sees to it that the engine has an image.
func (p *Provider) pull(ctx context.Context, api *client.Client, image string) error {
	_, err := api.ImageInspect(ctx, image)
	if !engine.Missing(err) {
		return classed(err, "look for the image "+image)
	}
	stream, err := api.ImagePull(ctx, image, client.ImagePullOptions{})
	if err == nil {
		err = stream.Wait(ctx)
	}
	return classed(err, "pull the image "+image)
}

// place is what a container of a machine is made of, besides its own settings.
type place struct{ image, network, cgroups string }

// ready returns what is there for machines; image and network are made if they are not there.
func (p *Provider) ready(ctx context.Context, api *client.Client, image string) (place, error) {
	free, err := p.making.take(ctx)
	if err != nil {
		return place{}, err
	}
	defer free()
	if p.cgroups == "" {
		answer, err := api.Info(ctx, client.InfoOptions{})
		if err != nil {
			return place{}, classed(err, "ask the engine for its control groups")
		}
		p.cgroups = cmp.Or(answer.Info.CgroupVersion, "1")
	}
	switch {
	case image != "":
		err = p.pull(ctx, api, image)
	case p.image != "":
		image = p.image
	default:
		image, err = BuildImage(ctx, api)
		p.image = image
		err = classed(err, "make the image of machines")
	}
	if err != nil {
		return place{}, err
	}
	network, err := ensureNetwork(ctx, api, p.options.Network, p.subnet)
	return place{image, network, p.cgroups}, classed(err, "make the network "+p.options.Network)
}

// forget says that the engine has no such image any more.
func (p *Provider) forget(ctx context.Context, image string) {
	if free, err := p.making.take(ctx); err == nil {
		defer free()
		if p.image == image {
			p.image = ""
		}
	}
}
