package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
)

// demanded is a runner for whose jobs batch jobs are made before they are taken.
type demanded struct {
	class    string
	name     string
	url, ca  string
	id       int64                                            // of the runner at its server; 0: not known
	verify   func(context.Context) (gitlab.Registered, error) // tells the id, and that the runner is there
	priority int
	pending  config.BatchPending // without projects and groups: none are looked for
}

// demandWatch looks at the jobs that wait on one server, with one token, and tells the clusters of those that are for them.
type demandWatch struct {
	client   *gitlab.Management
	log      *slog.Logger
	interval time.Duration
	runners  []demanded
	cluster  func(class string) *cluster.Cluster

	projects map[int64]string // with runners, by id: the path
	serves   map[int64][]int  // of each project: indexes of runners
	looked   time.Time        // when projects and runners were looked up
	actual   map[string]gitlab.ManagedRunner
}

// How often projects and runners are looked up anew, how often after a failure.
const (
	lookupEvery = 5 * time.Minute
	lookupRetry = 30 * time.Second
	demandLimit = 2 * time.Minute
)

// newDemandWatches makes one watch for each server and token.
func newDemandWatches(wanted map[string]demanded, find func(string) *cluster.Cluster, log *slog.Logger) []*demandWatch {
	watches := map[[3]string]*demandWatch{}
	for _, class := range slices.Sorted(maps.Keys(wanted)) {
		d := wanted[class]
		if len(d.pending.Projects)+len(d.pending.Groups) == 0 {
			continue
		}
		key := [3]string{d.url, d.ca, d.pending.Token.Reveal()}
		if watches[key] == nil {
			client, err := gitlab.NewManagement(gitlab.ManagementOptions{URL: d.url, Token: d.pending.Token, TLSCAFile: d.ca, Version: clientVersion(), Log: log})
			if err != nil {
				log.Error("Jobs that wait can't be looked for", "runner", d.name, "error", err)
				continue
			}
			watches[key] = &demandWatch{client: client, log: log, interval: d.pending.Interval, cluster: find}
		}
		w := watches[key]
		w.interval = min(w.interval, d.pending.Interval)
		w.runners = append(w.runners, d)
	}
	return slices.Collect(maps.Values(watches))
}

// run looks until ctx ends. While the server does not answer, clusters go on with what they know.
func (w *demandWatch) run(ctx context.Context) {
	fails := 0
	for {
		limited, stop := context.WithTimeout(ctx, demandLimit)
		err := w.look(limited)
		stop()
		pause := w.interval
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			fails++
			pause = min(w.interval<<min(fails, 6), time.Minute)
			w.log.Warn("The jobs that wait could not be looked up; it will be tried again", "in", pause, "error", err)
		default:
			fails = 0
		}
		if !pauseFor(ctx, pause) {
			return
		}
	}
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// look asks for the jobs of all projects, and tells the clusters.
func (w *demandWatch) look(ctx context.Context) error {
	if time.Since(w.looked) > lookupEvery {
		if err := w.lookUp(ctx); err != nil {
			if w.projects == nil {
				return err
			}
			w.log.Warn("Projects and runners could not be looked up anew; those known are used", "error", err)
			w.looked = time.Now().Add(lookupRetry - lookupEvery)
		}
	}
	found := map[string][]cluster.Pending{}
	for _, d := range w.runners {
		found[d.class] = nil
	}
	for _, id := range slices.Sorted(maps.Keys(w.projects)) {
		jobs, err := w.client.Pending(ctx, id)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if d := w.match(id, j.Tags); d != nil {
				found[d.class] = append(found[d.class], cluster.Pending{
					ID: j.ID, Name: j.Name, Number: j.ProjectID, Pipeline: j.PipelineID, Tags: j.Tags, Priority: d.priority, Since: j.QueuedAt, Lasts: w.actual[d.class].MaximumTimeout,
					User: cluster.User{Name: j.UserName, ID: j.UserID, Project: cmp.Or(j.Project, w.projects[id])},
				})
			}
		}
	}
	for class, jobs := range found {
		if c := w.cluster(class); c != nil {
			if err := c.Demand(ctx, jobs); err != nil && !errors.Is(err, cluster.ErrEnded) {
				return err
			}
		}
	}
	return nil
}

// lookUp finds the projects, and how the runners are set at the server, by which it gives them jobs.
func (w *demandWatch) lookUp(ctx context.Context) error {
	projects, serves, actual := map[int64]string{}, map[int64][]int{}, map[string]gitlab.ManagedRunner{}
	add := func(i int, p gitlab.Place) {
		projects[p.ID] = p.Path
		if !slices.Contains(serves[p.ID], i) {
			serves[p.ID] = append(serves[p.ID], i)
		}
	}
	for i, d := range w.runners {
		r, err := w.runner(ctx, d)
		if err != nil {
			return err
		}
		actual[d.class] = r
		for _, path := range d.pending.Projects {
			p, err := w.client.Project(ctx, path)
			if err != nil {
				return err
			}
			add(i, p)
		}
		for _, path := range d.pending.Groups {
			ps, err := w.client.GroupProjects(ctx, path)
			if err != nil {
				return err
			}
			for _, p := range ps {
				add(i, p)
			}
		}
	}
	w.projects, w.serves, w.actual, w.looked = projects, serves, actual, time.Now()
	return nil
}

// runner asks how a runner is set. The question with the runner's own token also shows the server that somebody is there for
// its jobs, which are called stuck otherwise (gitlab-server, section 3.5).
func (w *demandWatch) runner(ctx context.Context, d demanded) (gitlab.ManagedRunner, error) {
	registered, err := d.verify(ctx)
	if err != nil {
		return gitlab.ManagedRunner{}, err
	}
	r, err := w.client.Runner(ctx, cmp.Or(registered.ID, d.id))
	if errors.Is(err, tranter.ErrForbidden) || errors.Is(err, tranter.ErrNotFound) {
		w.log.Warn("The token for jobs that wait may not read the runner: jobs with any tags are thought to be for it", "runner", d.name, "error", err)
		return gitlab.ManagedRunner{Tags: nil, RunUntagged: true, Status: "unknown"}, nil
	}
	return r, err
}

// match returns the runner that the server would give a job to: the one with the fewest tags of those that have all of the
// job's. nil: none of ours.
func (w *demandWatch) match(project int64, tags []string) *demanded {
	var best *demanded
	var bestTags int
	for _, i := range w.serves[project] {
		d := &w.runners[i]
		r := w.actual[d.class]
		if r.Paused || (len(tags) == 0 && !r.RunUntagged) || (r.Status != "unknown" && !containsAll(r.Tags, tags)) {
			continue
		}
		if best == nil || len(r.Tags) < bestTags || (len(r.Tags) == bestTags && d.priority > best.priority) {
			best, bestTags = d, len(r.Tags)
		}
	}
	return best
}

func containsAll(have, want []string) bool {
	return !slices.ContainsFunc(want, func(tag string) bool { return !slices.Contains(have, tag) })
}
