//go:build unix

package pbs_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/batch/batchtest"
	"github.com/tranter-ci/tranter/internal/batch/pbs"
	"github.com/tranter-ci/tranter/internal/batch/pretend"
	"github.com/tranter-ci/tranter/internal/batch/slurmtest"
)

func scheduler(t *testing.T, c batch.Client) *pbs.Scheduler {
	t.Helper()
	s, err := pbs.New(pbs.Options{Client: c})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func subject(t *testing.T, c batch.Client) batchtest.Subject {
	return batchtest.Subject{
		Scheduler: scheduler(t, c), Dir: t.TempDir(), IDVariable: pbs.IDVariable(),
		Wait:    func(spec *tranter.BatchSpec) { spec.Shape.Options = []string{"-h"} },
		Refuse:  func(spec *tranter.BatchSpec) { spec.Shape.Partition = "nowhere" },
		Unknown: "999999",
		Without: batchtest.Without{Check: true, Append: true},
	}
}

func TestSlurmBehindTorquesCommandsIsOneOfTheFamily(t *testing.T) {
	t.Parallel()
	s := subject(t, slurmtest.Start(t, slurmtest.Options{}).Client())
	s.IDVariable = "SLURM_JOB_ID"
	s.Without = batchtest.Without{ExitCodes: true, Signals: true, Cancelled: true, Check: true}
	batchtest.Run(t, s)
}

func TestOpenPBS(t *testing.T) {
	t.Parallel()
	c, _ := pretend.Start(t, commands())
	s := subject(t, c)
	s.Unknown, s.Forgets = "999999.head", true
	batchtest.Run(t, s)
}

func TestTorque(t *testing.T) {
	t.Parallel()
	c, _ := pretend.Start(t, commands(), "FAKE_TORQUE=1")
	batchtest.Run(t, subject(t, c))
}

func spec(t *testing.T, name, script string) tranter.BatchSpec {
	dir := t.TempDir()
	return tranter.BatchSpec{Name: name, Script: "#!/bin/sh\n" + script, Output: dir + "/out", Dir: dir, Shape: tranter.Shape{Walltime: time.Minute}}
}

func TestALongNameIsFoundAgainWhereNamesAreShort(t *testing.T) {
	t.Parallel()
	c, cluster := pretend.Start(t, commands(), "FAKE_TORQUE=1")
	s := scheduler(t, c)
	for _, name := range []string{"tranter-abcdef-0123456789", "tranter-abcdef-9876543210"} {
		if _, err := s.Submit(t.Context(), spec(t, name, "exit 0")); err != nil {
			t.Fatal(err)
		}
	}
	for i, j := range cluster.Jobs() {
		if j.Name != "tranter-abcdef-" {
			t.Errorf("job %d is called %s", i, j.Name)
		}
	}
	if jobs, err := s.List(t.Context(), "tranter-abcdef-0"); err != nil || len(jobs) > 1 || len(jobs) == 1 && jobs[0].Name != "tranter-abcdef-0123456789" {
		t.Errorf("%+v, %v", jobs, err)
	}
	jobs, err := s.Final(t.Context(), []string{"101.head", "102.head.example.org", "103.head"})
	if err != nil || len(jobs) != 2 || jobs[1].Name != "tranter-abcdef-9876543210" || jobs[1].ID != "102.head.example.org" {
		t.Errorf("%+v, %v", jobs, err)
	}
}

func TestWhyAJobIsNotTakenIsTold(t *testing.T) {
	t.Parallel()
	c, _ := pretend.Start(t, commands())
	s := scheduler(t, c)
	for queue, want := range map[string]error{"nowhere": tranter.ErrRejected, "full": tranter.ErrNoCapacity, "away": nil, "odd": nil} {
		sp := spec(t, "tranter-1", "true")
		sp.Shape.Partition = queue
		_, err := s.Submit(t.Context(), sp)
		switch {
		case err == nil:
			t.Errorf("%s: no error", queue)
		case want == nil && (errors.Is(err, tranter.ErrRejected) || errors.Is(err, tranter.ErrNoCapacity)):
			t.Errorf("%s: %v, want one that may pass", queue, err)
		case want != nil && !errors.Is(err, want):
			t.Errorf("%s: %v, want %v", queue, err, want)
		}
	}
	big := spec(t, "tranter-1", "true")
	big.Shape.CPUs = 9999
	if _, err := s.Submit(t.Context(), big); !errors.Is(err, tranter.ErrRejected) {
		t.Error(err)
	}
	missing := scheduler(t, batch.Client{Bin: t.TempDir()})
	if _, err := missing.Submit(t.Context(), big); err == nil || errors.Is(err, tranter.ErrRejected) {
		t.Errorf("without its commands: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Submit(ctx, big); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAJobThatTakesTooLongHasTimedOut(t *testing.T) {
	t.Parallel()
	for _, env := range []string{"FAKE_OPENPBS=1", "FAKE_TORQUE=1"} {
		c, cluster := pretend.Start(t, commands(), env)
		s := scheduler(t, c)
		sp := spec(t, "tranter-1", "exec sleep 977")
		sp.Shape.Partition = "slow"
		id, err := s.Submit(t.Context(), sp)
		if err != nil {
			t.Fatal(err)
		}
		tick := time.NewTicker(20 * time.Millisecond)
		for range 500 {
			if j, ok := cluster.Job(101); ok && j.Over() {
				break
			}
			<-tick.C
		}
		tick.Stop()
		if jobs, err := s.Jobs(t.Context(), []string{id}); err != nil || len(jobs) != 1 || jobs[0].State != tranter.BatchTimedOut {
			t.Errorf("%s: %+v, %v", env, jobs, err)
		}
	}
}

func TestIDsThatAreNoneAreAskedAboutNowhere(t *testing.T) {
	t.Parallel()
	s := scheduler(t, batch.Client{Bin: "/nowhere"})
	for _, id := range []string{"", "-x", "all", "1 2", "1;id"} {
		if err := s.Cancel(t.Context(), []string{id}); err == nil || !strings.Contains(err.Error(), "no id of a job") {
			t.Errorf("%q: %v", id, err)
		}
		if _, err := s.Final(t.Context(), []string{id}); err == nil || !strings.Contains(err.Error(), "no id of a job") {
			t.Errorf("%q: %v", id, err)
		}
	}
	if err := s.Check(t.Context(), tranter.BatchSpec{}); err != nil {
		t.Error(err)
	}
}
