package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/pool"
)

// fakePool is a pool of which each look at it moves new and going machines one step on.
type fakePool struct {
	name, runner string
	sets         []string
	fails        string // why no machine can be created
	listed       bool   // a machine that is gone is made anew, as hosts of a list are
	hosts        map[string]pool.Host

	mu       sync.Mutex
	made     int
	machines []fleet.Machine
	events   []fleet.Event
}

var fakeTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (f *fakePool) Status(context.Context) (pool.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.step()
	s := pool.Status{Pool: f.name, Runner: f.runner, Provider: "fake", Limit: 10, Target: 2, Count: map[fleet.State]int{}, Machines: []pool.MachineStatus{}}
	for _, m := range f.machines {
		s.Count[m.State]++
		s.Machines = append(s.Machines, pool.StatusOf(m, f.name, 0.5, fakeTime.Add(2*time.Hour)))
	}
	return s, nil
}

func (f *fakePool) step() {
	var anew []fleet.Machine
	f.machines = slices.DeleteFunc(f.machines, func(m fleet.Machine) bool {
		leaves := m.State == fleet.Removing && m.Problem == ""
		if leaves {
			f.note(fleet.MachineGone, m.Name, "")
		}
		if leaves && f.listed {
			anew = append(anew, fleet.Machine{Name: m.Name, State: fleet.Wanted, Made: time.Now(), Since: time.Now()})
		}
		return leaves && !m.Orphan
	})
	f.machines = append(f.machines, anew...)
	for i := range f.machines {
		m := &f.machines[i]
		switch {
		case m.State == fleet.Wanted && f.fails != "":
			m.State, m.Reason = fleet.Removing, f.fails
			f.note(fleet.MachineFailed, m.Name, f.fails)
		case m.State == fleet.Wanted:
			m.State, m.Since, m.Seen.Login.Host = fleet.Booting, m.Since.Add(3*time.Second), "10.0.0.9"
		case m.State == fleet.Booting && len(m.Boot) == 0:
			m.Boot = []tranter.Timing{{Step: "ssh", Took: 2 * time.Second}}
		case m.State == fleet.Booting:
			m.Boot = append(m.Boot, tranter.Timing{Step: "engine", Took: 1500 * time.Millisecond})
			m.State, m.Since = fleet.Idle, m.Since.Add(4*time.Second)
			m.Ready = m.Since
		}
	}
}

func (f *fakePool) note(k fleet.Kind, machine, reason string) {
	f.events = append(f.events, fleet.Event{At: fakeTime, Kind: k, Machine: machine, Reason: reason})
}

func (f *fakePool) Create(_ context.Context, n int, set string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if set != "" && !slices.Contains(f.sets, set) {
		return nil, fmt.Errorf("there is no option set %q", set)
	}
	var names []string
	for range n {
		f.made++
		m := fleet.Machine{Name: fmt.Sprintf("runner-%s-new-%d", f.name, f.made), State: fleet.Wanted, Set: set, Made: fakeTime, Since: fakeTime, ByHand: true}
		f.machines = append(f.machines, m)
		f.note(fleet.MachineWanted, m.Name, "asked for by hand")
		names = append(names, m.Name)
	}
	return names, nil
}

// change runs do on the machine with a name.
func (f *fakePool) change(name string, do func(*fleet.Machine)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.machines {
		if f.machines[i].Name == name {
			do(&f.machines[i])
			return nil
		}
	}
	return pool.ErrUnknown
}

func (f *fakePool) Machine(_ context.Context, name string) (found fleet.Machine, err error) {
	err = f.change(name, func(m *fleet.Machine) { found = *m })
	return found, err
}

func (f *fakePool) Remove(_ context.Context, name string, force bool) error {
	return f.change(name, func(m *fleet.Machine) {
		m.State, m.Reason = fleet.Removing, "asked for by hand"
		if len(m.Leases) > 0 && !force {
			m.State = fleet.Draining
		}
	})
}

func (f *fakePool) Drain(_ context.Context, name, reason string) error {
	return f.change(name, func(m *fleet.Machine) { m.State, m.Reason = fleet.Draining, reason })
}

func (f *fakePool) Host(_ context.Context, name string) (pool.Host, error) {
	h := f.hosts[name]
	if h == nil {
		return nil, errors.New("it does not answer")
	}
	return h, nil
}

func (f *fakePool) Prune(_ context.Context, dry bool) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for _, m := range f.machines {
		if m.Orphan || m.Stuck() {
			names = append(names, m.Name)
		}
	}
	if !dry {
		f.machines = slices.DeleteFunc(f.machines, func(m fleet.Machine) bool { return slices.Contains(names, m.Name) })
	}
	return names, nil
}

func (f *fakePool) History(_ context.Context, machine string, _ int) ([]fleet.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.events), func(e fleet.Event) bool { return e.Machine != machine }), nil
}

// twoPools has machines in all states, secrets included.
func twoPools() (builders, others *fakePool) {
	at := func(m fleet.Machine, state fleet.State, reason string) fleet.Machine {
		m.State, m.Reason, m.Made, m.Since = state, reason, fakeTime, fakeTime.Add(time.Minute)
		m.Seen.Ref, m.Kept = []byte(`{"key":"glpat-hidden"}`), []byte(`{"key":"glpat-hidden"}`)
		return m
	}
	builders = &fakePool{name: "t1", runner: "builders", sets: []string{"spot"}, machines: []fleet.Machine{
		at(fleet.Machine{Name: "runner-t1-a", Ready: fakeTime.Add(9 * time.Second), Seen: tranter.Machine{ID: "i-1", Login: tranter.Login{Host: "10.0.0.1", Port: 2222, Identity: "/keys/a b"}}}, fleet.Idle, "spare"),
		at(fleet.Machine{
			Name: "runner-t1-b", Uses: 3, Leases: []fleet.Lease{{Job: "gitlab.example.com-7", Since: fakeTime}},
			Seen: tranter.Machine{Login: tranter.Login{Host: "10.0.0.2"}},
		}, fleet.Leased, ""),
		at(fleet.Machine{Name: "runner-t1-c", Tries: 4, Problem: "quota \x1b[2J", Seen: tranter.Machine{ID: "i-3"}}, fleet.Removing, "idle for 30s"),
	}}
	others = &fakePool{name: "t2", runner: "others", machines: []fleet.Machine{
		at(fleet.Machine{Name: "runner-t2-d", Orphan: true, Problem: "look for the tag tranter"}, fleet.Removing, "it never came"),
	}}
	return builders, others
}

func fleetOf(pools ...*fakePool) *machineFleet {
	f := &machineFleet{history: pools[0], pools: func() []machinePool {
		var all []machinePool
		for _, p := range pools {
			all = append(all, p)
		}
		return all
	}}
	return f
}

// fakeManager is what the control socket needs of a manager besides machines.
type fakeManager struct{ jobs []manager.JobStatus }

func (f fakeManager) Status() manager.Status {
	return manager.Status{State: "running", Jobs: f.jobs, Runners: []manager.RunnerStatus{}}
}
func (f fakeManager) Drain()                        {}
func (f fakeManager) leave()                        {}
func (f fakeManager) upgrade(context.Context) error { return nil }
func (f fakeManager) Attach(context.Context, string) (tranter.Terminal, error) {
	return nil, tranter.ErrNotFound
}

// machineHarness runs commands about machines.
type machineHarness struct {
	t     *testing.T
	state string
	open  machineOpener // nil: a manager runs
}

// managed has a manager with these machines on a control socket.
func managed(t *testing.T, f *machineFleet, jobs ...manager.JobStatus) machineHarness {
	t.Helper()
	return managedWith(t, f, nil, jobs...)
}

// managedWith has a manager with these machines and batch jobs on a control socket.
func managedWith(t *testing.T, f *machineFleet, b *batchFleet, jobs ...manager.JobStatus) machineHarness {
	t.Helper()
	h := machineHarness{t: t, state: shortDir(t)}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() {
		served <- control{controlled: fakeManager{jobs: jobs}, machines: f, batches: b}.serve(ctx, h.state)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", filepath.Join(h.state, controlSocket))
		if err == nil {
			_ = conn.Close()
			return h
		}
		select {
		case <-t.Context().Done():
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

// alone has no manager: commands open the machines themselves.
func alone(t *testing.T, f *machineFleet) (h machineHarness, opened func() []need) {
	t.Helper()
	var seen []need
	open := 0
	h = machineHarness{t: t, state: shortDir(t), open: func(_ context.Context, _ machinePlace, n need) (*machineFleet, func() error, error) {
		seen, open = append(seen, n), open+1
		return f, func() error { open--; return nil }, nil
	}}
	t.Cleanup(func() {
		if open != 0 {
			t.Errorf("%d were not closed", open)
		}
	})
	return h, func() []need { return seen }
}

// shortDir is a directory in whose path there is room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "m") //nolint:usetesting // its own has the name of the test in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// run runs "tranter machine" with the arguments.
func (h machineHarness) run(args ...string) (out string, code int) { return h.typed("", args...) }

// typed is run with an input.
func (h machineHarness) typed(input string, args ...string) (out string, code int) {
	h.t.Helper()
	var both bytes.Buffer
	code = h.streams(streams{in: strings.NewReader(input), out: &both, err: &both}, args...)
	return both.String(), code
}

func (h machineHarness) streams(s streams, args ...string) int {
	h.t.Helper()
	where := []string{"--config", filepath.Join(h.state, "none.toml"), "--state-dir", h.state}
	args = slices.Concat([]string{"machine"}, args[:1], where, args[1:])
	ctx, stop := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer stop()
	if h.open == nil {
		return run(ctx, args, s)
	}
	root := &cobra.Command{Use: "tranter", SilenceErrors: true, SilenceUsage: true}
	addLogFlags(root.PersistentFlags())
	root.AddCommand(newMachineWith(s, h.open))
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if exit, ok := errors.AsType[*exitError](err); ok && exit.err == nil {
		return exit.code
	}
	if err != nil {
		fmt.Fprintf(s.err, "tranter: %v\n", err)
		return 1
	}
	return 0
}
