//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/bench/measure"
	"github.com/tranter-ci/tranter/internal/batch/slurm"
)

// later keeps a batch job in the queue.
const later = "--begin=now+3hours"

// spec is a batch job that waits.
func spec(name string) tranter.BatchSpec {
	return tranter.BatchSpec{
		Name: name, Comment: "a measurement", Script: "#!/bin/sh\ntrue\n", Output: "/dev/null", Dir: "/",
		Shape: tranter.Shape{Partition: "batch", CPUs: 1, Memory: 100 << 20, Walltime: 20 * time.Minute, Options: []string{later}},
	}
}

// bare hands the same batch job in with sbatch, without anything of ours.
func (b *bench) bare(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "sbatch", "--parsable", "--no-requeue", "--job-name=bare", "--comment=a measurement", "--output=/dev/null", "--chdir=/",
		"--partition=batch", "--cpus-per-task=1", "--mem=100M", "--time=20", later)
	cmd.Env = append(os.Environ(), b.environment()...)
	cmd.Stdin = strings.NewReader("#!/bin/sh\ntrue\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sbatch: %w: %s", err, out)
	}
	return nil
}

// timed returns how long calls take.
func timed(calls ...func() error) ([]time.Duration, error) {
	var took []time.Duration
	for _, call := range calls {
		began := time.Now()
		if err := call(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// submit measures one submission, in turns with sbatch alone, then several side by side.
func (b *bench) submit(ctx context.Context) error {
	s, err := slurm.New(slurm.Options{Client: b.client()})
	if err != nil {
		return err
	}
	ours := func() error {
		_, err := s.Submit(ctx, spec("bench"))
		return err
	}
	bare := func() error { return b.bare(ctx) }
	kinds := []struct {
		name string
		call func() error
		took []time.Duration
		all  []time.Duration
	}{{name: "sbatch alone", call: bare}, {name: "Submit", call: ours}}
	for range b.submits {
		for i := range kinds {
			took, err := timed(kinds[i].call)
			if err != nil {
				return err
			}
			kinds[i].took = append(kinds[i].took, took...)
		}
	}
	for _, k := range kinds {
		b.row(k.name+", one after the other, p50 / p95", "-", measure.Quantiles(k.took), fmt.Sprintf("%d batch jobs, the two kinds in turns", b.submits))
	}
	for _, k := range kinds {
		if err := b.empty(ctx); err != nil {
			return err
		}
		took, whole, err := b.sideBySide(k.call)
		if err != nil {
			return err
		}
		b.row(fmt.Sprintf("%s, %d side by side, p50 / p95", k.name, b.side), "-", measure.Quantiles(took),
			fmt.Sprintf("%d batch jobs in %.1f s, %.0f/s", len(took), whole.Seconds(), float64(len(took))/whole.Seconds()))
	}
	return b.empty(ctx)
}

// sideBySide makes calls with several callers.
func (b *bench) sideBySide(call func() error) (took []time.Duration, whole time.Duration, err error) {
	var all sync.WaitGroup
	var mu sync.Mutex
	began := time.Now()
	for i := range b.side {
		all.Go(func() {
			for range (b.submits + i) / b.side {
				one, failed := timed(call)
				mu.Lock()
				took, err = append(took, one...), errors.Join(err, failed)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return took, time.Since(began), err
}

// pipelines measures what many short jobs cost the manager.
func (b *bench) pipelines(ctx context.Context) error {
	for _, c := range []struct{ name, order, batch string }{
		{"allocate-first, a batch job each", allocateFirst, ""},
		{"take-first, a batch job each", takeFirst, ""},
		{"allocate-first, batch jobs that linger for 10 s", allocateFirst, "linger = \"10s\"\n"},
	} {
		if err := b.pipeline(ctx, c.name, c.order, c.batch); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (b *bench) pipeline(ctx context.Context, name, order, batch string) (err error) {
	s, err := b.open(ctx, section{
		concurrent: b.jobs, executor: "shell", order: order, batch: "submit_rate = 0.0\n" + batch, pending: "interval = \"1s\"",
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	if _, err := s.work(ctx, 1, "true"); err != nil { // the first batch job finds nothing in caches
		return err
	}
	if err := measure.Pause(ctx, 2*time.Second); err != nil {
		return err
	}
	made := len(s.manager.Log.With(saidQueued))
	cpu, began := s.manager.Busy(), time.Now()
	views, err := s.work(ctx, b.jobs, "true")
	if err != nil {
		return err
	}
	took := time.Since(began)
	if err := measure.Pause(ctx, 3*time.Second); err != nil { // what comes after jobs' ends is part of it
		return err
	}
	cpu = s.manager.Busy() - cpu
	made = len(s.manager.Log.With(saidQueued)) - made
	if err := s.manager.Stop(); err != nil {
		return err
	}
	var each []time.Duration
	for _, v := range views {
		each = append(each, v.Times.Finished.Sub(v.Times.Started))
	}
	count := time.Duration(b.jobs)
	b.row("processor time of the manager per job: "+name, "-", fmt.Sprintf("%.0f ms; %.1f jobs/s", 1000*(cpu/count).Seconds(), float64(b.jobs)/took.Seconds()),
		fmt.Sprintf("%d jobs \"true\" at once, %d batch jobs, commands of Slurm included; a job from taken to finished %s; manager %s", b.jobs, made, measure.Quantiles(each), s.manager.Taken()))
	return nil
}

// What the manager logs.
const (
	saidQueued = "The batch job is in the queue"
	saidRuns   = "The batch job runs"
	saidTaken  = "Checking for jobs... received"
)
