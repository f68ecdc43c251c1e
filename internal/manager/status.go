package manager

import (
	"cmp"
	"slices"
	"time"

	"github.com/tranter-ci/tranter"
)

// State is how far a manager's life has gone.
type State int

// The states, in their order.
const (
	Starting State = iota
	Running
	Draining
	Stopping
)

// String returns the state as users see it.
func (s State) String() string {
	return [...]string{"starting", "running", "draining", "stopping"}[s]
}

// Status is a manager as it stands, for people.
type Status struct {
	State         string         `json:"state"`
	Started       time.Time      `json:"started"`
	Concurrent    int            `json:"concurrent"`
	ConfigProblem string         `json:"config_problem,omitempty"` // why the file that was read last is not used
	Runners       []RunnerStatus `json:"runners"`
	Jobs          []JobStatus    `json:"jobs"`
}

// RunnerStatus is one runner as it stands.
type RunnerStatus struct {
	Name     string     `json:"name"`
	Runner   string     `json:"runner"` // short token
	URL      string     `json:"url"`
	Executor string     `json:"executor"`
	Jobs     int        `json:"jobs"`
	Limit    int        `json:"limit,omitempty"`
	Requests int        `json:"requests"`
	Contact  *time.Time `json:"last_contact,omitempty"` // when the server last answered a request for a job
	Paused   *time.Time `json:"paused_until,omitempty"`
	Busy     string     `json:"busy,omitempty"`    // why no job can be taken for now, which is no fault
	Problem  string     `json:"problem,omitempty"` // why no job can be taken, or that of the last request
	Held     string     `json:"held,omitempty"`    // a person has paused the runner: by whom and since when
}

// JobStatus is one job as it stands.
type JobStatus struct {
	ID      int64     `json:"id"`
	Name    string    `json:"name"`
	Project string    `json:"project"`
	Runner  string    `json:"runner"` // short token
	Stage   string    `json:"stage"`
	Taken   time.Time `json:"taken"`
	URL     string    `json:"url,omitempty"`
	// Key names the job among all that the manager has, also where two servers have used the same number.
	Key      string `json:"key"`
	Terminal bool   `json:"terminal,omitempty"` // an interactive terminal is attached
	// Past is what is told of the job until now.
	Past tranter.JobHistory `json:"past"`
}

// Status returns the manager as it stands.
func (m *Manager) Status() Status {
	s, jobs := m.status()
	slices.SortFunc(s.Runners, func(a, b RunnerStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Runner, b.Runner))
	})
	slices.SortFunc(jobs, func(a, b *shown) int { return cmp.Or(a.taken.Compare(b.taken), cmp.Compare(a.job.ID, b.job.ID)) })
	s.Jobs = make([]JobStatus, len(jobs))
	for i, j := range jobs {
		past := j.history.Now()
		s.Jobs[i] = JobStatus{
			ID: j.job.ID, Name: j.job.Info.Name, Project: cmp.Or(j.job.Info.ProjectFullPath, j.job.Info.ProjectName), Runner: j.runner.short,
			Stage: j.now, Taken: j.taken, URL: past.Job.URL, Key: past.Key, Terminal: j.door.Attached(), Past: past,
		}
	}
	return s
}

// shown is a job of which only its stage changes meanwhile.
type shown struct {
	*running

	now string // its stage
}

func (m *Manager) status() (Status, []*shown) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{
		State: m.state.String(), Started: m.started, Concurrent: m.settings.Concurrent, ConfigProblem: m.problem,
		Runners: []RunnerStatus{},
	}
	for _, p := range m.pollers {
		s.Runners = append(s.Runners, p.status())
	}
	jobs := make([]*shown, 0, len(m.running))
	for _, j := range m.running {
		jobs = append(jobs, &shown{running: j, now: j.stage})
	}
	return s, jobs
}

func (p *poller) status() RunnerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := RunnerStatus{
		Name: p.runner.Name, Runner: p.runner.Token.Short(), URL: p.runner.URL, Executor: p.runner.Request.Executor,
		Jobs: p.jobs, Limit: p.runner.Limits.Jobs, Requests: p.requests, Busy: p.busy, Problem: cmp.Or(p.unready, p.problem), Held: p.held,
	}
	if !p.contact.IsZero() {
		contact := p.contact
		s.Contact = &contact
	}
	if p.pace.paused {
		until := p.pace.next
		s.Paused = &until
	}
	return s
}
