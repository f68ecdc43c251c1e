package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
)

// machinePool is a runner's machines: a *pool.Pool, or what the book of an ended manager has of one.
type machinePool interface {
	Status(ctx context.Context) (pool.Status, error)
	// Create returns the names of machines that are not there yet.
	Create(ctx context.Context, n int, set string) ([]string, error)
	Prune(ctx context.Context, dry bool) ([]string, error)
	machinesOfPool
}

// machinesOfPool are the machines of a pool, each by its name. What is not there is pool.ErrUnknown.
type machinesOfPool interface {
	Machine(ctx context.Context, name string) (fleet.Machine, error)
	Remove(ctx context.Context, name string, force bool) error
	Drain(ctx context.Context, name, reason string) error
	// Host is the pool's own connection to a machine: it stays open.
	Host(ctx context.Context, name string) (pool.Host, error)
}

// machineHistory reads what has happened to machines: a store's book of them.
type machineHistory interface {
	// History returns the last events of a machine, the oldest first, also of one that is gone: all that can be read, even if
	// there is an error.
	History(ctx context.Context, machine string, limit int) ([]fleet.Event, error)
}

// missingError says what is not there: it is a tranter.ErrNotFound in more words.
type missingError string

func missing(format string, args ...any) error { return missingError(fmt.Sprintf(format, args...)) }

func (e missingError) Error() string { return string(e) }

// Is tells what it is.
func (e missingError) Is(target error) bool { return target == tranter.ErrNotFound }

// machineFleet is all machines of a manager, or of a configuration where none runs. Nil has none.
type machineFleet struct {
	pools   func() []machinePool // they change with the configuration
	history machineHistory       // nil: nothing is remembered
	rates   *machineRates        // nil: costs are what price_per_hour makes of them
}

// each returns how the pools stand.
func (f *machineFleet) each(ctx context.Context) ([]pool.Status, error) {
	all := []pool.Status{}
	if f == nil {
		return all, nil
	}
	for _, p := range f.pools() {
		s, err := p.Status(ctx)
		if errors.Is(err, pool.ErrEnded) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f.rates.bill(s.Machines, time.Now())
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b pool.Status) int {
		return cmp.Or(cmp.Compare(a.Runner, b.Runner), cmp.Compare(a.Pool, b.Pool))
	})
	return all, nil
}

// with runs do on the pool that has a machine.
func (f *machineFleet) with(ctx context.Context, name string, do func(machinePool, fleet.Machine) error) error {
	if f != nil {
		for _, p := range f.pools() {
			m, err := p.Machine(ctx, name)
			if errors.Is(err, pool.ErrUnknown) || errors.Is(err, pool.ErrEnded) {
				continue
			}
			if err == nil {
				err = do(p, m)
			}
			return err
		}
	}
	return missing("there is no machine %q (\"tranter machine ls\" lists those that there are)", name)
}

// selected returns the pools that a name selects: the short token of a runner, or its name; empty: all.
func (f *machineFleet) selected(ctx context.Context, name string) ([]machinePool, error) {
	var found []machinePool
	var known []string
	if f != nil {
		for _, p := range f.pools() {
			s, err := p.Status(ctx)
			if errors.Is(err, pool.ErrEnded) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if name == "" || s.Pool == name || s.Runner == name {
				found = append(found, p)
			}
			known = append(known, poolLabel(s.Pool, s.Runner))
		}
	}
	switch {
	case len(known) == 0:
		return nil, missing("there is no pool of machines: no runner has the executor \"docker+machine\"")
	case len(found) == 0:
		return nil, missing("there is no pool %q; there is %s", name, strings.Join(known, ", "))
	}
	return found, nil
}

// poolLabel names a pool for people.
func poolLabel(name, runner string) string {
	if runner == "" {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, runner)
}

// poolCount is a pool in the answer of status.
type poolCount struct {
	Pool     string              `json:"pool"`
	Runner   string              `json:"runner,omitempty"`
	Provider string              `json:"provider"`
	Count    map[fleet.State]int `json:"count"` // of machines
	Limit    int                 `json:"limit,omitempty"`
	Target   int                 `json:"idle_target"`
	Waiting  int                 `json:"waiting"` // jobs
	Leaks    int                 `json:"leaks"`
	Problem  string              `json:"problem,omitempty"`
}

// summaryPatience bounds how long status waits for pools.
const summaryPatience = 2 * time.Second

// summary returns what status tells of the machines. A pool that does not answer is left out.
func (f *machineFleet) summary(ctx context.Context) ([]poolCount, map[string]string) {
	ctx, stop := context.WithTimeout(ctx, summaryPatience)
	defer stop()
	all, err := f.each(ctx)
	if err != nil {
		return nil, nil
	}
	var counts []poolCount
	leases := map[string]string{}
	for _, s := range all {
		c := poolCount{
			Pool: s.Pool, Runner: s.Runner, Provider: s.Provider, Count: s.Count, Limit: s.Limit, Target: s.Target, Waiting: s.Waiting, Problem: s.Problem,
		}
		for _, m := range s.Machines {
			if m.Leak != "" {
				c.Leaks++
			}
			for _, job := range m.Jobs {
				leases[job] = m.Name
			}
		}
		counts = append(counts, c)
	}
	return counts, leases
}

// machineEntry is all that is known of a machine, without its secrets.
type machineEntry struct {
	pool.MachineStatus

	Power  tranter.Power `json:"power,omitempty"` // as the provider said last
	Login  tranter.Login `json:"login"`
	Leases []fleet.Lease `json:"leases"`
	Used   time.Time     `json:"used,omitzero"`  // when the last job left
	Retry  time.Time     `json:"retry,omitzero"` // of the next removal
	Missed int           `json:"missed,omitempty"`
	Orphan bool          `json:"orphan,omitempty"`
}

func (f *machineFleet) entry(ctx context.Context, name string) (machineEntry, error) {
	var e machineEntry
	err := f.with(ctx, name, func(p machinePool, m fleet.Machine) error {
		s, err := p.Status(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(s.Machines, func(other pool.MachineStatus) bool { return other.Name == name })
		if i < 0 {
			return missing("machine %s has just gone", name)
		}
		f.rates.bill(s.Machines[i:i+1], time.Now())
		e = machineEntry{
			MachineStatus: s.Machines[i], Power: m.Seen.Power, Login: m.Seen.Login, Leases: append([]fleet.Lease{}, m.Leases...), Used: m.Used, Retry: m.Retry,
			Missed: m.Missed, Orphan: m.Orphan,
		}
		return nil
	})
	return e, err
}

// maxHistory bounds how many events of a machine are told.
const maxHistory = 1000

func (f *machineFleet) past(ctx context.Context, name string) ([]fleet.Event, error) {
	if f == nil || f.history == nil {
		return []fleet.Event{}, nil
	}
	events, err := f.history.History(ctx, name, maxHistory)
	if err != nil && len(events) == 0 { // what can be read of a damaged one is told
		return nil, err
	}
	if len(events) == 0 {
		return nil, missing("nothing is known of a machine %q: look for its whole name in the log, or in \"tranter machine ls\"", name)
	}
	return events, nil
}

// wantedMachines is the request for machines by hand, and namedMachines the answer.
type (
	wantedMachines struct {
		Count int    `json:"count"`
		Set   string `json:"set,omitempty"`
	}
	namedMachines struct {
		Machines []string `json:"machines"`
	}
)

// maxWanted bounds how many machines one request makes.
const maxWanted = 1000

func (f *machineFleet) create(r *http.Request) (namedMachines, error) {
	var wanted wantedMachines
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<16)).Decode(&wanted); err != nil {
		return namedMachines{}, fmt.Errorf("read the request: %w", err)
	}
	if wanted.Count < 1 || wanted.Count > maxWanted {
		return namedMachines{}, fmt.Errorf("%d machines can't be asked for: 1 to %d can", wanted.Count, maxWanted)
	}
	name := r.PathValue("pool")
	if name == anyPool {
		name = ""
	}
	pools, err := f.selected(r.Context(), name)
	if err != nil {
		return namedMachines{}, err
	}
	if len(pools) > 1 {
		return namedMachines{}, fmt.Errorf("%d pools fit: name one with --pool", len(pools))
	}
	names, err := pools[0].Create(r.Context(), wanted.Count, wanted.Set)
	return namedMachines{names}, err
}

// anyPool stands for a pool's name where there is but one.
const anyPool = "-"

func (f *machineFleet) prune(r *http.Request) (namedMachines, error) {
	dry, err := strconv.ParseBool(cmp.Or(r.FormValue("dry"), "false"))
	if err != nil {
		return namedMachines{}, fmt.Errorf("dry: %q is neither true nor false", r.FormValue("dry"))
	}
	pools, err := f.selected(r.Context(), r.FormValue("pool"))
	if err != nil {
		return namedMachines{}, err
	}
	out := namedMachines{Machines: []string{}}
	for _, p := range pools {
		names, err := p.Prune(r.Context(), dry)
		if err != nil {
			return out, err
		}
		out.Machines = append(out.Machines, names...)
	}
	return out, nil
}

func (f *machineFleet) remove(r *http.Request) error {
	force, err := strconv.ParseBool(cmp.Or(r.FormValue("force"), "false"))
	if err != nil {
		return fmt.Errorf("force: %q is neither true nor false", r.FormValue("force"))
	}
	ctx, name := r.Context(), r.PathValue("name")
	return f.with(ctx, name, func(p machinePool, _ fleet.Machine) error { return p.Remove(ctx, name, force) })
}

func (f *machineFleet) drain(r *http.Request) error {
	ctx, name := r.Context(), r.PathValue("name")
	reason := cmp.Or(r.FormValue("reason"), "asked for by hand")
	return f.with(ctx, name, func(p machinePool, _ fleet.Machine) error { return p.Drain(ctx, name, reason) })
}

// route adds what the control socket has of machines. The returned terminals have to be waited for.
func (f *machineFleet) route(mux *http.ServeMux) *controlTerminals {
	mux.HandleFunc("GET /machines", answering(func(r *http.Request) (any, error) { return f.each(r.Context()) }))
	mux.HandleFunc("GET /machines/{name}", answering(func(r *http.Request) (any, error) { return f.entry(r.Context(), r.PathValue("name")) }))
	mux.HandleFunc("GET /machines/{name}/history", answering(func(r *http.Request) (any, error) { return f.past(r.Context(), r.PathValue("name")) }))
	mux.HandleFunc("GET /machines/{name}/environment", answering(func(r *http.Request) (any, error) { return f.environment(r) }))
	mux.HandleFunc("DELETE /machines/{name}", answering(func(r *http.Request) (any, error) { return struct{}{}, f.remove(r) }))
	mux.HandleFunc("POST /machines/{name}/drain", answering(func(r *http.Request) (any, error) { return struct{}{}, f.drain(r) }))
	mux.HandleFunc("POST /machines/prune", answering(func(r *http.Request) (any, error) { return f.prune(r) }))
	mux.HandleFunc("POST /pools/{pool}/machines", answering(func(r *http.Request) (any, error) { return f.create(r) }))
	shells := &controlTerminals{attach: f.shell}
	mux.Handle("POST /machines/{name}/shell", shells)
	return shells
}

// answering makes a handler of what gives an answer or fails.
func answering(do func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := do(r)
		switch {
		case errors.Is(err, tranter.ErrNotFound), errors.Is(err, pool.ErrUnknown):
			http.Error(w, err.Error(), http.StatusNotFound)
		case err != nil:
			http.Error(w, err.Error(), http.StatusConflict)
		default:
			writeAnswer(w, v)
		}
	}
}
