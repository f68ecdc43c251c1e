//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/bench/measure"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/fleet"
)

// script is what jobs do that are not about how long they take.
const script = "echo MARK"

// containers are the settings of machines by the provider container.
func (b *bench) containers(keys string) string {
	return fmt.Sprintf("provider = \"container\"\n%s\n[runners.machine.container]\nhost = %q\nimage = %q\nnetwork = %q", keys, b.host, b.machine, network)
}

// lab are the settings of machines by the tests' driver.
func (b *bench) lab(keys string, options ...string) string {
	all := append([]string{"lab-token=none", "lab-image=" + b.machine, "lab-network=" + network}, options...)
	for i, o := range all {
		all[i] = fmt.Sprintf("%q", o)
	}
	return fmt.Sprintf("MachineDriver = %q\n%s\nMachineOptions = [%s]", b.driver, keys, strings.Join(all, ", "))
}

// claims measures what a job waits for that gets a warm machine.
func (b *bench) claims(ctx context.Context) error {
	for _, helper := range []bool{false, true} {
		if err := b.claim(ctx, helper); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) claim(ctx context.Context, helper bool) (err error) {
	s, err := b.open(ctx, section{concurrent: 1, limit: 1, helper: helper, machine: b.containers("IdleCount = 1\nIdleTime = 3600")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	if _, err := s.manager.Await(ctx, saidWarm, 1); err != nil {
		return err
	}
	const before = 3 // jobs that are not counted
	var own, first, whole []time.Duration
	var cpu time.Duration
	for i := range before + b.jobs {
		if i == before {
			cpu = s.manager.Busy()
		}
		views, err := s.work(ctx, 1, script)
		if err != nil {
			return err
		}
		prepared, err := s.manager.Await(ctx, saidPrepared, i+1)
		if err != nil {
			return err
		}
		began, err := s.firstStep(views[0].ID)
		if err != nil {
			return err
		}
		if i >= before {
			received := views[0].Times.Started
			own = append(own, prepared[i].At.Sub(received))
			first = append(first, began.Sub(received))
			whole = append(whole, views[0].Times.Finished.Sub(received))
		}
		if err := measure.Pause(ctx, 300*time.Millisecond); err != nil { // what comes after a job's end
			return err
		}
	}
	cpu = (s.manager.Busy() - cpu) / time.Duration(b.jobs)
	kind := "without helper"
	if helper {
		kind = "with helper"
	}
	how := fmt.Sprintf("%d jobs, one at a time, container machine over SSH", b.jobs)
	if err := s.manager.Stop(); err != nil {
		return err
	}
	b.row("warm machine, "+kind+": assigned to first step, p50 / p95", "300 ms", measure.Quantiles(first), how+"; the step's own time stamp", s.manager.Taken())
	b.row("own part of that before the engine is asked, p50 / p95", "20 ms", measure.Quantiles(own), "until the manager logs the call of the executor", measure.Millis(cpu)+" CPU per job")
	b.row("the whole job, p50 / p95", "-", measure.Quantiles(whole), "to the final state at the coordinator", "")
	return nil
}

// firstStep returns when a job's first step began, by the clock of its container, which is this machine's.
func (s *site) firstStep(id int64) (time.Time, error) {
	trace, err := s.c.Trace(id)
	if err != nil {
		return time.Time{}, err
	}
	defer trace.Close()
	lines := bufio.NewScanner(trace)
	for lines.Scan() {
		if stamp, rest, _ := strings.Cut(lines.Text(), " "); strings.Contains(rest, "Running on ") {
			return time.Parse(time.RFC3339Nano, stamp)
		}
	}
	return time.Time{}, errors.Join(fmt.Errorf("the log of job %d does not say where it runs", id), lines.Err())
}

// colds measures what is added to the driver's time until a machine is ready.
func (b *bench) colds(ctx context.Context) error {
	slow, err := startProxy(ctx, b)
	if err != nil {
		return err
	}
	defer slow.close()
	away := "lab-wrong-address=" + proxyHost
	keys := "IdleCount = 0\nIdleTime = 0\nMaxBuilds = 1"
	for _, c := range []struct{ name, target, access, machine string }{
		{"provider container, SSH", "1 s", "ssh", b.containers(keys)},
		{"driver plugin, SSH", "1 s", "ssh", b.lab(keys)},
		{"driver plugin, TLS", "2 s", "tls", b.lab(keys)},
		{"driver plugin, SSH, round trip " + b.delay.String(), "2 s", "ssh", b.lab(keys, away)},
		{"driver plugin, TLS, round trip " + b.delay.String(), "2 s", "tls", b.lab(keys, away)},
	} {
		if err := b.cold(ctx, c.name, c.target, section{concurrent: 1, limit: 1, access: c.access, machine: c.machine}); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (b *bench) cold(ctx context.Context, name, target string, sec section) (err error) {
	s, err := b.open(ctx, sec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	var jobs []time.Duration
	for i := range b.starts {
		views, err := s.work(ctx, 1, script)
		if err != nil {
			return err
		}
		began, err := s.firstStep(views[0].ID)
		if err != nil {
			return err
		}
		jobs = append(jobs, began.Sub(views[0].Times.Queued))
		if _, err := s.manager.Await(ctx, saidGone, i+1); err != nil {
			return err
		}
	}
	if err := s.manager.Stop(); err != nil {
		return err
	}
	machines, err := s.history(ctx)
	if err != nil {
		return err
	}
	var create, own []time.Duration
	for _, events := range machines {
		wanted, created, ready := at(events, fleet.MachineWanted), at(events, fleet.MachineCreated), at(events, fleet.MachineReady)
		if !ready.IsZero() {
			create, own = append(create, created.Sub(wanted)), append(own, ready.Sub(created)-preload(events))
		}
	}
	steps := ""
	if said := s.manager.Log.With(saidReady); len(said) > 0 {
		steps = "; the last: " + said[len(said)-1].Steps
	}
	b.row("cold start, "+name+": created to ready without preload_images, p50 [range]", target, measure.Spread(own), fmt.Sprintf("%d machines, boot included; create %s%s", len(own), measure.Spread(create), steps), s.manager.Taken())
	b.row("queued to first step, p50 [range]", "-", measure.Spread(jobs), "the same", "")
	return nil
}

// preload is what the copying of images to a machine took, which is the user's wish.
func preload(events []fleet.Event) time.Duration {
	var took time.Duration
	for _, e := range events {
		for _, step := range e.Boot {
			if step.Step == "preload" {
				took += step.Took
			}
		}
	}
	return took
}

// at returns when something first happened to a machine.
func at(events []fleet.Event, kind fleet.Kind) time.Time {
	for _, e := range events {
		if e.Kind == kind {
			return e.At
		}
	}
	return time.Time{}
}

// six measures how long several machines take at once.
func (b *bench) six(ctx context.Context) error {
	const count = 6
	var times []time.Duration
	taken := ""
	for range b.rounds {
		took, t, err := b.several(ctx, count)
		if err != nil {
			return err
		}
		times, taken = append(times, took), t
	}
	b.row("6 machines at once, wanted to the last ready, p50 [range]", "5 s", measure.Spread(times), "provider container, SSH, IdleCount = 6", taken)
	return nil
}

func (b *bench) several(ctx context.Context, count int) (took time.Duration, taken string, err error) {
	s, err := b.open(ctx, section{concurrent: count, limit: count, bare: true, machine: b.containers(fmt.Sprintf("IdleCount = %d\nIdleTime = 3600", count))})
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	ready, err := s.manager.Await(ctx, saidReady, count)
	if err != nil {
		return 0, "", err
	}
	wanted := s.manager.Log.With(saidWanted)
	if err := s.manager.Stop(); err != nil {
		return 0, "", err
	}
	return ready[count-1].At.Sub(wanted[0].At), s.manager.Taken(), nil
}

// reaction measures how soon a machine is asked for when a job can be had.
func (b *bench) reaction(ctx context.Context) error {
	var times []time.Duration
	taken := ""
	for range b.reacts {
		took, t, err := b.react(ctx)
		if err != nil {
			return err
		}
		times, taken = append(times, took), t
	}
	b.row("job visible to the create call, p50 / most", "250 ms", measure.Millis(measure.Percentile(times, 0.5))+" / "+measure.Millis(slices.Max(times)),
		fmt.Sprintf("%d managers, idle for 1 s; provider command, the time stamp that its program makes first; requests for jobs are held", b.reacts), taken)
	return nil
}

func (b *bench) react(ctx context.Context) (took time.Duration, taken string, err error) {
	dir, err := os.MkdirTemp(b.dir, "react-")
	if err != nil {
		return 0, "", err
	}
	program, called := filepath.Join(dir, "provider"), filepath.Join(dir, "called")
	text := "#!/bin/sh\nat=$(date +%s%N)\nread -r asked\ncase $asked in\n*'\"action\":\"create\"'*) echo \"$at\" >>" + called + "; exit 1 ;;\nesac\necho '{\"version\":1,\"machines\":[]}'\n"
	if err := os.WriteFile(program, []byte(text), 0o755); err != nil { //nolint:gosec // a program
		return 0, "", err
	}
	machine := fmt.Sprintf("provider = \"command\"\nIdleCount = 0\n[runners.machine.command]\ncreate = [%q]\nlist = [%q]\nremove = [%q]", program, program, program)
	s, err := b.open(ctx, section{concurrent: 1, limit: 1, machine: machine})
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	if err := measure.Pause(ctx, time.Second); err != nil {
		return 0, "", err
	}
	ids, err := s.enqueue(1, script)
	if err != nil {
		return 0, "", err
	}
	var stamp int64
	for stamp == 0 {
		if data, err := os.ReadFile(called); err == nil {
			_, _ = fmt.Sscan(string(data), &stamp)
		}
		if err := measure.Pause(ctx, 10*time.Millisecond); err != nil {
			return 0, "", fmt.Errorf("%w\n%s", err, s.manager.Log.String())
		}
	}
	var queued time.Time
	v, err := s.c.Wait(ctx, ids[0], func(coordinator.JobView) bool { return true })
	if err == nil {
		queued = v.Times.Queued
		err = s.c.CancelJob(ids[0], true)
	}
	err = errors.Join(err, s.manager.Stop())
	return time.Unix(0, stamp).Sub(queued), s.manager.Taken(), err
}

// bursts measures many jobs on machines that are all this machine's own engine: what they cost is the pool's alone.
func (b *bench) bursts(ctx context.Context) error {
	for _, idle := range b.idle {
		for _, uses := range b.uses {
			var times []time.Duration
			taken, machines := "", 0
			for range b.rounds {
				took, s, err := b.burst(ctx, idle, uses)
				if err != nil {
					return fmt.Errorf("IdleCount %d, MaxBuilds %d: %w", idle, uses, err)
				}
				times, taken, machines = append(times, took), s.manager.Taken(), len(s.manager.Log.With(saidWanted))
			}
			b.row(fmt.Sprintf("burst, IdleCount %d, MaxBuilds %d: queued to the last final state, p50 [range]", idle, uses), "16 s", measure.Spread(times),
				fmt.Sprintf("20 jobs of 5 s, limit 10, driver plugin that takes 3 s, all machines on one engine; %d machines in the last of %d", machines, b.rounds), taken)
		}
	}
	return nil
}

func (b *bench) burst(ctx context.Context, idle, uses int) (took time.Duration, s *site, err error) {
	const jobs, limit = 20, 10
	host, err := startSSH(ctx, b.dir) // a new one: the last manager's hold on its machine is not over
	if err != nil {
		return 0, nil, err
	}
	defer host.stop()
	keys := fmt.Sprintf("IdleCount = %d\nIdleTime = 3600\nMaxBuilds = %d\nself_destruct_after = \"0s\"", idle, uses)
	machine := b.lab(keys, "lab-local-engine", "lab-create-delay=3", "lab-ssh-user=root", fmt.Sprintf("lab-ssh-port=%d", host.port), "lab-ssh-key="+host.key)
	s, err = b.open(ctx, section{concurrent: jobs, limit: limit, bare: true, machine: machine})
	if err != nil {
		return 0, nil, err
	}
	opened := s
	defer func() { err = errors.Join(err, opened.close(context.WithoutCancel(ctx))) }()
	wait := measure.Pause(ctx, time.Second)
	if idle > 0 {
		_, wait = s.manager.Await(ctx, saidWarm, idle)
	}
	if wait != nil {
		return 0, nil, wait
	}
	views, err := s.work(ctx, jobs, "sleep 5")
	if err != nil {
		return 0, nil, err
	}
	first, last := views[0].Times.Queued, views[0].Times.Finished
	for _, v := range views {
		if v.Times.Finished.After(last) {
			last = v.Times.Finished
		}
	}
	return last.Sub(first), s, s.manager.Stop()
}
