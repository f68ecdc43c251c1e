package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

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

	looked time.Time // when projects and runners were looked up
	known  demandKnown
	last   map[int64][]gitlab.PendingJob // what each project has said last
	said   map[string]string             // faults of single projects, groups and runners, as the log has them
}

// demandKnown is what was looked up.
type demandKnown struct {
	projects map[int64]string                // with runners, by id: the path
	serves   map[int64][]int                 // of each project: indexes of runners
	actual   map[string]gitlab.ManagedRunner // by class
	places   map[string][]gitlab.Place       // by kind and path
}

// How often projects and runners are looked up anew, how often after a failure.
const (
	lookupEvery    = 5 * time.Minute
	lookupRetry    = 30 * time.Second
	demandLimit    = 2 * time.Minute
	projectsAtOnce = 4
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
			watches[key] = &demandWatch{client: client, log: log, interval: d.pending.Interval, cluster: find, said: map[string]string{}}
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

// look asks for the jobs of all projects, and tells the clusters. One that can't be asked keeps no other one from its jobs.
func (w *demandWatch) look(ctx context.Context) error {
	if time.Since(w.looked) > lookupEvery {
		if err := w.lookUp(ctx); err != nil {
			return err
		}
	}
	if err := w.ask(ctx); err != nil {
		return err
	}
	found := map[string][]cluster.Pending{}
	for _, d := range w.runners {
		found[d.class] = nil
	}
	for _, id := range slices.Sorted(maps.Keys(w.known.projects)) {
		for _, j := range w.last[id] {
			if d := w.match(id, j.Tags); d != nil {
				found[d.class] = append(found[d.class], cluster.Pending{
					ID: j.ID, Name: j.Name, Number: j.ProjectID, Pipeline: j.PipelineID, Tags: j.Tags, Priority: d.priority, Since: j.QueuedAt,
					Lasts: w.known.actual[d.class].MaximumTimeout,
					User:  cluster.User{Name: j.UserName, ID: j.UserID, Project: cmp.Or(j.Project, w.known.projects[id])},
				})
			}
		}
	}
	var faults []error
	for _, class := range w.urgent() {
		if c := w.cluster(class); c != nil {
			if err := c.Demand(ctx, found[class]); err != nil && !errors.Is(err, cluster.ErrEnded) {
				faults = append(faults, err)
			}
		}
	}
	return errors.Join(faults...)
}

// urgent returns the classes in the order in which they are told of their jobs, and so submit: by launch priority.
func (w *demandWatch) urgent() []string {
	sorted := slices.SortedStableFunc(slices.Values(w.runners), func(a, b demanded) int { return cmp.Compare(b.priority, a.priority) })
	classes := make([]string, 0, len(sorted))
	for _, d := range sorted {
		classes = append(classes, d.class)
	}
	return classes
}

// ask asks all projects for their jobs. It is an error if none has answered.
func (w *demandWatch) ask(ctx context.Context) error {
	ids := slices.Sorted(maps.Keys(w.known.projects))
	answers, faults := make([][]gitlab.PendingJob, len(ids)), make([]error, len(ids))
	var group errgroup.Group
	group.SetLimit(projectsAtOnce)
	for i, id := range ids {
		group.Go(func() error {
			answers[i], faults[i] = w.client.Pending(ctx, id)
			return nil
		})
	}
	_ = group.Wait()
	if len(ids) > 0 && !slices.Contains(faults, nil) {
		return faults[0]
	}
	last := map[int64][]gitlab.PendingJob{}
	for i, id := range ids {
		err := faults[i]
		w.note("jobs of "+w.known.projects[id], err)
		switch {
		case err == nil:
			last[id] = answers[i]
		case final(err): // it is gone, or not ours to see any more
			w.looked = time.Now().Add(lookupRetry - lookupEvery)
		default:
			last[id] = w.last[id]
		}
	}
	w.last = last
	return nil
}

// final says whether an error is the server's answer, and not for want of one.
func final(err error) bool {
	return errors.Is(err, tranter.ErrForbidden) || errors.Is(err, tranter.ErrNotFound)
}

// note logs what is wrong with one project, group or runner when that changes.
func (w *demandWatch) note(what string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	before := w.said[what]
	if text == before {
		return
	}
	if err == nil {
		delete(w.said, what)
		w.log.Info("The jobs that wait can be looked up again", "of", what)
		return
	}
	w.said[what] = text
	w.log.Warn("Jobs that wait can't be looked up; those of others can", "of", what, "error", err)
}

// lookUp finds the projects, and how the runners are set at the server, by which it gives them jobs. What is wrong with one of
// them keeps no other one from its jobs. It is an error if there is none.
func (w *demandWatch) lookUp(ctx context.Context) error {
	now := demandKnown{projects: map[int64]string{}, serves: map[int64][]int{}, actual: map[string]gitlab.ManagedRunner{}, places: map[string][]gitlab.Place{}}
	var first error
	fault := func(what string, err error) {
		w.note(what, err)
		if first == nil && err != nil {
			first = err
		}
	}
	for i, d := range w.runners {
		r, err := w.runner(ctx, d)
		if err != nil && !final(err) {
			return w.later(err)
		}
		if fault("runner "+d.name, err); err != nil {
			continue
		}
		now.actual[d.class] = r
		places, err := w.places(ctx, d, now.places)
		fault("where the jobs of runner "+d.name+" wait", err)
		for _, p := range places {
			now.projects[p.ID] = p.Path
			if !slices.Contains(now.serves[p.ID], i) {
				now.serves[p.ID] = append(now.serves[p.ID], i)
			}
		}
	}
	if len(now.projects) == 0 && first != nil {
		return first
	}
	w.known, w.looked = now, time.Now()
	if first != nil {
		w.looked = w.looked.Add(lookupRetry - lookupEvery)
	}
	return nil
}

// later has what the server could not be asked for asked again soon. What is known is good enough until then.
func (w *demandWatch) later(err error) error {
	if len(w.known.projects) == 0 {
		return err
	}
	w.log.Warn("Projects and runners could not be looked up anew; those known are used", "error", err)
	w.looked = time.Now().Add(lookupRetry - lookupEvery)
	return nil
}

// places are the projects where a runner's jobs wait. The error says what is wrong with some of them.
func (w *demandWatch) places(ctx context.Context, d demanded, now map[string][]gitlab.Place) ([]gitlab.Place, error) {
	var all []gitlab.Place
	var faults []error
	add := func(key string, find func() ([]gitlab.Place, error)) {
		if _, asked := now[key]; !asked {
			found, err := find()
			var moved *gitlab.MovedError
			if err != nil && !errors.As(err, &moved) && !final(err) {
				found = w.known.places[key]
			}
			now[key] = found
			if err != nil {
				faults = append(faults, err)
			}
		}
		all = append(all, now[key]...)
	}
	for _, path := range d.pending.Projects {
		add("project "+path, func() ([]gitlab.Place, error) {
			p, err := w.client.Project(ctx, path)
			if p.ID == 0 {
				return nil, err
			}
			return []gitlab.Place{p}, err
		})
	}
	for _, path := range d.pending.Groups {
		add("group "+path, func() ([]gitlab.Place, error) { return w.client.GroupProjects(ctx, path) })
	}
	return all, errors.Join(faults...)
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
	for _, i := range w.known.serves[project] {
		d := &w.runners[i]
		r := w.known.actual[d.class]
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
