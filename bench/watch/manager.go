//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/events"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/job"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/view"
)

// manager is what is there: the histories of jobs as the real manager has them, and machines that do nothing.
type manager struct {
	options
	hub     events.Hub
	history *store.History
	began   time.Time

	mu       sync.Mutex
	jobs     []*taken
	machines []view.Machine
	next     int // number of the next job
}

// taken is a job that the manager has.
type taken struct {
	*job.History

	at time.Time
}

func newManager(o options) *manager {
	m := &manager{options: o, began: time.Now()}
	for i := range o.machines {
		state, since := "idle", m.began.Add(-time.Duration(i%7200)*time.Second)
		if i%10 < 8 {
			state = "leased"
		}
		ready := since.Add(-time.Minute)
		m.machines = append(m.machines, view.Machine{
			Name: fmt.Sprintf("tranter-here-%05d", i), Pool: "cloud0001", Set: "m7i.large", State: state, Reason: "kept for the next job: 400 idle ones are wanted",
			Since: since, Made: ready.Add(-2 * time.Minute), Ready: &ready, Uses: i % 40, Address: fmt.Sprintf("10.1.%d.%d", i/250, i%250), Cost: 0.1, Jobs: []string{},
		})
	}
	for i := range o.running {
		m.jobs = append(m.jobs, m.begin(i))
	}
	return m
}

// begin returns a job that has come to a place; one of five has none yet.
func (m *manager) begin(place int) *taken {
	n := 500_000_000 + m.next
	m.next++
	r := rand.New(rand.NewPCG(11, uint64(n)))
	past := label(r, n, time.Now().Add(-time.Duration(r.IntN(1200))*time.Second), 25*time.Minute)
	rec := tranter.JobRecord{Key: past.Key, Runner: past.Runner, Taken: past.Times.Taken, Job: &tranter.Job{ID: past.Job.ID, Info: tranter.JobInfo{
		Name: past.Job.Name, Stage: past.Job.Stage, PipelineID: past.Job.Pipeline, ProjectID: past.Job.ProjectID, ProjectFullPath: past.Job.Project, TimeInQueueSeconds: 12.5,
	}}}
	machine := &m.machines[place%len(m.machines)]
	if place%5 == 0 || machine.State != "leased" {
		rec.Past = tranter.JobPast{Times: tranter.JobTimes{Queued: past.Times.Queued, Taken: past.Times.Taken}, Stages: []tranter.JobStage{{Name: "waiting", Start: past.Times.Taken}}}
		return &taken{job.NewHistory(rec, past.Name, past.Executor), rec.Taken}
	}
	machine.Jobs = append(slices.Clone(machine.Jobs), past.Key)
	past.Times.Ended = time.Time{}
	past.Stages = past.Stages[:3]
	past.Stages[2].End, past.Stages[2].Steps = time.Time{}, nil
	rec.Past = tranter.JobPast{
		Times: past.Times, Place: tranter.JobPlace{Machine: machine.Name, Set: machine.Set}, Stages: past.Stages, Usage: past.Usage, Samples: past.Usage.Samples,
	}
	return &taken{job.NewHistory(rec, past.Name, past.Executor), rec.Taken}
}

// turn ends a job and begins another one in its place, and tells and keeps that as a manager does.
func (m *manager) turn(ctx context.Context) error {
	m.mu.Lock()
	i := m.next % len(m.jobs)
	ended := m.jobs[i].Now()
	at := &m.machines[i%len(m.machines)]
	at.Jobs = slices.DeleteFunc(slices.Clone(at.Jobs), func(key string) bool { return key == ended.Key })
	m.jobs[i] = m.begin(i)
	began := m.jobs[i].Now()
	m.mu.Unlock()
	ended.Times.Ended, ended.Result.State = time.Now(), tranter.JobSuccess
	all := []tranter.Event{
		{Time: time.Now(), Kind: tranter.JobEnded, Job: ended.Key, Runner: ended.Runner, Text: "The job has succeeded", Past: &ended},
		{Time: time.Now(), Kind: tranter.JobTaken, Job: began.Key, Runner: began.Runner, Text: "The job was taken after 12.5s in the queue", Past: &began},
		{Time: time.Now(), Kind: tranter.JobPlaced, Job: began.Key, Runner: began.Runner, Text: "Its environment was made", Past: &began},
	}
	if err := m.history.Keep(ctx, ended); err != nil {
		return err
	}
	for _, e := range all {
		m.hub.Publish(e)
	}
	return m.history.Record(ctx, all)
}

// Snapshot implements web.Source and metrics.Source, at the cost of the real one: each time all is put together anew.
func (m *manager) Snapshot(ctx context.Context) (view.Snapshot, error) {
	now := time.Now()
	recent, err := m.history.Recent(ctx, now)
	if err != nil {
		return view.Snapshot{}, err
	}
	recent.Today, recent.Month, recent.Currency, recent.Priced = 12, 345, "EUR", true
	m.mu.Lock()
	defer m.mu.Unlock()
	s := view.Snapshot{
		At: now, Version: "measured", Manager: view.Manager{State: "running", Started: m.began, Concurrent: len(m.jobs), Config: "/etc/tranter/config.toml"},
		Runners:  []view.Runner{{Name: "cloud", Runner: "cloud0001", URL: "https://gitlab.example.com", Executor: "docker+machine", Jobs: len(m.jobs), Limit: len(m.jobs)}},
		Machines: slices.Clone(m.machines), Recent: recent,
		Pools: []view.Pool{{Pool: "cloud0001", Runner: "cloud", Provider: "aws", Count: map[string]int{}, Limit: len(m.machines), Target: 400, Waiting: len(m.jobs) / 5}},
	}
	for i := range m.machines {
		s.Pools[0].Count[m.machines[i].State]++
	}
	jobs := slices.Clone(m.jobs)
	slices.SortFunc(jobs, func(a, b *taken) int { return a.at.Compare(b.at) })
	s.Jobs = make([]view.Job, len(jobs))
	for i, j := range jobs {
		past := j.Now()
		s.Jobs[i] = view.Job{JobHistory: past, Stage: past.Stages[len(past.Stages)-1].Name}
	}
	return s, nil
}

// book is the course of a machine that is there.
func (m *manager) book(i int) []fleet.Machine {
	v := &m.machines[i]
	b := fleet.Machine{Name: v.Name, Set: v.Set, State: fleet.Wanted, Since: v.Made, Made: v.Made}
	course := []fleet.Machine{b}
	b.State, b.Since = fleet.Booting, v.Made.Add(time.Minute)
	course = append(course, b)
	b.State, b.Since, b.Ready = fleet.State(v.State), v.Since, *v.Ready
	for _, key := range v.Jobs {
		b.Leases = append(b.Leases, fleet.Lease{Job: key, Since: v.Since})
	}
	return append(course, b)
}
