package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/worker"
)

// office is the end of workers at which a cluster is.
type office struct {
	dir     string
	place   string // tells it apart
	options worker.Options
	at      atomic.Pointer[worker.Office]

	mu      sync.Mutex    // while another one is made
	renewed chan struct{} // has one element once it was
}

// office returns the manager's end of the workers of a directory. There is one for each: reloads keep it, and with it the
// connections.
func (cs *batchClusters) office(o worker.Options) (*office, error) {
	key := strings.Join([]string{o.Dir, o.Listen, o.LocalDir, o.Program}, "\x00")
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if known := cs.offices[key]; known != nil {
		return known, nil
	}
	made, err := worker.NewOffice(o)
	if err != nil {
		return nil, &tranter.ConfigError{Err: err}
	}
	one := &office{dir: o.Dir, place: key, options: o, renewed: make(chan struct{}, 1)}
	one.at.Store(made)
	cs.offices[key] = one
	return one, nil
}

// now is the office in the directory that there is now.
func (o *office) now() *worker.Office { return o.at.Load() }

// prepare makes an allocation's files. A directory that was removed, or replaced by another one, is made ready anew.
func (o *office) prepare(a worker.Assignment) (string, error) {
	if at := o.now(); at.There() {
		return at.Prepare(a)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if at := o.now(); at.There() {
		return at.Prepare(a)
	}
	made, err := worker.NewOffice(o.options)
	if err != nil {
		return "", fmt.Errorf("the directory %s was removed or replaced, and can't be made ready anew; see to it, and restart the manager if that does not help: %w", o.dir, err)
	}
	o.options.Log.Warn("The directory for batch jobs was removed or replaced: it is made ready anew", "directory", o.dir)
	o.at.Store(made)
	select {
	case o.renewed <- struct{}{}:
	default:
	}
	return made.Prepare(a)
}

// hands are what works in allocations whose workers are told a.
func (o *office) hands(a worker.Assignment) cluster.Hands {
	return cluster.Hands{
		Place: o.place,
		Prepare: func(al allocation.Allocation, as *tranter.Account) (string, error) {
			a := a
			a.Name, a.As, a.Places, a.Walltime = al.Name, as, al.Places, al.Shape.Walltime
			return o.prepare(a)
		},
		Follow:   func(name string) { o.now().Follow(name) },
		Watch:    o.watch,
		Executor: func(name string) (tranter.Executor, error) { return o.now().Executor(name) },
		Lost:     func(name string, cause error) { o.now().Lost(name, cause) },
		End:      func(ctx context.Context, name, reason string) error { return o.now().End(ctx, name, reason) },
		Remove:   func(name string) error { return o.now().Remove(name) },
	}
}

// watch runs the office, and hands its signs on, until ctx ends.
func (o *office) watch(ctx context.Context, found func(cluster.Sign)) error {
	for {
		if again, err := o.follow(ctx, found); !again {
			return err
		}
	}
}

// follow is watch as long as the directory is the same one.
func (o *office) follow(ctx context.Context, found func(cluster.Sign)) (again bool, err error) {
	at, ended := o.now(), make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	defer stop()
	go func() { ended <- at.Run(running) }()
	kinds := map[worker.SignKind]cluster.SignKind{worker.SignFirst: cluster.Began, worker.SignAlive: cluster.Alive, worker.SignEnded: cluster.Over}
	for {
		select {
		case err := <-ended:
			return false, err
		case <-o.renewed:
			stop()
			return true, <-ended
		case s := <-at.Signs():
			found(cluster.Sign{Name: s.Name, Kind: kinds[s.Kind], At: s.At, Until: s.Until, Host: s.Host, Reason: s.Reason})
		}
	}
}

// lister returns what lists the batch jobs of a section's batch system, in one question for all sections that use it alike.
func (cs *batchClusters) lister(c batch.Client, b config.Batch, s tranter.Scheduler) cluster.Lister {
	key, _ := json.Marshal([]any{b.Scheduler, c.Prefix, c.Bin, b.Prefix, b.PollInterval, b.Users.Same || len(b.Users.Table)+len(b.Users.Command) > 0})
	cs.mu.Lock()
	defer cs.mu.Unlock()
	l := cs.lists[string(key)]
	if l == nil {
		l = cluster.NewLists(s, cs.prefix(b.Prefix)+"-", b.PollInterval/2)
		cs.lists[string(key)] = l
	}
	return l.List
}
