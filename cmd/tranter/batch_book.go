package main

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/store"
)

// fleet is the batch jobs of a manager that runs.
func (cs *batchClusters) fleet(stateDir string, history batchHistory) *batchFleet {
	return &batchFleet{
		clusters: func() []batchCluster {
			var all []batchCluster
			for _, c := range cs.list() {
				all = append(all, c)
			}
			return all
		},
		history: history,
		runners: func() map[string]string { return siteRunners(stateDir) },
		offices: func() []string {
			cs.mu.Lock()
			defer cs.mu.Unlock()
			var dirs []string
			for _, o := range cs.offices {
				dirs = append(dirs, o.dir)
			}
			return dirs
		},
	}
}

// siteRunners are the names of the runners that were made for site files, by their short tokens.
func siteRunners(stateDir string) map[string]string {
	names := map[string]string{}
	files, _ := filepath.Glob(filepath.Join(stateDir, "site", "*"+siteTokensSuffix))
	for _, file := range files {
		record, err := readSiteRecord(stateDir, strings.TrimSuffix(filepath.Base(file), siteTokensSuffix))
		if err != nil {
			continue
		}
		for name, t := range record.tokens() {
			names[t.Token.Short()] = name
		}
	}
	return names
}

// batchOpener opens the batch jobs of a state directory on which no manager works. The returned function closes all again.
type batchOpener func(ctx context.Context, c config.Config, stateDir string) (*batchFleet, func() error, error)

// openBatchBook opens what the last manager has left, to be read only.
func openBatchBook(ctx context.Context, c config.Config, stateDir string) (*batchFleet, func() error, error) {
	st, err := openLeftStore(ctx, stateDir)
	if err != nil {
		return nil, nil, err
	}
	f, err := readBatchBook(ctx, c, stateDir, st.Allocations())
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	return f, st.Close, nil
}

// readBatchBook reads the batch jobs of all runners, also of those that are not in the configuration any more.
func readBatchBook(ctx context.Context, c config.Config, stateDir string, book *store.Allocations) (*batchFleet, error) {
	classes, err := book.Classes(ctx)
	if err != nil {
		return nil, err
	}
	names, systems := siteRunners(stateDir), map[string]string{}
	offices := []string{filepath.Join(stateDir, "batch", "-")}
	for _, r := range c.Runners {
		if r.Batch.Scheduler == "" {
			continue
		}
		class := r.Token.Short()
		names[class], systems[class] = r.Name, r.Batch.Scheduler
		offices = append(offices, filepath.Join(surroundings{state: stateDir}.batchDir(r.Batch), class))
	}
	var all []batchCluster
	for _, class := range classes {
		found, err := book.Load(ctx, class)
		if err != nil && len(found) == 0 {
			return nil, err
		}
		if len(found) == 0 {
			continue // there is but history
		}
		b := bookedCluster{Class: class, Runner: names[class], System: systems[class], Jobs: []cluster.WaitingJob{}, Allocations: found}
		for i := range b.Allocations {
			b.Order = b.Allocations[i].Order
			b.Allocations[i].Class = class
		}
		if err != nil {
			b.Problem = err.Error()
		}
		all = append(all, b)
	}
	return &batchFleet{
		clusters: func() []batchCluster { return slices.Clone(all) }, history: book,
		runners: func() map[string]string { return maps.Clone(names) }, offices: func() []string { return offices },
	}, nil
}

// bookedCluster is a runner's batch jobs as its manager has left them.
type bookedCluster cluster.Status

// Status implements batchCluster.
func (b bookedCluster) Status(context.Context) (cluster.Status, error) { return cluster.Status(b), nil }

// End implements batchCluster.
func (b bookedCluster) End(_ context.Context, name, _ string) error {
	if slices.ContainsFunc(b.Allocations, func(a allocation.Allocation) bool { return a.Name == name }) {
		return errOnlyBook
	}
	return cluster.ErrUnknown
}
