package metrics

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// stand collects gauges from a snapshot at each scrape.
type stand struct {
	o     Options
	m     *Metrics
	descs map[string]*prometheus.Desc
	last  atomic.Pointer[view.Snapshot] // that of the scrape that is answered; nil: there is none
}

// gauge describes a metric of stand.
type gauge struct {
	name, help string
	system     bool // has the label system_id
	labels     []string
}

// gauges are all that are read from a snapshot.
func gauges() []gauge {
	by := []string{"runner", "runner_name"}
	with := func(more ...string) []string { return append(slices.Clone(by), more...) }
	return []gauge{
		{"gitlab_runner_concurrent", "Jobs that may run at the same time, over all runners.", false, nil},
		{"gitlab_runner_limit", "Jobs that a runner may run at the same time; 0: only concurrent bounds it.", true, by},
		{"gitlab_runner_jobs", "Jobs that the manager has. Each runner has a row idle of 0.", true, with("state", "stage", "executor_stage")},
		{"gitlab_runner_autoscaling_machine_states", "Machines by state.", false, []string{"executor", "state"}},
		{"gitlab_runner_process_state_info", "What the manager does; 1 for the state that it is in.", false, []string{"state"}},

		{"tranter_runner_trouble", "1: no job can be taken for a runner, or its requests fail.", false, by},
		{"tranter_runner_paused", "1: a person has paused the runner.", false, by},
		{"tranter_runner_busy", "1: a runner takes no job for now, which is no fault.", false, by},
		{"tranter_runner_last_contact_timestamp_seconds", "When GitLab last answered a runner's request for a job.", false, by},
		{"tranter_runner_jobs", "Jobs that a runner has.", false, by},
		{"tranter_config_refused", "1: the configuration's file has a mistake, and the one from before holds.", false, nil},

		{"tranter_jobs_waiting", "Jobs that wait: in GitLab, as far as the manager looks, or for a place once they were taken.", false, with("where")},
		{"tranter_jobs_waiting_oldest_seconds", "How long the one that waits longest has waited.", false, with("where")},

		{"tranter_machines", "Machines by option set and state.", false, with("set", "state")},
		{"tranter_machines_idle_target", "Idle machines that are wanted now.", false, by},
		{"tranter_machines_limit", "Machines that there may be; 0: no limit.", false, by},
		{"tranter_machines_leaked", "Machines that can't be removed, or of which something may be left.", false, by},
		{"tranter_provider_trouble", "1: the provider of a runner's machines can't be asked, or wants no requests for now.", false, by},
		{"tranter_batches", "Batch jobs by state.", false, with("system", "state")},
		{"tranter_cluster_trouble", "1: the batch system of a runner can't be asked.", false, by},

		{"tranter_recent_wait_seconds", "Waits of the jobs that got a place in the last hour.", false, []string{"percentile"}},
		{"tranter_cost_today", "What today has cost, by the history.", false, []string{"currency"}},
		{"tranter_cost_month", "What this month has cost, by the history.", false, []string{"currency"}},
		{"tranter_disk_free_bytes", "Bytes that are free where the state directory is.", false, nil},
		{"tranter_disk_size_bytes", "Bytes that there are where the state directory is.", false, nil},
	}
}

func newStand(o Options, m *Metrics) *stand {
	s := &stand{o: o, m: m, descs: map[string]*prometheus.Desc{}}
	for _, g := range gauges() {
		var constant prometheus.Labels
		if g.system {
			constant = prometheus.Labels{"system_id": o.SystemID}
		}
		s.descs[g.name] = prometheus.NewDesc(g.name, g.help, g.labels, constant)
	}
	return s
}

// Describe is of prometheus.Collector.
func (s *stand) Describe(to chan<- *prometheus.Desc) {
	for _, d := range s.descs {
		to <- d
	}
}

// Collect is of prometheus.Collector.
func (s *stand) Collect(to chan<- prometheus.Metric) {
	r := &reading{descs: s.descs, runners: s.m.runners, to: to}
	if s.o.Disk != nil {
		if free, size, err := s.o.Disk(); err == nil {
			r.set("tranter_disk_free_bytes", float64(free))
			r.set("tranter_disk_size_bytes", float64(size))
		}
	}
	v := s.last.Load()
	if v == nil {
		return
	}
	r.manager(v)
	r.runnersOf(v)
	r.jobs(v)
	r.waiting(v)
	r.machines(v)
	r.clusters(v)
	r.recent(v)
}

// look takes the snapshot for a scrape, and counts by it what machines have lived and cost since the one before.
func (s *stand) look(ctx context.Context) {
	if s.o.Source == nil {
		return
	}
	ctx, stop := context.WithTimeout(ctx, scrapeLimit)
	defer stop()
	v, err := s.o.Source.Snapshot(ctx)
	if err != nil {
		s.last.Store(nil)
		s.m.manager.scrapes.Inc()
		return
	}
	r := &reading{runners: s.m.runners}
	for i := range v.Runners {
		r.runner(v.Runners[i].Runner, v.Runners[i].Name, v.Runners[i].Executor)
	}
	s.m.machines.see(&v, func(token string) runner { return r.runner(token, "", "") })
	s.last.Store(&v)
}

// reading passes the values of one scrape on.
type reading struct {
	descs   map[string]*prometheus.Desc
	runners *runnerBook
	known   map[string]runner
	to      chan<- prometheus.Metric
}

func (r *reading) set(name string, value float64, labels ...string) {
	m, err := prometheus.NewConstMetric(r.descs[name], prometheus.GaugeValue, value, labels...)
	if err == nil { // else a label is not UTF-8: the rest is shown
		r.to <- m
	}
}

// runner returns a runner of the book; of those of one scrape the book is asked once.
func (r *reading) runner(token, name, executor string) runner {
	if one, has := r.known[token]; has {
		return one
	}
	if r.known == nil {
		r.known = map[string]runner{}
	}
	one := r.runners.of(token, name, executor)
	r.known[token] = one
	return one
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (r *reading) manager(v *view.Snapshot) {
	r.set("gitlab_runner_concurrent", float64(v.Manager.Concurrent))
	r.set("tranter_config_refused", truth(v.Manager.ConfigProblem != ""))
	r.set("gitlab_runner_process_state_info", 1, processState(v.Manager.State))
}

// processState is GitLab Runner's word for a state of the manager.
func processState(state string) string {
	switch state {
	case "starting", "running":
		return state
	case "draining":
		return "graceful-shutdown"
	case "stopping":
		return "forceful-shutdown"
	}
	return other
}

func (r *reading) runnersOf(v *view.Snapshot) {
	seen := map[string]bool{}
	for i := range v.Runners {
		one := &v.Runners[i]
		l := r.runner(one.Runner, one.Name, one.Executor)
		if seen[l.token] { // two runners of one token, or more than are told apart
			continue
		}
		seen[l.token] = true
		r.set("gitlab_runner_limit", float64(one.Limit), l.token, l.name)
		r.set("tranter_runner_trouble", truth(one.Problem != "" || one.Backoff != nil), l.token, l.name)
		r.set("tranter_runner_paused", truth(one.Paused != ""), l.token, l.name)
		r.set("tranter_runner_busy", truth(one.Busy != ""), l.token, l.name)
		r.set("tranter_runner_jobs", float64(one.Jobs), l.token, l.name)
		if one.Contact != nil {
			r.set("tranter_runner_last_contact_timestamp_seconds", float64(one.Contact.UnixMilli())/1000, l.token, l.name)
		}
		r.set("gitlab_runner_jobs", 0, l.token, l.name, "idle", "idle", "idle")
	}
}

// tally adds up values by labels, so that each row comes once.
type tally map[[5]string]float64

func (t tally) add(n float64, labels ...string) {
	var key [5]string
	copy(key[:], labels)
	t[key] += n
}

// rows passes a tally's rows on.
func (r *reading) rows(name string, t tally, labels int) {
	for key, n := range t {
		r.set(name, n, key[:labels]...)
	}
}

func (r *reading) jobs(v *view.Snapshot) {
	jobs := tally{}
	for i := range v.Jobs {
		j := &v.Jobs[i]
		l := r.runner(j.Runner, j.Name, j.Executor)
		state, stage, executorStage := jobState(j)
		jobs.add(1, l.token, l.name, state, stage, executorStage)
	}
	r.rows("gitlab_runner_jobs", jobs, 5)
}

// jobState returns the labels of a job as GitLab Runner names them.
func jobState(j *view.Job) (state, stage, executorStage string) {
	stage = stageName(j.Stage)
	switch {
	case j.Result.State != "" && j.Result.State != tranter.JobRunning, j.Stage == "reporting":
		return "finished", stage, "job_finish"
	case j.Times.Placed.IsZero():
		return "pending", cmp.Or(stage, "prepare_executor"), "job_prepare"
	case stage == "cleanup":
		return "running", stage, "job_cleanup"
	}
	return "running", stage, "job_run"
}

// waits are how many wait, and how long the oldest has.
type waits struct {
	n      int
	oldest time.Duration
}

func (r *reading) waiting(v *view.Snapshot) {
	all := map[[2]string]waits{} // by token and place
	add := func(token, where string, waited time.Duration) {
		w := all[[2]string{token, where}]
		all[[2]string{token, where}] = waits{n: w.n + 1, oldest: max(w.oldest, waited)}
	}
	for i := range v.Runners {
		for _, where := range []string{"gitlab", "place"} {
			all[[2]string{r.runner(v.Runners[i].Runner, "", "").token, where}] = waits{}
		}
	}
	for i := range v.Waiting {
		w := &v.Waiting[i]
		waited := time.Duration(0)
		if !w.Since.IsZero() {
			waited = v.At.Sub(w.Since)
		}
		add(r.runner(w.Runner, "", "").token, "gitlab", waited)
	}
	for i := range v.Jobs {
		j := &v.Jobs[i]
		if j.Times.Placed.IsZero() && j.Times.Ended.IsZero() {
			add(r.runner(j.Runner, j.Name, j.Executor).token, "place", j.Times.Wait(v.At))
		}
	}
	for key, w := range all {
		name := r.runner(key[0], "", "").name
		r.set("tranter_jobs_waiting", float64(w.n), key[0], name, key[1])
		r.set("tranter_jobs_waiting_oldest_seconds", w.oldest.Seconds(), key[0], name, key[1])
	}
}

func (r *reading) machines(v *view.Snapshot) {
	ours, theirs, leaks := tally{}, tally{}, tally{}
	for i := range v.Pools {
		p := &v.Pools[i]
		l := r.runner(p.Pool, p.Runner, "")
		for _, state := range []string{"acquired", "creating", "idle", "used", "removing", "stuck-on-removing"} {
			theirs.add(0, l.executor, state)
		}
		ours.add(0, l.token, l.name, "", "idle")
		leaks.add(0, l.token, l.name)
		r.set("tranter_machines_idle_target", float64(p.Target), l.token, l.name)
		r.set("tranter_machines_limit", float64(p.Limit), l.token, l.name)
		r.set("tranter_provider_trouble", truth(p.Problem != "" || p.Throttle != nil && p.Throttle.After(v.At)), l.token, l.name)
	}
	for i := range v.Machines {
		m := &v.Machines[i]
		l := r.runner(m.Pool, "", "")
		ours.add(1, l.token, l.name, m.Set, machineState(m.State))
		if state := autoscalingState(m); state != "" {
			theirs.add(1, l.executor, state)
		}
		if m.Leak != "" {
			leaks.add(1, l.token, l.name)
		}
	}
	r.rows("tranter_machines", ours, 4)
	r.rows("gitlab_runner_autoscaling_machine_states", theirs, 2)
	r.rows("tranter_machines_leaked", leaks, 2)
}

func machineState(state string) string {
	return oneOf(state, []string{"wanted", "booting", "idle", "stopped", "leased", "draining", "removing"})
}

// autoscalingState is GitLab Runner's word for a machine's state; it has none for one that is switched off.
func autoscalingState(m *view.Machine) string {
	switch m.State {
	case "wanted", "booting":
		return "creating"
	case "idle":
		return "idle"
	case "leased", "draining":
		return "used"
	case "removing":
		if m.Leak != "" {
			return "stuck-on-removing"
		}
		return "removing"
	}
	return ""
}

func (r *reading) clusters(v *view.Snapshot) {
	systems := map[string]string{}
	batches := tally{}
	for i := range v.Clusters {
		c := &v.Clusters[i]
		l := r.runner(c.Class, c.Runner, "")
		systems[c.Class] = c.System
		r.set("tranter_cluster_trouble", truth(c.Problem != ""), l.token, l.name)
		batches.add(0, l.token, l.name, c.System, "started")
	}
	for i := range v.Batches {
		b := &v.Batches[i]
		l := r.runner(b.Class, b.Runner, "")
		state := oneOf(b.State, []string{"planned", "submitting", "queued", "started", "ending", "ended"})
		batches.add(1, l.token, l.name, systems[b.Class], state)
	}
	r.rows("tranter_batches", batches, 4)
}

func (r *reading) recent(v *view.Snapshot) {
	if v.Recent.Waits > 0 {
		r.set("tranter_recent_wait_seconds", v.Recent.WaitP50.Seconds(), "50")
		r.set("tranter_recent_wait_seconds", v.Recent.WaitP95.Seconds(), "95")
	}
	if v.Recent.Priced {
		r.set("tranter_cost_today", v.Recent.Today, v.Recent.Currency)
		r.set("tranter_cost_month", v.Recent.Month, v.Recent.Currency)
	}
}
