package agent

import (
	"errors"
	"fmt"
	"os"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/joblog"
)

// scriptError is a script of the user that has failed.
type scriptError struct {
	err  error
	code int
}

func (e *scriptError) Error() string { return e.err.Error() }
func (e *scriptError) Unwrap() error { return e.err }

// verdict is how the job stands, and what that means for the steps that are left.
type verdict struct {
	phase  *tranter.Phase
	log    *joblog.Log
	result tranter.PhaseResult
	// outcome is how the job stood when its scripts were over: it decides which caches and artifacts are kept, also if
	// that fails. Empty: they are not over yet.
	outcome tranter.PhaseStatus
}

// wanted says whether a step's condition holds, as the job stands.
func (v *verdict) wanted(s *tranter.Step) bool {
	r := v.result
	if (s.Archive != nil || s.Upload != nil) && v.outcome != "" {
		r.Status = v.outcome
	}
	return s.Wanted(r)
}

// judge decides what a failed step makes of the job; job is why that has ended, if it has.
func (v *verdict) judge(s *tranter.Step, err, job error) {
	switch {
	case v.result.Over:
		v.log.Warning("%s failed: %v", s.Name, err)
	case job != nil:
		v.end(s.Name, job)
	case errors.Is(err, errCanceled) && (s.Script == nil || !s.Script.User):
		v.end(s.Name, err)
	case errors.Is(err, errCanceled):
		v.cancel(s.Name, err)
	case s.Script != nil && s.Script.After:
		v.judgeAfterScript(s, err)
	case s.When == tranter.Always:
		v.log.Warning("%s failed: %v", s.Name, err)
	case errors.Is(err, errStepTimeout), errors.Is(err, errScriptTimeout):
		v.log.Warning("%s could not run to completion because the timeout was exceeded", s.Name)
		v.set(s.Name, tranter.PhaseTimedOut, tranter.JobExecutionTimeout, timeoutText(s, v.phase))
		v.result.Over = s.Script == nil
	default:
		v.fail(s.Name, err)
		v.result.Over = v.result.Over || s.Prepare != nil
	}
}

func (v *verdict) judgeAfterScript(s *tranter.Step, err error) {
	late := errors.Is(err, errStepTimeout)
	if late {
		err = fmt.Errorf("it took longer than %v", s.Timeout)
	}
	switch {
	case s.Script.IgnoreErrors || v.result.Status != tranter.PhaseSucceeded:
		v.log.Warning("after_script failed, but job will continue unaffected: %v", err)
	case late:
		v.log.Warning("%s could not run to completion because the timeout was exceeded", s.Name)
		v.set(s.Name, tranter.PhaseTimedOut, tranter.JobExecutionTimeout, fmt.Sprintf("%s took longer than %v", s.Name, s.Timeout))
	default:
		v.fail(s.Name, err)
	}
}

func timeoutText(s *tranter.Step, p *tranter.Phase) string {
	limit := s.Timeout
	if s.Script != nil {
		limit = p.ScriptTimeout
	}
	return fmt.Sprintf("%s took longer than %v", s.Name, limit)
}

// end ends the job for a reason that lies outside its steps: only what always runs is left to do.
func (v *verdict) end(step string, cause error) {
	v.result.Over = true
	switch {
	case errors.Is(cause, errJobTimeout):
		v.set(step, tranter.PhaseTimedOut, tranter.JobExecutionTimeout, fmt.Sprintf("execution took longer than %v seconds", v.phase.Timeout))
	case errors.Is(cause, errCanceled):
		v.cancel(step, cause)
	case errors.Is(cause, errAborted):
		v.set(step, tranter.PhaseAborted, tranter.JobCanceled, "aborted")
	case errors.Is(cause, errStopped):
		v.set(step, tranter.PhaseAborted, tranter.RunnerInterrupted, errStopped.Error())
	default:
		v.set(step, tranter.PhaseFailed, tranter.RunnerSystemFailure, cause.Error())
	}
}

// cancel notes that the job was cancelled, or interrupted by who runs it.
func (v *verdict) cancel(step string, cause error) {
	if why, ok := errors.AsType[*interruption](cause); ok {
		v.set(step, tranter.PhaseCanceled, tranter.RunnerInterrupted, why.reason)
		return
	}
	v.set(step, tranter.PhaseCanceled, tranter.JobCanceled, "canceled")
}

func (v *verdict) set(step string, status tranter.PhaseStatus, reason tranter.FailureReason, message string) {
	v.result.Status, v.result.Reason, v.result.Message, v.result.Step = status, reason, message, step
	v.result.ExitCode = 0
}

// fail takes the failure of a step into the result. The first one counts. A script of the user that fails is
// script_failure; what we do for the job, and fail at, is the runner's failure, unless the user's settings are why.
func (v *verdict) fail(step string, err error) {
	if v.result.Status != tranter.PhaseSucceeded {
		v.log.Error("%s failed: %v", step, err)
		return
	}
	var script *scriptError
	var config *tranter.ConfigError
	switch full := fullDisk(v.phase.Dirs); {
	case errors.As(err, &script) && full != "":
		v.set(step, tranter.PhaseFailed, tranter.RunnerSystemFailure, fmt.Sprintf("no space is left on the disk of %s (%s: %v)", full, step, script))
	case errors.As(err, &script):
		v.set(step, tranter.PhaseFailed, tranter.ScriptFailure, script.Error())
		v.result.ExitCode = script.code
	case errors.As(err, &config):
		v.set(step, tranter.PhaseFailed, tranter.RunnerConfigurationError, err.Error())
	case errors.Is(err, tranter.ErrTooLarge):
		v.set(step, tranter.PhaseFailed, tranter.ScriptFailure, err.Error())
		v.result.ExitCode = 1
	default:
		v.set(step, tranter.PhaseFailed, tranter.RunnerSystemFailure, fmt.Sprintf("%s: %v", step, err))
	}
}

// fullDisk returns the first of the job's directories on whose disk nothing more can be written, if there is one: then
// a script that has failed may well have failed for that, and the user's script is not to blame.
func fullDisk(d tranter.Dirs) string {
	for _, dir := range []string{d.Project, d.Temp, os.TempDir()} {
		if room, err := diskspace.Of(dir); dir != "" && err == nil && room.Full() {
			return dir
		}
	}
	return ""
}
