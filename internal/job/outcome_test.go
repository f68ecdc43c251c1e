package job

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/tranter-ci/tranter"
)

func TestOutcome(t *testing.T) {
	passed := tranter.PhaseResult{Status: tranter.PhaseSucceeded}
	interrupt := errors.Join(ErrInterrupted, errors.New("received terminated"))
	for _, c := range []struct {
		name      string
		phase     tranter.PhaseResult
		err       error
		interrupt error
		state     tranter.JobState
		reason    tranter.FailureReason
		code      int
	}{
		{name: "success", phase: passed, state: tranter.JobSuccess},
		{name: "success although the runner was stopped meanwhile", phase: passed, interrupt: interrupt, state: tranter.JobSuccess},
		{name: "script", phase: tranter.PhaseResult{Status: tranter.PhaseFailed, Reason: tranter.ScriptFailure, ExitCode: 7}, reason: tranter.ScriptFailure, code: 7},
		{name: "failure without a reason is ours", phase: tranter.PhaseResult{Status: tranter.PhaseFailed}, reason: tranter.RunnerSystemFailure},
		{name: "timeout in the agent", phase: tranter.PhaseResult{Status: tranter.PhaseTimedOut}, reason: tranter.JobExecutionTimeout},
		{name: "timeout before", err: fmt.Errorf("prepare: %w", errTimeout), reason: tranter.JobExecutionTimeout},
		{name: "cancelled in the script", phase: tranter.PhaseResult{Status: tranter.PhaseCanceled}, reason: tranter.JobCanceled},
		{name: "cancelled before", err: errCanceled, reason: tranter.JobCanceled},
		{name: "aborted", err: errAborted, reason: tranter.JobCanceled},
		{name: "interrupted while preparing", err: context.Canceled, interrupt: interrupt, reason: tranter.RunnerInterrupted},
		{name: "interrupted in the script", phase: tranter.PhaseResult{Status: tranter.PhaseAborted}, interrupt: interrupt, reason: tranter.RunnerInterrupted},
		{name: "configuration", err: fmt.Errorf("plan: %w", &tranter.ConfigError{Err: errors.New("no such user")}), reason: tranter.RunnerConfigurationError},
		{name: "no image", err: fmt.Errorf("prepare: %w", &tranter.PullError{Err: errors.New("denied")}), reason: tranter.ImagePullFailure},
		{name: "no registry", err: fmt.Errorf("prepare: %w", &tranter.DependencyError{Err: errors.New("no answer")}), reason: tranter.ExternalDependencyFailure},
		{name: "an engine that is gone", err: fmt.Errorf("the engine has not answered for 5m0s: %w", tranter.ErrAgentLost), reason: tranter.RunnerSystemFailure},
		{name: "agent lost", err: tranter.ErrAgentLost, reason: tranter.RunnerSystemFailure},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Outcome(c.phase, c.err, c.interrupt)
			if c.state == "" {
				c.state = tranter.JobFailed
			}
			if got.State != c.state || got.Reason != c.reason || got.ExitCode != c.code {
				t.Errorf("got %+v, want %s %s %d", got, c.state, c.reason, c.code)
			}
			if got.State == tranter.JobFailed && c.err != nil && got.Message == "" {
				t.Error("a failure without a message")
			}
		})
	}
}
