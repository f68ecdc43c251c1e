package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/account"
	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/batch/flux"
	"github.com/tranter-ci/tranter/internal/batch/lsf"
	"github.com/tranter-ci/tranter/internal/batch/pbs"
	"github.com/tranter-ci/tranter/internal/batch/slurm"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/sizing"
	"github.com/tranter-ci/tranter/internal/worker"
)

// batchSystem is one kind of batch system.
type batchSystem struct {
	open       func(batch.Client, bool) (tranter.Scheduler, error)
	idVariable string
}

// batchSystems is the table of all kinds, by their names in the configuration.
func batchSystems(log *slog.Logger) map[string]batchSystem {
	return map[string]batchSystem{
		"slurm": {idVariable: slurm.IDVariable(), open: func(c batch.Client, all bool) (tranter.Scheduler, error) {
			return slurm.New(slurm.Options{Client: c, AllUsers: all, Log: log})
		}},
		"pbs": {idVariable: pbs.IDVariable(), open: func(c batch.Client, all bool) (tranter.Scheduler, error) {
			return pbs.New(pbs.Options{Client: c, AllUsers: all, Log: log})
		}},
		"lsf": {idVariable: lsf.IDVariable(), open: func(c batch.Client, all bool) (tranter.Scheduler, error) {
			return lsf.New(lsf.Options{Client: c, AllUsers: all, Log: log})
		}},
		"flux": {idVariable: flux.IDVariable(), open: func(c batch.Client, all bool) (tranter.Scheduler, error) {
			return flux.New(flux.Options{Client: c, AllUsers: all, Log: log})
		}},
	}
}

// inBatch returns the executor of a runner whose jobs run in batch jobs, there with the section's executor.
func (s surroundings) inBatch(r config.Runner, client *gitlab.Client) (tranter.Executor, error) {
	if s.clusters == nil {
		return nil, &tranter.ConfigError{Err: errors.New("[runners.batch] needs a state directory that remembers batch jobs: use \"tranter run\"")}
	}
	s.clusters.opening.RLock()
	defer s.clusters.opening.RUnlock()
	class := r.Token.Short()
	settings, err := s.clusterSettings(class, r)
	if err != nil {
		return nil, err
	}
	d := demanded{name: r.Name, url: r.URL, ca: r.TLSCAFile, id: r.ID, verify: client.Verify, priority: s.site.priority(r.Name)}
	if r.Batch.Order == string(allocation.AllocateFirst) {
		d.pending = r.Batch.Pending
	}
	c, err := s.clusters.open(class, settings, d)
	if err != nil {
		return nil, err
	}
	return c.Executor(), nil
}

// clusterSettings makes a section's cluster ready.
func (s surroundings) clusterSettings(class string, r config.Runner) (cluster.Settings, error) {
	b := r.Batch
	system, ok := batchSystems(s.log)[b.Scheduler]
	if !ok {
		return cluster.Settings{}, &tranter.ConfigError{Err: fmt.Errorf("the batch system %q is not known", b.Scheduler)}
	}
	client := batch.Client{Prefix: b.CommandPrefix, Bin: b.Bin, Timeout: b.CommandTimeout}
	users := accounts(b.Users)
	if users != nil {
		if err := mayServeUsers(b, os.Geteuid()); err != nil {
			return cluster.Settings{}, &tranter.ConfigError{Err: err}
		}
	}
	scheduler, err := system.open(client, users != nil)
	if err != nil {
		return cluster.Settings{}, err
	}
	rules, err := sizingRules(b)
	if err != nil {
		return cluster.Settings{}, &tranter.ConfigError{Err: err}
	}
	dir := s.batchDir(b)
	o, err := s.clusters.office(worker.Options{Dir: filepath.Join(dir, class), Listen: b.Listen, LocalDir: b.LocalDirectory, Program: b.Program, Self: s.self, Log: s.log})
	if err != nil {
		return cluster.Settings{}, err
	}
	inner, err := newWorkerSettings(r, dir)
	if err != nil {
		return cluster.Settings{}, err
	}
	settings := cluster.Settings{
		Runner: r.Name, System: b.Scheduler, Scheduler: scheduler, Policy: s.batchPolicy(class, b),
		List:  s.clusters.lister(client, b, scheduler),
		Hands: o.hands(assignmentOf(b, inner, system.idVariable)),
		Size: func(n cluster.Need) (tranter.Shape, []string, error) {
			return sizeOf(rules, n)
		},
		Output: func(name string) string { return filepath.Join(dir, class, "allocations", name, "output") },
		Dir:    "/", Every: b.PollInterval,
	}
	if users != nil {
		settings.Accounts, settings.Account = users, account.Lookup
		settings.Home = func(a *tranter.Account) tranter.Surroundings { return homeOf(r, a) }
	}
	return settings, nil
}

// batchDir is what a section's manager and nodes share.
func (s surroundings) batchDir(b config.Batch) string {
	return cmp.Or(b.Directory, filepath.Join(s.state, "batch"))
}

// accounts maps users of GitLab; nil: all jobs are ours.
func accounts(u config.BatchUsers) func(context.Context, cluster.User) (*tranter.Account, error) {
	if len(u.Table) == 0 && len(u.Command) == 0 && !u.Same {
		return nil
	}
	m := account.New(account.Options{Table: u.Table, Command: u.Command, Same: u.Same, MinimumUID: u.Minimum})
	return func(ctx context.Context, user cluster.User) (*tranter.Account, error) {
		a, err := m.Map(ctx, account.User{Name: user.Name, ID: user.ID, Project: user.Project})
		if _, unmapped := errors.AsType[*account.UnmappedError](err); unmapped {
			err = &tranter.ConfigError{Err: err}
		}
		return a, err
	}
}

// mayServeUsers says whether a manager that is uid can have jobs run as other users.
func mayServeUsers(b config.Batch, uid int) error {
	switch {
	case uid != 0:
		return fmt.Errorf("[runners.batch.users] has jobs run as other users: only root can do that, and this manager runs as uid %d; start it as root, or remove the table", uid)
	case b.Directory == "":
		return errors.New("[runners.batch.users] has jobs run as other users, who can't get into the state directory: name a directory of [runners.batch] that they and the nodes can")
	}
	return nil
}

// homeOf is where the jobs of a user work, unless the configuration says so: what others have made is not theirs.
func homeOf(r config.Runner, a *tranter.Account) tranter.Surroundings {
	var out tranter.Surroundings
	if r.BuildsDir == "" {
		out.Builds = filepath.Join(a.Home, ".cache", "tranter", "builds")
	}
	if r.CacheDir == "" {
		out.Cache = filepath.Join(a.Home, ".cache", "tranter", "cache")
	}
	return out
}

func (s surroundings) batchPolicy(class string, b config.Batch) allocation.Policy {
	return allocation.Policy{
		Order: allocation.Order(b.Order), Prefix: s.clusters.classPrefix(b.Prefix, class), Places: b.Places, PackWindow: packWindow(b), Linger: b.Linger,
		TakeTimeout: b.TakeTimeout, MaxUses: b.MaxUses, Margin: b.Margin, Walltime: b.Walltime, Attempts: b.Attempts, LostAfter: b.LostAfter,
		SubmitWithin: b.CommandTimeout + commandEnds,
		Limits:       allocation.Limits{Queued: b.MaxQueued, Total: b.MaxAllocations, PerUser: b.MaxPerUser, Rate: b.SubmitRate, Burst: b.SubmitBurst},
	}
}

// commandEnds is the time that a command of the scheduler may take to end once its time is over.
const commandEnds = 5 * time.Second

// packWindow is 0 where nothing is packed: nobody waits for others then.
func packWindow(b config.Batch) time.Duration {
	if b.Places <= 1 {
		return 0
	}
	return b.PackWindow
}

func assignmentOf(b config.Batch, inner json.RawMessage, idVariable string) worker.Assignment {
	before := b.Before
	if accounts(b.Users) != nil { // homes may be open to others, and what jobs work on is not for them
		before = "mkdir -p -m 700 \"$HOME/.cache/tranter\"\n" + before
	}
	return worker.Assignment{
		TakeTimeout: b.TakeTimeout, Linger: b.Linger, LostAfter: b.LostAfter, Margin: b.Margin, MaxUses: b.MaxUses, Executor: inner,
		Before: before, Environment: b.Environment, IDVariable: idVariable,
	}
}

// sizeOf says what a job needs. Of one that waits only the tags are known: its time is the class's.
func sizeOf(rules sizing.Rules, n cluster.Need) (tranter.Shape, []string, error) {
	if n.Waiting {
		return sizing.Shape(rules, sizing.Job{Tags: n.Tags})
	}
	return sizing.Shape(rules, sizing.Job{Tags: n.Tags, Variables: n.Variables, Timeout: n.Timeout})
}

// sizingRules says what jobs are given, and may ask for.
func sizingRules(b config.Batch) (sizing.Rules, error) {
	base, err := batchShape(b)
	if err != nil {
		return sizing.Rules{}, err
	}
	r := sizing.Rules{Scheduler: b.Scheduler, Base: base, Margin: b.Margin, Max: b.Walltime}
	for _, t := range b.Tags {
		memory, err := batchMemory(t.Memory)
		if err != nil {
			return r, fmt.Errorf("memory of tag %s in [[runners.batch.tags]]: %w", t.Tag, err)
		}
		r.Tags = append(r.Tags, sizing.TagRule{Tag: t.Tag, Shape: tranter.Shape{
			Nodes: t.Nodes, CPUs: t.CPUs, Memory: memory, GPUs: t.GPUs, GPUType: t.GPUType, Walltime: t.Walltime, Partition: t.Partition,
			Account: t.Account, QOS: t.QOS, Constraint: t.Constraint, Options: t.Options,
		}})
	}
	r.Allow, err = batchAllowed(b.Allow)
	return r, err
}

func batchShape(b config.Batch) (tranter.Shape, error) {
	memory, err := batchMemory(b.Memory)
	if err != nil {
		return tranter.Shape{}, fmt.Errorf("memory in [runners.batch]: %w", err)
	}
	return tranter.Shape{
		Nodes: b.Nodes, CPUs: b.CPUs, Memory: memory, GPUs: b.GPUs, GPUType: b.GPUType, Walltime: b.Walltime, Partition: b.Partition,
		Account: b.Account, QOS: b.QOS, Constraint: b.Constraint, Reservation: b.Reservation, Exclusive: b.Exclusive, Options: b.Options,
	}, nil
}

func batchMemory(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	return config.ParseMemory(text)
}

func batchAllowed(a config.BatchAllow) (sizing.Allow, error) {
	out := sizing.Allow{
		GPUTypes: a.GPUTypes, Partitions: a.Partitions, Accounts: a.Accounts, QOS: a.QOS, Constraints: a.Constraints,
		Reservations: a.Reservations, Exclusive: a.Exclusive, Options: a.Options,
	}
	for _, n := range []struct {
		text string
		into *sizing.Range
	}{{a.Nodes, &out.Nodes}, {a.CPUs, &out.CPUs}, {a.GPUs, &out.GPUs}} {
		if n.text == "" {
			continue
		}
		from, to, err := config.ParseRange(n.text)
		if err != nil {
			return out, fmt.Errorf("[runners.batch.allow]: %w", err)
		}
		*n.into = sizing.Range{Min: int64(from), Max: int64(to), Given: true}
	}
	if a.Memory != "" {
		from, to, err := config.ParseMemoryRange(a.Memory)
		if err != nil {
			return out, fmt.Errorf("memory in [runners.batch.allow]: %w", err)
		}
		out.Memory = sizing.Range{Min: from, Max: to, Given: true}
	}
	if a.Walltime != "" {
		from, to, err := config.ParseDurationRange(a.Walltime)
		if err != nil {
			return out, fmt.Errorf("walltime in [runners.batch.allow]: %w", err)
		}
		out.Walltime = sizing.Range{Min: int64(from), Max: int64(to), Given: true}
	}
	return out, nil
}
