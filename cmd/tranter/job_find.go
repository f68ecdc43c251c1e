package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/view"
)

// foundJob is a job that a user has named: one of its three is there.
type foundJob struct {
	snapshot view.Snapshot
	live     *view.Job
	waiting  *view.Waiting
	past     *tranter.JobHistory
}

// key names the job among all; empty: it waits in GitLab, and no manager has it.
func (f foundJob) key() string {
	switch {
	case f.live != nil:
		return f.live.Key
	case f.past != nil:
		return f.past.Key
	}
	return ""
}

// label names the job for people.
func (f foundJob) label() string {
	switch {
	case f.live != nil:
		return view.Label(f.live.Job.ID, f.live.Job.Name, f.live.Job.Project)
	case f.past != nil:
		return view.Label(f.past.Job.ID, f.past.Job.Name, f.past.Job.Project)
	}
	return view.Label(f.waiting.ID, f.waiting.Name, f.waiting.Project)
}

// value is all that is known of the job.
func (f foundJob) value() any {
	switch {
	case f.live != nil:
		return f.live
	case f.past != nil:
		return f.past
	}
	return f.waiting
}

// why tells in a sentence what is or was the matter with the job.
func (f foundJob) why(now time.Time) string {
	switch {
	case f.live != nil:
		return view.WhyJob(f.snapshot, *f.live, now)
	case f.past != nil:
		return view.WhyFailed(*f.past)
	}
	return view.WhyWaiting(f.snapshot, *f.waiting, now)
}

// find returns the job that a user names: by its key, its number, the first digits of it, or its name. Those that run are looked at
// first, then those that wait, then those that have ended, the latest first.
func (c *controlClient) find(ctx context.Context, name string) (foundJob, error) {
	var f foundJob
	snapshot, err := c.snapshot(ctx)
	if err != nil && !errors.Is(err, errNotRunning) {
		return f, err
	}
	f.snapshot = snapshot
	names := make([]jobName, 0, len(snapshot.Jobs))
	for i := range snapshot.Jobs {
		j := &snapshot.Jobs[i]
		names = append(names, jobName{j.Key, j.Job.ID, j.Job.Name})
	}
	i, notLive := pickJob(names, name)
	if notLive == nil {
		f.live = &snapshot.Jobs[i]
		return f, nil
	}
	if len(names) > 0 && !gone(notLive) {
		return f, notLive
	}
	for i := range snapshot.Waiting {
		if strconv.FormatInt(snapshot.Waiting[i].ID, 10) == name {
			f.waiting = &snapshot.Waiting[i]
			return f, nil
		}
	}
	if f.past, err = endedJob(ctx, c.dir, name); err != nil {
		return f, err
	}
	return f, nil
}

// endedJob returns the job that has ended and that a user names.
func endedJob(ctx context.Context, dir, name string) (*tranter.JobHistory, error) {
	past, err := openPast(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("no job %q is running, and %w", name, err)
	}
	defer past.Close() //nolint:errcheck // it was only read
	job, err := past.Job(ctx, name)
	if err == nil {
		return &job, nil
	}
	if !errors.Is(err, tranter.ErrNotFound) {
		return nil, err
	}
	found, err := past.Jobs(ctx, view.JobQuery{Text: name, Limit: 200})
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(found, func(j tranter.JobHistory) bool { return strconv.FormatInt(j.Job.ID, 10) == name })
	if i < 0 {
		i = slices.IndexFunc(found, func(j tranter.JobHistory) bool { return j.Job.Name == name })
	}
	if i < 0 {
		return nil, missing("no job %q runs, waits or is known of the past (\"tranter job ls --ended\" lists those that have ended)", name)
	}
	if twins := sameNumber(found, found[i]); len(twins) > 1 {
		return nil, fmt.Errorf("%q fits %s of several runners: name one by its key, %s", name, view.Count(len(twins), "job"), strings.Join(twins, " or "))
	}
	return &found[i], nil
}

// sameNumber returns the keys of the jobs that have the number of one: two servers may both have used it.
func sameNumber(found []tranter.JobHistory, one tranter.JobHistory) []string {
	var keys []string
	for i := range found {
		if found[i].Job.ID == one.Job.ID {
			keys = append(keys, found[i].Key)
		}
	}
	return keys
}

// completingJobs lets shells complete the numbers of jobs: those that the manager has, and with ended the last ones of the past.
func completingJobs(cmd *cobra.Command, client func() (*controlClient, error), ended bool) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		c, err := client()
		if err != nil || len(args) > 0 && !ended && cmd.Args == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		add := func(j *tranter.JobHistory, how string) {
			names = append(names, strconv.FormatInt(j.Job.ID, 10)+"\t"+view.Printable(j.Job.Name+" of "+j.Job.Project+" ("+how+")"))
		}
		if s, err := c.snapshot(cmd.Context()); err == nil {
			for i := range s.Jobs {
				add(&s.Jobs[i].JobHistory, view.StateWord(s.Jobs[i].Stage))
			}
		}
		if ended {
			for _, j := range endedJobs(cmd.Context(), c.dir, view.JobQuery{Limit: 30}) {
				add(&j, string(j.Result.State))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// endedJobs are jobs of the past; none if they can't be read.
func endedJobs(ctx context.Context, dir string, q view.JobQuery) []tranter.JobHistory {
	past, err := openPast(ctx, dir)
	if err != nil {
		return nil
	}
	defer past.Close() //nolint:errcheck // it was only read
	jobs, err := past.Jobs(ctx, q)
	if err != nil {
		return nil
	}
	return jobs
}

// keptLogs are the logs of ended jobs of a state directory.
func keptLogs(dir string) (*store.Logs, error) {
	return store.OpenLogs(filepath.Join(dir, logsDir), 0, 0)
}
