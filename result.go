package tranter

import (
	"slices"
	"time"
)

// JobState is the state of a job as it is reported to a coordinator.
type JobState string

// The states that a runner reports (runner contract, section 1.8).
const (
	JobRunning JobState = "running"
	JobSuccess JobState = "success"
	JobFailed  JobState = "failed"
)

// FailureReason says why a job failed (runner contract, section 3.9).
type FailureReason string

// The reasons that a runner finds.
const (
	ScriptFailure             FailureReason = "script_failure"
	RunnerSystemFailure       FailureReason = "runner_system_failure"
	JobExecutionTimeout       FailureReason = "job_execution_timeout"
	ImagePullFailure          FailureReason = "image_pull_failure"
	RunnerConfigurationError  FailureReason = "runner_configuration_error"
	ExternalDependencyFailure FailureReason = "runner_external_dependency_failure"
	RunnerInterrupted         FailureReason = "runner_interrupted"
	JobCanceled               FailureReason = "job_canceled"
	UnknownFailure            FailureReason = "unknown_failure"
)

// For returns the reason to send to a coordinator that understands known: the three universal reasons always, others
// only if listed, else the nearest that every coordinator understands (runner contract, section 3.9).
func (r FailureReason) For(known []FailureReason) FailureReason {
	switch {
	case r == "":
		return ScriptFailure
	case r == ScriptFailure, r == RunnerSystemFailure, r == JobExecutionTimeout, slices.Contains(known, r):
		return r
	case r == ImagePullFailure, r == ExternalDependencyFailure:
		return RunnerSystemFailure
	case r == RunnerConfigurationError:
		return ScriptFailure
	default:
		return UnknownFailure
	}
}

// Result is how a job ended. It is about the user's job; faults of our machinery are errors until job.Outcome maps
// them to a Result with a system reason.
type Result struct {
	State    JobState      `json:"state"`
	Reason   FailureReason `json:"reason,omitempty"`    // empty for a success
	ExitCode int           `json:"exit_code,omitempty"` // of the script; 0 when no script failed
	Message  string        `json:"message,omitempty"`   // for the last line of the log, such as "exit status 1"
}

// PhaseStatus is how a phase, or one of its steps, ended.
type PhaseStatus string

// The ways in which a phase ends.
const (
	PhaseSucceeded PhaseStatus = "succeeded"
	PhaseFailed    PhaseStatus = "failed"
	PhaseCanceled  PhaseStatus = "canceled" // cancelled gracefully: after_script has run
	PhaseTimedOut  PhaseStatus = "timed_out"
	PhaseAborted   PhaseStatus = "aborted" // told to stop at once
)

// PhaseResult is what the agent writes beside the journal when a phase has ended.
type PhaseResult struct {
	Format        int           `json:"format,omitempty"` // PhaseFormat of the agent, which sets it
	Status        PhaseStatus   `json:"status"`
	Reason        FailureReason `json:"reason,omitempty"`
	ExitCode      int           `json:"exit_code,omitempty"`
	Message       string        `json:"message,omitempty"`
	Step          string        `json:"step,omitempty"`           // name of the step that decided
	ScriptReached bool          `json:"script_reached,omitempty"` // a user's script has been started: after_script may run
	Over          bool          `json:"over,omitempty"`           // the job has ended: only what always runs is left, in later phases as well
	LogBytes      int64         `json:"log_bytes"`                // size of the journal
	Steps         []StepRecord  `json:"steps,omitempty"`
	// CPUTime is what the phase's processes have used, in nanoseconds, and MaxMemory what all of them had together, in bytes, or the
	// largest of them, whichever is known and more.
	CPUTime   time.Duration `json:"cpu_time,omitempty"`
	MaxMemory int64         `json:"max_memory,omitempty"`
	// MaxDisk is how many bytes less there were on the disk of the builds directory than at the phase's start, at most, and Samples
	// what was used meanwhile.
	MaxDisk int64        `json:"max_disk,omitempty"`
	Samples UsageSamples `json:"samples,omitempty"`
}

// StepRecord tells how long a step took and how it ended. Times are Unix milliseconds.
type StepRecord struct {
	Name     string      `json:"name"`
	Started  int64       `json:"started"`
	Ended    int64       `json:"ended"`
	Status   PhaseStatus `json:"status"`
	Attempts int         `json:"attempts,omitempty"`
}
