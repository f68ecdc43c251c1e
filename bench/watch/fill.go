//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/bench/measure"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/store"
)

const (
	historyFile = "history.db"
	month       = 30 * 24 * time.Hour
	jobsEach    = 5 // of a machine
)

func poolOf() store.Pool {
	return store.Pool{Token: "cloud0001", Name: "cloud", Rate: func(string) cost.Rate { return cost.Rate{PerHour: 0.1, Minimum: time.Minute} }}
}

// past makes up what has been.
type past struct {
	options
	now time.Time
}

// life is when a machine of the past was made.
func (p past) life(i int) time.Time {
	return p.now.Add(-month + time.Duration(i)*((month-2*time.Hour)/time.Duration(p.lives)))
}

// job is one of the past: the machines have had some each, one after the other.
func (p past) job(i int) tranter.JobHistory {
	r := rand.New(rand.NewPCG(7, uint64(i)))
	each := (p.jobs + p.lives - 1) / p.lives
	placed := p.life(i / each).Add(2*time.Minute + time.Duration(i%each)*6*time.Minute)
	j := label(r, i, placed, time.Duration(20+r.IntN(280))*time.Second)
	j.Place = tranter.JobPlace{Machine: fmt.Sprintf("tranter-cloud-%06d", i/each), Set: "m7i.large"}
	if r.IntN(10) == 0 {
		j.Result = tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 1, Message: "exit status 1"}
	}
	return j
}

// label makes up a job that got its place at a time and ran for so long.
func label(r *rand.Rand, i int, placed time.Time, ran time.Duration) tranter.JobHistory {
	taken := placed.Add(-time.Duration(1+r.IntN(60)) * time.Second)
	ended := placed.Add(ran)
	at := func(percent int) time.Time { return placed.Add(ran * time.Duration(percent) / 100) }
	step := func(name string, from, to int) tranter.StepRecord {
		return tranter.StepRecord{Name: name, Started: at(from).UnixMilli(), Ended: at(to).UnixMilli(), Status: tranter.PhaseSucceeded}
	}
	j := tranter.JobHistory{
		Key: fmt.Sprintf("%d-%012x", 1_000_000+i, i), Runner: "cloud0001", Name: "cloud", Executor: "docker+machine",
		Job: tranter.JobLabel{
			ID: int64(1_000_000 + i), Name: fmt.Sprintf("rspec %d/20", r.IntN(20)), Stage: "test", Pipeline: int64(i / 40), ProjectID: int64(r.IntN(300)),
			URL: fmt.Sprintf("https://gitlab.example.com/group/app/-/jobs/%d", 1_000_000+i), Ref: fmt.Sprintf("feature-%d", r.IntN(800)),
			SHA: fmt.Sprintf("%040x", i), User: fmt.Sprintf("user%d", r.IntN(150)), Tags: []string{"docker", "linux"}, Public: "private",
		},
		Times: tranter.JobTimes{Queued: time.Duration(r.IntN(40_000)) * time.Millisecond, Taken: taken, Placed: placed, Started: at(10), Ended: ended},
		Stages: []tranter.JobStage{
			{Name: "waiting", Start: taken, End: placed},
			{Name: "preparing", Start: placed, End: at(5)},
			{Name: "running", Start: at(5), End: at(98), Steps: []tranter.StepRecord{step("get_sources", 5, 10), step("step_script", 10, 95), step("after_script", 95, 98)}},
			{Name: "cleanup", Start: at(98), End: ended},
		},
		Usage:    tranter.JobUsage{CPUTime: 2 * ran, MaxMemory: int64(r.IntN(1 << 32)), MaxDisk: int64(r.IntN(1 << 30))},
		Result:   tranter.Result{State: tranter.JobSuccess},
		LogBytes: int64(r.IntN(1 << 20)),
	}
	j.Job.Project = fmt.Sprintf("group-%d/project-%d", j.Job.ProjectID%12, j.Job.ProjectID)
	const samples = 60
	for k := range samples {
		j.Usage.Samples = append(j.Usage.Samples, tranter.UsageSample{At: at(100 * k / samples), CPU: float64(r.IntN(400)) / 100, Memory: int64(r.IntN(1 << 32)), Disk: int64(r.IntN(1 << 30))})
	}
	return j
}

// machine is the course of a machine of the past, as its pool's book had it from one entry to the next.
func (p past) machine(i int) (course []fleet.Machine, gone time.Time) {
	each := (p.jobs + p.lives - 1) / p.lives
	m := fleet.Machine{Name: fmt.Sprintf("tranter-cloud-%06d", i), Set: "m7i.large", Made: p.life(i)}
	enter := func(state fleet.State, at time.Time, reason string) {
		m.State, m.Since, m.Reason = state, at, reason
		course = append(course, m)
	}
	enter(fleet.Wanted, m.Made, "1 job waits, and no machine is idle")
	enter(fleet.Booting, m.Made.Add(40*time.Second), "")
	last := m.Made.Add(2 * time.Minute)
	for k := i * each; k < min((i+1)*each, p.jobs); k++ {
		j := p.job(k)
		m.Leases = []fleet.Lease{{Job: j.Key, Since: j.Times.Placed}}
		enter(fleet.Leased, j.Times.Placed, "")
		m.Leases, m.Used, last = nil, j.Times.Ended, j.Times.Ended
		enter(fleet.Idle, last, "kept for the next job")
	}
	enter(fleet.Removing, last.Add(5*time.Minute), "idle for 5m00s, and no idle machine is wanted")
	return course, last.Add(6 * time.Minute)
}

// fill makes the history, all of it through the store as a manager does, and says what that has cost.
func fill(ctx context.Context, o options, t *table) (err error) {
	path := filepath.Join(o.dir, historyFile)
	h, err := store.OpenHistory(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	p := past{o, time.Now().Add(-time.Minute).Truncate(time.Second)}
	took := func(what string, n int, do func() error) error {
		size, used, start := sizeOf(path), measure.Busy(os.Getpid()), time.Now()
		if err := do(); err != nil {
			return err
		}
		each := func(d time.Duration) string { return fmt.Sprintf("%.2f ms", 1000*d.Seconds()/float64(n)) }
		t.add("", "to keep "+what+": processor time, time, bytes on the disk", "%s, %s, %d", each(measure.Busy(os.Getpid())-used), each(time.Since(start)), (sizeOf(path)-size)/int64(n))
		return nil
	}
	return errors.Join(
		took("a job", o.jobs, func() error { return p.keepJobs(ctx, h) }),
		took("a machine's life", o.lives, func() error { return p.keepMachines(ctx, h) }),
		took("an event", o.events, func() error { return p.keepEvents(ctx, h) }),
		p.keepRest(ctx, h),
	)
}

func (p past) keepJobs(ctx context.Context, h *store.History) error {
	for i := range p.jobs {
		if err := h.Keep(ctx, p.job(i)); err != nil {
			return err
		}
	}
	return nil
}

func (p past) keepMachines(ctx context.Context, h *store.History) error {
	for i := range p.lives {
		course, gone := p.machine(i)
		if err := h.Machines(ctx, poolOf(), course, []string{course[0].Name}, gone); err != nil {
			return err
		}
	}
	return nil
}

// keepEvents keeps them as many at a time as come together where much happens.
func (p past) keepEvents(ctx context.Context, h *store.History) error {
	const together = 10
	var some []tranter.Event
	for i := range p.events {
		e := tranter.Event{Time: p.now.Add(-month + time.Duration(i)*(month/time.Duration(p.events))), Runner: "cloud0001"}
		switch i % 3 {
		case 0:
			e.Kind, e.Job, e.Text = tranter.JobTaken, fmt.Sprintf("%d-%012x", 1_000_000+i/2, i/2), "The job was taken after 12.4s in the queue"
		case 1:
			e.Kind, e.Job, e.Text, e.Took = tranter.JobEnded, fmt.Sprintf("%d-%012x", 1_000_000+i/2, i/2), "The job has succeeded", 3*time.Minute
		default:
			e.Kind, e.Machine, e.Text = "machine_idle", fmt.Sprintf("tranter-cloud-%06d", i/10), "Kept for the next job: 2 idle ones are wanted"
		}
		if some = append(some, e); len(some) == together || i == p.events-1 {
			if err := h.Record(ctx, some); err != nil {
				return err
			}
			some = some[:0]
		}
	}
	return nil
}

// keepRest keeps the machines that are there, and what was sampled each minute.
func (p past) keepRest(ctx context.Context, h *store.History) error {
	m := newManager(p.options)
	for i := range m.machines {
		if err := h.Machines(ctx, poolOf(), m.book(i), nil, p.now); err != nil {
			return err
		}
	}
	const minutes = 30 * 24 * 60
	for i := range minutes {
		v := float64(i % 60)
		err := h.Sample(ctx, p.now.Add(-month+time.Duration(i)*time.Minute), map[string]float64{
			"machines.idle": v, "machines.leased": 3 * v, "machines.booting": v / 4, "machines.removing": v / 5, "jobs.running": 4 * v, "jobs.waiting": v,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sizeOf is the size of a history in bytes, with what is not in its main file yet.
func sizeOf(path string) int64 {
	var n int64
	for _, end := range []string{"", "-wal"} {
		if info, err := os.Stat(path + end); err == nil {
			n += info.Size()
		}
	}
	return n
}
