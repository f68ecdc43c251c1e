package metrics

import (
	"cmp"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/scale"
)

// Runner is a runner of the configuration.
type Runner struct {
	Token    string // short
	Name     string
	Executor string
	Slow     []config.JobQueuingDuration // of [runners.monitoring]
}

// maxRunners bounds the label runner: those that come later, over many changes of the configuration, are "other".
const maxRunners = 1000

// other is the value of a label whose value is none of the known ones.
const other = "other"

// runnerBook knows the runners there are and were.
type runnerBook struct {
	mu    sync.Mutex
	known map[string]*runner
}

// runner is what metrics are told apart by.
type runner struct {
	token, name, executor string
	slow                  []slowRule
}

func newRunnerBook() *runnerBook { return &runnerBook{known: map[string]*runner{}} }

// SetRunners takes the runners of a configuration. Those of one before stay known.
func (m *Metrics) SetRunners(runners []Runner) {
	for _, r := range runners {
		rules := slowRules(r.Slow)
		b := m.runners
		b.mu.Lock()
		if found := b.find(r.Token, r.Name, r.Executor); found.token != other {
			b.known[r.Token] = &runner{token: r.Token, name: r.Name, executor: r.Executor, slow: rules}
		}
		b.mu.Unlock()
	}
}

// of returns the runner with a short token. What is not known of it yet is learned.
func (b *runnerBook) of(token, name, executor string) runner {
	b.mu.Lock()
	defer b.mu.Unlock()
	return *b.find(token, name, executor)
}

func (b *runnerBook) find(token, name, executor string) *runner {
	r, has := b.known[token]
	switch {
	case has:
		if r.name == "" || r.executor == "" {
			r = &runner{token: token, name: cmp.Or(r.name, name), executor: cmp.Or(r.executor, executor), slow: r.slow}
			b.known[token] = r
		}
	case len(b.known) >= maxRunners:
		return &runner{token: other, name: other, executor: executor}
	default:
		r = &runner{token: token, name: name, executor: executor}
		b.known[token] = r
	}
	return r
}

// slowRule is one [[runners.monitoring.job_queuing_durations]] (runner contract, section 11.2).
type slowRule struct {
	periods []scale.Cron
	zone    *time.Location
	limit   time.Duration
	jobs    *regexp.Regexp // on the number of the project's running jobs; nil: any
}

// slowRules reads rules. What can't be read was reported when the configuration was checked; such a rule holds never.
func slowRules(from []config.JobQueuingDuration) []slowRule {
	var rules []slowRule
	for _, f := range from {
		r := slowRule{limit: f.Threshold, zone: time.Local}
		if f.Timezone != "" {
			if zone, err := time.LoadLocation(f.Timezone); err == nil {
				r.zone = zone
			}
		}
		if f.JobsRunningForProject != "" {
			pattern, err := regexp.Compile(f.JobsRunningForProject)
			if err != nil {
				continue
			}
			r.jobs = pattern
		}
		periods := f.Periods
		if len(periods) == 0 {
			periods = []string{"* * * * *"}
		}
		for _, text := range periods {
			if c, err := scale.ParseCron(text); err == nil {
				r.periods = append(r.periods, c)
			}
		}
		rules = append(rules, r)
	}
	return rules
}

// slowAt says whether a wait in GitLab's queue was longer than is acceptable. The last entry that fits the time holds.
func (r *runner) slowAt(at time.Time, waited time.Duration, projectJobs string) bool {
	for _, rule := range slices.Backward(r.slow) {
		for _, c := range rule.periods {
			if !c.Match(at.In(rule.zone)) {
				continue
			}
			if rule.jobs != nil && !rule.jobs.MatchString(projectJobs) {
				return false
			}
			return waited > rule.limit
		}
	}
	return false
}
