package main

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/worker"
)

// office is the end of workers at which a cluster is.
type office struct{ *worker.Office }

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
	cs.offices[key] = &office{made}
	return cs.offices[key], nil
}

// hands are what works in allocations whose workers are told a.
func (o *office) hands(a worker.Assignment) cluster.Hands {
	return cluster.Hands{
		Prepare: func(al allocation.Allocation, as *tranter.Account) (string, error) {
			a := a
			a.Name, a.As, a.Places, a.Walltime = al.Name, as, al.Places, al.Shape.Walltime
			return o.Prepare(a)
		},
		Follow: o.Follow, Watch: o.watch, Executor: o.Executor, Lost: o.Lost, End: o.End, Remove: o.Remove,
	}
}

// watch runs the office, and hands its signs on, until ctx ends.
func (o *office) watch(ctx context.Context, found func(cluster.Sign)) error {
	ended := make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	defer stop()
	go func() { ended <- o.Run(running) }()
	kinds := map[worker.SignKind]cluster.SignKind{worker.SignFirst: cluster.Began, worker.SignAlive: cluster.Alive, worker.SignEnded: cluster.Over}
	for {
		select {
		case err := <-ended:
			return err
		case s := <-o.Signs():
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
