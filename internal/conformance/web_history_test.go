package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/store"
)

// past is a made-up history of a manager, in a history.db as a manager keeps it: what is not of today can't be run in a test.
type past struct {
	t     *testing.T
	dice  *rand.Rand
	now   time.Time
	cloud store.Pool // whose machines they are
	host  string     // short token of the runner without machines
	much  float64    // of everything: 2 for pictures, of which there is also more

	lives []life
	jobs  []tranter.JobHistory
}

// life is a machine: its book's entry after each change, and its end.
type life struct {
	steps []fleet.Machine
	gone  time.Time
}

// makeUp keeps a history of so many days in the state directory.
func makeUp(t *testing.T, state string, days int, cloud store.Pool, host string) {
	t.Helper()
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	h, err := store.OpenHistory(t.Context(), filepath.Join(state, "history.db"))
	if err != nil {
		t.Fatal(err)
	}
	p := &past{t: t, dice: rand.New(rand.NewPCG(7, 2026)), now: time.Now(), cloud: cloud, host: host, much: 1}
	if days > 1 {
		p.much = 2
	}
	for day := days; day >= 0; day-- {
		for hour := range 24 {
			p.hour(time.Date(p.now.Year(), p.now.Month(), p.now.Day()-day, hour, 0, 0, 0, p.now.Location()))
		}
	}
	begin := time.Now()
	p.keep(t.Context(), h)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d made-up machines and %d jobs were kept in %v", len(p.lives), len(p.jobs), time.Since(begin).Round(time.Millisecond))
}

// hour makes up the machines that are made in an hour: more while people work, fewer at two days of seven.
func (p *past) hour(start time.Time) {
	want := []float64{.15, .1, .3, .1, .1, .2, .4, 1, 2, 2.6, 2.8, 2.4, 1.8, 2.2, 2.8, 2.6, 2.2, 1.6, .9, .6, .4, .3, .2, .2}[start.Hour()]
	want *= p.much
	if d := int(p.now.Sub(start).Hours()) / 24 % 7; d == 3 || d == 4 { // whatever day it is today
		want = .25 + want*.3
	}
	for n := int(want + p.dice.Float64()); n > 0; n-- {
		p.machine(start.Add(p.between(0, time.Hour)))
	}
	if p.dice.Float64() < .2+want/4 {
		p.add(start.Add(p.between(0, 40*time.Minute)), p.between(20*time.Second, 5*time.Minute), p.host, "build-host", "shell", tranter.JobPlace{})
	}
}

func (p *past) between(a, b time.Duration) time.Duration {
	return a + time.Duration(p.dice.Int64N(int64(b-a)))
}

// machine makes up the life of a machine, with its jobs.
func (p *past) machine(made time.Time) {
	m := fleet.Machine{Name: fmt.Sprintf("runner-%s-ci-%d-%07x", strings.ToLower(p.cloud.Token), made.Unix(), p.dice.Uint32()>>4), Set: "", Made: made}
	m.Set = []string{"large", "small", "small"}[p.dice.IntN(3)]
	var l life
	at := made
	step := func(s fleet.State, reason string, d time.Duration) {
		m.State, m.Since, m.Reason = s, at, reason
		one := m
		one.Leases = slices.Clone(m.Leases)
		l.steps = append(l.steps, one)
		at = at.Add(d)
	}
	step(fleet.Wanted, "a job waits, and no machine is idle", p.between(2*time.Second, 6*time.Second))
	step(fleet.Booting, "the provider has created it", p.between(35*time.Second, 90*time.Second))
	m.Ready = at
	for range 1 + p.dice.IntN(4) {
		took := p.between(time.Minute, 14*time.Minute)
		key := p.add(at.Add(-p.between(4*time.Second, 80*time.Second)), took, p.cloud.Token, p.cloud.Name, "docker+machine", tranter.JobPlace{Machine: m.Name, Set: m.Set})
		m.Leases, m.Uses = []fleet.Lease{{Job: key, Since: at}}, m.Uses+1
		step(fleet.Leased, "", took)
		m.Leases, m.Used = nil, at
		step(fleet.Idle, "the last job has left", p.between(20*time.Second, 6*time.Minute))
	}
	step(fleet.Removing, "idle for longer than IdleTime, and enough others are idle", p.between(5*time.Second, 25*time.Second))
	if l.gone = at; at.Before(p.now.Add(-4 * time.Minute)) {
		p.lives = append(p.lives, l)
	} else {
		p.jobs = slices.DeleteFunc(p.jobs, func(j tranter.JobHistory) bool { return j.Place.Machine == m.Name })
	}
}

// add makes up a job that has ended, and returns its key.
func (p *past) add(taken time.Time, took time.Duration, runner, name, executor string, place tranter.JobPlace) string {
	projects := []string{"platform/billing", "platform/billing", "web/shop", "web/shop", "web/shop", "mobile/app", "data/pipelines", "docs/site"}
	names := []string{"build", "unit", "unit", "lint", "integration: [postgres]", "integration: [sqlite]", "e2e", "deploy-review"}
	stages := []string{"build", "test", "test", "test", "test", "test", "test", "deploy"}
	which, what, n := p.dice.IntN(len(projects)), p.dice.IntN(len(names)), len(p.jobs)
	placed := taken.Add(p.between(500*time.Millisecond, 3*time.Second))
	if place.Machine != "" {
		placed = placed.Add(p.between(time.Second, 60*time.Second))
	}
	j := tranter.JobHistory{
		Key: fmt.Sprintf("%05d-%012d", 51000+which, 40_000+n), Runner: runner, Name: name, Executor: executor, Place: place,
		Job: tranter.JobLabel{
			ID: int64(40_000 + n), Name: names[what], Stage: stages[what], Pipeline: int64(9_000 + n/5), ProjectID: int64(10 + which), Project: projects[which],
			Ref: []string{"main", "main", "fix/login", "feature/search", "release/2.4"}[p.dice.IntN(5)], SHA: fmt.Sprintf("%016x%016x%08x", p.dice.Uint64(), p.dice.Uint64(), p.dice.Uint32()),
			User: []string{"ada", "grace", "linus", "barbara"}[p.dice.IntN(4)], Public: []string{"private", "internal"}[p.dice.IntN(2)],
		},
		Times:  tranter.JobTimes{Queued: p.between(time.Second, 20*time.Second), Taken: taken, Placed: placed, Started: placed, Ended: taken.Add(took)},
		Result: tranter.Result{State: tranter.JobSuccess}, LogBytes: int64(2_000 + p.dice.IntN(90_000)),
	}
	switch r := p.dice.IntN(100); {
	case r < 7:
		j.Result = tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 1, Message: "exit status 1"}
	case r < 8:
		j.Result = tranter.Result{State: tranter.JobFailed, Reason: tranter.RunnerSystemFailure, Message: "the machine was taken away by its provider"}
	case r < 9:
		j.Result = tranter.Result{State: tranter.JobFailed, Reason: tranter.JobExecutionTimeout, Message: "execution took longer than 1h0m0s seconds"}
	}
	if j.Times.Ended.Before(p.now.Add(-4 * time.Minute)) {
		p.jobs = append(p.jobs, j)
	}
	return j.Key
}

// keep writes it all as a manager does.
func (p *past) keep(ctx context.Context, h *store.History) {
	p.t.Helper()
	must := func(err error) {
		p.t.Helper()
		if err != nil {
			p.t.Fatal(err)
		}
	}
	for k, left := 0, true; left; k++ {
		var changed []fleet.Machine
		for _, l := range p.lives {
			if k < len(l.steps) {
				changed = append(changed, l.steps[k])
			}
		}
		must(h.Machines(ctx, p.cloud, changed, nil, p.now))
		left = len(changed) > 0
	}
	for _, l := range p.lives {
		must(h.Machines(ctx, p.cloud, nil, []string{l.steps[0].Name}, l.gone))
	}
	var told []tranter.Event
	for _, j := range p.jobs {
		must(h.Keep(ctx, j))
		if j.Times.Ended.Before(p.now.Add(-6 * time.Hour)) {
			continue
		}
		e := tranter.Event{Time: j.Times.Ended, Kind: tranter.JobEnded, Runner: j.Runner, Job: j.Key, Machine: j.Place.Machine, Text: "Job succeeded", Took: j.Times.Ended.Sub(j.Times.Taken)}
		if j.Result.State != tranter.JobSuccess {
			e.Level, e.Text = tranter.EventWarning, fmt.Sprintf("Job failed (%s): %s", j.Result.Reason, j.Result.Message)
		}
		told = append(told, tranter.Event{Time: j.Times.Taken, Kind: tranter.JobTaken, Runner: j.Runner, Job: j.Key, Text: fmt.Sprintf("Checking for jobs... received job %d (%s) of %s", j.Job.ID, j.Job.Name, j.Job.Project)}, e)
	}
	must(h.Record(ctx, told))
	if len(p.lives) == 0 {
		return
	}
	for at := p.lives[0].steps[0].Made; at.Before(p.now); {
		must(h.Sample(ctx, at, p.sample(at)))
		if p.much < 2 || p.now.Sub(at) > 25*time.Hour {
			at = at.Add(time.Hour)
		} else {
			at = at.Add(3 * time.Minute)
		}
	}
}

// sample counts what there was at a time.
func (p *past) sample(at time.Time) map[string]float64 {
	out := map[string]float64{"jobs.running": 0, "jobs.waiting": 0}
	for _, s := range []fleet.State{fleet.Wanted, fleet.Booting, fleet.Idle, fleet.Leased, fleet.Removing} {
		out["machines."+string(s)] = 0
	}
	for _, l := range p.lives {
		if at.Before(l.steps[0].Since) || !at.Before(l.gone) {
			continue
		}
		i := len(l.steps) - 1
		for l.steps[i].Since.After(at) {
			i--
		}
		out["machines."+string(l.steps[i].State)]++
	}
	for _, j := range p.jobs {
		switch t := j.Times; {
		case at.Before(t.Taken) || !at.Before(t.Ended):
		case at.Before(t.Placed):
			out["jobs.waiting"]++
		default:
			out["jobs.running"]++
		}
	}
	return out
}

// rateOf says what the machines cost that were made up.
func rateOf(set string) cost.Rate {
	return map[string]cost.Rate{"large": {PerHour: .384, Minimum: time.Minute}, "small": {PerHour: .096, Minimum: time.Minute}}[set]
}
