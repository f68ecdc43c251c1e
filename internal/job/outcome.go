package job

import (
	"context"
	"errors"
	"fmt"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/plan"
)

// Outcome says how a job ended, from the result of its last phase, the error that kept it from having one, and the
// cause for which the manager ended it, if it did. It is the only place where failure reasons are decided besides the
// agent, which knows what failed in it (runner contract, sections 3.8 and 3.9).
func Outcome(p tranter.PhaseResult, err, interrupt error) tranter.Result {
	switch {
	case errors.Is(err, errAborted):
		return failed(tranter.JobCanceled, "aborted by the server")
	case errors.Is(err, errCanceled):
		return failed(tranter.JobCanceled, "canceled")
	case interrupt != nil && (err != nil || p.Status == tranter.PhaseAborted):
		return failed(tranter.RunnerInterrupted, fmt.Sprintf("aborted: %v", interrupt))
	case errors.Is(err, errTimeout):
		return failed(tranter.JobExecutionTimeout, "execution took longer than the job's timeout")
	case err != nil:
		return faultOf(err)
	}
	return ofPhase(p)
}

// ofPhase maps how the last phase ended.
func ofPhase(p tranter.PhaseResult) tranter.Result {
	switch p.Status {
	case tranter.PhaseSucceeded:
		return tranter.Result{State: tranter.JobSuccess}
	case tranter.PhaseCanceled, tranter.PhaseAborted:
		if p.Reason == tranter.RunnerInterrupted {
			return failed(p.Reason, p.Message)
		}
		return failed(tranter.JobCanceled, "canceled")
	case tranter.PhaseTimedOut:
		return failed(tranter.JobExecutionTimeout, p.Message)
	case tranter.PhaseFailed:
	}
	r := failed(p.Reason, p.Message)
	if r.Reason == "" {
		r.Reason = tranter.RunnerSystemFailure
	}
	r.ExitCode = p.ExitCode
	return r
}

// faultOf maps what kept a job from being run.
func faultOf(err error) tranter.Result {
	var config *tranter.ConfigError
	var unsupported *plan.UnsupportedError
	var dependency *tranter.DependencyError
	var build *tranter.BuildError
	var pull *tranter.PullError
	switch {
	case errors.Is(err, tranter.ErrMachineLost): // whatever the last call to it has failed of
		return systemFailure(err)
	case errors.As(err, &build):
		r := failed(tranter.ScriptFailure, err.Error())
		r.ExitCode = build.ExitCode
		return r
	case errors.As(err, &config):
		return failed(tranter.RunnerConfigurationError, err.Error())
	case errors.As(err, &pull):
		return failed(tranter.ImagePullFailure, err.Error())
	case errors.As(err, &dependency):
		return failed(tranter.ExternalDependencyFailure, err.Error())
	case errors.As(err, &unsupported):
		r := systemFailure(err)
		r.ExitCode = unsupportedCode
		return r
	case errors.Is(err, context.DeadlineExceeded):
		return failed(tranter.JobExecutionTimeout, err.Error())
	}
	return systemFailure(err)
}

// unsupportedCode is the exit code of a job that asks for what the runner can't do (runner contract, section 3.8).
const unsupportedCode = 3

func systemFailure(err error) tranter.Result {
	return failed(tranter.RunnerSystemFailure, err.Error())
}

func failed(reason tranter.FailureReason, message string) tranter.Result {
	return tranter.Result{State: tranter.JobFailed, Reason: reason, Message: message}
}
