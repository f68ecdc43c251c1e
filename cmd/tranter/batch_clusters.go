package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/worker"
)

// batchClusters are the clusters of a manager: one for each runner whose jobs run in batch jobs.
type batchClusters struct {
	owner string // of the state directory; part of all batch jobs' names
	book  *store.Allocations
	told  *observatory // nil: nobody is told what happens
	log   *slog.Logger

	life  context.Context //nolint:containedctx // of the clusters' loops
	end   context.CancelFunc
	owned sync.WaitGroup

	opening sync.RWMutex // held for reading while a runner is opened, so that its directory is not removed meanwhile

	mu      sync.Mutex
	all     map[string]*cluster.Cluster // by the runner's short token
	lists   map[string]*cluster.Lists   // by batch system
	offices map[string]*office          // by shared directory and how it is used
	wanted  map[string]demanded         // what the configuration has, by the runner's short token
	watch   context.CancelFunc          // ends the look at jobs that wait
	watched sync.WaitGroup
}

// newBatchClusters returns clusters that remember their allocations in book.
func newBatchClusters(owner string, book *store.Allocations, log *slog.Logger) *batchClusters {
	life, end := context.WithCancel(context.Background())
	return &batchClusters{
		owner: owner, book: book, log: log, life: life, end: end, all: map[string]*cluster.Cluster{}, lists: map[string]*cluster.Lists{},
		offices: map[string]*office{}, wanted: map[string]demanded{}, watch: func() {},
	}
}

// toldTo has an observatory told of what happens.
func (cs *batchClusters) toldTo(watch *observatory) *batchClusters {
	cs.told = watch
	return cs
}

// close ends all clusters and waits for that. Their batch jobs stay.
func (cs *batchClusters) close() {
	if cs == nil {
		return
	}
	cs.end()
	cs.watched.Wait()
	cs.owned.Wait()
}

// open returns the cluster of a runner: a new one, or the one that there is with new settings.
func (cs *batchClusters) open(class string, s cluster.Settings, d demanded) (*cluster.Cluster, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	d.class = class
	cs.wanted[class] = d
	if c := cs.all[class]; c != nil {
		if err := c.Change(cs.life, s); !errors.Is(err, cluster.ErrEnded) {
			return c, err
		}
	}
	c := cluster.New(cluster.Options{Class: class, Book: cs.told.allocationBook(cs.book), Log: cs.log}, s)
	cs.all[class] = c
	cs.owned.Go(func() {
		if err := c.Run(cs.life); err != nil {
			cs.log.Error("The batch jobs of a runner are not looked after any more", "runner", s.Runner, "error", err)
		}
		cs.forget(class, c)
	})
	return c, nil
}

// forget forgets a cluster that has ended. If that is because its runner is not in the configuration any more, its directory
// is removed.
func (cs *batchClusters) forget(class string, c *cluster.Cluster) {
	cs.opening.Lock()
	defer cs.opening.Unlock()
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.all[class] != c {
		return
	}
	delete(cs.all, class)
	if cs.life.Err() != nil {
		return
	}
	for key, o := range cs.offices {
		if filepath.Base(o.dir) != class {
			continue
		}
		delete(cs.offices, key)
		if err := worker.Retire(o.now()); err != nil {
			cs.log.Warn("What a runner has had for its batch jobs is left", "runner", class, "error", err)
		}
	}
}

// find returns a cluster that runs, or nil.
func (cs *batchClusters) find(class string) *cluster.Cluster {
	if cs == nil {
		return nil
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.all[class]
}

// list returns the clusters, in the order of their classes.
func (cs *batchClusters) list() []*cluster.Cluster {
	if cs == nil {
		return nil
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var out []*cluster.Cluster
	for _, class := range slices.Sorted(maps.Keys(cs.all)) {
		out = append(out, cs.all[class])
	}
	return out
}

// anew forgets what a configuration has wanted that was given up half-way: another one is about to be read.
func (cs *batchClusters) anew() {
	if cs == nil {
		return
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.wanted = map[string]demanded{}
}

// settle ends the clusters whose runners are not in the configuration any more, and looks at the jobs that wait for those that
// are. It is called when a configuration has been read, with all its runners opened.
func (cs *batchClusters) settle(ctx context.Context) { //nolint:contextcheck // the look at jobs that wait ends with the clusters, not with this call
	cs.mu.Lock()
	wanted := cs.wanted
	cs.wanted = map[string]demanded{}
	var gone []*cluster.Cluster
	for class, c := range cs.all {
		if _, there := wanted[class]; !there {
			gone = append(gone, c)
		}
	}
	stop := cs.watch
	cs.mu.Unlock()
	for _, c := range gone {
		if err := c.Retire(ctx); err != nil && !errors.Is(err, cluster.ErrEnded) {
			cs.log.Error("The batch jobs of a runner that is not in the configuration any more can't be ended", "error", err)
		}
	}
	stop()
	cs.watched.Wait()
	watching, end := context.WithCancel(cs.life)
	cs.mu.Lock()
	cs.watch = end
	cs.mu.Unlock()
	for _, w := range newDemandWatches(wanted, cs.find, cs.log) {
		cs.watched.Go(func() { w.run(watching) })
	}
}

// prefix is how the names of all batch jobs of this manager begin.
func (cs *batchClusters) prefix(own string) string {
	return own + "-" + cs.owner[:min(6, len(cs.owner))]
}

// classPrefix is how the names of one runner's batch jobs begin.
func (cs *batchClusters) classPrefix(own, class string) string {
	sum := sha256.Sum256([]byte(class))
	return fmt.Sprintf("%s-%s", cs.prefix(own), hex.EncodeToString(sum[:2]))
}
