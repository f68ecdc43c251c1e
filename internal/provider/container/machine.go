package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	tranter "github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// grace is how long a request that creates something goes on when its context has ended: the engine would finish it
// anyway, and nobody would know of what it has made.
const grace = 10 * time.Second

// stopSeconds is how long a machine may take to switch itself off.
const stopSeconds = 20

// maxHostName is the longest host name that Linux has.
const maxHostName = 64

// Create makes a machine and starts it (see tranter.Provider). Its options are image, memory and cpus.
func (p *Provider) Create(ctx context.Context, spec tranter.MachineSpec, note func(json.RawMessage)) (tranter.Machine, error) {
	w, err := p.want(spec.Options)
	if err != nil {
		return tranter.Machine{}, err
	}
	api, err := p.api(ctx)
	if err != nil {
		return tranter.Machine{}, err
	}
	doing := "create the machine " + spec.Name
	id, err := p.make(ctx, api, spec, w)
	if err != nil {
		return tranter.Machine{}, classed(err, doing)
	}
	note(ref{ID: id}.json())
	if _, err := api.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return tranter.Machine{}, classed(err, doing)
	}
	m, err := p.inspect(ctx, api, id)
	if err == nil && m.Power == tranter.PowerOff {
		return m, fmt.Errorf("%s: its container has ended at once; its image has to start an SSH server and an engine, and stay", doing)
	}
	return m, classed(err, doing)
}

// make creates the container, or finds it, and returns its id.
func (p *Provider) make(ctx context.Context, api *client.Client, spec tranter.MachineSpec, w wanted) (string, error) {
	for again := false; ; again = true {
		at, err := p.ready(ctx, api, w.image)
		if err != nil {
			return "", err
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		lasting, cancel := lasting(ctx)
		made, err := api.ContainerCreate(lasting, p.request(spec, w, at))
		cancel()
		switch {
		case err == nil:
			return made.ID, nil
		case engine.Conflict(err):
			return p.existing(ctx, api, spec)
		case engine.Missing(err) && w.image == "" && !again: // somebody has removed the image
			p.forget(ctx, at.image)
		default:
			return "", err
		}
	}
}

// lasting returns a context that ends a while after ctx.
func lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var timer *time.Timer
	armed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		timer = time.AfterFunc(grace, cancel)
		close(armed)
	})
	return longer, func() {
		if !stop() {
			<-armed
			timer.Stop()
		}
		cancel()
	}
}

// existing returns the id of the container that has the machine's name, if it is that machine.
func (p *Provider) existing(ctx context.Context, api *client.Client, spec tranter.MachineSpec) (string, error) {
	found, err := api.ContainerInspect(ctx, spec.Name, client.ContainerInspectOptions{})
	if err != nil {
		return "", err
	}
	labels := found.Container.Config.Labels
	if labels[labelMachine] != spec.Name || labels[labelOwner] != spec.Mark.Owner || labels[labelPool] != spec.Mark.Pool {
		return "", fmt.Errorf("%w: the engine has a container of that name that is not this machine", tranter.ErrRejected)
	}
	return found.Container.ID, nil
}

func (p *Provider) request(spec tranter.MachineSpec, w wanted, place place) client.ContainerCreateOptions {
	host, networkID := Privileges(place.cgroups), place.network
	host.NetworkMode = container.NetworkMode(networkID)
	host.Memory, host.NanoCPUs = w.size.memory, w.size.nanos
	timeout := stopSeconds
	return client.ContainerCreateOptions{
		Name: spec.Name,
		Config: &container.Config{
			Image: place.image, Hostname: spec.Name[:min(len(spec.Name), maxHostName)], StopTimeout: &timeout,
			Env:    append([]string{"TRANTER_AUTHORIZED_KEYS=" + p.key.public}, nameservers(p.engine.Facts().Local)...),
			Labels: map[string]string{labelMachine: spec.Name, labelOwner: spec.Mark.Owner, labelPool: spec.Mark.Pool},
		},
		HostConfig:       host,
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{networkID: {}}},
	}
}

// Privileges returns what a container needs in order to be a machine: it is --privileged spelt out, without the one
// capability that a sandbox may lack (docker-machine, section 5.1). The version of the control groups is the engine's, as
// its information has it: "1" or "2".
func Privileges(cgroups string) *container.HostConfig {
	h := &container.HostConfig{
		CapAdd: []string{"ALL"}, CapDrop: []string{"SYS_RESOURCE"},
		SecurityOpt: []string{"seccomp=unconfined", "apparmor=unconfined"},
		Tmpfs:       map[string]string{"/run": "exec"},
		Resources:   container.Resources{DeviceCgroupRules: []string{"a *:* rwm"}},
		MaskedPaths: []string{}, ReadonlyPaths: []string{},
	}
	if cgroups == "2" {
		h.CgroupnsMode = container.CgroupnsModePrivate // init makes it writable: the host's own tree is not to be touched
		return h
	}
	h.CgroupnsMode = container.CgroupnsModeHost
	h.Binds = []string{"/sys/fs/cgroup:/sys/fs/cgroup"}
	return h
}

// inspect returns what the engine says of one machine.
func (p *Provider) inspect(ctx context.Context, api *client.Client, id string) (tranter.Machine, error) {
	found, err := api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return tranter.Machine{}, err
	}
	c := found.Container
	return p.machine(c.Config.Labels[labelMachine], c.ID, c.State.Status, c.NetworkSettings.Networks), nil
}

func (p *Provider) machine(name, id string, state container.ContainerState, networks map[string]*network.EndpointSettings) tranter.Machine {
	m := tranter.Machine{Name: name, ID: id, Power: power(state), Ref: ref{ID: id}.json()}
	m.Login = tranter.Login{User: "root", Port: 22, Identity: p.key.path}
	for _, n := range networks {
		if n != nil && n.IPAddress.IsValid() {
			m.Login.Host = n.IPAddress.String()
		}
	}
	return m
}

func power(state container.ContainerState) tranter.Power {
	switch state {
	case container.StateRunning, container.StatePaused:
		return tranter.PowerOn
	case container.StateRestarting, container.StateRemoving:
		return tranter.PowerChanges
	case container.StateCreated, container.StateExited, container.StateDead:
		return tranter.PowerOff
	}
	return tranter.PowerUnknown
}

// Destroy removes a machine with all that is on it (see tranter.Provider).
func (p *Provider) Destroy(ctx context.Context, m tranter.MachineRef) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	return classed(p.remove(ctx, api, m), "remove the machine "+m.Name)
}

func (p *Provider) remove(ctx context.Context, api *client.Client, m tranter.MachineRef) error {
	found, err := api.ContainerInspect(ctx, containerOf(m), client.ContainerInspectOptions{})
	switch {
	case engine.Missing(err):
		return nil
	case err != nil:
		return err
	case found.Container.Config.Labels[labelMachine] != m.Name: // somebody else's, that has the name
		return nil
	}
	id := found.Container.ID
	_, err = api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if engine.Missing(err) {
		return nil
	}
	if engine.Conflict(err) {
		return gone(ctx, api, id, err) // it is being removed already
	}
	return err
}

// gone waits until a container that is being removed is no more.
func gone(ctx context.Context, api *client.Client, id string, cause error) error {
	const tries, pause = 50, 100 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for range tries {
		if _, err := api.ContainerInspect(ctx, id, client.ContainerInspectOptions{}); engine.Missing(err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), cause)
		case <-tick.C:
		}
	}
	return cause
}

// List returns the machines with the mark, and those of known that are there (see tranter.Provider). It is one request.
func (p *Provider) List(ctx context.Context, mark tranter.Mark, known []tranter.MachineRef) ([]tranter.Machine, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	all, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", labelMachine)})
	if err != nil {
		return nil, classed(err, "list the machines")
	}
	wanted := map[string]string{} // what the engine calls it
	for _, m := range known {
		wanted[m.Name] = containerOf(m)
	}
	var machines []tranter.Machine
	for _, c := range all.Items {
		if !isOurs(&c, mark, wanted) {
			continue
		}
		var networks map[string]*network.EndpointSettings
		if c.NetworkSettings != nil {
			networks = c.NetworkSettings.Networks
		}
		machines = append(machines, p.machine(c.Labels[labelMachine], c.ID, c.State, networks))
	}
	return machines, nil
}

// isOurs says whether a container is a machine with the mark, or one of those that are wanted, which are here by their names
// with what the engine calls them. Jobs that use the same engine can write any labels: what we have made has its machine's
// name, which no other has then.
func isOurs(c *container.Summary, mark tranter.Mark, wanted map[string]string) bool {
	name := c.Labels[labelMachine]
	called := slices.ContainsFunc(c.Names, func(n string) bool { return strings.TrimPrefix(n, "/") == name })
	if is, known := wanted[name]; known {
		return is == c.ID || is == name && called
	}
	return called && mark != tranter.Mark{} && c.Labels[labelOwner] == mark.Owner && c.Labels[labelPool] == mark.Pool
}

// Start starts a machine that was stopped (see tranter.Starter). It may have another address then.
func (p *Provider) Start(ctx context.Context, m tranter.MachineRef) (tranter.Machine, error) {
	api, err := p.api(ctx)
	if err != nil {
		return tranter.Machine{}, err
	}
	doing := "start the machine " + m.Name
	id := containerOf(m)
	if _, err := api.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return tranter.Machine{}, classed(err, doing)
	}
	started, err := p.inspect(ctx, api, id)
	return started, classed(err, doing)
}

// Stop switches a machine off (see tranter.Starter). One that is off stays so.
func (p *Provider) Stop(ctx context.Context, m tranter.MachineRef) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	_, err = api.ContainerStop(ctx, containerOf(m), client.ContainerStopOptions{})
	return classed(err, "stop the machine "+m.Name)
}
