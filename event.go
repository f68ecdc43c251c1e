package tranter

import "time"

// Event is something that the manager did or saw, with its reason: log lines, metrics, pages and commands are views of events. No
// secret is in it.
type Event struct {
	ID      int64         `json:"id,omitempty"` // in the order of the store; 0: not kept
	Time    time.Time     `json:"time"`
	Kind    EventKind     `json:"kind"`
	Level   EventLevel    `json:"level,omitempty"`
	Runner  string        `json:"runner,omitempty"`  // short token
	Job     string        `json:"job,omitempty"`     // JobRecord.Key
	Machine string        `json:"machine,omitempty"` // name
	Batch   string        `json:"batch,omitempty"`   // name of the allocation
	Text    string        `json:"text"`              // for people, with the reason
	Took    time.Duration `json:"took,omitempty"`    // of what has ended; nanoseconds
	// Past is the job as it stands, with JobTaken, JobPlaced and JobEnded.
	Past *JobHistory `json:"-"`
}

// EventKind says what happened. Those of machines are "machine_" or "lease_" and more, those of batch jobs "batch_" and more.
type EventKind string

// The kinds of the manager's and of jobs.
const (
	ManagerStarted  EventKind = "manager_started"
	ManagerDraining EventKind = "manager_draining"
	ManagerStopping EventKind = "manager_stopping"
	ManagerEnded    EventKind = "manager_ended"
	ConfigLoaded    EventKind = "config_loaded"
	ConfigRefused   EventKind = "config_refused"
	RunnerTrouble   EventKind = "runner_trouble"   // no job can be taken, or requests fail
	RunnerRecovered EventKind = "runner_recovered" // that is over
	RunnerPaused    EventKind = "runner_paused"    // by a person
	RunnerResumed   EventKind = "runner_resumed"
	JobTaken        EventKind = "job_taken"
	JobPlaced       EventKind = "job_placed"   // its environment was made
	JobResumed      EventKind = "job_resumed"  // taken up after a restart of the manager
	JobCanceling    EventKind = "job_canceled" // a person wants it to end
	JobEnded        EventKind = "job_ended"
)

// EventLevel says who should care.
type EventLevel string

// The levels; none is the first.
const (
	EventInfo    EventLevel = ""
	EventWarning EventLevel = "warning"
	EventError   EventLevel = "error"
)
