package slurm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/batch/batchtest"
	"github.com/tranter-ci/tranter/internal/batch/slurm"
	"github.com/tranter-ci/tranter/internal/batch/slurmtest"
)

func scheduler(t *testing.T, c batch.Client) *slurm.Scheduler {
	t.Helper()
	s, err := slurm.New(slurm.Options{Client: c})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSlurmIsAScheduler(t *testing.T) {
	t.Parallel()
	c := slurmtest.Start(t, slurmtest.Options{Nodes: 3, Accounting: true, Config: "MinJobAge=2"})
	batchtest.Run(t, batchtest.Subject{
		Scheduler: scheduler(t, c.Client()), Dir: t.TempDir(), IDVariable: slurm.IDVariable(), Unknown: "987654",
		Wait:       func(s *tranter.BatchSpec) { s.Shape.Options = append(s.Shape.Options, "--begin=now+3hours") },
		Refuse:     func(s *tranter.BatchSpec) { s.Shape.Partition = "nowhere" },
		Impossible: func(s *tranter.BatchSpec) { s.Shape.CPUs = 99 },
		Nodes:      []string{"n1", "n2", "n3"}, Forgets: true,
		Walltime: func(id string) (time.Duration, error) {
			var h, m, s time.Duration
			_, err := fmt.Sscanf(strings.TrimSpace(c.Slurm("squeue", "-h", "-j", id, "-O", "TimeLimit")), "%d:%d", &m, &s)
			return h*time.Hour + m*time.Minute + s*time.Second, err
		},
	})
}

func TestALostNodeAndAPreemptedJobAreTold(t *testing.T) {
	t.Parallel()
	c := slurmtest.Start(t, slurmtest.Options{Nodes: 2, Accounting: true})
	s, dir := scheduler(t, c.Client()), t.TempDir()
	spec := func(name string, shape tranter.Shape) tranter.BatchSpec {
		return tranter.BatchSpec{Name: name, Script: "#!/bin/sh\nexec sleep 600\n", Output: dir + "/" + name, Dir: dir, Shape: shape}
	}
	whole := tranter.Shape{CPUs: 4, Walltime: time.Hour}
	first := whole
	first.Options = []string{"--nodelist=n1"}
	weak := whole
	weak.Partition, weak.Options = "preempt", []string{"--nodelist=n2"}
	lost, preempted := submit(t, s, spec("x-lost", first)), submit(t, s, spec("x-weak", weak))
	state(t, s, "x-lost", tranter.BatchRunning)
	state(t, s, "x-weak", tranter.BatchRunning)
	c.Down(1)
	if j := state(t, s, "x-lost", tranter.BatchNodeLost); j.ID != lost || j.Native != "NODE_FAIL" || j.Nodes != "n1" {
		t.Errorf("the job of a lost node: %+v", j)
	}
	strong := whole
	strong.Options = weak.Options
	submit(t, s, spec("x-strong", strong))
	if j := state(t, s, "x-weak", tranter.BatchPreempted); j.ID != preempted {
		t.Errorf("the preempted job: %+v", j)
	}
	jobs, err := s.Final(t.Context(), []string{preempted, lost})
	if err != nil || len(jobs) != 2 || jobs[0].State != tranter.BatchPreempted || jobs[1].State != tranter.BatchNodeLost {
		t.Errorf("Final: %+v, %v", jobs, err)
	}
	never := submit(t, s, spec("x-never", tranter.Shape{CPUs: 99}))
	if j := state(t, s, "x-never", tranter.BatchQueued); j.ID != never || !eventually(t, func() bool { return state(t, s, "x-never", tranter.BatchQueued).Never }) {
		t.Errorf("a job that never starts: %+v", j)
	}
}

func TestWithoutAControllerNothingIsSaidOfJobs(t *testing.T) {
	t.Parallel()
	c := slurmtest.Start(t, slurmtest.Options{Nodes: 1})
	client := c.Client()
	client.Timeout = 500 * time.Millisecond // Slurm's own patience is longer
	s := scheduler(t, client)
	id := submit(t, s, tranter.BatchSpec{Name: "x-1", Script: "#!/bin/sh\nexec sleep 600\n", Output: "/dev/null", Dir: "/"})
	state(t, s, "x-1", tranter.BatchRunning)
	c.StopController()
	if jobs, err := s.List(t.Context(), "x-"); err == nil {
		t.Errorf("a list without a controller: %v", jobs)
	}
	if jobs, err := s.Final(t.Context(), []string{id}); err == nil {
		t.Errorf("the end of a job without a controller: %v", jobs)
	}
	_, err := s.Submit(t.Context(), tranter.BatchSpec{Name: "x-2", Script: "#!/bin/sh\n", Output: "/dev/null", Dir: "/"})
	if err == nil || errors.Is(err, tranter.ErrRejected) || errors.Is(err, tranter.ErrNoCapacity) {
		t.Errorf("without a controller a submission fails with %v, want neither a refusal nor a limit", err)
	}
	if err := s.Cancel(t.Context(), []string{id}); err == nil {
		t.Error("a cancellation without a controller is none")
	}
	c.StartController()
	if j := state(t, s, "x-1", tranter.BatchRunning); j.ID != id {
		t.Errorf("after the controller is back: %+v", j)
	}
}

const nobody = 65534

func TestACheckTellsWhatNeverRuns(t *testing.T) {
	t.Parallel()
	c := slurmtest.Start(t, slurmtest.Options{Nodes: 1})
	s := scheduler(t, c.Client())
	check := func(shape tranter.Shape) error {
		return s.Check(t.Context(), tranter.BatchSpec{Name: "x-1", Script: "#!/bin/sh\n", Output: "/dev/null", Dir: "/", Shape: shape})
	}
	for name, shape := range map[string]tranter.Shape{
		"time": {Partition: "short", Walltime: 2 * time.Hour}, "cpus": {CPUs: 99}, "memory": {Memory: 1 << 40}, "gpus": {GPUs: 3}, "partition": {Partition: "nowhere"},
		"type of gpu": {GPUs: 1, GPUType: "other"}, "constraint": {Constraint: "slow"}, "nodes": {Nodes: 2},
	} {
		if err := check(shape); !errors.Is(err, tranter.ErrRejected) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
	possible := tranter.Shape{CPUs: 4, Memory: 1 << 30, GPUs: 2, GPUType: "fake", Constraint: "fast", Walltime: time.Hour, Partition: "short", Nodes: 1}
	if err := check(possible); err != nil {
		t.Error(err)
	}
	c.Slurm("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
	if err := check(possible); err != nil {
		t.Errorf("while the node is drained: %v", err)
	}
	if err := check(tranter.Shape{CPUs: 99}); !errors.Is(err, tranter.ErrRejected) {
		t.Errorf("too many processors, while the node is drained: %v", err)
	}
	c.Slurm("scontrol", "update", "partitionname=short", "state=inactive")
	if err := check(possible); err != nil {
		t.Errorf("while the partition is inactive: %v", err)
	}
}

func TestJobsRunAsTheirUsers(t *testing.T) {
	t.Parallel()
	as := &tranter.Account{Name: "nobody", Home: "/", UID: nobody, GID: nobody}
	if os.Geteuid() != 0 {
		_, err := scheduler(t, batch.Client{}).Submit(t.Context(), tranter.BatchSpec{Name: "x-1", Output: "/o", Dir: "/", As: as})
		if err == nil || !strings.Contains(err.Error(), "only root") {
			t.Errorf("a job of another user: %v", err)
		}
		return
	}
	c := slurmtest.Start(t, slurmtest.Options{Nodes: 1, Users: true})
	s, err := slurm.New(slurm.Options{Client: c.Client(), AllUsers: true})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "theirs") //nolint:usetesting // others have to get into it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	id := submit(t, s, tranter.BatchSpec{
		Name: "x-1", Script: "#!/bin/sh\nid -u\nenv\nsleep 600\n", Output: dir + "/out", Dir: dir, As: as,
	})
	state(t, s, "x-1", tranter.BatchRunning)
	var out []byte
	if !eventually(t, func() bool {
		out, _ = os.ReadFile(dir + "/out")
		return strings.Contains(string(out), "SLURM_JOB_ID="+id+"\n")
	}) {
		t.Fatalf("output: %s", out)
	}
	for _, want := range []string{"65534\n", "USER=nobody\n", "HOME=/\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in: %s", want, out)
		}
	}
	if strings.Contains(string(out), "SLURM_TIME_FORMAT") || strings.Contains(string(out), "=root\n") {
		t.Errorf("the job has our environment: %s", out)
	}
	ours := scheduler(t, c.Client())
	if jobs, err := ours.List(t.Context(), "x-"); err != nil || len(jobs) != 0 {
		t.Errorf("another user's job is listed as ours: %+v, %v", jobs, err)
	}
	if err := ours.Cancel(t.Context(), []string{id}); err != nil { // the id is one that somebody's command has printed
		t.Fatal(err)
	}
	// Slurm takes lines in names, of which each could be one of the list.
	fields := []string{"tranter-list", "x-1", id, "FAILED", "batch", "n1", "1", "1", "0", "0", "0", "None", "."}
	name := "y\n" + strings.Join(fields, "\x1f") + "\nz"
	if _, err := c.Client().Run(t.Context(), batch.Call{
		Name: "sbatch", Args: []string{"--job-name=" + name, "--chdir=/", "--output=/dev/null", "--hold"}, Stdin: "#!/bin/sh\n", As: as,
	}); err != nil {
		t.Fatal(err)
	}
	if jobs, err := s.List(t.Context(), "x-"); err != nil || len(jobs) != 1 || jobs[0].State != tranter.BatchRunning {
		t.Errorf("with a job whose name has lines in it: %+v, %v", jobs, err)
	}
	if err := s.Cancel(t.Context(), []string{id}); err != nil {
		t.Fatal(err)
	}
	state(t, s, "x-1", tranter.BatchCancelled)
}

func submit(t *testing.T, s tranter.Scheduler, spec tranter.BatchSpec) string {
	t.Helper()
	id, err := s.Submit(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// state waits for a job to be in a state.
func state(t *testing.T, s tranter.Scheduler, name string, want tranter.BatchState) (found tranter.BatchJob) {
	t.Helper()
	if !eventually(t, func() bool {
		jobs, err := s.List(t.Context(), name)
		if err == nil && len(jobs) == 1 {
			found = jobs[0]
		}
		return found.State == want
	}) {
		t.Fatalf("job %s is %+v, want it %s", name, found, want)
	}
	return found
}

func eventually(t *testing.T, so func() bool) bool {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 40*time.Second)
	defer stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}
