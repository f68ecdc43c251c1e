package slurm_test

import (
	"context"
	"errors"
	"fmt"
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
	submit(t, s, spec("x-strong", whole))
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
