// Package view is what people see of a manager: the values that the web page, the terminal and the commands show, and the
// sentences about them, so that all say the same in the same words.
//
// It is pure: package main fills a Snapshot from the manager, pools and clusters; the store answers the queries about the past.
package view

import (
	"time"

	"github.com/tranter-ci/tranter"
)

// Snapshot is all that is there now.
type Snapshot struct {
	At       time.Time  `json:"at"`
	Version  string     `json:"version"`
	Manager  Manager    `json:"manager"`
	Runners  []Runner   `json:"runners"`
	Jobs     []Job      `json:"jobs"`    // that were taken and are not reported yet, oldest first
	Waiting  []Waiting  `json:"waiting"` // jobs that wait in GitLab, as far as the manager looks
	Pools    []Pool     `json:"pools"`
	Machines []Machine  `json:"machines"`
	Clusters []Cluster  `json:"clusters"`
	Batches  []Batch    `json:"batches"`
	Recent   Recent     `json:"recent"`
	Pipes    []Pipeline `json:"pipelines,omitempty"` // of a local pipeline run
}

// Manager is the process.
type Manager struct {
	State         string    `json:"state"` // starting, running, draining, stopping
	Started       time.Time `json:"started"`
	Concurrent    int       `json:"concurrent"`
	Config        string    `json:"config"`                   // path of the configuration
	ConfigProblem string    `json:"config_problem,omitempty"` // why the file that was read last is not used
}

// Runner is one runner as it stands.
type Runner struct {
	Name     string     `json:"name"`
	Runner   string     `json:"runner"` // short token
	URL      string     `json:"url"`
	Executor string     `json:"executor"`
	Jobs     int        `json:"jobs"`
	Limit    int        `json:"limit,omitempty"`
	Contact  *time.Time `json:"last_contact,omitempty"`
	Backoff  *time.Time `json:"backoff_until,omitempty"` // refused too often; asks again then
	Paused   string     `json:"paused,omitempty"`        // by a person: since when and by whom
	Busy     string     `json:"busy,omitempty"`          // why no job can be taken for now, which is no fault
	Problem  string     `json:"problem,omitempty"`       // why no job can be taken, or that of the last request
	Warnings []string   `json:"warnings,omitempty"`      // of its configuration
	Queue    *Queue     `json:"queue,omitempty"`         // nil: GitLab has not told
}

// Queue is what waited in GitLab for a runner when it was last given a job.
type Queue struct {
	Jobs int64     `json:"jobs"`
	At   time.Time `json:"at"`
}

// takeFirst is the order of clusters that don't look into the queue of GitLab.
const takeFirst = "take-first"

// queueAge is for how long a queue that GitLab has told of is still worth telling.
const queueAge = 15 * time.Minute

// Queued returns how many jobs wait in GitLab, as far as the manager looks or GitLab has said so lately; if nothing is known of
// that, it is not known.
func (s Snapshot) Queued() (jobs int, known bool) {
	jobs, known = len(s.Waiting), len(s.Waiting) > 0
	looked := map[string]bool{}
	for _, c := range s.Clusters {
		if c.Order != takeFirst {
			looked[c.Class], known = true, true
		}
	}
	for i := range s.Runners {
		q := s.Runners[i].Queue
		if q == nil || looked[s.Runners[i].Runner] || s.At.Sub(q.At) > queueAge {
			continue
		}
		jobs, known = jobs+int(q.Jobs), true
	}
	return jobs, known
}

// Job is a job that the manager has.
type Job struct {
	tranter.JobHistory

	Stage    string `json:"stage"` // what is done for it now
	Terminal bool   `json:"terminal,omitempty"`
	Reason   string `json:"reason,omitempty"` // why it waits for its place, if it does
}

// Waiting is a job in GitLab that no runner of ours has taken yet.
type Waiting struct {
	ID      int64     `json:"id"`
	Name    string    `json:"name,omitempty"`
	Project string    `json:"project,omitempty"`
	User    string    `json:"user,omitempty"`
	Runner  string    `json:"runner"` // short token of that which will take it
	Since   time.Time `json:"since,omitzero"`
	Batch   string    `json:"batch,omitempty"` // the allocation that was made for it
	Reason  string    `json:"reason,omitempty"`
}

// Pool is a runner's machines.
type Pool struct {
	Pool     string         `json:"pool"` // short token of the runner
	Runner   string         `json:"runner,omitempty"`
	Provider string         `json:"provider"`
	Count    map[string]int `json:"count"` // of machines, by state
	Limit    int            `json:"limit,omitempty"`
	Target   int            `json:"idle_target"`
	IdleTime time.Duration  `json:"idle_time"`       // that a machine more than Target is kept idle; nanoseconds
	Fixed    bool           `json:"fixed,omitempty"` // its machines are always there
	Waiting  int            `json:"waiting"`         // jobs
	Problem  string         `json:"problem,omitempty"`
	Throttle *time.Time     `json:"throttled_until,omitempty"`
	Decision string         `json:"decision,omitempty"` // the last one, with its reason
	Decided  time.Time      `json:"decided,omitzero"`
}

// Machine is one machine.
type Machine struct {
	Name     string     `json:"name"`
	Pool     string     `json:"pool"`
	Set      string     `json:"set,omitempty"`
	State    string     `json:"state"`
	Reason   string     `json:"reason,omitempty"`
	Since    time.Time  `json:"since"`
	Deadline *time.Time `json:"deadline,omitempty"`
	Made     time.Time  `json:"made"`
	Ready    *time.Time `json:"ready,omitempty"`
	Jobs     []string   `json:"jobs"` // keys
	Uses     int        `json:"uses"`
	Address  string     `json:"address,omitempty"`
	Cost     float64    `json:"cost,omitempty"`
	Problem  string     `json:"problem,omitempty"`
	Leak     string     `json:"leak,omitempty"`
	ByHand   bool       `json:"by_hand,omitempty"` // made by a person, and removed by nobody else
}

// Cluster is a runner whose jobs are batch jobs.
type Cluster struct {
	Class   string `json:"class"`
	Runner  string `json:"runner"`
	System  string `json:"system"`
	Order   string `json:"order"`
	Waiting int    `json:"waiting"`
	Taken   int    `json:"taken"`
	Problem string `json:"problem,omitempty"`
	Busy    string `json:"busy,omitempty"`
	Full    string `json:"full,omitempty"`
}

// Batch is one batch job.
type Batch struct {
	Name   string    `json:"name"`
	ID     string    `json:"id,omitempty"` // the scheduler's
	Class  string    `json:"class"`
	Runner string    `json:"runner"`
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	Made   time.Time `json:"made"`
	Nodes  string    `json:"nodes,omitempty"`
	Jobs   []string  `json:"jobs"` // keys
}

// Recent is what the last hours were like.
type Recent struct {
	Ended    int            `json:"ended"` // jobs, in the last 24 hours
	Failed   map[string]int `json:"failed"`
	WaitP50  time.Duration  `json:"wait_p50"` // of the jobs that got a place in the last hour, or the last 24 if there was none; nanoseconds
	WaitP95  time.Duration  `json:"wait_p95"`
	Waits    int            `json:"waits"` // how many that were
	Today    float64        `json:"cost_today"`
	Month    float64        `json:"cost_month"`
	Currency string         `json:"currency,omitempty"`
	Priced   bool           `json:"priced"` // there is a price for something
}

// Pipeline is a pipeline of a local run.
type Pipeline struct {
	ID     int64         `json:"id"`
	Name   string        `json:"name"`
	Status string        `json:"status"`
	Stages []string      `json:"stages"`
	Jobs   []PipelineJob `json:"jobs"`
}

// PipelineJob is a job in the graph of a pipeline.
type PipelineJob struct {
	ID       int64         `json:"id"`
	Name     string        `json:"name"`
	Stage    string        `json:"stage"`
	Status   string        `json:"status"`
	Needs    []string      `json:"needs,omitempty"` // names of jobs; nil: all of the stages before
	Key      string        `json:"key,omitempty"`   // of the manager's job, once there is one
	Duration time.Duration `json:"duration,omitempty"`
	Allowed  bool          `json:"allow_failure,omitempty"`
}
