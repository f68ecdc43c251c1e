package metrics_test

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/metrics"
	"github.com/tranter-ci/tranter/internal/view"
)

func TestWhatGitLabRunnerCountsIsCountedUnderItsNames(t *testing.T) {
	at := time.Now()
	m := metrics.New(options(fixed{crowd(at, 14, 6)}))
	happen(m, at, 8)
	page, _ := scrape(t, m, "")
	got := series(page)
	who := `runner="mach0001",runner_name="cloud"`
	for want, value := range map[string]string{
		`gitlab_runner_concurrent`:                                                                                                                       "5000",
		`gitlab_runner_limit{` + who + `,system_id="s_0123"}`:                                                                                            "2000",
		`gitlab_runner_jobs_total{` + who + `,system_id="s_0123"}`:                                                                                       "6",
		`gitlab_runner_failed_jobs_total{failure_reason="runner_system_failure",mode="traditional",` + who + `}`:                                         "2",
		`gitlab_runner_jobs{executor_stage="idle",` + who + `,stage="idle",state="idle",system_id="s_0123"}`:                                             "0",
		`gitlab_runner_jobs{executor_stage="job_run",` + who + `,stage="step_script",state="running",system_id="s_0123"}`:                                "2",
		`gitlab_runner_jobs{executor_stage="job_prepare",` + who + `,stage="prepare_executor",state="pending",system_id="s_0123"}`:                       "2",
		`gitlab_runner_job_duration_seconds_count{mode="traditional",` + who + `,system_id="s_0123"}`:                                                    "6",
		`gitlab_runner_job_duration_seconds_bucket{mode="traditional",` + who + `,system_id="s_0123",le="36000"}`:                                        "6",
		`gitlab_runner_job_queue_duration_seconds_bucket{project_jobs_running="3",` + who + `,system_id="s_0123",le="10"}`:                               "0",
		`gitlab_runner_job_queue_duration_seconds_bucket{project_jobs_running="3",` + who + `,system_id="s_0123",le="30"}`:                               "6",
		`gitlab_runner_job_queue_size{` + who + `,system_id="s_0123"}`:                                                                                   "12",
		`gitlab_runner_job_queue_depth{` + who + `,system_id="s_0123"}`:                                                                                  "4",
		`gitlab_runner_acceptable_job_queuing_duration_exceeded_total{` + who + `,system_id="s_0123"}`:                                                   "6",
		`gitlab_runner_job_stage_duration_seconds_count{` + who + `,stage="step_script",system_id="s_0123"}`:                                             "6",
		`gitlab_runner_job_execution_mode_total{executor="docker+machine",mode="traditional"}`:                                                           "6",
		`gitlab_runner_api_request_statuses_total{endpoint="request_job",method="post",runner="batch001",status="-1",system_id="s_0123"}`:                "1",
		`gitlab_runner_api_request_duration_seconds_count{endpoint="request_job",method="post",runner="mach0001",status_class="2xx",system_id="s_0123"}`: "1",
		`gitlab_runner_errors_total{level="error"}`:                                                                                                      "1",
		`gitlab_runner_errors_total{level="warning"}`:                                                                                                    "1",
		`gitlab_runner_configuration_loaded_total`:                                                                                                       "1",
		`gitlab_runner_configuration_loading_error_total`:                                                                                                "1",
		`gitlab_runner_process_state_info{state="running"}`:                                                                                              "1",
		`gitlab_runner_autoscaling_actions_total{action="created",executor="docker+machine"}`:                                                            "8",
		`gitlab_runner_autoscaling_actions_total{action="creation-failed",executor="docker+machine"}`:                                                    "8",
		`gitlab_runner_autoscaling_actions_total{action="used",executor="docker+machine"}`:                                                               "8",
		`gitlab_runner_autoscaling_actions_total{action="removed",executor="docker+machine"}`:                                                            "16",
		`gitlab_runner_autoscaling_machine_states{executor="docker+machine",state="used"}`:                                                               "8",
		`gitlab_runner_autoscaling_machine_states{executor="docker+machine",state="creating"}`:                                                           "2",
		`gitlab_runner_autoscaling_machine_states{executor="docker+machine",state="stuck-on-removing"}`:                                                  "2",
		`gitlab_runner_autoscaling_machine_creation_duration_seconds_count{executor="docker+machine"}`:                                                   "8",
		`gitlab_runner_autoscaling_machine_failed_creation_duration_seconds_sum{executor="docker+machine"}`:                                              "320",
		`gitlab_runner_autoscaling_machine_removal_duration_seconds_sum{executor="docker+machine"}`:                                                      "80",
	} {
		if got[want] != value {
			t.Errorf("%s is %q, not %q", want, got[want], value)
		}
	}
	if !strings.Contains(page, "gitlab_runner_version_info{") || !strings.Contains(page, "go_goroutines") || !strings.Contains(page, "process_cpu_seconds_total") {
		t.Error("the version, or metrics of the runtime or the process, are missing")
	}
}

func TestWhatOnlyTranterKnowsIsShown(t *testing.T) {
	at := time.Now()
	m := metrics.New(options(fixed{crowd(at, 14, 6)}))
	happen(m, at, 8)
	page, _ := scrape(t, m, "")
	got := series(page)
	who := `runner="mach0001",runner_name="cloud"`
	for want, value := range map[string]string{
		`tranter_machines{` + who + `,set="small",state="idle"}`:                                      "1",
		`tranter_machines_idle_target{` + who + `}`:                                                   "20",
		`tranter_machines_leaked{` + who + `}`:                                                        "2",
		`tranter_machine_leaks_total{` + who + `}`:                                                    "2",
		`tranter_machine_removal_failures_total{` + who + `}`:                                         "8",
		`tranter_decisions_total{action="create",reason="demand",` + who + `}`:                        "8",
		`tranter_decisions_total{action="create",reason="idle",` + who + `}`:                          "8",
		`tranter_jobs_waiting{` + who + `,where="place"}`:                                             "2",
		`tranter_jobs_waiting_oldest_seconds{runner="batch001",runner_name="cluster",where="gitlab"}`: "1200",
		`tranter_runner_trouble{runner="batch001",runner_name="cluster"}`:                             "1",
		`tranter_runner_trouble{` + who + `}`:                                                         "0",
		`tranter_runner_paused{runner="shell001",runner_name="host"}`:                                 "1",
		`tranter_batches{runner="batch001",runner_name="cluster",state="queued",system="slurm"}`:      "1",
		`tranter_job_wait_seconds_sum{` + who + `}`:                                                   "210", // 20 s in GitLab, 15 s for a place
		`tranter_jobs_ended_total{outcome="system",` + who + `}`:                                      "2",
		`tranter_job_restarts_total{` + who + `}`:                                                     "2",
		`tranter_jobs_recovered_total{` + who + `}`:                                                   "6",
		`tranter_cost_total{currency="EUR",kind="batch",runner="batch001",runner_name="cluster"}`:     "0.006666666666666667",
		`tranter_batch_held_seconds_total{resource="cpu",runner="batch001",runner_name="cluster"}`:    "480",
		`tranter_cost_month{currency="EUR"}`:                                                          "99",
		`tranter_recent_wait_seconds{percentile="95"}`:                                                "40",
		`tranter_journal_lag_bytes`:                                                                   "4096",
		`tranter_history_failures_total`:                                                              "1",
		`tranter_viewers`:                                                                             "2",
		`tranter_config_refused`:                                                                      "0",
		`tranter_disk_free_bytes`:                                                                     "5.36870912e+09",
		`tranter_events_missed_total`:                                                                 "1",
		`tranter_events_total{kind="machine_ready",level="info"}`:                                     "8",
	} {
		if got[want] != value {
			t.Errorf("%s is %q, not %q", want, got[want], value)
		}
	}
}

// Machines' time and cost grow between scrapes by what has passed, and stop at a machine's end.
func TestTheTimeOfMachinesIsCountedOnce(t *testing.T) {
	began := time.Now()
	now := began
	machine := view.Machine{Name: "m", Pool: machinesRunner, Set: "small", State: "idle", Made: began.Add(time.Second)}
	there := true
	m := metrics.New(options(source(func() (view.Snapshot, error) {
		s := crowd(now, 0, 0)
		if there {
			machine.Cost = now.Sub(machine.Made).Hours() * 36
			s.Machines = []view.Machine{machine}
		}
		return s, nil
	})))
	name := `runner="mach0001",runner_name="cloud",set="small"`
	look := func() (lived, cost string) {
		page, _ := scrape(t, m, "")
		got := series(page)
		return got["tranter_machine_seconds_total{"+name+"}"], got[`tranter_cost_total{currency="EUR",kind="machine",runner="mach0001",runner_name="cloud"}`]
	}
	m.Observe(tranter.Event{Kind: "machine_wanted", Time: machine.Made, Runner: machinesRunner, Machine: "m"})
	now = began.Add(101 * time.Second)
	if lived, cost := look(); lived != "100" || cost != "1" {
		t.Errorf("after 100 s: %s s, cost %s", lived, cost)
	}
	if lived, cost := look(); lived != "100" || cost != "1" {
		t.Errorf("looked at again: %s s, cost %s", lived, cost)
	}
	there, now = false, began.Add(301*time.Second)
	m.Observe(tranter.Event{Kind: "machine_gone", Time: began.Add(201 * time.Second), Runner: machinesRunner, Machine: "m"})
	if lived, cost := look(); lived != "200" || cost != "2" {
		t.Errorf("after its end: %s s, cost %s", lived, cost)
	}
}

// A snapshot from before a machine's end does not count its life anew, and neither does one that may be left as an orphan.
func TestAMachineThatIsGoneIsCountedNoMore(t *testing.T) {
	began := time.Now()
	now := began.Add(100 * time.Second)
	machine := view.Machine{Name: "m", Pool: machinesRunner, Set: "small", State: "removing", Leak: "something may be left", Made: began.Add(time.Second)}
	m := metrics.New(options(source(func() (view.Snapshot, error) {
		s := crowd(now, 0, 0)
		s.Machines = []view.Machine{machine}
		return s, nil
	})))
	_, _ = scrape(t, m, "")
	m.Observe(tranter.Event{Kind: "machine_gone", Time: now.Add(2 * time.Second), Runner: machinesRunner, Machine: "m"})
	now = now.Add(30 * time.Minute)
	page, _ := scrape(t, m, "")
	if got := series(page)[`tranter_machine_seconds_total{runner="mach0001",runner_name="cloud",set="small"}`]; got != "101" {
		t.Errorf("%s s", got)
	}
}

func TestReasonsOfDecisionsAreSortedIntoClasses(t *testing.T) {
	at := time.Now()
	for text, class := range map[string]string{
		"Wanted, with option set small: 3 jobs without a machine.": "demand",
		"Wanted: idle machines: 3 of 5.":                           "idle",
		"To be removed: it was not needed for 5m.":                 "spare",
		"Takes no more jobs: it is older than 24h.":                "age",
		"To be removed: it did not become ready in time.":          "failure",
		"Lent to job abc-1: it was idle.":                          "demand",
		"To be removed: there are more machines than the limit of": "limit",
		"Wanted: it is configured.":                                "config",
		"Whatever.":                                                "other",
	} {
		m := metrics.New(options(fixed{crowd(at, 0, 0)}))
		m.Observe(tranter.Event{Kind: "machine_wanted", Time: at, Runner: machinesRunner, Machine: "m", Text: text})
		page, _ := scrape(t, m, "")
		if !strings.Contains(page, `tranter_decisions_total{action="create",reason="`+class+`"`) {
			t.Errorf("%q is not of class %s", text, class)
		}
	}
}

// Whatever jobs, servers and machines are called: there are no more series than before.
func TestLabelsAreBounded(t *testing.T) {
	at := time.Now()
	rapid.Check(t, func(rt *rapid.T) {
		m := metrics.New(options(fixed{crowd(at, 0, 0)}))
		happen(m, at, 4)
		for i := range 200 {
			word := rapid.String().Draw(rt, "word")
			j := past(word, at)
			j.Job.Name, j.Job.Queue.ProjectJobs, j.Place.Machine = word, word, word
			j.Result = tranter.Result{State: tranter.JobFailed, Reason: tranter.FailureReason(word)}
			j.Stages[0].Name, j.Stages[1].Steps[1].Name = word, "step_"+word
			for _, kind := range []tranter.EventKind{tranter.JobTaken, tranter.JobEnded, tranter.EventKind("machine_" + word), tranter.EventKind(word)} {
				m.Observe(tranter.Event{Kind: kind, Level: tranter.EventLevel(word), Time: at, Runner: machinesRunner, Machine: word, Text: word, Past: &j})
			}
			m.Call(machinesRunner, "cloud", metrics.Call{Endpoint: word, Method: word, Status: i * 37})
		}
		page, _ := scrape(t, m, "")
		if n := len(series(page)); n > 1500 {
			rt.Fatalf("%d series", n)
		}
	})
}

func TestThereAreNoMoreRunnersThanAreBounded(t *testing.T) {
	at := time.Now()
	m := metrics.New(options(fixed{crowd(at, 0, 0)}))
	for i := range 1500 {
		j := past("k", at)
		j.Runner = fmt.Sprint("runner", i)
		m.Observe(tranter.Event{Kind: tranter.JobResumed, Time: at, Runner: j.Runner, Past: &j})
	}
	page, _ := scrape(t, m, "")
	if n := strings.Count(page, "\ntranter_jobs_recovered_total{"); n != 1001 {
		t.Errorf("%d runners", n)
	}
}

func TestAWaitIsSlowByTheLastEntryThatFits(t *testing.T) {
	noon := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC) // a Monday
	entry := func(limit time.Duration, zone, jobs string, periods ...string) config.JobQueuingDuration {
		return config.JobQueuingDuration{Periods: periods, Timezone: zone, Threshold: limit, JobsRunningForProject: jobs}
	}
	always := entry(30*time.Second, "UTC", "", "* * * * *")
	for name, c := range map[string]struct {
		rules []config.JobQueuingDuration
		slow  bool
	}{
		"none":                     {nil, false},
		"longer":                   {[]config.JobQueuingDuration{entry(10*time.Second, "UTC", "", "* * * * *")}, true},
		"not longer":               {[]config.JobQueuingDuration{always}, false},
		"the last holds":           {[]config.JobQueuingDuration{entry(10*time.Second, "UTC", "", "* * * * *"), always}, false},
		"another time":             {[]config.JobQueuingDuration{entry(10*time.Second, "UTC", "", "* 10-11 * * *")}, false},
		"the time of another zone": {[]config.JobQueuingDuration{entry(10*time.Second, "Europe/Berlin", "", "* 13 * * mon")}, true},
		"few jobs of the project":  {[]config.JobQueuingDuration{entry(10*time.Second, "UTC", "^[0-5]$", "* * * * *")}, true},
		"many jobs of the project": {[]config.JobQueuingDuration{entry(10*time.Second, "UTC", `^\+Inf$`, "* * * * *")}, false},
		"no periods":               {[]config.JobQueuingDuration{entry(10*time.Second, "", "")}, true},
	} {
		m := metrics.New(options(fixed{crowd(noon, 0, 0)}))
		m.SetRunners([]metrics.Runner{{Token: machinesRunner, Name: "cloud", Slow: c.rules}})
		j := past("k", noon)
		m.Observe(tranter.Event{Kind: tranter.JobTaken, Time: noon, Past: &j})
		page, _ := scrape(t, m, "")
		want := map[bool]string{true: "1", false: "0"}[c.slow]
		if got := series(page)[`gitlab_runner_acceptable_job_queuing_duration_exceeded_total{runner="mach0001",runner_name="cloud",system_id="s_0123"}`]; got != want {
			t.Errorf("%s: %s, not %s", name, got, want)
		}
	}
}

func TestAScrapeWithoutSnapshotShowsTheRest(t *testing.T) {
	m := metrics.New(options(source(func() (view.Snapshot, error) { return view.Snapshot{}, errors.New("busy") })))
	page, _ := scrape(t, m, "")
	if got := series(page); got["tranter_scrape_failures_total"] == "0" || got["tranter_viewers"] != "2" {
		t.Errorf("failures %q, viewers %q", got["tranter_scrape_failures_total"], got["tranter_viewers"])
	}
}

func TestOpenMetricsAndCompressionAreServed(t *testing.T) {
	m := metrics.New(options(fixed{crowd(time.Now(), 3, 3)}))
	page, header := scrape(t, m, "application/openmetrics-text;version=1.0.0")
	if !strings.HasPrefix(header.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(page, "# EOF\n") {
		t.Errorf("type %q", header.Get("Content-Type"))
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := io.ReadAll(z); err != nil || !strings.Contains(string(plain), "gitlab_runner_concurrent 5000") {
		t.Errorf("%v: %.200s", err, plain)
	}
}

// Names that are GitLab Runner's break two of promtool's rules, and no other.
func TestPromtoolAcceptsTheMetrics(t *testing.T) {
	at := time.Now()
	m := metrics.New(options(fixed{crowd(at, 14, 6)}))
	happen(m, at, 4)
	page, _ := scrape(t, m, "")
	cmd := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(page)
	said, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(said)) {
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "gitlab_runner_") {
			t.Errorf("promtool: %s", line)
		}
	}
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) { // 3: it has something to say
		t.Errorf("promtool: %v: %s", err, said)
	}
}

// What is listed is what is shown.
func TestTheCatalogIsComplete(t *testing.T) {
	at := time.Now()
	m := metrics.New(options(fixed{crowd(at, 14, 6)}))
	happen(m, at, 4)
	page, _ := scrape(t, m, "")
	shown := map[string]string{}
	for _, hit := range regexp.MustCompile(`(?m)^# TYPE ((?:gitlab_runner|tranter)_\S+) (\S+)$`).FindAllStringSubmatch(page, -1) {
		shown[hit[1]] = hit[2]
	}
	for _, d := range metrics.Catalog() {
		if shown[d.Name] != d.Type {
			t.Errorf("%s is listed as %s, and shown as %q", d.Name, d.Type, shown[d.Name])
		}
		delete(shown, d.Name)
		if d.Help == "" || !strings.HasSuffix(d.Help, ".") {
			t.Errorf("%s has no sentence that says what it is", d.Name)
		}
	}
	for name := range shown {
		t.Errorf("%s is shown and not listed", name)
	}
}

func TestAScrapeOfManyMachinesAndJobsIsFast(t *testing.T) {
	at := time.Now()
	m := metrics.New(options(fixed{crowd(at, 2000, 5000)}))
	happen(m, at, 100)
	best := time.Hour
	for range 5 {
		began := time.Now()
		page, _ := scrape(t, m, "")
		best = min(best, time.Since(began))
		if !strings.Contains(page, "tranter_machines") {
			t.Fatal("nothing is shown")
		}
	}
	if limit := 100 * time.Millisecond; best > limit {
		t.Errorf("a scrape takes %v, more than %v", best, limit)
	}
}

func BenchmarkScrape(b *testing.B) {
	at := time.Now()
	m := metrics.New(options(fixed{crowd(at, 2000, 5000)}))
	happen(m, at, 100)
	var size int
	for b.Loop() {
		page, _ := scrape(b, m, "")
		size = len(page)
	}
	b.ReportMetric(float64(size), "B/page")
}
