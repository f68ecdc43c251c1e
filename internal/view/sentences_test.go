package view_test

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) time.Time { return noon.Add(-d) }

func after(d time.Duration) *time.Time {
	t := noon.Add(d)
	return &t
}

// scene is a manager with a pool, a cluster and a runner on this host.
func scene() view.Snapshot {
	return view.Snapshot{
		At: noon, Manager: view.Manager{State: "running", Concurrent: 10, Config: "/etc/tranter/config.toml"},
		Runners: []view.Runner{{Name: "builders", Runner: "t1"}, {Name: "hpc", Runner: "t2"}, {Name: "here", Runner: "t3", Limit: 2, Jobs: 1}},
		Pools: []view.Pool{{
			Pool: "t1", Runner: "builders", Provider: "amazonec2", Limit: 10, Target: 2, IdleTime: 20 * time.Minute, Waiting: 4,
			Count: map[string]int{"booting": 3, "leased": 7},
		}},
		Clusters: []view.Cluster{{Class: "t2", Runner: "hpc", System: "slurm", Waiting: 3, Taken: 1}},
		Batches:  []view.Batch{{Name: "tranter-1", ID: "4711", Class: "t2", State: "queued", Reason: "Priority", Since: before(5 * time.Minute), Made: before(6 * time.Minute)}},
	}
}

func taken(runner string, d time.Duration) view.Job {
	return view.Job{Stage: "prepare_executor", JobHistory: tranter.JobHistory{
		Key: "k", Runner: runner, Job: tranter.JobLabel{ID: 7, Name: "rspec", Project: "group/app"}, Times: tranter.JobTimes{Taken: before(d)},
		Result: tranter.Result{State: tranter.JobRunning},
	}}
}

func TestWhyAJobIsAsItIs(t *testing.T) {
	placed := taken("t1", time.Hour)
	placed.Times.Placed, placed.Times.Started, placed.Stage = before(50*time.Minute), before(49*time.Minute), "step_script"
	placed.Place.Machine = "runner-1"
	placed.Stages = []tranter.JobStage{{Name: "step_script", Start: before(40 * time.Minute)}}
	over := placed
	over.Result, over.Times.Ended = tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure}, before(time.Minute)
	inBatch := taken("t2", 2*time.Minute)
	inBatch.Place.Batch = "tranter-1"
	quiet := scene()
	quiet.Pools[0].Count = map[string]int{}
	failing := scene()
	failing.Pools[0].Count, failing.Pools[0].Problem, failing.Pools[0].Throttle = map[string]int{"leased": 2}, "no\ncredentials.", after(30*time.Second)
	for name, c := range map[string]struct {
		s    view.Snapshot
		j    view.Job
		want string
	}{
		"limit":       {scene(), taken("t1", 125*time.Second), "It was taken 2m05s ago and waits for a machine: 3 are being made for 4 jobs that wait; all 10 that the limit allows are there (3 booting, 7 leased)."},
		"none":        {quiet, taken("t1", time.Second), "It was taken 1.0s ago and waits for a machine: none is there yet."},
		"trouble":     {failing, taken("t1", time.Second), "It was taken 1.0s ago and waits for a machine: the provider amazonec2 fails: no credentials; the provider wants no requests for another 30.0s."},
		"batch":       {scene(), inBatch, `It was taken 2m00s ago and waits for a place in a batch job: batch job 4711 has waited in the queue for 5m00s, with the reason "Priority": others with a higher priority come first.`},
		"no batch":    {scene(), taken("t2", time.Minute), "It was taken 1m00s ago and waits for a place in a batch job: none was made for it yet; 3 jobs in GitLab and 1 job taken of the runner have none."},
		"environment": {scene(), taken("t3", 3*time.Second), "It was taken 3.0s ago, and its environment is being made; its stage is prepare executor."},
		"runs":        {scene(), placed, "It has run for 49m00s on machine runner-1; its stage is step script for 40m00s."},
		"reporting":   {scene(), over, "It has ended 1m00s ago (failed: the script failed); what is left of its log and its result are on their way to GitLab."},
	} {
		t.Run(name, func(t *testing.T) {
			if got := view.WhyJob(c.s, c.j, noon); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestWhyAJobWaitsInGitLab(t *testing.T) {
	with := func(change func(*view.Snapshot)) view.Snapshot {
		s := scene()
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		s    view.Snapshot
		w    view.Waiting
		want string
	}{
		"next":     {scene(), view.Waiting{Runner: "t3"}, "It waits in GitLab, for runner here: it is taken the next time that the runner asks for a job, unless another runner takes it first."},
		"limit":    {with(func(s *view.Snapshot) { s.Runners[2].Jobs = 2 }), view.Waiting{Runner: "t3", Since: before(time.Minute)}, "It has waited in GitLab for 1m00s, for runner here: the runner has 2 jobs, and its limit is 2."},
		"all":      {with(func(s *view.Snapshot) { s.Manager.Concurrent, s.Jobs = 1, []view.Job{taken("t1", 1)} }), view.Waiting{Runner: "t3"}, "It waits in GitLab, for runner here: the manager has 1 job, and \"concurrent\" is 1."},
		"paused":   {with(func(s *view.Snapshot) { s.Runners[2].Paused = "since 11:00 by ada" }), view.Waiting{Runner: "t3"}, "It waits in GitLab, for runner here: the runner is paused by a person: since 11:00 by ada."},
		"drain":    {with(func(s *view.Snapshot) { s.Manager.State = "draining" }), view.Waiting{Runner: "t3"}, "It waits in GitLab, for runner here: the manager is draining and takes no jobs."},
		"refused":  {with(func(s *view.Snapshot) { s.Runners[2].Backoff, s.Runners[2].Problem = after(time.Hour), "403" }), view.Waiting{Runner: "t3"}, "It waits in GitLab, for runner here: the server has refused the runner's requests, and is asked again in 1h00m: 403."},
		"unknown":  {scene(), view.Waiting{Runner: "t9"}, "It waits in GitLab: no runner of this manager is there for it."},
		"batch":    {scene(), view.Waiting{Runner: "t2", Batch: "tranter-1"}, `It waits in GitLab, for runner hpc, and is taken once it has a place in a batch job: batch job 4711 has waited in the queue for 5m00s, with the reason "Priority": others with a higher priority come first.`},
		"too much": {scene(), view.Waiting{Runner: "t2", Reason: "400 CPUs are more than max_cpus = 128."}, "It waits in GitLab, for runner hpc, and is taken once it has a place in a batch job: no batch job is made for it: 400 CPUs are more than max_cpus = 128."},
	} {
		t.Run(name, func(t *testing.T) {
			if got := view.WhyWaiting(c.s, c.w, noon); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestWhyAMachineIsThere(t *testing.T) {
	idle := func(name string, d time.Duration) view.Machine {
		return view.Machine{Name: name, Pool: "t1", State: "idle", Since: before(d)}
	}
	s := scene()
	s.Machines = []view.Machine{idle("a", 12*time.Minute), idle("b", 5*time.Minute), idle("c", time.Minute)}
	s.Jobs = []view.Job{taken("t1", time.Hour)}
	none := scene()
	none.Pools[0].Target = 0
	fixed := scene()
	fixed.Pools[0].Fixed = true
	byHand := idle("x", time.Minute)
	byHand.ByHand = true
	for name, c := range map[string]struct {
		s    view.Snapshot
		m    view.Machine
		want string
	}{
		"spare":    {s, s.Machines[0], "Idle for 12m00s; more than the 2 idle machines that are wanted (2 other idle); removed at 12:08:00, after 20m00s idle, if no job comes."},
		"kept":     {s, s.Machines[2], "Idle for 1m00s; kept because 2 idle machines are wanted (2 other idle)."},
		"none":     {none, idle("a", 30*time.Minute), "Idle for 30m00s; not needed, as no idle machine is wanted (0 other idle); removed at once."},
		"fixed":    {fixed, idle("a", time.Minute), "Idle for 1m00s; kept because it is one of those that are always there."},
		"by hand":  {s, byHand, "Idle for 1m00s; kept until somebody removes it, as a person has made it."},
		"leased":   {s, view.Machine{State: "leased", Since: before(time.Minute), Jobs: []string{"k"}, Uses: 3}, "Leased for 1m00s to job 7 (rspec of group/app); it has had 2 jobs before."},
		"booting":  {s, view.Machine{State: "booting", Since: before(time.Minute), Reason: "2 jobs without a machine", Deadline: after(4 * time.Minute)}, "Booting for 1m00s: it is there, and is made ready for jobs: 2 jobs without a machine; given up at 12:04:00 unless it is ready."},
		"late":     {s, view.Machine{State: "wanted", Since: before(time.Hour), Deadline: after(-time.Minute)}, "Wanted for 1h00m, and the provider is making it; it should have left that state 1m00s ago."},
		"draining": {s, view.Machine{State: "draining", Since: before(time.Minute), Jobs: []string{"k"}, Reason: "too old."}, "Draining for 1m00s: it takes no more jobs: too old; removed when job 7 (rspec of group/app) has left."},
		"leak":     {s, view.Machine{State: "removing", Since: before(time.Minute), Leak: "its removal has failed 5 times: quota"}, "Removing for 1m00s; LEAK: its removal has failed 5 times: quota."},
	} {
		t.Run(name, func(t *testing.T) {
			if got := view.WhyMachine(c.s, c.m, noon); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestWhyAJobHasFailed(t *testing.T) {
	job := func(r tranter.Result, stages ...tranter.JobStage) tranter.JobHistory {
		return tranter.JobHistory{Result: r, Times: tranter.JobTimes{Taken: before(185 * time.Second), Ended: noon}, Stages: stages}
	}
	steps := []tranter.StepRecord{{Name: "get_sources", Status: tranter.PhaseSucceeded}, {Name: "step_script", Status: tranter.PhaseFailed}, {Name: "after_script", Status: tranter.PhaseSucceeded}}
	for want, j := range map[string]tranter.JobHistory{
		"It failed after 3m05s at step script: the script failed, with exit code 1.": job(tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 1, Message: "exit status 1"},
			tranter.JobStage{Name: "prepare_executor"}, tranter.JobStage{Name: "main", Steps: steps}, tranter.JobStage{Name: "cleanup"}),
		"It failed after 3m05s at prepare executor: the image could not be pulled: no such image.": job(tranter.Result{State: tranter.JobFailed, Reason: tranter.ImagePullFailure, Message: "no such image.\n"},
			tranter.JobStage{Name: "prepare_executor"}, tranter.JobStage{Name: "cleanup"}),
		"It was canceled by ada after 3m05s.": job(tranter.Result{State: tranter.JobFailed, Reason: tranter.JobCanceled, Message: "canceled by ada"}),
		"It succeeded after 3m05s.":           job(tranter.Result{State: tranter.JobSuccess}),
		"It has not ended.":                   {},
	} {
		if got := view.WhyFailed(j); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// hostile draws texts as others may write them.
func hostile() *rapid.Generator[string] {
	return rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "\x1b[2J", "a\nb", "x\r\ny.", "\u202e", "\xff", strings.Repeat("long ", 500)}))
}

func someTime(t *rapid.T, label string) time.Time {
	return noon.Add(time.Duration(rapid.Int64Range(-1e15, 1e15).Draw(t, label)))
}

// anything draws a snapshot in which every text is hostile.
func anything(t *rapid.T) view.Snapshot {
	text := func(label string) string { return hostile().Draw(t, label) }
	some := func(label string) int { return rapid.IntRange(0, 30).Draw(t, label) }
	at := func(label string) *time.Time {
		if rapid.Bool().Draw(t, label+" is there") {
			d := someTime(t, label)
			return &d
		}
		return nil
	}
	runner := rapid.SampledFrom([]string{"t1", "t2", "t3"})
	state := rapid.OneOf(rapid.SampledFrom([]string{"wanted", "booting", "idle", "stopped", "leased", "draining", "removing", "queued", "started", "running", "stopping"}), hostile())
	s := view.Snapshot{Manager: view.Manager{State: state.Draw(t, "manager"), Concurrent: some("concurrent"), Config: text("config"), ConfigProblem: text("problem")}}
	for range some("runners") % 3 {
		s.Runners = append(s.Runners, view.Runner{
			Name: text("name"), Runner: runner.Draw(t, "runner"), URL: text("url"), Jobs: some("jobs"), Limit: some("limit"), Contact: at("contact"),
			Backoff: at("backoff"), Paused: text("paused"), Busy: text("busy"), Problem: text("problem"), Warnings: []string{text("warning")},
		})
		s.Pools = append(s.Pools, view.Pool{
			Pool: runner.Draw(t, "pool"), Runner: text("name"), Provider: text("provider"), Count: map[string]int{state.Draw(t, "state"): some("n")},
			Limit: some("limit"), Target: some("target"), Waiting: some("waiting"), Problem: text("problem"), Throttle: at("throttle"), IdleTime: time.Duration(some("idle")),
		})
		s.Clusters = append(s.Clusters, view.Cluster{Class: runner.Draw(t, "class"), Runner: text("name"), System: text("system"), Waiting: some("waiting"), Problem: text("problem"), Full: text("full")})
		s.Batches = append(s.Batches, view.Batch{Name: "b", ID: text("id"), State: state.Draw(t, "state"), Reason: text("reason"), Nodes: text("nodes"), Since: someTime(t, "since")})
		s.Machines = append(s.Machines, view.Machine{
			Name: text("machine"), Pool: runner.Draw(t, "pool"), State: state.Draw(t, "state"), Reason: text("reason"), Since: someTime(t, "since"), Deadline: at("deadline"),
			Jobs: []string{text("job"), "k"}[:some("jobs")%3], Uses: some("uses"), Problem: text("problem"), Leak: text("leak"),
		})
		s.Jobs = append(s.Jobs, view.Job{Stage: text("stage"), Reason: text("reason"), JobHistory: tranter.JobHistory{
			Key: "k", Runner: runner.Draw(t, "runner"), Job: tranter.JobLabel{ID: 1, Name: text("name"), Project: text("project")}, Place: tranter.JobPlace{Machine: text("machine"), Batch: rapid.SampledFrom([]string{"", "b"}).Draw(t, "batch")},
			Times:  tranter.JobTimes{Taken: someTime(t, "taken"), Placed: rapid.SampledFrom([]time.Time{{}, noon}).Draw(t, "placed")},
			Stages: []tranter.JobStage{{Name: text("stage"), Steps: []tranter.StepRecord{{Name: text("step"), Status: tranter.PhaseStatus(text("status"))}}}},
			Result: tranter.Result{State: tranter.JobState(rapid.SampledFrom([]string{"", "running", "success", "failed"}).Draw(t, "result")), Reason: tranter.FailureReason(text("reason")), ExitCode: some("code"), Message: text("message")},
		}})
		s.Waiting = append(s.Waiting, view.Waiting{ID: 1, Name: text("name"), Runner: runner.Draw(t, "runner"), Since: someTime(t, "since"), Reason: text("reason")})
	}
	s.Recent = view.Recent{Ended: some("ended"), Failed: map[string]int{"runner_system_failure": some("failed")}, Waits: some("waits"), WaitP95: time.Duration(some("p95")) * time.Minute}
	return s
}

func TestEverySentenceIsOneLineThatATerminalCanShow(t *testing.T) {
	check := func(t *rapid.T, text string) {
		if strings.TrimSpace(strings.TrimRight(text, ".")) == "" || !strings.HasSuffix(text, ".") || strings.HasSuffix(text, "..") {
			t.Fatalf("no sentence: %q", text)
		}
		for _, c := range text {
			if !unicode.IsPrint(c) {
				t.Fatalf("%q has a character that is not to be shown", text)
			}
		}
		if len(text) > 20000 {
			t.Fatalf("endless: %d bytes", len(text))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := anything(t)
		for _, j := range s.Jobs {
			check(t, view.WhyJob(s, j, noon))
			check(t, view.WhyFailed(j.JobHistory))
		}
		for _, w := range s.Waiting {
			check(t, view.WhyWaiting(s, w, noon))
		}
		for _, m := range s.Machines {
			check(t, view.WhyMachine(s, m, noon))
		}
		for _, n := range view.Attention(s, noon) {
			check(t, n.Text)
			check(t, n.Do)
			if !strings.HasPrefix(n.Link, "/") || n.Level == "" {
				t.Fatalf("no link or level: %+v", n)
			}
		}
	})
}

func TestAQueueIsExplainedWithoutItsJobs(t *testing.T) {
	s := scene()
	s.Runners[2].Jobs = 2
	for i := range s.Runners {
		s.Runners[i].Queue = &view.Queue{Jobs: 3, At: before(time.Minute)}
	}
	s.Clusters[0].Order = "allocate-first"
	for i, want := range []string{
		"3 jobs wait in GitLab for runner builders, as it said 1m00s ago: they are taken one after the other, as the runner asks for jobs.",
		"", // they are told one by one
		"3 jobs wait in GitLab for runner here, as it said 1m00s ago: the runner has 2 jobs, and its limit is 2.",
	} {
		if got := view.WhyQueued(s, s.Runners[i], noon); got != want {
			t.Errorf("runner %d: %q, want %q", i, got, want)
		}
	}
	s.Clusters[0].Order = "take-first" // it does not look
	if got := view.WhyQueued(s, s.Runners[1], noon); !strings.HasPrefix(got, "3 jobs wait in GitLab for runner hpc") {
		t.Errorf("%q", got)
	}
	s.Runners[2].Queue.Jobs = 0
	if got := view.WhyQueued(s, s.Runners[2], noon); got != "" {
		t.Errorf("nothing waits: %q", got)
	}
}
