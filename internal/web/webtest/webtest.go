// Package webtest has data for tests of the web page: a manager at work, a large one, and one whose every text is hostile.
package webtest

import (
	"fmt"
	"reflect"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// Sample is a manager at work at a time: machines in every state, jobs on them, in batch jobs and on this host, jobs that wait, a
// runner in trouble and one that is paused.
func Sample(now time.Time) view.Snapshot {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	at := func(d time.Duration) *time.Time { t := now.Add(d); return &t }
	s := view.Snapshot{
		At: now, Version: "1.0.0-test",
		Manager: view.Manager{State: "running", Started: ago(52 * time.Hour), Concurrent: 60, Config: "/etc/tranter/config.toml"},
		Runners: []view.Runner{
			{Name: "autoscaled docker", Runner: "aUt0sCale", URL: "https://gitlab.example.com", Executor: "docker-autoscaler", Jobs: 5, Limit: 40, Contact: at(-2 * time.Second)},
			{Name: "build host", Runner: "sH3llHost", URL: "https://gitlab.example.com", Executor: "shell", Jobs: 1, Limit: 4, Contact: at(-time.Second), Paused: "by ada since 09:12", Warnings: []string{"check_interval is below 1 second; 3 seconds are used"}},
			{Name: "cluster gpu", Runner: "hPcGpu001", URL: "https://gitlab.example.org/sub", Executor: "slurm", Jobs: 1, Limit: 100, Contact: at(-4 * time.Second), Busy: "the partition gpu is full: 3 of 3 nodes are in use"},
			{Name: "broken", Runner: "br0kenOne", URL: "https://gitlab.example.net", Executor: "docker", Contact: at(-11 * time.Minute), Backoff: at(40 * time.Second), Problem: "GET https://gitlab.example.net/api/v4/runners: 403 Forbidden, since 11m; the token may have been revoked"},
		},
		Waiting: []view.Waiting{
			{ID: 99121, Name: "integration: [postgres, 16]", Project: "platform/billing", User: "grace", Runner: "aUt0sCale", Since: ago(94 * time.Second), Reason: "6 of 6 machines are leased or booting; the limit of the pool is 6"},
			{ID: 99124, Name: "deploy-review", Project: "web/shop", User: "linus", Runner: "aUt0sCale", Since: ago(31 * time.Second), Reason: "a machine is being made: tranter-ci-7f3a, booting for 12s"},
			{ID: 99130, Name: "train-large", Project: "research/vision", User: "ada", Runner: "hPcGpu001", Since: ago(47 * time.Minute), Batch: "tr-hpc-19", Reason: "queued in Slurm: Resources"},
		},
		Pools: []view.Pool{{
			Pool: "aUt0sCale", Runner: "autoscaled docker", Provider: "docker-machine amazonec2", Count: map[string]int{"leased": 2, "idle": 1, "booting": 1, "draining": 1, "removing": 1},
			Limit: 6, Target: 2, Waiting: 2, Decision: "make 1 machine: 2 jobs wait, 1 machine is on its way, and 2 idle ones are wanted", Decided: ago(9 * time.Second),
		}},
		Clusters: []view.Cluster{{Class: "gpu", Runner: "hPcGpu001", System: "slurm", Order: "age", Waiting: 1, Taken: 1, Busy: "the partition gpu is full: 3 of 3 nodes are in use"}},
		Batches: []view.Batch{
			{Name: "tr-hpc-18", ID: "48211", Class: "gpu", Runner: "hPcGpu001", State: "running", Since: ago(80 * time.Minute), Made: ago(95 * time.Minute), Nodes: "gpu[07-08]", Jobs: []string{"hPcGpu001-98777"}},
			{Name: "tr-hpc-19", ID: "48240", Class: "gpu", Runner: "hPcGpu001", State: "queued", Reason: "Resources", Since: ago(47 * time.Minute), Made: ago(47 * time.Minute)},
		},
		Recent: view.Recent{
			Ended: 412, Failed: map[string]int{"script_failure": 31, "runner_system_failure": 3, "job_execution_timeout": 2, "job_canceled": 7},
			WaitP50: 6400 * time.Millisecond, WaitP95: 71 * time.Second, Waits: 38, Today: 11.42, Month: 286.1, Currency: "EUR", Priced: true,
		},
	}
	s.Machines = machines(now)
	s.Jobs = jobs(now)
	return s
}

func machines(now time.Time) []view.Machine {
	var all []view.Machine
	for i, m := range []view.Machine{
		{State: "leased", Reason: "holds 2 of 2 jobs", Uses: 14, Jobs: []string{"aUt0sCale-99001", "aUt0sCale-99002"}, Cost: 0.31},
		{State: "leased", Reason: "holds 1 of 2 jobs", Uses: 3, Jobs: []string{"aUt0sCale-99010"}, Cost: 0.08},
		{State: "idle", Reason: "kept: 2 idle ones are wanted until 18:00", Uses: 9, Cost: 0.22},
		{State: "booting", Reason: "installs the agent", Cost: 0.01},
		{State: "draining", Reason: "was used 50 times, which is enough", Uses: 50, Jobs: []string{"aUt0sCale-98950"}, Cost: 1.4},
		{State: "removing", Reason: "idle for 30m, longer than idle_time", Uses: 2, Problem: "the provider answers: rate exceeded", Cost: 0.12},
	} {
		m.Name = fmt.Sprintf("tranter-ci-%04x", 0x7f37+i*371)
		m.Pool, m.Set = "aUt0sCale", "m7i.large"
		m.Made = now.Add(-time.Duration(40*(6-i)) * time.Minute)
		m.Since = now.Add(-time.Duration(17*(i+1)) * time.Second)
		m.Address = fmt.Sprintf("10.0.3.%d", 17+i)
		all = append(all, m)
	}
	return all
}

func jobs(now time.Time) []view.Job {
	all := []view.Job{
		Job(now, "aUt0sCale", 98950, "lint"), Job(now, "aUt0sCale", 99001, "test: [go, 1.26]"), Job(now, "aUt0sCale", 99002, "build image"),
		Job(now, "aUt0sCale", 99010, "e2e chromium"), Job(now, "aUt0sCale", 99015, "package"), Job(now, "sH3llHost", 99020, "release notes"),
		Job(now, "hPcGpu001", 98777, "train-small"),
	}
	for i, machine := range []string{"tranter-ci-8503", "tranter-ci-7f37", "tranter-ci-7f37", "tranter-ci-80aa"} {
		all[i].Place = tranter.JobPlace{Machine: machine, Set: "m7i.large"}
	}
	all[4].Times.Placed, all[4].Times.Started = time.Time{}, time.Time{}
	all[4].Stage, all[4].Reason = "prepare", "waits for a machine: tranter-ci-8394 boots for 17s"
	all[6].Place = tranter.JobPlace{Batch: "tr-hpc-18"}
	return all
}

// Job is a job that has run for some minutes.
func Job(now time.Time, runner string, id int64, name string) view.Job {
	taken := now.Add(-time.Duration(40+id%977) * time.Second)
	return view.Job{
		Stage: "step_script",
		JobHistory: tranter.JobHistory{
			Key: fmt.Sprintf("%s-%d", runner, id), Runner: runner, Name: "runner " + runner, Executor: "docker",
			Job: tranter.JobLabel{
				ID: id, Name: name, Stage: "test", URL: fmt.Sprintf("https://gitlab.example.com/web/shop/-/jobs/%d", id), Pipeline: id / 10, ProjectID: 7,
				Project: "web/shop", Ref: "main", SHA: "5f2c1e9d8b7a6543210fedcba9876543210abcde", User: "ada", Tags: []string{"docker", "linux"}, Public: "private",
			},
			Times:    tranter.JobTimes{Queued: 3 * time.Second, Taken: taken, Placed: taken.Add(4 * time.Second), Started: taken.Add(5 * time.Second)},
			Stages:   []tranter.JobStage{{Name: "place", Start: taken, End: taken.Add(4 * time.Second)}, {Name: "get_sources", Start: taken.Add(5 * time.Second), End: taken.Add(9 * time.Second)}, {Name: "step_script", Start: taken.Add(9 * time.Second)}},
			Usage:    tranter.JobUsage{CPUTime: 31 * time.Second, MaxMemory: 812 << 20, MaxDisk: 2 << 30},
			Result:   tranter.Result{State: tranter.JobRunning},
			LogBytes: 40123,
		},
	}
}

// Ended is a job that has ended; each third one has failed.
func Ended(now time.Time, id int64) tranter.JobHistory {
	j := Job(now.Add(-time.Hour), "aUt0sCale", id, fmt.Sprintf("test %d", id%17)).JobHistory
	j.Times.Ended = j.Times.Started.Add(time.Duration(20+id%300) * time.Second)
	j.Stages[2].End = j.Times.Ended
	j.Result = tranter.Result{State: tranter.JobSuccess}
	if id%3 == 0 {
		j.Result = tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 1, Message: "exit status 1"}
	}
	return j
}

// Large is a manager with so many machines and jobs that hold them, and as many jobs that wait.
func Large(now time.Time, machineCount, jobCount int) view.Snapshot {
	s := Sample(now)
	s.Machines, s.Jobs, s.Waiting = nil, nil, nil
	states := []string{"leased", "leased", "leased", "idle", "booting", "draining", "removing"}
	for i := range machineCount {
		s.Machines = append(s.Machines, view.Machine{
			Name: fmt.Sprintf("tranter-ci-%05d", i), Pool: "aUt0sCale", Set: "m7i.large", State: states[i%len(states)], Reason: "holds 2 of 2 jobs",
			Since: now.Add(-time.Duration(i) * time.Second), Made: now.Add(-time.Duration(i) * time.Minute), Uses: i % 50, Address: fmt.Sprintf("10.%d.%d.7", i/250, i%250),
		})
	}
	for i := range jobCount {
		j := Job(now, "aUt0sCale", int64(100000+i), fmt.Sprintf("job %d", i))
		if machineCount > 0 {
			m := &s.Machines[i%machineCount]
			j.Place.Machine = m.Name
			m.Jobs = append(m.Jobs, j.Key)
		}
		s.Jobs = append(s.Jobs, j)
		s.Waiting = append(s.Waiting, view.Waiting{ID: int64(200000 + i), Name: fmt.Sprintf("job %d", i), Project: "web/shop", User: "ada", Runner: "aUt0sCale", Since: now.Add(-time.Duration(i) * time.Second), Reason: "all machines are leased"})
	}
	return s
}

// Poison sets every text that v points to, however deep, to the given one; maps keep their numbers under it as a key. States stay
// what they are when keep says so, by the name of the field.
func Poison(v any, text string, keep func(field string) bool) { poison(reflect.ValueOf(v), text, keep) }

func poison(v reflect.Value, text string, keep func(string) bool) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			poison(v.Elem(), text, keep)
		}
	case reflect.String:
		if v.CanSet() {
			v.SetString(text)
		}
	case reflect.Slice:
		for i := range v.Len() {
			poison(v.Index(i), text, keep)
		}
	case reflect.Map:
		poisonMap(v, text)
	case reflect.Struct:
		poisonFields(v, text, keep)
	default: // numbers are what they are
	}
}

func poisonFields(v reflect.Value, text string, keep func(string) bool) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		return
	}
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() && !keep(f.Name) {
			poison(v.Field(i), text, keep)
		}
	}
}

func poisonMap(v reflect.Value, text string) {
	if v.Type().Key().Kind() != reflect.String || v.Len() == 0 {
		return
	}
	any1 := v.MapIndex(v.MapKeys()[0])
	if any1.Kind() == reflect.String {
		any1 = reflect.ValueOf(text).Convert(v.Type().Elem())
	}
	v.SetMapIndex(reflect.ValueOf(text).Convert(v.Type().Key()), any1)
}
