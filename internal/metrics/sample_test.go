package metrics_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/metrics"
	"github.com/tranter-ci/tranter/internal/view"
)

// fixed is a Source that always tells the same.
type fixed struct{ s view.Snapshot }

func (f fixed) Snapshot(context.Context) (view.Snapshot, error) { return f.s, nil }

// source is a Source by a function.
type source func() (view.Snapshot, error)

func (s source) Snapshot(context.Context) (view.Snapshot, error) { return s() }

const (
	machinesRunner = "mach0001"
	batchRunner    = "batch001"
	shellRunner    = "shell001"
)

// crowd is a snapshot with many machines and jobs.
func crowd(at time.Time, machines, jobs int) view.Snapshot {
	contact := at.Add(-3 * time.Second)
	s := view.Snapshot{
		At: at, Version: "1.2.3", Manager: view.Manager{State: "running", Started: at.Add(-time.Hour), Concurrent: 5000},
		Runners: []view.Runner{
			{Name: "cloud", Runner: machinesRunner, Executor: "docker+machine", Jobs: jobs, Limit: 2000, Contact: &contact},
			{Name: "cluster", Runner: batchRunner, Executor: "slurm", Problem: "the cluster is down", Contact: &contact},
			{Name: "host", Runner: shellRunner, Executor: "shell", Paused: "by admin", Contact: &contact},
		},
		Waiting:  []view.Waiting{{ID: 7, Runner: batchRunner, Since: at.Add(-20 * time.Minute)}},
		Pools:    []view.Pool{{Pool: machinesRunner, Runner: "cloud", Provider: "lab", Limit: 2500, Target: 20, Waiting: 1}},
		Clusters: []view.Cluster{{Class: batchRunner, Runner: "cluster", System: "slurm", Waiting: 1}},
		Batches:  []view.Batch{{Name: "b1", Class: batchRunner, Runner: "cluster", State: "queued"}},
		Recent:   view.Recent{Waits: 5, WaitP50: 4 * time.Second, WaitP95: 40 * time.Second, Today: 3.5, Month: 99, Currency: "EUR", Priced: true},
	}
	states := []string{"booting", "idle", "leased", "leased", "leased", "draining", "removing"}
	for i := range machines {
		m := view.Machine{Name: fmt.Sprintf("machine-%d", i), Pool: machinesRunner, Set: []string{"small", "large"}[i%2], State: states[i%len(states)], Made: at.Add(-time.Hour), Cost: at.Sub(at.Add(-time.Hour)).Hours() * 0.2}
		if m.State == "leased" {
			m.Jobs = []string{fmt.Sprint("job", i)}
		}
		if i%len(states) == len(states)-1 && i < 20 {
			m.Leak = "it can't be removed"
		}
		s.Machines = append(s.Machines, m)
	}
	for i := range jobs {
		j := view.Job{JobHistory: past(fmt.Sprint("job", i), at), Stage: []string{"prepare_executor", "step_script", "reporting"}[i%3]}
		j.Result, j.Times.Ended = tranter.Result{State: tranter.JobRunning}, time.Time{}
		if i%3 == 0 {
			j.Times.Placed = time.Time{}
		}
		s.Jobs = append(s.Jobs, j)
	}
	return s
}

// past is a job that has ended at a time.
func past(key string, at time.Time) tranter.JobHistory {
	start := at.Add(-2 * time.Minute)
	return tranter.JobHistory{
		Key: key, Runner: machinesRunner, Name: "cloud", Executor: "docker+machine",
		Job:   tranter.JobLabel{ID: 1, Name: "build", Project: "group/project", Queue: tranter.JobQueue{ProjectJobs: "3", Size: 12, Depth: 4}},
		Place: tranter.JobPlace{Machine: "machine-1", Set: "small"},
		Times: tranter.JobTimes{Queued: 20 * time.Second, Taken: start, Placed: start.Add(15 * time.Second), Started: start.Add(16 * time.Second), Ended: at},
		Stages: []tranter.JobStage{
			{Name: "prepare_executor", Start: start, End: start.Add(15 * time.Second)},
			{Name: "job", Start: start.Add(15 * time.Second), End: at, Steps: []tranter.StepRecord{
				{Name: "get_sources", Started: start.Add(16 * time.Second).UnixMilli(), Ended: start.Add(18 * time.Second).UnixMilli(), Status: tranter.PhaseSucceeded},
				{Name: "step_script", Started: start.Add(18 * time.Second).UnixMilli(), Ended: at.UnixMilli(), Status: tranter.PhaseSucceeded},
			}},
		},
		Usage:  tranter.JobUsage{CPUTime: 90 * time.Second, MaxMemory: 1 << 30},
		Result: tranter.Result{State: tranter.JobSuccess},
	}
}

// options are complete ones.
func options(s metrics.Source) metrics.Options {
	log := slog.New(metrics.CountLevels(slog.NewTextHandler(new(bytes.Buffer), nil)))
	log.Warn("something")
	log.With("job", 1).WithGroup("g").Error("something worse")
	return metrics.Options{
		Source: s, Version: metrics.Version{Version: "1.2.3", Revision: "abc"}, SystemID: "s_0123", Log: log, Currency: "EUR",
		Lag: func() int64 { return 4096 }, Unkept: func() int64 { return 1 }, Viewers: func() int { return 2 },
		Disk:      func() (uint64, uint64, error) { return 5 << 30, 100 << 30, nil },
		BatchCost: func(j tranter.JobHistory) (float64, bool) { return j.Bill.CPUHours() * 0.05, true },
	}
}

// happen tells metrics of a lively minute that ends at a time.
func happen(m *metrics.Metrics, at time.Time, n int) {
	m.SetRunners([]metrics.Runner{
		{Token: machinesRunner, Name: "cloud", Executor: "docker+machine", Slow: []config.JobQueuingDuration{{Periods: []string{"* * * * *"}, Threshold: 10 * time.Second}}},
		{Token: batchRunner, Name: "cluster", Executor: "slurm"},
		{Token: shellRunner, Name: "host", Executor: "shell"},
	})
	m.Observe(tranter.Event{Kind: tranter.ConfigLoaded, Time: at})
	m.Observe(tranter.Event{Kind: tranter.ConfigRefused, Time: at, Level: tranter.EventError})
	m.Observe(tranter.Event{Kind: tranter.RunnerTrouble, Time: at, Level: tranter.EventWarning, Runner: batchRunner})
	for i := range n {
		job := past(fmt.Sprint("job", i), at)
		switch i % 4 {
		case 1:
			job.Result = tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 1}
		case 2:
			job.Result = tranter.Result{State: tranter.JobFailed, Reason: tranter.RunnerSystemFailure}
			job.Restarts = 1
		case 3:
			job.Runner, job.Name, job.Executor = batchRunner, "cluster", "slurm"
			job.Bill = &tranter.Bill{CPUs: 4, GPUs: 1, Ran: time.Minute}
		}
		told := func(k tranter.EventKind) {
			m.Observe(tranter.Event{Kind: k, Time: at, Runner: job.Runner, Job: job.Key, Past: &job})
		}
		told(tranter.JobTaken)
		told(tranter.JobPlaced)
		told(tranter.JobEnded)
		m.Observe(tranter.Event{Kind: tranter.JobResumed, Time: at, Runner: job.Runner, Job: job.Key})
		name := fmt.Sprint("short-lived-", i)
		for k, kind := range []tranter.EventKind{"machine_wanted", "machine_created", "machine_ready", "lease_granted", "lease_released", "machine_draining", "machine_removing", "removal_failed", "machine_gone"} {
			m.Observe(tranter.Event{Kind: kind, Time: at.Add(time.Duration(k-9) * 5 * time.Second), Runner: machinesRunner, Machine: name, Text: "3 jobs without a machine"})
		}
		m.Observe(tranter.Event{Kind: "machine_wanted", Time: at, Runner: machinesRunner, Machine: name + "-f", Text: "idle machines: 3 of 5"})
		m.Observe(tranter.Event{Kind: "machine_failed", Time: at, Runner: machinesRunner, Machine: name + "-f", Took: 40 * time.Second, Text: "no quota"})
		m.Observe(tranter.Event{Kind: "machine_gone", Time: at, Runner: machinesRunner, Machine: name + "-f"})
		m.Observe(tranter.Event{Kind: "batch_planned", Time: at, Runner: batchRunner, Batch: name, Text: "for job 7"})
	}
	m.Call(machinesRunner, "cloud", metrics.Call{Endpoint: "request_job", Method: "POST", Status: 201, Took: 200 * time.Millisecond})
	m.Call(machinesRunner, "cloud", metrics.Call{Endpoint: "patch_trace", Method: "PATCH", Status: 202, Took: 20 * time.Millisecond})
	m.Call(batchRunner, "cluster", metrics.Call{Endpoint: "request_job", Method: "POST", Status: -1, Took: 10 * time.Second})
	m.Call(batchRunner, "cluster", metrics.Call{Endpoint: "request_job", Method: "POST", Status: 500, Took: time.Second})
	m.Missed(1)
}

// scrape returns what a scrape gets, and its header.
func scrape(t testing.TB, m *metrics.Metrics, accept string) (string, http.Header) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String(), w.Header()
}

// series returns the series of a page, without their values.
func series(page string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		all[line[:at]] = line[at+1:]
	}
	return all
}
