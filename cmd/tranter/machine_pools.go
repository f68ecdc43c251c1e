package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/view"
)

// machinePools are the pools of machines of a manager: one for each runner with the executor docker+machine, and one for
// each runner that is not in the configuration any more and has machines left, until they are gone.
type machinePools struct {
	dir   string // what providers keep, and the settings of pools, are below it
	owner string
	book  *store.Machines
	watch *observatory // nil: nobody is told what happens
	log   *slog.Logger

	life  context.Context //nolint:containedctx // of the pools' loops
	end   context.CancelFunc
	owned sync.WaitGroup

	mu      sync.Mutex
	all     map[string]*pool.Pool
	budgets map[string]*pool.Budget // by account
	wanted  map[string]bool         // pools that the configuration has
}

// newMachinePools returns pools that keep their files in the state directory.
func newMachinePools(state, owner string, book *store.Machines, log *slog.Logger) *machinePools {
	life, end := context.WithCancel(context.Background())
	return &machinePools{
		dir: filepath.Join(state, "machines"), owner: owner, book: book, log: log,
		life: life, end: end, all: map[string]*pool.Pool{}, budgets: map[string]*pool.Budget{}, wanted: map[string]bool{},
	}
}

// toldTo has an observatory told of what happens.
func (ps *machinePools) toldTo(watch *observatory) *machinePools {
	ps.watch = watch
	return ps
}

// close ends all pools and waits for that. Their machines stay.
func (ps *machinePools) close() {
	if ps == nil {
		return
	}
	ps.end()
	ps.owned.Wait()
}

// removeAll removes all machines and waits for that, for so long at most. The error names those that are left.
func (ps *machinePools) removeAll(ctx context.Context, limit time.Duration) error {
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	ps.mu.Lock()
	pools := slices.Collect(maps.Values(ps.all))
	ps.mu.Unlock()
	var errs []error
	for _, p := range pools {
		if err := p.Retire(ctx, "the manager ends"); err != nil && !errors.Is(err, pool.ErrEnded) {
			errs = append(errs, err)
		}
	}
	for _, p := range pools {
		if err := p.Wait(ctx); err != nil {
			s, _ := p.Status(context.WithoutCancel(ctx))
			errs = append(errs, fmt.Errorf("pool %s: %d machines are left, which the next start removes", p.Name(), len(s.Machines)))
		}
	}
	return errors.Join(errs...)
}

// open returns the pool of a runner: a new one, or the one that there is with new settings.
func (ps *machinePools) open(name string, s pool.Settings, saved config.Machine) (*pool.Pool, error) {
	if err := ps.checkProvider(name, saved.Provider); err != nil {
		return nil, err
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if err := ps.save(name, savedPool{Runner: s.Runner, Machine: saved}); err != nil {
		return nil, err
	}
	ps.wanted[name] = true
	if p := ps.all[name]; p != nil {
		if err := p.Change(ps.life, s); !errors.Is(err, pool.ErrEnded) {
			return p, err
		}
	}
	return ps.startLocked(name, s), nil
}

func (ps *machinePools) startLocked(name string, s pool.Settings) *pool.Pool {
	p := pool.New(pool.Options{
		Name: name, Mark: tranter.Mark{Owner: ps.owner, Pool: name}, Book: ps.watch.machineBook(ps.book), Log: ps.log,
	}, s)
	ps.all[name] = p
	ps.owned.Go(func() {
		failed := p.Run(ps.life)
		if failed != nil {
			ps.log.Error("A pool of machines has ended", "pool", name, "error", failed)
		}
		ps.mu.Lock()
		defer ps.mu.Unlock()
		if ps.all[name] != p {
			return
		}
		delete(ps.all, name)
		if failed == nil && ps.life.Err() == nil { // nothing is left to be removed with its settings, which may hold secrets
			if err := os.Remove(ps.savedPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				ps.log.Warn("The settings of a pool that is gone could not be removed", "pool", name, "error", err)
			}
		}
	})
	return p
}

// find returns a pool that runs, or nil.
func (ps *machinePools) find(name string) *pool.Pool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.all[name]
}

// list returns the pools, in the order of their names.
func (ps *machinePools) list() []machinePool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var out []machinePool
	for _, name := range slices.Sorted(maps.Keys(ps.all)) {
		out = append(out, ps.all[name])
	}
	return out
}

// settle has the pools whose runners are not in the configuration (any more) remove their machines. It is called when a
// configuration has been read, with all its runners opened.
func (ps *machinePools) settle(ctx context.Context, around surroundings) {
	ps.mu.Lock()
	wanted := ps.wanted
	ps.wanted = map[string]bool{}
	ps.mu.Unlock()
	remembered, err := ps.book.Pools(ctx)
	if err != nil {
		ps.log.Error("The pools of the book could not be read", "error", err)
	}
	ps.mu.Lock()
	names := append(remembered, slices.Collect(maps.Keys(ps.all))...)
	ps.mu.Unlock()
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if !wanted[name] {
			ps.retire(ctx, around, name)
		}
	}
	if err == nil {
		ps.forget(func(name string) bool { return wanted[name] || slices.Contains(names, name) })
	}
}

// forget removes the settings of pools that have nothing left to be removed with them: there may be secrets in them.
func (ps *machinePools) forget(needed func(name string) bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	files, err := os.ReadDir(filepath.Join(ps.dir, "pools"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		ps.log.Warn("The settings of pools could not be listed", "error", err)
	}
	for _, file := range files {
		name, err := url.PathUnescape(strings.TrimSuffix(file.Name(), ".json"))
		if err != nil || needed(name) || ps.all[name] != nil {
			continue
		}
		if err := os.Remove(filepath.Join(ps.dir, "pools", file.Name())); err != nil {
			ps.log.Warn("The settings of a pool that is gone could not be removed", "pool", name, "error", err)
		}
	}
}

// retire has a pool remove its machines with the settings that it had last.
func (ps *machinePools) retire(ctx context.Context, around surroundings, name string) {
	p := ps.find(name)
	if p == nil {
		saved, err := ps.saved(name)
		var s pool.Settings
		if err == nil {
			s, err = around.poolSettings(config.Default(), saved.runner(name))
		}
		if err != nil {
			ps.log.Error("A runner that is not in the configuration has machines that can't be removed: put it back, or remove them by hand", "pool", name, "error", err)
			return
		}
		ps.mu.Lock()
		p = ps.startLocked(name, s)
		ps.mu.Unlock()
	}
	ps.log.Warn("A runner with machines is not in the configuration any more: they are removed", "pool", name)
	if err := p.Retire(ctx, "its runner is not in the configuration any more"); err != nil && !errors.Is(err, pool.ErrEnded) {
		ps.log.Error("The machines of a runner can't be removed", "pool", name, "error", err)
	}
}

// budget returns what limits the requests to an account. Pools that name the same account share one.
func (ps *machinePools) budget(account string, perSecond float64, burst int) *pool.Budget {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if b := ps.budgets[account]; b != nil {
		b.Change(perSecond, burst)
		return b
	}
	b := pool.NewBudget(perSecond, burst)
	ps.budgets[account] = b
	return b
}

// checkProvider refuses another provider for a pool as long as it has machines: to that one they would be as good as gone,
// and run on.
func (ps *machinePools) checkProvider(name, provider string) error {
	before, err := ps.saved(name)
	if err != nil || before.Machine.Provider == provider {
		return nil //nolint:nilerr // then there are no machines that could be removed with other settings either
	}
	machines, err := ps.book.Load(ps.life, name)
	if err == nil && len(machines) == 0 {
		return nil
	}
	return &tranter.ConfigError{Err: errors.Join(fmt.Errorf("the runner has %s of provider %s, not of provider %s, which could not remove them: put the old one back until \"tranter machine ls\" shows none, or register another runner",
		view.Count(len(machines), "machine"), before.Machine.Provider, provider), err)}
}

// savedPool is what has to be known to remove a pool's machines when its runner is not in the configuration any more.
type savedPool struct {
	Runner  string         `json:"runner"`
	Machine config.Machine `json:"machine"`
}

// runner is a section that has the saved settings.
func (s savedPool) runner(name string) config.Runner {
	r := config.DefaultRunner()
	r.Name, r.Token, r.Executor, r.Machine = s.Runner, tranter.Secret(name), "docker+machine", s.Machine
	return r
}

func (ps *machinePools) savedPath(name string) string {
	return filepath.Join(ps.dir, "pools", url.PathEscape(name)+".json")
}

func (ps *machinePools) save(name string, s savedPool) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("keep the settings of pool %s: %w", name, err)
	}
	path := ps.savedPath(name)
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep the settings of pool %s: %w", name, err)
	}
	// The options of drivers may hold secrets.
	temporary := path + ".new"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return fmt.Errorf("keep the settings of pool %s: %w", name, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("keep the settings of pool %s: %w", name, err)
	}
	return nil
}

func (ps *machinePools) saved(name string) (savedPool, error) {
	var s savedPool
	data, err := os.ReadFile(ps.savedPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return s, errors.New("its settings are not known")
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return s, fmt.Errorf("read its settings: %w", err)
	}
	return s, nil
}
