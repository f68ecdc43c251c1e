//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/bench/measure"
	"github.com/tranter-ci/tranter/internal/batch/slurm"
)

// polls measures what a long queue costs, and a short one.
func (b *bench) polls(ctx context.Context) error {
	if _, err := b.run(ctx, "scontrol", "update", "nodename=ALL", "state=drain", "reason=measurement"); err != nil {
		return err
	}
	var err error
	for _, queued := range []int{b.few, b.queued} {
		if err == nil {
			err = b.poll(ctx, queued)
		}
	}
	_, failed := b.run(context.WithoutCancel(ctx), "scontrol", "update", "nodename=ALL", "state=resume")
	return errors.Join(err, failed)
}

func (b *bench) poll(ctx context.Context, queued int) (err error) {
	calls := filepath.Join(b.dir, "calls")
	bin, err := b.counting(calls)
	if err != nil {
		return err
	}
	s, err := b.open(ctx, section{
		concurrent: queued, executor: "shell", order: allocateFirst, counted: true, batch: fmt.Sprintf("bin = %q\nsubmit_rate = 0.0\n", bin),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	began := time.Now()
	if _, err := s.enqueue(queued, "true"); err != nil {
		return err
	}
	if _, err := s.manager.Await(ctx, saidQueued, queued); err != nil {
		return err
	}
	took, cpu := time.Since(began), s.manager.Busy()
	b.row(fmt.Sprintf("%d batch jobs from jobs that wait", queued), "-", fmt.Sprintf("%.1f s, %.0f ms of processor time each", took.Seconds(), 1000*cpu.Seconds()/float64(queued)),
		"queued in GitLab to the last submitted; the look at GitLab is every 10 s; submit_rate = 0")
	const settled = 15 * time.Second
	if err := measure.Pause(ctx, settled); err != nil {
		return err
	}
	if err := b.watch(ctx, s, queued, calls); err != nil {
		return err
	}
	return b.listing(ctx, queued)
}

// watch counts while nothing happens.
func (b *bench) watch(ctx context.Context, s *site, queued int, calls string) error {
	if err := os.Truncate(calls, 0); err != nil {
		return err
	}
	s.asked.jobs.Store(0)
	s.asked.pending.Store(0)
	s.asked.other.Store(0)
	manager, controller := s.manager.Busy(), measure.Busy(b.controller())
	if err := measure.Pause(ctx, b.window); err != nil {
		return err
	}
	manager, controller = s.manager.Busy()-manager, measure.Busy(b.controller())-controller
	data, err := os.ReadFile(calls)
	if err != nil {
		return err
	}
	jobs, pending, other := s.asked.jobs.Load(), s.asked.pending.Load(), s.asked.other.Load()
	if err := s.manager.Stop(); err != nil {
		return err
	}
	alone := measure.Busy(b.controller())
	if err := measure.Pause(ctx, b.window); err != nil {
		return err
	}
	alone = measure.Busy(b.controller()) - alone
	minute := func(n float64) float64 { return n * float64(time.Minute) / float64(b.window) }
	name := fmt.Sprintf("%d batch jobs in the queue, ", queued)
	b.row(name+"calls of Slurm's commands per minute", "one query per interval", counted(string(data), b.window), "poll_interval 5 s; nothing else happens")
	b.row(name+"processor time of the manager per minute", "-", fmt.Sprintf("%.0f ms", minute(1000*manager.Seconds())), "squeue included; "+s.manager.Taken())
	b.row(name+"processor time of slurmctld per minute", "-", fmt.Sprintf("%.0f ms", minute(1000*controller.Seconds())),
		fmt.Sprintf("without the manager %.0f ms", minute(1000*alone.Seconds())))
	b.row(name+"calls of GitLab per minute", "-", fmt.Sprintf("%.0f for jobs that wait, %.0f requests for a job, %.0f others", minute(float64(pending)), minute(float64(jobs)), minute(float64(other))),
		"interval 10 s, pages of 100 jobs")
	return nil
}

// listing measures one question to the scheduler.
func (b *bench) listing(ctx context.Context, queued int) error {
	sched, err := slurm.New(slurm.Options{Client: b.client()})
	if err != nil {
		return err
	}
	const rounds = 20
	var took []time.Duration
	found := 0
	for range rounds {
		one, err := timed(func() error {
			jobs, err := sched.List(ctx, "tranter-")
			found = len(jobs)
			return err
		})
		if err != nil {
			return err
		}
		took = append(took, one...)
	}
	b.row(fmt.Sprintf("%d batch jobs in the queue, one List, p50 / p95", queued), "-", measure.Quantiles(took), fmt.Sprintf("%d times, %d batch jobs listed", rounds, found))
	return nil
}

// commands are those of Slurm that are counted.
var commands = [...]string{"squeue", "sbatch", "scancel", "sacct", "scontrol", "sinfo"} //nolint:gochecknoglobals // a constant

// counting makes a directory of Slurm's commands, each of which notes that it was called.
func (b *bench) counting(calls string) (string, error) {
	bin, err := os.MkdirTemp(b.dir, "bin-")
	if err != nil {
		return "", err
	}
	for _, name := range commands {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", err
		}
		text := fmt.Sprintf("#!/bin/sh\necho %s >>%s\nexec %s \"$@\"\n", name, calls, path)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil { //nolint:gosec // a program
			return "", err
		}
	}
	return bin, os.WriteFile(calls, nil, 0o600)
}

// counted says how often each command was called in a minute.
func counted(calls string, over time.Duration) string {
	var out []string
	names := strings.Fields(calls)
	for _, name := range commands {
		count := 0
		for _, n := range names {
			if n == name {
				count++
			}
		}
		out = append(out, fmt.Sprintf("%s %.0f", name, float64(count)*float64(time.Minute)/float64(over)))
	}
	return strings.Join(slices.DeleteFunc(out, func(s string) bool { return strings.HasPrefix(s, "sinfo 0") }), ", ")
}
