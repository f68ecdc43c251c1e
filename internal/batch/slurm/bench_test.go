package slurm_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch/slurm"
	"github.com/tranter-ci/tranter/internal/batch/slurmtest"
)

// BenchmarkScheduler measures calls of a cluster on this machine, with 0, 100 and 1000 jobs that wait.
func BenchmarkScheduler(b *testing.B) {
	c := slurmtest.Start(b, slurmtest.Options{Nodes: 1})
	s, err := slurm.New(slurm.Options{Client: c.Client()})
	if err != nil {
		b.Fatal(err)
	}
	var ids []string
	submit := func() {
		id, err := s.Submit(b.Context(), tranter.BatchSpec{
			Name: fmt.Sprintf("bench-%d", len(ids)), Comment: "a measurement", Script: "#!/bin/sh\n", Output: "/dev/null", Dir: "/",
			Shape: tranter.Shape{Options: []string{"--begin=now+3hours"}},
		})
		if err != nil {
			b.Fatal(err)
		}
		ids = append(ids, id)
	}
	for _, waiting := range []int{0, 100, 1000} {
		for len(ids) < waiting {
			submit()
		}
		b.Run(fmt.Sprintf("List%d", waiting), func(b *testing.B) {
			measure(b, func() {
				jobs, err := s.List(b.Context(), "bench-")
				if err != nil || len(jobs) != waiting {
					b.Fatalf("%d jobs, %v", len(jobs), err)
				}
			})
		})
	}
	b.Run("Submit", func(b *testing.B) { measure(b, submit) })
	b.Run("Final", func(b *testing.B) {
		measure(b, func() {
			if _, err := s.Final(b.Context(), ids[:1]); err != nil {
				b.Fatal(err)
			}
		})
	})
	began := time.Now()
	if err := s.Cancel(b.Context(), ids); err != nil {
		b.Fatal(err)
	}
	b.Logf("one cancellation of %d jobs: %v", len(ids), time.Since(began))
}

// measure reports the middle and the 95th hundredth of how long calls take.
func measure(b *testing.B, call func()) {
	b.Helper()
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		call()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
}
