package tranter

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"
)

// Executor makes the environments in which jobs run.
type Executor interface {
	// Open prepares an environment for one job. After an error nothing is left of it.
	Open(ctx context.Context, spec SessionSpec) (Session, error)
	// Reopen takes up a session again from what Ref gave, after a restart of the manager.
	Reopen(ctx context.Context, ref json.RawMessage) (Session, error)
}

// SessionSpec says for what an environment is needed.
type SessionSpec struct {
	Name string // unique among the manager's running jobs
	Dir  string // a directory of this job alone, made by the caller, for journals and results; absolute
	Job  *Job
	Dirs Dirs
	Log  io.Writer // for what the user should know while the environment is made; already formatted lines are added by the writer
	// Variables are the job's: complete, ordered, expanded; a file variable holds its content.
	Variables []Variable
	// Settle, called by an executor whose environments say about themselves what changes the job's plan, plans the job
	// anew and returns the directories and variables that hold from then on. The error is the user's. It may be nil.
	Settle func(Surroundings) (Dirs, []Variable, error)
	// Leaving is closed when the manager wants to end and the next one will call Open again for this job: an executor that
	// may have to wait for long gives up then, with any error. It may be nil.
	Leaving <-chan struct{}
}

// Surroundings is what an environment says about itself in place of the runner's configuration. What is empty changes
// nothing.
type Surroundings struct {
	Builds       string `json:"builds,omitempty"`
	Cache        string `json:"cache,omitempty"`
	Shell        string `json:"shell,omitempty"`
	SharedBuilds *bool  `json:"shared_builds,omitempty"`
}

// Session is one job's hold on an environment.
type Session interface {
	// Start puts the agent to work on a phase and returns once it runs by itself, detached from this process. A
	// second Start with the same phase ID changes nothing.
	Start(ctx context.Context, p Phase) error
	// Attach copies the phase's journal from offset to w, as it grows, until the phase has ended, and returns its
	// result. The error is ErrAgentLost when the agent died without a result, ctx's when that ended first, or a
	// fault of the machinery or of w; a failing script is no error.
	Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (PhaseResult, error)
	// Cancel tells the agent to end the phase. Gracefully: the script gets grace to end, after_script runs. With
	// abort: all ends now. It returns at once; Attach tells when the phase has ended. Repeating it is harmless.
	Cancel(ctx context.Context, phaseID string, abort bool, grace time.Duration) error
	// Close removes the environment and every process in it. It may be repeated.
	Close(ctx context.Context) error
	// Ref is plain data from which Executor.Reopen finds the session again.
	Ref() json.RawMessage
}

// Measured is what a Session may be besides: one whose environment a Prometheus server watches.
type Measured interface {
	// Selector says which of the server's series are the environment's, such as `instance="machine-1"`; empty: none are.
	Selector() string
}

// Accounted is what a Session may be besides: one that keeps an account of what its job has used.
type Accounted interface {
	// Account returns that account as it stands, for the job's log and its record; nil: there is none.
	Account(ctx context.Context) *Bill
}

// ErrAgentLost means that an agent ended without leaving a result: it was killed, or its machine is gone.
var ErrAgentLost = errors.New("the agent ended without a result")

// ErrBusy is among the reasons why no job can be taken now when that is no fault: all there is is in use.
var ErrBusy = errors.New("all is in use")

// ConfigError is an error that the user's configuration causes; trying again does not help. It maps to the failure
// reason runner_configuration_error.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// BuildError is a failure that counts as one of the job's script, although it came before: script_failure with an exit
// code. Trying again does not help.
type BuildError struct {
	ExitCode int
	Err      error
}

func (e *BuildError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *BuildError) Unwrap() error { return e.Err }

// PullError means that an image could not be pulled, for a reason that is neither in the configuration (ConfigError) nor
// between here and the registry (DependencyError). It maps to the failure reason image_pull_failure.
type PullError struct{ Err error }

func (e *PullError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PullError) Unwrap() error { return e.Err }

// Sweeper is what an Executor may be besides: one whose sessions can leave something behind, because the manager was
// killed while they were made or because what Close has to talk to did not answer.
type Sweeper interface {
	// Sweep removes what belongs to no session that is wanted. live tells, by SessionSpec.Name, which are; it is asked
	// after what there is was listed, so that what is being made meanwhile stays.
	Sweep(ctx context.Context, live func(name string) bool) error
}
