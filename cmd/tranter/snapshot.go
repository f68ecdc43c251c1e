package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/view"
)

// watched is a manager and all that is to be seen of it.
type watched struct {
	manager   interface{ Status() manager.Status }
	machines  *machineFleet
	batches   *batchFleet
	watch     *observatory               // nil: the past is not kept
	config    func() string              // path of the configuration
	warnings  func() map[string][]string // of the runners' configurations, by their short tokens
	pipelines func() []view.Pipeline     // of a local run; nil: there are none
}

// Snapshot returns all that is there now. A pool or cluster that does not answer in time is left out.
func (w *watched) Snapshot(ctx context.Context) (view.Snapshot, error) {
	now := time.Now()
	status := w.manager.Status()
	s := view.Snapshot{
		At: now, Version: version, Runners: []view.Runner{}, Jobs: []view.Job{}, Waiting: []view.Waiting{}, Pools: []view.Pool{},
		Machines: []view.Machine{}, Clusters: []view.Cluster{}, Batches: []view.Batch{},
		Manager: view.Manager{State: status.State, Started: status.Started, Concurrent: status.Concurrent, Config: w.config(), ConfigProblem: status.ConfigProblem},
	}
	ctx, stop := context.WithTimeout(ctx, summaryPatience)
	defer stop()
	w.addRunners(&s, status)
	places := map[string]tranter.JobPlace{}
	w.addMachines(ctx, &s, places)
	w.addBatches(ctx, &s, places)
	w.addJobs(&s, status, places)
	if w.pipelines != nil {
		s.Pipes = w.pipelines()
	}
	if w.watch != nil {
		s.Recent = w.watch.lately(ctx, now)
	}
	return s, nil
}

func (w *watched) addRunners(s *view.Snapshot, status manager.Status) {
	warnings := w.warnings()
	for _, r := range status.Runners {
		one := view.Runner{
			Name: r.Name, Runner: r.Runner, URL: r.URL, Executor: r.Executor, Jobs: r.Jobs, Limit: r.Limit, Contact: r.Contact, Backoff: r.Paused,
			Paused: r.Held, Busy: r.Busy, Problem: r.Problem,
			Warnings: warnings[r.Runner],
		}
		if w.watch != nil {
			one.Queue = w.watch.queue(r.Runner)
		}
		s.Runners = append(s.Runners, one)
	}
}

func (w *watched) addMachines(ctx context.Context, s *view.Snapshot, places map[string]tranter.JobPlace) {
	all, err := w.machines.each(ctx)
	if err != nil {
		return
	}
	for i := range all {
		p := &all[i]
		one := viewOfPool(p)
		if w.watch != nil {
			one.Decision, one.Decided = w.watch.decision(p.Pool)
		}
		s.Pools = append(s.Pools, one)
		for j := range p.Machines {
			m := &p.Machines[j]
			s.Machines = append(s.Machines, viewOfMachine(m))
			for _, job := range m.Jobs {
				places[job] = tranter.JobPlace{Machine: m.Name, Set: m.Set}
			}
		}
	}
}

func viewOfPool(p *pool.Status) view.Pool {
	v := view.Pool{
		Pool: p.Pool, Runner: p.Runner, Provider: p.Provider, Count: map[string]int{}, Limit: p.Limit, Target: p.Target, Waiting: p.Waiting,
		Problem: p.Problem, Throttle: p.Throttle, IdleTime: p.IdleTime, Fixed: p.Fixed,
	}
	for state, n := range p.Count {
		v.Count[string(state)] = n
	}
	return v
}

func viewOfMachine(m *pool.MachineStatus) view.Machine {
	return view.Machine{
		Name: m.Name, Pool: m.Pool, Set: m.Set, State: string(m.State), Reason: m.Reason, Since: m.Since, Deadline: m.Deadline, Made: m.Made,
		Ready: m.Ready, Jobs: m.Jobs, Uses: m.Uses, Address: m.Address, Cost: m.Cost, Problem: m.Problem, Leak: m.Leak, ByHand: m.ByHand,
	}
}

func (w *watched) addBatches(ctx context.Context, s *view.Snapshot, places map[string]tranter.JobPlace) {
	answer, err := w.batches.answer(ctx)
	if err != nil {
		return
	}
	for i := range answer.Runners {
		c := &answer.Runners[i]
		s.Clusters = append(s.Clusters, view.Cluster{
			Class: c.Class, Runner: c.Runner, System: c.System, Order: string(c.Order), Waiting: c.Waiting, Taken: c.Taken, Problem: c.Problem, Busy: c.Busy, Full: c.Full,
		})
		for j := range c.Allocations {
			a := &c.Allocations[j]
			s.Batches = append(s.Batches, viewOfBatch(a, c.Runner))
			for _, l := range a.Leases {
				places[l.Job] = tranter.JobPlace{Batch: a.Name}
			}
		}
		for _, j := range c.Jobs {
			if j.Key != "" { // it was taken
				places[j.Key] = tranter.JobPlace{Batch: j.Allocation}
				continue
			}
			s.Waiting = append(s.Waiting, viewOfWaiting(c, j))
		}
	}
}

func viewOfWaiting(c *cluster.Status, j cluster.WaitingJob) view.Waiting {
	return view.Waiting{
		ID: j.ID, Name: j.Name, Project: j.Project, User: j.User, Runner: c.Class, Since: j.Since, Batch: j.Allocation,
		Reason: cmp.Or(j.Refused, c.Problem, c.Full),
	}
}

func viewOfBatch(a *allocation.Allocation, runner string) view.Batch {
	b := view.Batch{
		Name: a.Name, ID: a.BatchID, Class: a.Class, Runner: runner, State: string(a.State), Reason: cmp.Or(a.Reason, a.Batch.Reason), Made: a.Times.Planned,
		Nodes: a.Batch.Nodes, Jobs: []string{},
	}
	b.Since = inStateSince(a)
	for _, l := range a.Leases {
		b.Jobs = append(b.Jobs, l.Job)
	}
	return b
}

// addJobs adds the jobs in the manager's order: the oldest first.
func (w *watched) addJobs(s *view.Snapshot, status manager.Status, places map[string]tranter.JobPlace) {
	s.Jobs = slices.Grow(s.Jobs, len(status.Jobs))
	for i := range status.Jobs {
		j := &status.Jobs[i]
		one := view.Job{JobHistory: j.Past, Stage: j.Stage, Terminal: j.Terminal}
		if p, has := places[j.Key]; has {
			one.Place = p
		}
		s.Jobs = append(s.Jobs, one)
	}
}

// inStateSince returns when an allocation came to its state.
func inStateSince(a *allocation.Allocation) time.Time {
	t := a.Times
	switch a.State {
	case allocation.Submitting:
		return t.Asked
	case allocation.Queued:
		return t.Queued
	case allocation.Started:
		return t.Started
	case allocation.Ending:
		return t.Ending
	case allocation.Ended:
		return t.Ended
	default:
		return t.Planned
	}
}
