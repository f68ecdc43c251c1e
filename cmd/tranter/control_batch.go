package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
)

// batchCluster is a runner's batch jobs: a *cluster.Cluster, or what the book of an ended manager has of one.
type batchCluster interface {
	Status(ctx context.Context) (cluster.Status, error)
	// End ends an allocation. What is not there is cluster.ErrUnknown.
	End(ctx context.Context, name, reason string) error
}

// batchHistory reads which batch jobs there were: a store's book of them.
type batchHistory interface {
	Classes(ctx context.Context) ([]string, error)
	Load(ctx context.Context, class string) ([]allocation.Allocation, error)
	// History returns the last allocations of a class that have ended, newest first: all that can be read, even if there is an
	// error.
	History(ctx context.Context, class string, limit int) ([]allocation.Allocation, error)
}

// batchFleet is all batch jobs of a manager, or of what one has left. Nil has none.
type batchFleet struct {
	clusters func() []batchCluster    // they change with the configuration
	history  batchHistory             // nil: nothing is remembered
	runners  func() map[string]string // names of runners by their short tokens, also of some that have no cluster
	offices  func() []string          // directories in which managers have those of their runners
}

// each returns how the clusters stand, by the runners' names.
func (f *batchFleet) each(ctx context.Context) ([]cluster.Status, error) {
	all := []cluster.Status{}
	if f == nil {
		return all, nil
	}
	for _, c := range f.clusters() {
		s, err := c.Status(ctx)
		if errors.Is(err, cluster.ErrEnded) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b cluster.Status) int {
		return cmp.Or(cmp.Compare(a.Runner, b.Runner), cmp.Compare(a.Class, b.Class))
	})
	return all, nil
}

// batchAnswer is what a manager tells of its batch jobs.
type batchAnswer struct {
	Runners []cluster.Status `json:"runners"`
	Left    []batchLeft      `json:"left"`
}

func (f *batchFleet) answer(ctx context.Context) (batchAnswer, error) {
	all, err := f.each(ctx)
	if err != nil {
		return batchAnswer{}, err
	}
	a := batchAnswer{Runners: append(all, f.orphans(ctx, all)...), Left: []batchLeft{}}
	if f != nil && f.offices != nil {
		a.Left = append(a.Left, leftIn(f.offices(), a.Runners)...)
	}
	return a, nil
}

// orphaned is what is wrong with batch jobs of which there is no cluster.
const orphaned = "the runner is not in the configuration any more, and was taken out of it while no manager was running: " +
	"nobody looks after its batch jobs, which end by themselves; the batch system's own command ends those that wait"

// orphans are the batch jobs in the book of runners that are not there any more. What can't be read is left out.
func (f *batchFleet) orphans(ctx context.Context, all []cluster.Status) []cluster.Status {
	if f == nil || f.history == nil {
		return nil
	}
	classes, err := f.history.Classes(ctx)
	if err != nil {
		return nil
	}
	var out []cluster.Status
	names := f.names(ctx)
	for _, class := range classes {
		if slices.ContainsFunc(all, func(s cluster.Status) bool { return s.Class == class }) {
			continue
		}
		found, _ := f.history.Load(ctx, class)
		if len(found) == 0 {
			continue
		}
		for i := range found {
			found[i].Class = class
		}
		out = append(out, cluster.Status{Class: class, Runner: names[class], Order: found[0].Order, Retired: true, Problem: orphaned, Jobs: []cluster.WaitingJob{}, Allocations: found})
	}
	return out
}

// pastBatch is a batch job that has ended, with its runner.
type pastBatch struct {
	Runner string `json:"runner"`
	allocation.Allocation
}

// maxBatchHistory bounds how many batch jobs of a runner are told that have ended.
const maxBatchHistory = 10000

// past returns the batch jobs that have ended and are not in the book any more, the newest first.
func (f *batchFleet) past(ctx context.Context, limit int) ([]pastBatch, error) {
	out := []pastBatch{}
	if f == nil || f.history == nil {
		return out, nil
	}
	classes, err := f.history.Classes(ctx)
	if err != nil {
		return nil, err
	}
	names := f.names(ctx)
	for _, class := range classes {
		ended, err := f.history.History(ctx, class, limit)
		if err != nil && len(ended) == 0 { // what can be read of a damaged one is told
			return nil, err
		}
		for _, a := range ended {
			a.Class = class
			out = append(out, pastBatch{Runner: cmp.Or(names[class], class), Allocation: a})
		}
	}
	slices.SortStableFunc(out, func(a, b pastBatch) int { return b.Times.Ended.Compare(a.Times.Ended) })
	return out[:min(len(out), limit)], nil
}

// names returns the names of runners by their short tokens.
func (f *batchFleet) names(ctx context.Context) map[string]string {
	names := map[string]string{}
	if f.runners != nil {
		names = f.runners()
	}
	all, err := f.each(ctx)
	if err != nil {
		return names
	}
	for _, s := range all {
		if s.Runner != "" {
			names[s.Class] = s.Runner
		}
	}
	return names
}

// end ends a batch job.
func (f *batchFleet) end(ctx context.Context, name, reason string) error {
	if f != nil {
		for _, c := range f.clusters() {
			err := c.End(ctx, name, reason)
			if errors.Is(err, cluster.ErrUnknown) || errors.Is(err, cluster.ErrEnded) {
				continue
			}
			return err
		}
	}
	return missing("there is no batch job %q that has not ended (\"tranter batch ls\" lists those that there are)", name)
}

// route adds what the control socket has of batch jobs.
func (f *batchFleet) route(mux *http.ServeMux) {
	mux.HandleFunc("GET /batch", answering(func(r *http.Request) (any, error) { return f.answer(r.Context()) }))
	mux.HandleFunc("GET /batch/history", answering(func(r *http.Request) (any, error) {
		limit, err := strconv.Atoi(cmp.Or(r.FormValue("limit"), strconv.Itoa(maxBatchHistory)))
		if err != nil || limit < 1 {
			return nil, fmt.Errorf("limit: %q is no number from 1", r.FormValue("limit"))
		}
		return f.past(r.Context(), min(limit, maxBatchHistory))
	}))
	mux.HandleFunc("POST /batch/{name}/end", answering(func(r *http.Request) (any, error) {
		return struct{}{}, f.end(r.Context(), r.PathValue("name"), cmp.Or(r.FormValue("reason"), "asked for by hand"))
	}))
}

// batchCount is a runner's batch jobs in the answer of status.
type batchCount struct {
	Runner  string                   `json:"runner"`
	Class   string                   `json:"class"`
	System  string                   `json:"system"`
	Order   allocation.Order         `json:"order"`
	Waiting int                      `json:"waiting"` // jobs in GitLab
	Taken   int                      `json:"taken"`   // jobs that were taken and have no place yet
	Running int                      `json:"running"` // jobs that have a place
	Count   map[allocation.State]int `json:"count"`   // of allocations that have not ended
	Problem string                   `json:"problem,omitempty"`
}

// batchPlace is where a job is, in the answer of status.
type batchPlace struct {
	Allocation string `json:"allocation"`
	BatchID    string `json:"batch_id,omitempty"`
	Nodes      string `json:"nodes,omitempty"`
	Waits      bool   `json:"waits,omitempty"` // the job has no place in it yet
}

// String returns what a table has of it.
func (p batchPlace) String() string {
	text := cmp.Or(p.BatchID, p.Allocation)
	switch {
	case p.Waits:
		return "waits for " + text
	case text != "" && p.Nodes != "":
		return text + " on " + p.Nodes
	}
	return text
}

// summary returns what status tells of the batch jobs, and by keys of jobs where those are. What does not answer is left out.
func (f *batchFleet) summary(ctx context.Context) ([]batchCount, map[string]batchPlace) {
	ctx, stop := context.WithTimeout(ctx, summaryPatience)
	defer stop()
	all, err := f.each(ctx)
	if err != nil {
		return nil, nil
	}
	var counts []batchCount
	places := map[string]batchPlace{}
	for _, s := range all {
		c := batchCount{
			Runner: s.Runner, Class: s.Class, System: s.System, Order: s.Order, Waiting: s.Waiting, Taken: s.Taken,
			Count: map[allocation.State]int{}, Problem: s.Problem,
		}
		for _, a := range s.Allocations {
			if a.State == allocation.Ended {
				continue
			}
			c.Count[a.State]++
			c.Running += len(a.Leases)
			for _, l := range a.Leases {
				places[l.Job] = batchPlace{Allocation: a.Name, BatchID: a.BatchID, Nodes: a.Batch.Nodes}
			}
		}
		for _, j := range s.Jobs {
			if _, has := places[j.Key]; j.Key != "" && !has && j.Allocation != "" {
				places[j.Key] = batchPlace{Allocation: j.Allocation, BatchID: batchIDOf(s, j.Allocation), Waits: true}
			}
		}
		counts = append(counts, c)
	}
	return counts, places
}

func batchIDOf(s cluster.Status, name string) string {
	for _, a := range s.Allocations {
		if a.Name == name {
			return a.BatchID
		}
	}
	return ""
}

// login is for whom an allocation was made: GitLab's user, else the account as whom it runs.
func login(a allocation.Allocation) string {
	_, user, _ := strings.Cut(a.Domain, "/")
	return cmp.Or(user, a.User)
}
