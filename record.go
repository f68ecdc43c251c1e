package tranter

import (
	"encoding/json"
	"time"
)

// JobSlots are a job's numbers among the running ones of its runner (runner contract, section 1.9).
type JobSlots struct {
	RunnerSlot int `json:"runner_slot"`
	Slot       int `json:"slot"` // among the jobs of the project
}

// PhaseState is how far a job has come in its phases.
type PhaseState struct {
	Helper     bool         `json:"helper,omitempty"`      // the environment was made with a helper container: the job has the phases for that
	Phase      string       `json:"phase,omitempty"`       // the phase that was started last
	PhaseStart int64        `json:"phase_start,omitempty"` // size of the log's spool when it was
	Prior      *PhaseResult `json:"prior,omitempty"`       // how the phases before it had left the job; nil: there are none
	// Restarts is how often the job has begun anew because its machine was lost. Lost is Session.Ref of the environment on the
	// machine that was lost last, until that is given up.
	Restarts int             `json:"restarts,omitempty"`
	Lost     json.RawMessage `json:"lost,omitempty"`
}

// JobRecord is what has to be known of a job to go on with it after a restart of the manager. It holds secrets.
type JobRecord struct {
	Key    string            `json:"key"`    // unique among the manager's jobs; also the name of the job's directory
	Runner string            `json:"runner"` // short token of the runner that took the job
	URL    string            `json:"url"`    // of the coordinator
	Job    *Job              `json:"job"`
	Local  map[string]string `json:"local,omitempty"` // Job.Local, which is not in the payload's JSON
	// SecretVariables is Job.SecretVariables, which is not in the payload's JSON either.
	SecretVariables []Variable `json:"secret_variables,omitempty"`
	Access          *Access    `json:"access,omitempty"` // how the coordinator reaches the job's terminal
	JobSlots
	Taken        time.Time       `json:"taken"`
	Deadline     time.Time       `json:"deadline,omitzero"`
	Session      json.RawMessage `json:"session,omitempty"`      // Session.Ref; empty: no environment yet
	Surroundings *Surroundings   `json:"surroundings,omitempty"` // what the environment has said about itself
	Head         int64           `json:"head,omitempty"`         // size of the log's spool once its head was written
	Stop         Stop            `json:"stop,omitempty"`         // what the coordinator has asked for
	PhaseState
	Uploads   []SignedRequest `json:"uploads,omitempty"`   // to a distributed cache that were begun for the job: how they are undone
	Interrupt string          `json:"interrupt,omitempty"` // why the manager told the phase to end, if it did
	Result    *Result         `json:"result,omitempty"`    // the job has ended; what is left is to report it
	ResultAt  int64           `json:"result_at,omitempty"` // size of the log's spool before its last lines
	JobCourse
}

// JobCourse is what a job's record tells of its course for people.
type JobCourse struct {
	Bill *Bill   `json:"bill,omitempty"` // what the job has used, if its environment keeps an account
	Past JobPast `json:"past,omitzero"`
}

// JobPast is what JobHistory tells of a job that its record does not have already.
type JobPast struct {
	Times   JobTimes     `json:"times,omitzero"`
	Place   JobPlace     `json:"place,omitzero"`
	Stages  []JobStage   `json:"stages,omitempty"`
	Usage   JobUsage     `json:"usage,omitzero"` // without its samples
	Samples UsageSamples `json:"samples,omitempty"`
	// CanceledBy is who wanted the job to end, if that was a person who told the manager.
	CanceledBy string `json:"canceled_by,omitempty"`
}
