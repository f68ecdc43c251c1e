package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/scale"
	"github.com/tranter-ci/tranter/internal/store"
)

// openMachines opens the machines of a place on which no manager works.
func openMachines(ctx context.Context, p machinePlace, n need) (*machineFleet, func() error, error) {
	if n == fromBook {
		return openMachineBook(ctx, p)
	}
	return openPoolsInPlace(ctx, p)
}

// openPoolsInPlace opens the pools of the configuration as a manager does, but so that they do nothing by themselves. A pool
// that can't be opened is left out.
func openPoolsInPlace(ctx context.Context, p machinePlace) (*machineFleet, func() error, error) {
	runners := slices.DeleteFunc(slices.Clone(p.config.Runners), func(r config.Runner) bool { return r.Executor != machineExecutor })
	if len(runners) == 0 {
		return nil, nil, fmt.Errorf("%w, and no runner of %s has the executor %q: name another configuration with --config", errNotRunning, p.path, machineExecutor)
	}
	if err := os.MkdirAll(p.state, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the state directory: %w", err)
	}
	st, err := openStore(ctx, p.state)
	if err != nil {
		return nil, nil, err
	}
	around, err := newSurroundings("", p.config.User, systemID(p.path, p.log), p.log)
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	around.state = p.state
	around.machines = newMachinePools(p.state, engineOwner(around.systemID, p.state), st.Machines(), p.log)
	closeAll := func() error {
		around.machines.close()
		return st.Close()
	}
	for _, r := range runners {
		if err := around.openIdly(p.config, r); err != nil {
			p.log.Error("The machines of a runner can't be reached", "runner", runnerLabel(r), "error", err)
		}
	}
	return &machineFleet{pools: around.machines.list, history: st.Machines()}, closeAll, nil
}

// machineExecutor is the executor whose runners have machines.
const machineExecutor = "docker+machine"

// openIdly opens the pool of a runner so that it makes and removes no machine but when a person asks for that.
func (s surroundings) openIdly(c config.Config, r config.Runner) error {
	settings, err := s.poolSettings(c, r)
	if err != nil {
		return err
	}
	policy := &settings.Policy
	policy.Idle, policy.Periods = scale.Idle{Time: keepForGood}, nil
	policy.Stopped, policy.StoppedTime = math.MaxInt, 0
	policy.MaxUses, policy.MaxAge = 0, 0
	_, err = s.machines.open(r.Token.Short(), settings, r.Machine)
	return err
}

// keepForGood is longer than any machine is idle.
const keepForGood = 100 * 365 * 24 * time.Hour

// openMachineBook opens what the last manager has left, to be read only.
func openMachineBook(ctx context.Context, p machinePlace) (*machineFleet, func() error, error) {
	st, err := openLeftStore(ctx, p.state)
	if err != nil {
		return nil, nil, err
	}
	fleet, err := readMachineBook(ctx, p.config, st.Machines())
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	return fleet, st.Close, nil
}

// openLeftStore opens the store of a manager that has ended.
func openLeftStore(ctx context.Context, dir string) (*store.Store, error) {
	if _, err := os.Stat(filepath.Join(dir, "tranter.db")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w with the state directory %s, and none has: name another with --state-dir", errNotRunning, dir)
	}
	return openStore(ctx, dir)
}

// openStore opens the store of a state directory that no manager uses.
func openStore(ctx context.Context, dir string) (*store.Store, error) {
	st, err := store.Open(ctx, filepath.Join(dir, "tranter.db"))
	if errors.Is(err, store.ErrInUse) {
		return nil, fmt.Errorf("another process uses the state directory %s, and answers no questions: a manager may be starting or ending, so try again", dir)
	}
	return st, err
}

// readMachineBook reads all pools, also those whose runners are not in the configuration any more.
func readMachineBook(ctx context.Context, c config.Config, book *store.Machines) (*machineFleet, error) {
	names, err := book.Pools(ctx)
	if err != nil {
		return nil, err
	}
	var pools []machinePool
	for _, r := range c.Runners {
		if r.Executor == machineExecutor && !slices.Contains(names, r.Token.Short()) {
			pools = append(pools, &bookedPool{name: r.Token.Short(), runner: r})
		}
	}
	for _, name := range names {
		p := &bookedPool{name: name}
		if i := slices.IndexFunc(c.Runners, func(r config.Runner) bool { return r.Token.Short() == name }); i >= 0 {
			p.runner = c.Runners[i]
		}
		if p.machines, err = book.Load(ctx, name); err != nil {
			p.problem = err.Error()
		}
		pools = append(pools, p)
	}
	return &machineFleet{pools: func() []machinePool { return pools }, history: book}, nil
}

// bookedPool is a pool as its manager has left it.
type bookedPool struct {
	name     string
	runner   config.Runner // empty: it is not in the configuration any more
	machines []fleet.Machine
	problem  string
}

// Status implements machinePool.
func (b *bookedPool) Status(context.Context) (pool.Status, error) {
	s := pool.Status{
		Pool: b.name, Runner: b.runner.Name, Provider: providerLabel(b.runner.Machine), Machines: make([]pool.MachineStatus, 0, len(b.machines)),
		Limit: b.runner.Limit, Count: map[fleet.State]int{}, Problem: b.problem,
	}
	for _, m := range b.machines {
		s.Count[m.State]++
		s.Machines = append(s.Machines, pool.StatusOf(m, b.name, machinePrice(b.runner.Machine, m.Set), time.Now()))
	}
	return s, nil
}

// machinePrice is that of an hour of a machine of an option set.
func machinePrice(m config.Machine, set string) float64 {
	for _, s := range m.OptionSets {
		if s.Name == set && s.PricePerHour > 0 {
			return s.PricePerHour
		}
	}
	return m.PricePerHour
}

// Machine implements machinesOfPool.
func (b *bookedPool) Machine(_ context.Context, name string) (fleet.Machine, error) {
	for _, m := range b.machines {
		if m.Name == name {
			return m, nil
		}
	}
	return fleet.Machine{}, pool.ErrUnknown
}

var errOnlyBook = errors.New("this is only what the last manager has left")

// Create implements machinePool.
func (b *bookedPool) Create(context.Context, int, string) ([]string, error) { return nil, errOnlyBook }

// Prune implements machinePool.
func (b *bookedPool) Prune(context.Context, bool) ([]string, error) { return nil, errOnlyBook }

// Remove implements machinesOfPool.
func (b *bookedPool) Remove(context.Context, string, bool) error { return errOnlyBook }

// Drain implements machinesOfPool.
func (b *bookedPool) Drain(context.Context, string, string) error { return errOnlyBook }

// Host implements machinesOfPool.
func (b *bookedPool) Host(context.Context, string) (pool.Host, error) { return nil, errOnlyBook }
