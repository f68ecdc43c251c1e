// Package batchtest checks that a tranter.Scheduler does what its contract says, against a real batch system.
package batchtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

// Subject is a scheduler to be checked.
type Subject struct {
	Scheduler  tranter.Scheduler
	Dir        string                                 // nodes see it and jobs can write to it
	IDVariable string                                 // holds the id within a job
	Wait       func(*tranter.BatchSpec)               // makes a job one that waits for an hour at least
	Refuse     func(*tranter.BatchSpec)               // makes a job one that is refused
	Impossible func(*tranter.BatchSpec)               // makes a job one that never starts
	Unknown    string                                 // id of a job that never was
	Nodes      []string                               // two nodes at least; nil: Exclude is not checked
	Walltime   func(id string) (time.Duration, error) // what a waiting job has asked for; nil: not checked
	Forgets    bool                                   // the list forgets ended jobs within seconds
	Without    Without
}

// Without says what a batch system can't do, or its scheduler can't know.
type Without struct {
	ExitCodes bool // a job that has failed is one that has ended
	Signals   bool // a job that was killed has failed
	Cancelled bool // a job that was cancelled is gone, or has ended somehow
	Final     bool // jobs that the list does not name are not known
	Check     bool // it is not known whether a job could ever run
	Append    bool // a job's output may replace what is in the file
}

// limit is for all of one check; clusters of tests are slow to start jobs.
const limit = 60 * time.Second

// Run checks a scheduler. The checks run side by side.
func Run(t *testing.T, s Subject) {
	r := &run{Subject: s, prefix: fmt.Sprintf("bt%d-", time.Now().UnixNano()%1e9)}
	for _, check := range []struct {
		name string
		does func(*testing.T, *run)
		left bool
	}{
		{"AJobRunsAndIsFoundByItsName", runs, false},
		{"AnExitCodeIsKnown", exitCode, s.Without.ExitCodes},
		{"ASignalIsKnown", signal, s.Without.Signals},
		{"AWaitingJobIsCancelled", cancelWaiting, false},
		{"ARunningJobIsCancelledAndHearsOfIt", cancelRunning, false},
		{"AJobThatIsWrongIsRefused", refused, s.Refuse == nil},
		{"AnImpossibleJobIsFoundOutBefore", impossible, s.Without.Check || s.Impossible == nil},
		{"NodesAreLeftOut", exclude, len(s.Nodes) < 2},
		{"ATimeIsRoundedUpToMinutes", walltime, s.Walltime == nil},
		{"UnknownJobsAreNoError", unknown, false},
		{"OutputIsAppended", appends, s.Without.Append},
		{"OnlyTheJobsWithAPrefixAreListed", prefixes, false},
		{"AJobThatTheListForgotIsKnown", forgotten, !s.Forgets || s.Without.Final},
	} {
		if !check.left {
			t.Run(check.name, func(t *testing.T) { t.Parallel(); check.does(t, r) })
		}
	}
}

type run struct {
	Subject

	prefix string
	count  atomic.Int64
}

func (r *run) spec(script string) tranter.BatchSpec {
	name := fmt.Sprintf("%s%d", r.prefix, r.count.Add(1))
	return tranter.BatchSpec{
		Name: name, Comment: "a check of the scheduler", Script: "#!/bin/sh\n" + script + "\n",
		Output: filepath.Join(r.Dir, name+".out"), Dir: r.Dir, Shape: tranter.Shape{CPUs: 1, Walltime: 5 * time.Minute},
	}
}

// submit submits a job that is gone when the check is over.
func (r *run) submit(t *testing.T, spec tranter.BatchSpec) string {
	t.Helper()
	id, err := r.Scheduler.Submit(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if id == "" {
		t.Fatal("a job without an id")
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
		defer stop()
		if err := r.Scheduler.Cancel(ctx, []string{id}); err != nil {
			t.Errorf("cancel %s at the end: %v", id, err)
		}
	})
	return id
}

// find is what the list says of a job by its name.
func (r *run) find(t *testing.T, name string) (tranter.BatchJob, bool) {
	t.Helper()
	jobs, err := r.Scheduler.List(t.Context(), r.prefix)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(jobs, func(j tranter.BatchJob) bool { return j.Name == name })
	if i < 0 {
		return tranter.BatchJob{}, false
	}
	return jobs[i], true
}

// until waits for the list to say that a job is in a state, or for it to say nothing of it if none is given.
func (r *run) until(t *testing.T, name string, states ...tranter.BatchState) tranter.BatchJob {
	t.Helper()
	var last tranter.BatchJob
	wait(t, func() bool {
		j, there := r.find(t, name)
		last = j
		if len(states) == 0 {
			return !there
		}
		return there && slices.Contains(states, j.State)
	}, func() string { return fmt.Sprintf("%s to be %v: %+v", name, states, last) })
	return last
}

// final waits for a job to end, and returns all that is known of it then.
func (r *run) final(t *testing.T, name, id string) tranter.BatchJob {
	t.Helper()
	var last tranter.BatchJob
	wait(t, func() bool {
		j, there := r.find(t, name)
		if there && !j.State.Final() {
			last = j
			return false
		}
		if r.Without.Final {
			last = j
			return there
		}
		jobs, err := r.Scheduler.Final(t.Context(), []string{id})
		if err != nil {
			t.Fatal(err)
		}
		if len(jobs) == 1 {
			last = jobs[0]
		}
		return len(jobs) == 1 && last.State.Final()
	}, func() string { return fmt.Sprintf("%s to end: %+v", name, last) })
	return last
}

func wait(t *testing.T, so func() bool, what func() string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), limit)
	defer stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what())
		case <-tick.C:
		}
	}
}

func (r *run) output(t *testing.T, spec tranter.BatchSpec) string {
	t.Helper()
	text, err := os.ReadFile(spec.Output)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

func runs(t *testing.T, r *run) {
	script := "echo in $(pwd)\n"
	if r.IDVariable != "" {
		script += "echo id $" + r.IDVariable + "\n"
	}
	spec := r.spec(script)
	id := r.submit(t, spec)
	if j, ok := r.find(t, spec.Name); ok != (j.ID == id) {
		t.Errorf("the list has %+v for a job that was just submitted as %q", j, id)
	}
	j := r.final(t, spec.Name, id)
	if j.State != tranter.BatchCompleted || j.ID != id || j.ExitCode != 0 || j.Signal != 0 {
		t.Errorf("it ended as %+v", j)
	}
	dir, err := filepath.EvalSymlinks(r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool { return strings.Contains(r.output(t, spec), "in "+dir+"\n") }, func() string { return "its output: " + r.output(t, spec) })
	if r.IDVariable != "" && !strings.Contains(r.output(t, spec), "id "+id) {
		t.Errorf("%s in the job is not %q: %s", r.IDVariable, id, r.output(t, spec))
	}
}

func exitCode(t *testing.T, r *run) {
	spec := r.spec("exit 7")
	if j := r.final(t, spec.Name, r.submit(t, spec)); j.State != tranter.BatchFailed || j.ExitCode != 7 || j.Signal != 0 {
		t.Errorf("exit 7 ended as %+v", j)
	}
}

func signal(t *testing.T, r *run) {
	spec := r.spec("kill -9 $$")
	// Some have the signal, some the exit code that shells make of it.
	if j := r.final(t, spec.Name, r.submit(t, spec)); j.State != tranter.BatchFailed || j.Signal != 9 && j.ExitCode != 128+9 {
		t.Errorf("kill -9 ended as %+v", j)
	}
}

func cancelWaiting(t *testing.T, r *run) {
	spec := r.spec("echo it ran")
	r.Wait(&spec)
	id := r.submit(t, spec)
	if j := r.until(t, spec.Name, tranter.BatchQueued); j.ID != id || !j.Started.IsZero() {
		t.Errorf("it waits as %+v", j)
	}
	r.cancelled(t, spec, id)
	if out := r.output(t, spec); out != "" {
		t.Errorf("it has run: %s", out)
	}
}

func cancelRunning(t *testing.T, r *run) {
	spec := r.spec("trap 'echo told; exit 0' TERM\necho began\nwhile :; do sleep 0.1; done")
	id := r.submit(t, spec)
	if j := r.until(t, spec.Name, tranter.BatchRunning); j.ID != id {
		t.Errorf("it runs as %+v", j)
	}
	wait(t, func() bool { return strings.Contains(r.output(t, spec), "began") }, func() string { return "the script to begin" })
	r.cancelled(t, spec, id)
	wait(t, func() bool { return strings.Contains(r.output(t, spec), "told") }, func() string { return "SIGTERM in the script: " + r.output(t, spec) })
}

// cancelled cancels a job, and looks that it is over.
func (r *run) cancelled(t *testing.T, spec tranter.BatchSpec, id string) {
	t.Helper()
	if err := r.Scheduler.Cancel(t.Context(), []string{id}); err != nil {
		t.Fatal(err)
	}
	if r.Without.Cancelled {
		wait(t, func() bool { j, there := r.find(t, spec.Name); return !there || j.State.Final() }, func() string { return spec.Name + " to go" })
		return
	}
	if j := r.final(t, spec.Name, id); j.State != tranter.BatchCancelled {
		t.Errorf("a cancelled job ended as %+v", j)
	}
}

func refused(t *testing.T, r *run) {
	spec := r.spec("true")
	r.Refuse(&spec)
	id, err := r.Scheduler.Submit(t.Context(), spec)
	if err == nil {
		_ = r.Scheduler.Cancel(t.Context(), []string{id})
	}
	if !errors.Is(err, tranter.ErrRejected) {
		t.Errorf("error %v, want a refusal", err)
	}
	if j, there := r.find(t, spec.Name); there {
		t.Errorf("it is in the list: %+v", j)
	}
}

func impossible(t *testing.T, r *run) {
	spec := r.spec("true")
	if err := r.Scheduler.Check(t.Context(), spec); err != nil {
		t.Errorf("a job that can run: %v", err)
	}
	r.Impossible(&spec)
	if err := r.Scheduler.Check(t.Context(), spec); !errors.Is(err, tranter.ErrRejected) {
		t.Errorf("a job that can't run: %v, want a refusal", err)
	}
	if j, there := r.find(t, spec.Name); there {
		t.Errorf("a check has submitted a job: %+v", j)
	}
}

func exclude(t *testing.T, r *run) {
	spec := r.spec("sleep 0.1")
	spec.Exclude = r.Nodes[:len(r.Nodes)-1]
	left := r.Nodes[len(r.Nodes)-1]
	if j := r.final(t, spec.Name, r.submit(t, spec)); j.Nodes != left {
		t.Errorf("it ran on %q, all but %q were left out", j.Nodes, left)
	}
}

func walltime(t *testing.T, r *run) {
	spec := r.spec("true")
	r.Wait(&spec)
	spec.Shape.Walltime = 90 * time.Second
	got, err := r.Walltime(r.submit(t, spec))
	if err != nil || got != 2*time.Minute {
		t.Errorf("90 s became %v (%v)", got, err)
	}
}

func unknown(t *testing.T, r *run) {
	if jobs, err := r.Scheduler.Final(t.Context(), []string{r.Unknown}); err != nil || len(jobs) != 0 {
		t.Errorf("Final of a job that never was: %v, %v", jobs, err)
	}
	if err := r.Scheduler.Cancel(t.Context(), []string{r.Unknown}); err != nil {
		t.Errorf("Cancel of a job that never was: %v", err)
	}
	if jobs, err := r.Scheduler.Final(t.Context(), nil); err != nil || len(jobs) != 0 {
		t.Errorf("Final of nothing: %v, %v", jobs, err)
	}
	if err := r.Scheduler.Cancel(t.Context(), nil); err != nil {
		t.Errorf("Cancel of nothing: %v", err)
	}
}

func appends(t *testing.T, r *run) {
	spec := r.spec("echo new")
	if err := os.WriteFile(spec.Output, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.submit(t, spec)
	wait(t, func() bool { return r.output(t, spec) == "old\nnew\n" }, func() string { return "output behind what was there: " + r.output(t, spec) })
}

func prefixes(t *testing.T, r *run) {
	spec := r.spec("true")
	r.Wait(&spec)
	spec.Name = "other-" + spec.Name
	r.submit(t, spec)
	if j, there := r.find(t, spec.Name); there {
		t.Errorf("the list with prefix %q has %+v", r.prefix, j)
	}
	jobs, err := r.Scheduler.List(t.Context(), "other-"+r.prefix)
	if err != nil || len(jobs) != 1 || jobs[0].Name != spec.Name {
		t.Errorf("with its own prefix: %+v, %v", jobs, err)
	}
}

func forgotten(t *testing.T, r *run) {
	spec := r.spec("exit 3")
	id := r.submit(t, spec)
	r.final(t, spec.Name, id)
	r.until(t, spec.Name)
	jobs, err := r.Scheduler.Final(t.Context(), []string{r.Unknown, id})
	if err != nil || len(jobs) != 1 || jobs[0].ID != id || jobs[0].State != tranter.BatchFailed {
		t.Fatalf("Final of a forgotten job: %+v, %v", jobs, err)
	}
	if !r.Without.ExitCodes && jobs[0].ExitCode != 3 {
		t.Errorf("exit code %d, want 3", jobs[0].ExitCode)
	}
}
