package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/link"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// box is one of a job's containers in which an agent works.
type box struct {
	host  *host
	place tranter.Place
	name  string // of the container
	image string // for messages
	use   string // the image as containers are made from it; empty: not known any more
	// entrypoint is how long the image's may take until the agent answers; 0: there is none.
	entrypoint time.Duration

	spare  *engine.Spare // to attach to the container with; nil: none
	starts chan struct{} // holds a token while the container is being started, or a connection is being made
	mu     sync.Mutex    // guards what follows
	link   *connection
	ended  error  // why nothing can be done in it any more
	said   string // the last that the agent has said about itself
}

// connection is a way to talk to a box's agent.
type connection struct {
	*link.Client
	streams *engine.Streams
}

// Close ends both ends of the connection.
func (c *connection) Close() error {
	c.streams.Close()
	return c.Client.Close()
}

// helloTime is how long an agent without an entrypoint before it may take to answer.
const helloTime = 30 * time.Second

// start starts the container, unless that was done. Its agent need not work yet.
func (b *box) start(ctx context.Context) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.unlock()
	if b.connection() != nil {
		return nil
	}
	err := b.startAttached(ctx)
	if err == nil || !engine.Conflict(err) && !strings.Contains(err.Error(), "failed to start shim") {
		return err
	}
	// The engine has died while it started the container, and has half of one now that never starts.
	if again := b.replace(ctx); again != nil {
		return errors.Join(err, again)
	}
	return b.startAttached(ctx)
}

// replace makes the container anew, as it was made.
func (b *box) replace(ctx context.Context) error {
	api := b.host.engine.API()
	found, err := api.ContainerInspect(ctx, b.name, client.ContainerInspectOptions{})
	if err != nil {
		return fmt.Errorf("look at the %s container: %w", b.place, engine.Explain(err))
	}
	old := found.Container
	if old.State == nil || old.State.Status != container.StateCreated {
		return fmt.Errorf("the %s container can't be made anew: it was started once", b.place)
	}
	if _, err := api.ContainerRemove(ctx, b.name, client.ContainerRemoveOptions{Force: true}); err != nil && !engine.Missing(err) {
		return fmt.Errorf("remove the %s container: %w", b.place, engine.Explain(err))
	}
	wanted := client.ContainerCreateOptions{Name: b.name, Config: old.Config, HostConfig: old.HostConfig}
	if n := old.NetworkSettings; n != nil && old.HostConfig.NetworkMode.IsUserDefined() {
		wanted.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
		for name, e := range n.Networks {
			wanted.NetworkingConfig.EndpointsConfig[name] = &network.EndpointSettings{Aliases: e.Aliases, Links: e.Links}
		}
	}
	if _, err := api.ContainerCreate(ctx, wanted); err != nil {
		return creationError(string(b.place)+" (image "+b.image+")", err)
	}
	return nil
}

// startAttached starts the container with a connection to its agent.
func (b *box) startAttached(ctx context.Context) error {
	// Attached before it starts, so that nothing is missed and one call does for the whole job.
	streams, err := b.host.engine.Attach(ctx, b.name, b.spare)
	if err != nil {
		return fmt.Errorf("attach to the %s container: %w", b.place, err)
	}
	err = b.startContainer(ctx)
	if err != nil && b.use != "" && strings.Contains(err.Error(), spec.AgentProgram) {
		// Somebody has removed the volume with the agent's program, and the engine has made an empty one.
		b.host.agent.forget()
		if err = b.host.agent.ensure(ctx, b.host.engine, b.use); err == nil {
			err = b.startContainer(ctx)
		}
	}
	if err != nil {
		streams.Close()
		return creationError(string(b.place)+" (image "+b.image+")", err)
	}
	b.adopt(streams)
	return nil
}

func (b *box) startContainer(ctx context.Context) error {
	defer b.host.turn(ctx)()
	_, err := b.host.engine.API().ContainerStart(ctx, b.name, client.ContainerStartOptions{})
	return err
}

// adopt makes streams the connection to the agent.
func (b *box) adopt(streams *engine.Streams) *connection {
	c := &connection{Client: link.New(streams.Stdin, streams.Stdout, streams.Stderr), streams: streams}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.link = c
	return c
}

// entrypointNotice is how long an image's entrypoint may take before the user is told what the job waits for.
const entrypointNotice = 10 * time.Second

// enter waits until the agent can work on phases, which may need the image's entrypoint, run with environ, to come to its
// end. notice is told when that takes long; it may be nil.
func (b *box) enter(ctx context.Context, environ []string, notice func(string)) (link.Hello, error) {
	c, err := b.client(ctx)
	if err != nil {
		return link.Hello{}, err
	}
	limit := cmp.Or(b.entrypoint, helloTime)
	waiting, stop := context.WithTimeoutCause(ctx, limit, errNoHello)
	defer stop()
	if notice != nil && b.entrypoint > 0 {
		late := time.AfterFunc(entrypointNotice, func() {
			notice(fmt.Sprintf("Waiting for the entrypoint of image %s, which has not handed over to the job's shell yet...", b.image))
		})
		defer late.Stop()
	}
	hello, err := c.Enter(waiting, environ)
	if err == nil {
		return hello, nil
	}
	var failed *link.EntrypointError
	switch {
	case errors.As(err, &failed):
		return hello, b.entrypointError(fmt.Sprintf("has not started the job's shell: %v", failed))
	case errors.Is(context.Cause(waiting), errNoHello) && ctx.Err() == nil && b.entrypoint > 0:
		return hello, b.entrypointError(fmt.Sprintf("has not handed over to the job's shell within %v", limit))
	}
	return hello, b.why(ctx, fmt.Errorf("reach the agent in the %s container: %w", b.place, b.told(c, err)))
}

func (b *box) entrypointError(what string) error {
	return &tranter.ConfigError{Err: fmt.Errorf("the entrypoint of image %s %s; it must end with exec \"$@\"; to do without it, write image: {name: ..., entrypoint: [\"\"]} in .gitlab-ci.yml", b.image, what)}
}

// errNeverStarted means that a container was made, but nobody has started it.
var errNeverStarted = errors.New("the container was not started")

var errNoHello = errors.New("the agent in the container does not answer")

func (b *box) connection() *connection {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.link
}

// lock waits until nobody else starts the container or makes a connection.
func (b *box) lock(ctx context.Context) error {
	select {
	case b.starts <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *box) unlock() { <-b.starts }

// connectTime is how long an engine may take to make a connection. One that hangs is tried again, as one that is away.
const connectTime = 30 * time.Second

// errSlow means that the engine takes requests and does not answer.
var errSlow = fmt.Errorf("%w: the engine does not answer", link.ErrBroken)

// client returns a connection to the agent. One that is broken is replaced: the agent goes on without.
func (b *box) client(ctx context.Context) (*connection, error) {
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	defer b.unlock()
	b.mu.Lock()
	c, ended := b.link, b.ended
	b.mu.Unlock()
	if ended != nil {
		return nil, ended
	}
	if c != nil {
		return c, nil
	}
	limited, stop := context.WithTimeoutCause(ctx, connectTime, errSlow)
	defer stop()
	c, err := b.reconnect(limited)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		err = fmt.Errorf("connect to the agent in the %s container: %w", b.place, errSlow)
	}
	return c, err
}

func (b *box) reconnect(ctx context.Context) (*connection, error) {
	if err := b.running(ctx); err != nil {
		return nil, err
	}
	streams, err := b.host.engine.Exec(ctx, b.name, []string{spec.AgentProgram, "agent", "connect", spec.AgentRoot}, "")
	if err != nil {
		return nil, fmt.Errorf("connect to the agent in the %s container: %w", b.place, err)
	}
	return b.adopt(streams), nil
}

// broken gives up a connection, so that the next call makes a new one.
func (b *box) broken(c *connection) {
	b.mu.Lock()
	if b.link == c {
		b.link = nil
	}
	b.mu.Unlock()
	_ = c.Close()
}

// running returns an error that is tranter.ErrAgentLost if the container has ended, with the reason, and another if that
// can't be said.
func (b *box) running(ctx context.Context) error {
	found, err := b.host.engine.API().ContainerInspect(ctx, b.name, client.ContainerInspectOptions{})
	if engine.Missing(err) {
		return b.end(fmt.Errorf("the %s container was removed while the job ran: %w", b.place, tranter.ErrAgentLost))
	}
	if err != nil {
		return fmt.Errorf("look at the %s container: %w", b.place, engine.Explain(err))
	}
	state := found.Container.State
	switch {
	case state == nil, state.Running, state.Restarting:
		return nil
	case state.Status == container.StateCreated:
		return errNeverStarted
	}
	return b.end(fmt.Errorf("the %s container has ended: %s: %w", b.place, b.stateOf(state), tranter.ErrAgentLost))
}

// stateOf says why a container is not running.
func (b *box) stateOf(s *container.State) string {
	switch {
	case s.OOMKilled:
		return "it ran out of memory (raise memory in [runners.docker], or let the job use less)"
	case s.Error != "":
		return strings.TrimSpace(s.Error)
	case b.lastWords() != "":
		return fmt.Sprintf("exit code %d: %s", s.ExitCode, b.lastWords())
	}
	return fmt.Sprintf("exit code %d; somebody has stopped it, or its engine was restarted without live-restore", s.ExitCode)
}

// told takes notice of how a request has ended: a connection that is broken is not used again.
func (b *box) told(c *connection, err error) error {
	var ended *link.EndedError
	switch {
	case errors.As(err, &ended):
		b.mu.Lock()
		b.said = strings.TrimSpace(ended.Said)
		b.mu.Unlock()
	case !errors.Is(err, link.ErrBroken):
		return err
	}
	b.broken(c)
	return err
}

func (b *box) lastWords() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said
}

func (b *box) end(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = err
	return err
}

// why returns what has happened to the container if that says more than err.
func (b *box) why(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if lost := b.running(ctx); errors.Is(lost, tranter.ErrAgentLost) {
		return lost
	}
	return err
}

// close ends the connection. The container stays.
func (b *box) close() {
	if c := b.connection(); c != nil {
		b.broken(c)
	}
}

// killedCode is the exit code of a script, or of its last command, that was killed by SIGKILL.
const killedCode = 128 + 9

// whyKilled adds to the message about a script that was killed that the container's memory had run out, if that was so.
func (b *box) whyKilled(ctx context.Context, message string) string {
	found, err := b.host.engine.API().ContainerInspect(ctx, b.name, client.ContainerInspectOptions{})
	if err != nil || found.Container.State == nil {
		return message
	}
	if state := found.Container.State; !state.OOMKilled && !b.ranOut(ctx, found.Container.ID, state.StartedAt) {
		return message
	}
	return message + " (the container ran out of memory: raise memory in [runners.docker], or let the job use less)"
}

// oomTime is how long the engine is given to learn that the kernel has killed something.
const oomTime = 500 * time.Millisecond

// ranOut says whether something in a container was killed for want of memory. While the container goes on, older engines
// tell that by events only.
func (b *box) ranOut(ctx context.Context, id, since string) bool {
	ctx, stop := context.WithTimeout(ctx, oomTime)
	defer stop()
	found := b.host.engine.API().Events(ctx, client.EventsListOptions{
		Since: since, Filters: make(client.Filters).Add("container", id).Add("event", string(events.ActionOOM)),
	})
	select {
	case _, ok := <-found.Messages:
		return ok
	case <-ctx.Done():
		return false
	}
}
