// Package docker is the executor that runs jobs in containers of a Docker Engine, or of what speaks its API, such as
// Podman.
//
// A job has two containers besides its services: one of the helper image, which fetches sources and moves caches and
// artifacts, and one of the job's image, in which scripts run. In each an agent works on its own, so that a job goes on
// when the manager or the engine is restarted. What is asked of the engine is compiled by package spec, images are had by
// package image, leftovers removed by package janitor.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/image"
	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// Options say how jobs run.
type Options struct {
	Settings    config.Docker
	Runner      spec.Runner
	Environment []string // KEY=VALUE that the runner's configuration gives to jobs
	Program     string   // path of this program, for containers
	// Programs knows that program: one for all executors of a process; nil: one for this executor.
	Programs *Programs
	Home     string // of the user whose logins to registries serve jobs
	State    string // directory for what is remembered about engines; empty: nothing is
	// Dial makes connections to the engine of the machine called Address, in place of what Settings say of hosts: the
	// executor is that machine's alone and reaches no other engine. What was used on it is remembered only in memory, and
	// goes with the executor as with the machine. Its errors that are tranter.ErrMachineLost end the machine's sessions.
	Dial    func(ctx context.Context) (net.Conn, error)
	Address string // of the machine that Dial reaches: its name
	// WarmImages are what Warm has on the engine besides the helper image; variables of jobs are not put in.
	WarmImages []string
	// Uses opens the log of what was used on an engine: one for all runners on it; nil: one for this executor.
	Uses  func(path string) (*janitor.Uses, error)
	Room  int64 // bytes that a phase's files may take in memory; 0: half of the engine's
	Guard janitor.GuardOptions
	// DebugDisabled: the output of services is not shown, whatever a job asks for.
	DebugDisabled bool
	Log           *slog.Logger
}

// Executor makes sessions on one engine. It connects when it has to.
type Executor struct {
	options Options

	dialing sync.Mutex // held while the connection is made
	health  health

	mu   sync.Mutex
	host *host
}

// New returns the executor. The engine need not answer yet.
func New(o Options) *Executor {
	if o.Uses == nil {
		o.Uses = janitor.OpenUses
	}
	if o.Programs == nil {
		o.Programs = NewPrograms(o.State)
	}
	return &Executor{options: o}
}

// Features returns what jobs can expect of this executor.
func Features() tranter.Features {
	return tranter.Features{
		Variables: true, Image: true, Services: true, Session: true, Terminal: true,
		ServiceVariables: true, ServiceMultipleAliases: true, ImageExecutorOpts: true, ServiceExecutorOpts: true,
	}
}

// host is an engine and what is known of it.
type host struct {
	engine  *engine.Engine
	address engineAddress
	images  *image.Store
	agent   *agentVolume
	uses    *janitor.Uses
	guard   *janitor.Guard // nil: nothing is remembered
	mirror  string         // of images for engines among the services; empty: none
	turns   chan struct{}  // held by those who start a container
	// mirrorless: there should be a mirror, and it could not be started.
	mirrorless bool
	patience   time.Duration // with an engine that does not answer
	log        *slog.Logger
}

// connect returns the engine, to which it connects the first time.
func (e *Executor) connect(ctx context.Context) (*host, error) {
	e.dialing.Lock()
	defer e.dialing.Unlock()
	if h := e.known(); h != nil {
		return h, nil
	}
	h, err := e.dial(ctx, e.address())
	e.health.found(err)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.host = h
	return h, nil
}

func (e *Executor) known() *host {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.host
}

// address is that of the executor's engine.
func (e *Executor) address() engineAddress {
	if e.options.Dial != nil {
		return engineAddress{Machine: e.options.Address}
	}
	d := e.options.Settings
	return engineAddress{Host: d.Host, CertPath: d.TLSCertPath, Verify: d.TLSVerify}
}

// engineOptions say how an engine is reached.
func (e *Executor) engineOptions(a engineAddress) engine.Options {
	if e.options.Dial != nil {
		return engine.Options{Host: e.options.Address, Dial: e.options.Dial, Log: e.options.Log}
	}
	return engine.Options{Host: a.Host, CertPath: a.CertPath, Verify: a.Verify, Log: e.options.Log}
}

func (e *Executor) dial(ctx context.Context, a engineAddress) (*host, error) {
	found, err := engine.Open(ctx, e.engineOptions(a))
	if err != nil {
		return nil, fmt.Errorf("connect to the container engine: %w", err)
	}
	h, err := e.know(ctx, found, a)
	if err != nil {
		return nil, errors.Join(err, found.Close())
	}
	return h, nil
}

// know gathers what has to be known of an engine.
func (e *Executor) know(ctx context.Context, found *engine.Engine, a engineAddress) (*host, error) {
	o, facts := e.options, found.Facts()
	program, err := programFor(o.Program, facts.OS, facts.Arch)
	if err != nil {
		return nil, err
	}
	h := &host{
		engine: found, address: a, patience: o.Settings.ReconnectTimeout, log: o.Log,
		agent: o.Programs.volume(program, o.Runner.Owner, a), turns: make(chan struct{}, max(2, facts.CPUs)),
	}
	if h.uses, err = e.usesOf(facts.ID); err != nil {
		return nil, err
	}
	mirror, err := e.findMirror(ctx, h)
	if err != nil {
		h.mirrorless = true
		o.Log.Warn("Images are pulled without the registry mirror, which could not be started; it will be tried again", "error", err)
	}
	h.images = image.NewStore(current{found}, image.Options{Mirror: mirror})
	if h.uses != nil {
		h.guard = janitor.NewGuard(found, h.uses, o.Guard)
	}
	return h, nil
}

// lost is what an engine comes to that does not answer any more.
func (h *host) lost() error {
	if h.address.Machine != "" {
		return tranter.ErrMachineLost
	}
	return tranter.ErrAgentLost
}

// usesOf opens the log of what is used on an engine; nil: nothing is remembered.
func (e *Executor) usesOf(engineID string) (*janitor.Uses, error) {
	switch o := e.options; {
	case o.Dial != nil:
		return janitor.OpenUses("")
	case o.State != "":
		return o.Uses(janitor.UsesPath(o.State, engineID))
	}
	return nil, nil //nolint:nilnil // there is none
}

// turn waits until fewer containers are being started than the engine has processors: more at a time make each slower, and
// cost more. The returned function ends the turn.
func (h *host) turn(ctx context.Context) (end func()) {
	if h.turns == nil { // there is no order to keep
		return func() {}
	}
	select {
	case h.turns <- struct{}{}:
		return func() { <-h.turns }
	case <-ctx.Done():
		return func() {}
	}
}

// Sweep implements tranter.Sweeper. It also makes room on the engine's disk, if there is too little.
func (e *Executor) Sweep(ctx context.Context, live func(name string) bool) error {
	h, err := e.connect(ctx)
	if err != nil {
		return err
	}
	agent, err := h.agent.volume()
	if err != nil {
		return err
	}
	swept, err := janitor.Sweeping{Owner: e.options.Runner.Owner, Live: live, Agent: agent}.Run(ctx, h.engine)
	e.health.found(err)
	if swept.Count() > 0 {
		e.options.Log.Info("Removed what earlier jobs had left on the engine", "what", swept.String())
	}
	if h.guard != nil {
		err = errors.Join(err, h.guard.Tick(ctx, time.Now()))
	}
	if h.mirrorless { // the next job connects anew
		e.mu.Lock()
		e.host = nil
		e.mu.Unlock()
	}
	return err
}

// Ready returns why no job can be taken now: the engine does not answer, or there is too little room on its disk.
func (e *Executor) Ready() error {
	if err := e.health.check(e.look); err != nil {
		return err
	}
	h := e.known()
	if h == nil || h.guard == nil {
		return nil
	}
	return h.guard.Check()
}

// look asks the engine for a sign of life.
func (e *Executor) look(ctx context.Context) error {
	if h := e.known(); h != nil {
		_, err := h.engine.API().Ping(ctx, client.PingOptions{})
		return err
	}
	found, err := engine.Open(ctx, e.engineOptions(e.address()))
	if err != nil {
		return err
	}
	return found.Close()
}

// current is an engine's client as it is now.
type current struct{ engine *engine.Engine }

func (c current) ImageInspect(ctx context.Context, name string, o ...client.ImageInspectOption) (client.ImageInspectResult, error) {
	return c.engine.API().ImageInspect(ctx, name, o...)
}

func (c current) ImagePull(ctx context.Context, name string, o client.ImagePullOptions) (client.ImagePullResponse, error) {
	return c.engine.API().ImagePull(ctx, name, o)
}

func (c current) ImageTag(ctx context.Context, o client.ImageTagOptions) (client.ImageTagResult, error) {
	return c.engine.API().ImageTag(ctx, o)
}

func (c current) ClientVersion() string { return c.engine.API().ClientVersion() }
