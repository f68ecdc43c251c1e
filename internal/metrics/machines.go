package metrics

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// machineMetrics count what is done with machines and batch jobs. How long machines live is added up from scrape to scrape, and at
// their end.
type machineMetrics struct {
	actions                  *prometheus.CounterVec
	created, failed, removed *prometheus.HistogramVec
	stopped                  *prometheus.HistogramVec
	ready                    *prometheus.HistogramVec
	decisions, lived, busy   *prometheus.CounterVec
	cost                     *prometheus.CounterVec
	leaked, lost             *prometheus.CounterVec
	currency                 string
	began                    time.Time // of the process

	mu   sync.Mutex
	life map[string]*life // by machine
}

// life is what is known of a machine, so that its time and cost are counted once.
type life struct {
	runner       runner
	set          string
	wanted, gone time.Time // when it was asked for, and when its removal began
	stopping     time.Time
	counted      time.Time // until when its time is counted
	cost, rate   float64   // what is counted of its cost, and what a second cost lately
	held         bool      // jobs were on it when it was seen last
	leaked       bool
	seen         bool // by the last snapshot
	ended        bool // it is gone, or nobody knows what is left of it: nothing more is counted
}

// maxLives bounds what is remembered of machines.
const maxLives = 50_000

func newMachineMetrics(f factory, o Options, cost *prometheus.CounterVec) *machineMetrics {
	long := prometheus.ExponentialBuckets(30, 1.25, 10)
	short := []float64{1, 3, 10, 30, 60, 120, 300, 600}
	m := &machineMetrics{cost: cost, currency: o.Currency, began: time.Now(), life: map[string]*life{}}
	m.actions = f.counter("gitlab_runner_autoscaling_actions_total", "What was done with machines.", "executor", "action")
	m.created = f.histogram("gitlab_runner_autoscaling_machine_creation_duration_seconds", "How long providers took to create machines.", long, "executor")
	m.failed = f.histogram("gitlab_runner_autoscaling_machine_failed_creation_duration_seconds", "How long it took until it was known that a machine is not created.", long, "executor")
	m.stopped = f.histogram("gitlab_runner_autoscaling_machine_stopping_duration_seconds", "How long machines were draining before their removal.", short, "executor")
	m.removed = f.histogram("gitlab_runner_autoscaling_machine_removal_duration_seconds", "How long providers took to remove machines.", short, "executor")
	m.ready = f.histogram("tranter_machine_ready_seconds", "How long it took from the wish for a machine until it was ready for jobs.",
		[]float64{5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600}, "runner", "runner_name")
	m.decisions = f.counter("tranter_decisions_total", "Decisions about machines and batch jobs, by what is done and why: demand, idle, spare, age, config, limit, failure, request or other.",
		"runner", "runner_name", "action", "reason")
	m.lived = f.counter("tranter_machine_seconds_total", "Time that machines were there since the start of the process; 3600 of it are a machine-hour.",
		"runner", "runner_name", "set")
	m.busy = f.counter("tranter_machine_busy_seconds_total", "The part of tranter_machine_seconds_total in which jobs were on the machines, as the scrapes saw it.",
		"runner", "runner_name", "set")
	m.leaked = f.counter("tranter_machine_leaks_total", "Machines that could not be removed for so long that they count as leaked.", "runner", "runner_name")
	m.lost = f.counter("tranter_machine_removal_failures_total", "Removals of machines that have failed, and are tried again.", "runner", "runner_name")
	return m
}

// decisionOf returns what has been decided where an event tells of a decision, and whether the kind is known at all.
func decisionOf(k tranter.EventKind) (action string, known bool) {
	switch k {
	case "machine_wanted":
		return "create", true
	case "machine_starting":
		return "start", true
	case "machine_stopping":
		return "stop", true
	case "machine_draining":
		return "drain", true
	case "machine_removing":
		return "remove", true
	case "lease_granted":
		return "lease", true
	case "batch_planned":
		return "submit", true
	case "batch_ending":
		return "end", true
	case "machine_noted", "machine_created", "machine_failed", "machine_ready", "machine_adopted", "machine_seen", "machine_missed", "machine_gone",
		"removal_failed", "lease_released", "throttled", "job_queued", "job_left",
		"batch_submitting", "batch_queued", "batch_started", "batch_ended":
		return "", true
	default:
		return "", false
	}
}

// reasonClass sorts the reasons of decisions, which are words for people with numbers in them, into a few classes. The reason comes
// after the verb and a colon, where there is one.
func reasonClass(text string) string {
	text = strings.ToLower(text)
	if _, reason, found := strings.Cut(text, ": "); found {
		if class := classOf(reason); class != other {
			return class
		}
	}
	return classOf(text)
}

func classOf(reason string) string {
	for _, c := range []struct{ class, words string }{
		{"demand", "without a machine|room beside|it was idle|wait|for job"},
		{"failure", "not created in time|did not become ready|fail|lost|did not end in time|missing|broken|error"},
		{"limit", "limit of|no more than"},
		{"config", "configured"},
		{"age", "older than|jobs were|uses|worn"},
		{"spare", "not needed|switched off"},
		{"idle", "idle machines"},
		{"request", "by hand|asked|person|drained|canceled|cancelled"},
	} {
		for word := range strings.SplitSeq(c.words, "|") {
			if strings.Contains(reason, word) {
				return c.class
			}
		}
	}
	return other
}

func (m *machineMetrics) observe(e tranter.Event, r runner) {
	if action, _ := decisionOf(e.Kind); action != "" {
		m.decisions.WithLabelValues(r.token, r.name, action, reasonClass(e.Text)).Inc()
	}
	if e.Machine == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.of(e.Machine, r)
	if l == nil {
		return
	}
	took := func(since time.Time) (float64, bool) { return tookOf(e, since) }
	switch e.Kind {
	case "machine_wanted":
		l.wanted, l.counted = e.Time, e.Time
	case "machine_created":
		m.done("created", m.created, r)(took(l.wanted))
	case "machine_failed":
		m.done("creation-failed", m.failed, r)(took(l.wanted))
	case "machine_ready":
		if !l.wanted.IsZero() {
			e.Took = 0 // that is without the time until something was done
		}
		if d, known := took(l.wanted); known {
			m.ready.WithLabelValues(r.token, r.name).Observe(d)
		}
	case "lease_granted":
		m.actions.WithLabelValues(r.executor, "used").Inc()
	case "machine_draining":
		l.stopping = e.Time
	default:
		m.ended(e, l, took)
	}
}

// tookOf returns how many seconds what has ended took, if it is known.
func tookOf(e tranter.Event, since time.Time) (float64, bool) {
	switch {
	case e.Took > 0:
		return e.Took.Seconds(), true
	case since.IsZero():
		return 0, false
	}
	return max(0, e.Time.Sub(since).Seconds()), true
}

// ended sees to what happens at a machine's end.
func (m *machineMetrics) ended(e tranter.Event, l *life, took func(time.Time) (float64, bool)) {
	switch e.Kind {
	case "removal_failed":
		m.lost.WithLabelValues(l.runner.token, l.runner.name).Inc()
	case "machine_removing":
		if l.gone.IsZero() {
			l.gone = e.Time
			if !l.stopping.IsZero() {
				m.stopped.WithLabelValues(l.runner.executor).Observe(max(0, e.Time.Sub(l.stopping).Seconds()))
			}
		}
	case "machine_gone":
		m.done("removed", m.removed, l.runner)(took(l.gone))
		m.count(l, e.Time, l.cost+l.rate*max(0, e.Time.Sub(l.counted).Seconds()))
		l.ended = true // a snapshot from before may still have it
	default: // changes nothing here
	}
}

// done counts an action that has ended, and how long it took where that is known.
func (m *machineMetrics) done(action string, h *prometheus.HistogramVec, r runner) func(seconds float64, known bool) {
	return func(seconds float64, known bool) {
		m.actions.WithLabelValues(r.executor, action).Inc()
		if known {
			h.WithLabelValues(r.executor).Observe(seconds)
		}
	}
}

// of returns what is known of a machine; nil: there is no room to remember it.
func (m *machineMetrics) of(name string, r runner) *life {
	l := m.life[name]
	if l == nil {
		if len(m.life) >= maxLives {
			return nil
		}
		l = &life{}
		m.life[name] = l
	}
	l.runner = r
	return l
}

// count adds a machine's time until at, and what its cost so far is more than what was counted before.
func (m *machineMetrics) count(l *life, at time.Time, cost float64) {
	if l.counted.IsZero() {
		l.counted = m.began
	}
	lived := at.Sub(l.counted).Seconds()
	if lived > 0 {
		m.lived.WithLabelValues(l.runner.token, l.runner.name, l.set).Add(lived)
		busy := m.busy.WithLabelValues(l.runner.token, l.runner.name, l.set)
		if l.held {
			busy.Add(lived)
		}
		l.counted = at
	}
	if more := cost - l.cost; more > 0 {
		m.cost.WithLabelValues(l.runner.token, l.runner.name, "machine", m.currency).Add(more)
		l.cost = cost
		if lived > 0 {
			l.rate = more / lived
		}
	}
}

// see counts the time and the cost of the machines of a snapshot.
func (m *machineMetrics) see(s *view.Snapshot, of func(token string) runner) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.life {
		l.seen = false
	}
	for i := range s.Machines {
		v := &s.Machines[i]
		l := m.of(v.Name, of(v.Pool))
		if l == nil {
			continue
		}
		if l.counted.IsZero() {
			l.begin(v, m.began)
		}
		l.set, l.seen = v.Set, true
		if !l.ended {
			m.count(l, s.At, v.Cost)
		}
		l.held = len(v.Jobs) > 0
		if v.Leak != "" && !l.leaked {
			m.leaked.WithLabelValues(l.runner.token, l.runner.name).Inc()
		}
		l.leaked = v.Leak != ""
	}
	for name, l := range m.life { // an event of its end was missed
		if !l.seen && s.At.Sub(l.counted) > time.Hour {
			delete(m.life, name)
		}
	}
}

// begin sets from when on the time and the cost of a machine that is new here count: the process counts only its own time.
func (l *life) begin(v *view.Machine, began time.Time) {
	l.counted = v.Made
	if l.counted.Before(began) {
		l.counted, l.cost = began, v.Cost
	}
	if l.wanted.IsZero() {
		l.wanted = v.Made
	}
}
