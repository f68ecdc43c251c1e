package web

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/view"
)

// past is a store of samples: machines that come and go, jobs that succeed and fail.
type past struct {
	now  time.Time
	jobs []tranter.JobHistory
}

func newPast(now time.Time, jobs int) *past {
	p := &past{now: now}
	for i := range jobs {
		p.jobs = append(p.jobs, sampleJob(now, i))
	}
	return p
}

func sampleJob(now time.Time, i int) tranter.JobHistory {
	ended := now.Add(-time.Duration(i)*3*time.Minute - 40*time.Second)
	took := time.Duration(40+i*37%900) * time.Second
	placed := ended.Add(-took)
	taken := placed.Add(-time.Duration(3+i*13%90) * time.Second)
	name := []string{"unit-tests", "build", "lint", "integration: [postgres, 16]", "deploy-review", "package/deb"}[i%6]
	j := tranter.JobHistory{
		Key: fmt.Sprintf("%d-%012x", 90210-i, 90210-i), Runner: "t1Kd93kfa", Name: "cloud", Executor: "docker",
		Job: tranter.JobLabel{
			ID: int64(90210 - i), Name: name, Stage: "test", URL: fmt.Sprintf("https://gitlab.example.com/acme/shop/-/jobs/%d", 90210-i), Pipeline: 4711,
			Project: "acme/shop", Ref: "main", SHA: "8f3b2c1d9e0a", User: "mira", Tags: []string{"linux", "docker"},
		},
		Place: tranter.JobPlace{Machine: fmt.Sprintf("cloud-%02d", i%9), Set: "cx32"},
		Times: tranter.JobTimes{Queued: time.Duration(i*7%50) * time.Second, Taken: taken, Placed: placed, Started: placed.Add(2 * time.Second), Ended: ended},
		Stages: []tranter.JobStage{
			{Name: "waiting for a machine", Start: taken, End: placed},
			{Name: "prepare", Start: placed, End: placed.Add(took / 8)},
			{Name: "job", Start: placed.Add(took / 8), End: ended.Add(-time.Second), Steps: []tranter.StepRecord{
				{Name: "get_sources", Started: placed.Add(took / 8).UnixMilli(), Ended: placed.Add(took / 5).UnixMilli(), Status: tranter.PhaseSucceeded},
				{Name: "step_script", Started: placed.Add(took / 5).UnixMilli(), Ended: ended.Add(-3 * time.Second).UnixMilli(), Status: tranter.PhaseSucceeded},
				{Name: "upload_artifacts_on_success", Started: ended.Add(-3 * time.Second).UnixMilli(), Ended: ended.Add(-time.Second).UnixMilli(), Status: tranter.PhaseSucceeded, Attempts: 2},
			}},
			{Name: "clean up", Start: ended.Add(-time.Second), End: ended},
		},
		Result: tranter.Result{State: tranter.JobSuccess},
	}
	if i%7 == 3 {
		j.Result = tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 1, Message: "exit status 1"}
		j.Stages[2].Steps[1].Status = tranter.PhaseFailed
	}
	if i%23 == 5 {
		j.Result = tranter.Result{State: tranter.JobFailed, Reason: tranter.JobCanceled, Message: "canceled by mira"}
	}
	j.Usage = tranter.JobUsage{CPUTime: took * 2, MaxMemory: 900 << 20, MaxDisk: 3 << 30}
	for s := range 60 {
		x := float64(s) / 59
		j.Usage.Samples = append(j.Usage.Samples, tranter.UsageSample{
			At: placed.Add(time.Duration(x * float64(took))), CPU: 2 + 1.6*math.Sin(x*14)*x, Memory: int64((300 + 600*math.Sqrt(x)) * (1 << 20)), Disk: int64(x * x * (3 << 30)),
		})
	}
	return j
}

func (p *past) Jobs(_ context.Context, q view.JobQuery) ([]tranter.JobHistory, error) {
	var out []tranter.JobHistory
	before := q.Before != ""
	for _, j := range p.jobs {
		if before {
			before = j.Key != q.Before
			continue
		}
		if q.State != "" && j.Result.State != q.State || q.Reason != "" && j.Result.Reason != q.Reason || q.Machine != "" && j.Place.Machine != q.Machine || q.Text != "" && !strings.Contains(j.Job.Name, q.Text) {
			continue
		}
		if out = append(out, j); len(out) == q.Limit {
			break
		}
	}
	return out, nil
}

func (p *past) Job(_ context.Context, key string) (tranter.JobHistory, error) {
	if i := slices.IndexFunc(p.jobs, func(j tranter.JobHistory) bool { return j.Key == key }); i >= 0 {
		return p.jobs[i], nil
	}
	return tranter.JobHistory{}, fmt.Errorf("look for job %s: %w", key, tranter.ErrNotFound)
}

func (p *past) Events(_ context.Context, q view.EventQuery) ([]tranter.Event, error) {
	if q.Machine != "" && !strings.HasPrefix(q.Machine, "cloud-") || q.Job != "" && len(p.jobs) == 0 {
		return nil, nil
	}
	return []tranter.Event{
		{ID: 3, Time: p.now.Add(-time.Hour), Kind: "lease_granted", Machine: q.Machine, Job: "90200-000000016058", Text: "It was the idle machine that has been used most lately."},
		{ID: 2, Time: p.now.Add(-2 * time.Hour), Kind: "machine_ready", Machine: q.Machine, Text: "The agent answers: version 1.0, docker 28.0.", Took: 41 * time.Second},
		{ID: 1, Time: p.now.Add(-2*time.Hour - time.Minute), Kind: "machine_failed", Level: tranter.EventWarning, Machine: q.Machine, Text: "The provider has no capacity for cx32 in fsn1."},
	}, nil
}

func (p *past) Lanes(_ context.Context, q view.LaneQuery) ([]view.Lane, error) {
	var out []view.Lane
	for i := range 9 {
		if q.Machine != "" && q.Machine != fmt.Sprintf("cloud-%02d", i) {
			continue
		}
		made := p.now.Add(-time.Duration(20+i*41) * time.Minute)
		at := made
		l := view.Lane{Machine: fmt.Sprintf("cloud-%02d", i), Pool: "t1Kd93kfa", Set: "cx32", Made: made}
		add := func(state string, d time.Duration, why string) {
			s := view.Span{State: state, Start: at, End: at.Add(d), Reason: why}
			at = at.Add(d)
			l.Spans = append(l.Spans, s)
		}
		var leases []view.Span
		add("wanted", time.Minute, "one job waits, no machine is idle")
		add("booting", 2*time.Minute, "")
		for n := 0; at.Before(p.now.Add(-8 * time.Minute)); n++ {
			leases = append(leases, view.Span{Job: p.key(n*9 + i), Start: at, End: at.Add(time.Duration(4+n%5) * time.Minute)})
			if i == 4 {
				leases = append(leases, view.Span{Job: p.key(n*9 + i + 1), Start: at.Add(time.Minute), End: at.Add(3 * time.Minute)})
			}
			add("leased", time.Duration(4+n%5)*time.Minute, "")
			add("idle", time.Duration(2+n%3*4)*time.Minute, "IdleCount wants 2")
		}
		switch i % 4 {
		case 0:
			l.Spans = append(l.Spans, view.Span{State: "leased", Start: at})
			leases = append(leases, view.Span{Job: "90300-00000001609c", Start: at})
		case 1:
			l.Spans = append(l.Spans, view.Span{State: "idle", Start: at, Reason: "kept: its paid hour ends in 12 minutes"})
		case 2:
			l.Spans = append(l.Spans, view.Span{State: "draining", Start: at, Reason: "it has run 40 jobs"})
		default:
			add("removing", 2*time.Minute, "idle for 10 minutes, and 3 more are")
			l.Gone = at
		}
		l.Spans = append(l.Spans, leases...)
		out = append(out, l)
	}
	return out, nil
}

func (p *past) key(i int) string { return fmt.Sprintf("%d-%012x", 90210-i, 90210-i) }

func (p *past) Chart(_ context.Context, q view.ChartQuery) (view.Chart, error) {
	c := view.Chart{From: q.From, Step: q.To.Sub(q.From) / time.Duration(q.Steps), Unit: map[string]string{"machines": "machines", "waits": "seconds", "jobs": "jobs", "load": "jobs", "cost": "EUR"}[q.Name]}
	names := map[string][]string{"machines": {"booting", "idle", "leased", "draining"}, "waits": {"p50", "p95"}, "jobs": {"success", "failed"}, "load": {"running", "waiting"}, "cost": {"cost"}}[q.Name]
	for n, name := range names {
		s := view.Series{Name: name}
		for i := range q.Steps {
			if i < q.Steps/10 {
				s.Values = append(s.Values, nil)
				continue
			}
			v := math.Round((3+5*math.Abs(math.Sin(float64(i)/19+float64(n))))*10) / 10
			if q.Name != "cost" {
				v = math.Round(v)
			}
			if q.Name == "waits" {
				v *= 9 * float64(n*3+1)
			}
			s.Values = append(s.Values, &v)
		}
		c.Series = append(c.Series, s)
	}
	return c, nil
}

// here is what is there now.
type here struct {
	now      time.Time
	machines int
}

func (h here) Snapshot(context.Context) (view.Snapshot, error) {
	s := view.Snapshot{
		At: h.now, Version: "1.0.0", Manager: view.Manager{State: "running", Started: h.now.Add(-50 * time.Hour), Concurrent: 20},
		Runners: []view.Runner{{Name: "cloud", Runner: "t1Kd93kfa", URL: "https://gitlab.example.com", Executor: "docker", Jobs: 2, Limit: 12}, {Name: "hpc", Runner: "hP8s", URL: "https://gitlab.example.com", Executor: "apptainer"}},
		Waiting: []view.Waiting{{ID: 90305, Name: "e2e", Project: "acme/shop", User: "jo", Runner: "t1Kd93kfa", Since: h.now.Add(-70 * time.Second)}, {ID: 90306, Name: "simulate", Project: "lab/flow", Runner: "hP8s", Since: h.now.Add(-20 * time.Minute), Batch: "tranter-hp-7", Reason: "the scheduler says: Priority"}},
		Pools: []view.Pool{{
			Pool: "t1Kd93kfa", Runner: "cloud", Provider: "hetzner", Count: map[string]int{"leased": 3, "idle": 2, "booting": 1}, Limit: 20, Target: 2, Waiting: 1,
			Decision: "Two idle machines are wanted at this time of day, and two are there.", Decided: h.now.Add(-12 * time.Second),
		}},
		Clusters: []view.Cluster{{Class: "gpu", Runner: "hP8s", System: "slurm", Order: "allocate-first", Waiting: 1}},
		Batches:  []view.Batch{{Name: "tranter-hp-7", ID: "884213", Class: "gpu", Runner: "hP8s", State: "queued", Reason: "Priority", Since: h.now.Add(-19 * time.Minute), Made: h.now.Add(-20 * time.Minute)}},
		Recent:   view.Recent{Ended: 412, Failed: map[string]int{"script_failure": 21}, WaitP50: 9 * time.Second, WaitP95: 48 * time.Second, Waits: 31, Today: 3.18, Month: 71.4, Currency: "EUR", Priced: true},
	}
	job := sampleJob(h.now.Add(3*time.Minute), 0)
	job.Key, job.Job.ID, job.Times.Ended, job.Result = "90300-00000001609c", 90300, time.Time{}, tranter.Result{State: tranter.JobRunning}
	job.Times.Taken, job.Times.Placed, job.Times.Started = h.now.Add(-7*time.Minute), h.now.Add(-6*time.Minute), h.now.Add(-6*time.Minute)
	job.Stages = []tranter.JobStage{{Name: "waiting for a machine", Start: job.Times.Taken, End: job.Times.Placed}, {Name: "prepare", Start: job.Times.Placed}}
	job.Place.Machine = "cloud-00"
	s.Jobs = []view.Job{{JobHistory: job, Stage: "step_script"}}
	for i := range h.machines {
		state := []string{"leased", "idle", "draining", "booting", "idle"}[i%5]
		m := view.Machine{Name: fmt.Sprintf("cloud-%02d", i), Pool: "t1Kd93kfa", Set: "cx32", State: state, Since: h.now.Add(-time.Duration(i+1) * 7 * time.Minute % (5 * time.Hour)), Made: h.now.Add(-6 * time.Hour), Uses: i * 7 % 40, Address: "10.0.3.7", Cost: 0.31, Reason: "idle machines are wanted"}
		if state == "leased" {
			m.Jobs = []string{"90300-00000001609c"}
		}
		if i == 6 {
			m.Leak = "the provider has it, no record of ours does"
		}
		deadline := h.now.Add(time.Duration(i) * time.Minute)
		m.Deadline = &deadline
		s.Machines = append(s.Machines, m)
	}
	p := view.Pipeline{ID: 1, Name: "shop", Status: "running", Stages: []string{"build", "test", "package", "deploy"}}
	add := func(name, stage, status string, d time.Duration, needs ...string) {
		p.Jobs = append(p.Jobs, view.PipelineJob{ID: int64(len(p.Jobs) + 1), Name: name, Stage: stage, Status: status, Needs: needs, Duration: d, Key: "90300-00000001609c"})
	}
	add("compile", "build", "success", 41*time.Second)
	add("assets", "build", "success", 17*time.Second)
	add("unit-tests: [go, 1.26]", "test", "running", 0, "compile")
	add("integration: [postgres, 16, amd64]", "test", "failed", 93*time.Second, "compile", "assets")
	add("lint", "test", "success", 8*time.Second)
	add("image", "package", "pending", 0, "unit-tests: [go, 1.26]")
	add("deb", "package", "created", 0)
	add("review", "deploy", "manual", 0, "image", "deb")
	s.Pipes = []view.Pipeline{p}
	return s, nil
}

// prices is what sample jobs cost.
type prices struct{}

func (prices) Report(_ context.Context, q cost.Query) (cost.Report, error) {
	return cost.Report{Currency: "EUR", By: q.By, From: q.From, To: q.To, Lines: []cost.Line{{Name: "cloud", MachineHours: 31.5, Cost: 3.18}}}, nil
}

func (prices) Job(context.Context, tranter.JobHistory) (cost.JobCost, error) {
	return cost.JobCost{Cost: 0.04, Priced: true, Held: 4 * time.Minute, Minutes: 4.2}, nil
}

// logs are logs in memory, by key.
type logs map[string][]byte

type memoryLog struct {
	*bytes.Reader

	live bool
}

func (memoryLog) Close() error           { return nil }
func (l memoryLog) Live() bool           { return l.live }
func (l memoryLog) Size() (int64, error) { return l.Reader.Size(), nil }

func (l logs) Open(_ context.Context, key string) (Log, error) {
	b, ok := l[key]
	if !ok {
		return nil, fmt.Errorf("the log of %s: %w", key, tranter.ErrNotFound)
	}
	return memoryLog{Reader: bytes.NewReader(b)}, nil
}

// sampleLog is the log of a job, with a header before each line as FF_TIMESTAMPS has it.
func sampleLog(lines int) []byte {
	var b bytes.Buffer
	at := time.Date(2026, 11, 3, 9, 30, 0, 0, time.UTC)
	line := func(stream, text string) {
		at = at.Add(37 * time.Millisecond)
		fmt.Fprintf(&b, "%s %s%s\n", at.Format("2006-01-02T15:04:05.000000Z"), stream, text)
	}
	line("00O ", "\x1b[0KRunning with tranter 1.0.0\x1b[0;m")
	line("00O ", "\x1b[0K  on cloud t1Kd93kfa\x1b[0;m")
	section := func(name, title, options string, inside func()) {
		line("00O ", fmt.Sprintf("section_start:%d:%s%s\r\x1b[0K", at.Unix(), name, options))
		line("00O+", "\x1b[36;1m"+title+"\x1b[0;m")
		inside()
		at = at.Add(8 * time.Second)
		line("00O ", fmt.Sprintf("section_end:%d:%s\r\x1b[0K", at.Unix(), name))
	}
	section("get_sources", "Getting source from Git repository", "[collapsed=true]", func() {
		line("01O ", "\x1b[32;1mFetching changes with git depth set to 20...\x1b[0;m")
		line("01O ", "Initialized empty Git repository in /builds/acme/shop/.git/")
	})
	section("step_script", "Executing \"step_script\" stage of the job script", "", func() {
		line("01O ", "\x1b[32;1m$ go test ./...\x1b[0;m")
		line("01O ", "progress 10 %\r")
		line("01O+", "progress 60 %\r")
		line("01O+", "progress 100 %")
		line("01O ", "see https://example.com/report?a=1&b=2. for more")
		line("01O ", "<script>window.hacked=1</script><img src=x onerror=\"window.hacked=1\">")
		line("01O ", "\x1b]8;;javascript:window.hacked=1\x1b\\a link\x1b]8;;\x1b\\ by OSC 8")
		line("01O ", "\x1b[1mbold\x1b[0m \x1b[4munder\x1b[0m \x1b[38;5;208morange\x1b[0m \x1b[48;2;30;90;160mblue ground\x1b[0m \x1b[7minverse\x1b[0m")
		section("nested", "A section inside", "", func() { line("01O ", "inside") })
		for i := range lines {
			line("01O ", fmt.Sprintf("\x1b[3%dmok\x1b[0m  \tgithub.com/acme/shop/internal/part%05d\t%d.%03ds", 1+i%6, i, i%4, i%1000))
		}
		line("01E ", "\x1b[31;1m--- FAIL: TestCheckout (0.42s)\x1b[0m")
	})
	line("00O ", "\x1b[31;1mERROR: Job failed: exit status 1\x1b[0;m")
	return b.Bytes()
}
