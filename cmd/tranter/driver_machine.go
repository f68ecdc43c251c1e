package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/pool"
	programs "github.com/tranter-ci/tranter/internal/provider/command"
	"github.com/tranter-ci/tranter/internal/provider/container"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine"
	"github.com/tranter-ci/tranter/internal/provider/static"
	"github.com/tranter-ci/tranter/internal/provision"
	"github.com/tranter-ci/tranter/internal/provision/notice"
	"github.com/tranter-ci/tranter/internal/remote"
	"github.com/tranter-ci/tranter/internal/scale"
)

func openMachine(s surroundings, c config.Config, r config.Runner) (tranter.Executor, error) {
	if s.machines == nil {
		return nil, &tranter.ConfigError{Err: errors.New("the executor docker+machine needs a state directory that remembers its machines: use \"tranter run\"")}
	}
	name := r.Token.Short()
	if p := s.machines.find(name); p != nil && r.Name == removedRunner { // a job of a runner that is not in the configuration any more
		return p.Executor(), nil
	}
	settings, err := s.poolSettings(c, r)
	if err != nil {
		return nil, err
	}
	p, err := s.machines.open(name, settings, r.Machine)
	if err != nil {
		return nil, err
	}
	return p.Executor(), nil
}

// poolSettings makes a section's pool ready.
func (s surroundings) poolSettings(c config.Config, r config.Runner) (pool.Settings, error) {
	m := r.Machine
	provider, fixed, err := s.provider(r)
	if err != nil {
		return pool.Settings{}, err
	}
	policy, err := poolPolicy(r, fixed)
	if err != nil {
		return pool.Settings{}, err
	}
	if _, ok := provider.(tranter.Starter); !ok {
		policy.Stopped, policy.StoppedTime = 0, 0
	}
	prepare := s.preparer(r)
	account := cmp.Or(m.API.Account, m.Provider+" "+m.MachineDriver)
	return pool.Settings{
		Runner: r.Name, ProviderName: providerLabel(m), Provider: pool.Limited(provider, s.machines.budget(account, m.API.RequestsPerSecond, m.API.Burst)),
		Policy: policy, NewName: machineNamer(r), Options: machineOptions(m), Price: func(set string) float64 { return machinePrice(m, set) }, LostAfter: m.LostAfter,
		Hands: pool.Hands{
			Check: func() error {
				_, err := prepare()
				return err
			},
			Prepare:  s.prepare(r, prepare),
			Executor: func(m tranter.Machine, h pool.Host) (tranter.Executor, error) { return s.onMachine(c, r, m, h) },
			Watch:    watchNotices(m.Provision.Notices),
		},
	}, nil
}

// onMachine is the executor of one machine.
func (s surroundings) onMachine(c config.Config, r config.Runner, m tranter.Machine, h pool.Host) (tranter.Executor, error) {
	host, ok := h.(*provision.Host)
	if !ok {
		return nil, fmt.Errorf("a machine's connection is a %T", h)
	}
	o, err := dockerOptions(s, c, r)
	if err != nil {
		return nil, err
	}
	o.Address = m.Name
	o.Dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := host.Dial(ctx)
		if errors.Is(err, net.ErrClosed) { // the pool has given it up
			err = fmt.Errorf("%w: %w", tranter.ErrMachineLost, err)
		}
		return conn, err
	}
	if r.Docker.Image != "" {
		o.WarmImages = []string{r.Docker.Image}
	}
	return jobsOnMachine{docker.New(o)}, nil
}

// jobsOnMachine is the executor of one machine.
type jobsOnMachine struct{ *docker.Executor }

// Close gives up the connections to the machine's engine.
func (x jobsOnMachine) Close() error { return x.Disconnect() }

// prepare makes a machine ready, and puts the images on it that it is to have.
func (s surroundings) prepare(r config.Runner, preparer func() (*provision.Preparer, error)) func(context.Context, tranter.Machine, json.RawMessage, func(tranter.Timing)) (pool.Host, json.RawMessage, error) {
	return func(ctx context.Context, m tranter.Machine, kept json.RawMessage, report func(tranter.Timing)) (pool.Host, json.RawMessage, error) {
		p, err := preparer()
		if err != nil {
			return nil, nil, err
		}
		host, next, err := p.Open(ctx, m, kept, report)
		if err != nil {
			return nil, nil, err
		}
		images := r.Machine.Engine.PreloadImages
		if len(kept) > 0 || len(images) == 0 {
			return host, next, nil
		}
		start := time.Now()
		if err := preload(ctx, images, engine.Options{Host: m.Name, Dial: host.Dial, Log: s.log}); err != nil {
			return nil, nil, errors.Join(err, host.Close())
		}
		report(tranter.Timing{Step: "preload", Took: time.Since(start)})
		return host, next, nil
	}
}

// preparer returns what makes machines ready as the section says. The section's scripts are read for each machine anew.
func (s surroundings) preparer(r config.Runner) func() (*provision.Preparer, error) {
	m := r.Machine
	_, host := dockermachine.Split(m.MachineOptions)
	e := m.Engine
	settings := provision.Settings{
		Owner: s.machines.owner,
		Login: provision.LoginSettings{User: m.Login.User, Port: m.Login.Port, Identity: m.Login.IdentityFile, Jump: m.Login.Jump},
		Engine: provision.EngineSettings{
			TLS: e.Access == "tls", Socket: e.Socket, Install: e.Install, InstallURL: cmp.Or(e.InstallURL, host.InstallURL), CertLife: e.CertificateLife,
			ExtraNames: slices.Concat(host.Names, e.CertificateNames), Mirrors: slices.Concat(host.Mirrors, e.RegistryMirrors),
			Insecure: slices.Concat(host.Insecure, e.InsecureRegistries), StorageDriver: cmp.Or(e.StorageDriver, host.StorageDriver),
			Labels: slices.Concat(host.Labels, e.Labels), Options: slices.Concat(host.Options, e.Options), Environment: slices.Concat(host.Environment, e.Environment),
		},
		Proxy: provision.ProxySettings{HTTP: m.Provision.HTTPProxy, HTTPS: m.Provision.HTTPSProxy, No: m.Provision.NoProxy},
		Ready: m.Provision.ReadyCommand, GPU: m.Provision.GPUCheck, Linger: selfEnd(m),
	}
	return func() (*provision.Preparer, error) {
		now := settings
		var err error
		if now.Before, err = machineScript(m.Provision.Before); err == nil {
			now.After, err = machineScript(m.Provision.After)
		}
		if err == nil {
			err = now.Check()
		}
		if err != nil {
			return nil, err
		}
		return provision.New(now, provision.Options{Log: s.log}), nil
	}
}

// machineScript reads a script for machines; without a path there is none.
func machineScript(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", &tranter.ConfigError{Err: fmt.Errorf("read a script for machines: %w", err)}
	}
	return string(data), nil
}

// provider makes what creates a section's machines. fixed are the names of machines that are not created.
func (s surroundings) provider(r config.Runner) (p tranter.Provider, fixed []string, err error) {
	m, dir := r.Machine, s.machines.dir
	switch m.Provider {
	case "static":
		hosts := make([]static.Host, 0, len(m.Hosts))
		for _, h := range m.Hosts {
			at, _, err := remote.Parse(h.Address)
			if err != nil {
				return nil, nil, &tranter.ConfigError{Err: err}
			}
			hosts = append(hosts, static.Host{
				Name: cmp.Or(h.Name, at.Host), Capacity: h.Capacity,
				Login: tranter.Login{Host: at.Host, Port: at.Port, User: at.User, Identity: cmp.Or(h.IdentityFile, m.Login.IdentityFile)},
			})
		}
		p, err := static.New(static.Options{Hosts: hosts})
		if err != nil {
			return nil, nil, err
		}
		return p, p.Names(), nil
	case "command":
		c := m.Command
		p, err := programs.New(programs.Options{
			Create: c.Create, List: c.List, Remove: c.Remove, Status: c.Status, Start: c.Start, Stop: c.Stop,
			Timeout: c.Timeout, Environment: c.Environment, Options: m.MachineOptions, Log: s.log,
		})
		return p, nil, err
	case "container":
		c := m.Container
		p, err := container.New(container.Options{
			Host: c.Host, Image: c.Image, Network: c.Network, Subnet: c.Subnet, Memory: c.Memory, CPUs: c.CPUs,
			Dir: filepath.Join(dir, "container"), Log: s.log,
		})
		return p, nil, err
	}
	driver, _ := dockermachine.Split(m.MachineOptions)
	p, err = dockermachine.New(dockermachine.Options{
		Driver: m.MachineDriver, Options: driver, Dir: cmp.Or(m.StoragePath, filepath.Join(dir, "store")), Log: s.log,
	})
	return p, nil, err
}

// selfEnd is the time after which a machine that nobody looks after switches itself off: those of a fixed list are their
// owner's, and never do.
func selfEnd(m config.Machine) time.Duration {
	if m.Provider == "static" {
		return 0
	}
	return m.SelfDestructAfter
}

func providerLabel(m config.Machine) string {
	if m.Provider == "docker-machine" {
		return m.MachineDriver
	}
	return m.Provider
}

// poolPolicy says when machines are made and removed.
func poolPolicy(r config.Runner, fixed []string) (scale.Policy, error) {
	m := r.Machine
	p := scale.Policy{
		Limit: r.Limit, Growth: m.MaxGrowthRate, Capacity: max(1, m.Capacity), MaxUses: m.MaxBuilds, MaxAge: m.MaxAge,
		Idle:    scale.Idle{Count: m.IdleCount, Min: m.IdleCountMin, Factor: m.IdleScaleFactor, Time: m.IdleTime},
		Stopped: m.StoppedCount, StoppedTime: m.StoppedTime, Fixed: fixed, Places: map[string]int{},
		Times: scale.Times{Create: m.CreateTimeout, Boot: m.BootTimeout, Drain: m.DrainTimeout},
	}
	for i, name := range fixed {
		if n := m.Hosts[i].Capacity; n > 0 {
			p.Places[name] = n
		}
	}
	if life := m.Engine.CertificateLife * 9 / 10; m.Engine.Access == "tls" && (p.MaxAge == 0 || p.MaxAge > life) {
		p.MaxAge = life // nothing reaches the engine once its certificates are too old
	}
	for _, set := range m.OptionSets {
		p.Sets = append(p.Sets, scale.Set{Name: set.Name})
	}
	if len(p.Sets) == 0 {
		p.Sets = []scale.Set{{}}
	}
	for _, a := range m.Autoscaling {
		period := scale.Period{Idle: scale.Idle{Count: a.IdleCount, Min: a.IdleCountMin, Factor: a.IdleScaleFactor, Time: a.IdleTime}}
		zone, err := time.LoadLocation(cmp.Or(a.Timezone, "Local"))
		if err != nil {
			return p, &tranter.ConfigError{Err: fmt.Errorf("the Timezone of [[runners.machine.autoscaling]]: %w", err)}
		}
		period.Zone = zone
		for _, text := range a.Periods {
			cron, err := scale.ParseCron(text)
			if err != nil {
				return p, &tranter.ConfigError{Err: fmt.Errorf("the Periods of [[runners.machine.autoscaling]]: %w", err)}
			}
			period.Times = append(period.Times, cron)
		}
		p.Periods = append(p.Periods, period)
	}
	return p, nil
}

// machineNamer makes names of machines (runner contract, section 9.13).
func machineNamer(r config.Runner) func() string {
	names := namesOfMachines(r)
	return func() string {
		id := make([]byte, 4)
		_, _ = rand.Read(id) // never fails
		return fmt.Sprintf("%s%d-%s%s", names.prefix, time.Now().Unix(), hex.EncodeToString(id), names.suffix)
	}
}

// machineOptions returns the options of a set for a machine.
func machineOptions(m config.Machine) func(set, name string) []string {
	return func(set, name string) []string {
		own, named := []string{}, m.MachineOptionsWithName
		for _, s := range m.OptionSets {
			if s.Name == set {
				own, named = append(own, s.MachineOptions...), slices.Concat(named, s.MachineOptionsWithName)
			}
		}
		if m.Provider == "container" {
			own = slices.Concat(m.MachineOptions, own)
		}
		for _, o := range named {
			own = append(own, strings.ReplaceAll(o, "%s", name))
		}
		return own
	}
}

// watchNotices watches for notices that a machine is about to be taken away; nil: nobody does.
func watchNotices(clouds []string) func(context.Context, pool.Host, func(string, time.Time)) {
	if slices.Contains(clouds, "none") {
		return nil
	}
	return func(ctx context.Context, h pool.Host, found func(reason string, at time.Time)) {
		host, ok := h.(interface {
			Reach(ctx context.Context, network, address string) (net.Conn, error)
		})
		if !ok {
			return
		}
		notice.Watch(ctx, host.Reach, notice.Options{Clouds: clouds}, func(n notice.Notice) { found(n.Reason, n.At) })
	}
}
