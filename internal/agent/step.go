package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/script"
	"github.com/tranter-ci/tranter/internal/agent/source"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
)

// cleanupTime is what steps get that run when the job has ended.
const cleanupTime = 2 * time.Minute

// attempts does a step as often as it may be tried (runner contract, section 3.3).
func (r *run) attempts(s *tranter.Step, rec *tranter.StepRecord) error {
	ctx, stop := r.stepContext(s)
	defer stop()
	total := max(1, s.Attempts)
	for {
		rec.Attempts++
		err := r.once(ctx, s, rec.Attempts)
		if err == nil || rec.Attempts >= total || context.Cause(ctx) != nil {
			return err
		}
		wait := tranter.AttemptPause(rec.Attempts, r.phase.FlatBackoff)
		r.log.Error("%v", err)
		r.log.Warning("Retrying %s in %v (attempt %d of %d)...", s.Name, wait, rec.Attempts+1, total)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// stepContext returns the context that a step runs under.
func (r *run) stepContext(s *tranter.Step) (context.Context, context.CancelFunc) {
	switch {
	case s.When == tranter.Always:
		if r.result.Over {
			return context.WithTimeoutCause(context.WithoutCancel(r.job), cleanupTime, errStepTimeout)
		}
		return context.WithTimeoutCause(r.job, cleanupTime, errStepTimeout)
	case s.Script != nil && !s.Script.After:
		return r.scriptContext()
	case r.result.ScriptReached: // a graceful cancel no longer ends what comes after the script
		return limited(r.job, s.Timeout)
	default:
		return limited(r.scripts, s.Timeout)
	}
}

func limited(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, d, errStepTimeout)
}

func (r *run) scriptContext() (context.Context, context.CancelFunc) {
	if r.phase.ScriptTimeout <= 0 {
		return context.WithCancel(r.scripts)
	}
	return context.WithTimeoutCause(r.scripts, r.phase.ScriptTimeout-r.spent, errScriptTimeout)
}

// once does a step once.
func (r *run) once(ctx context.Context, s *tranter.Step, attempt int) error {
	if r.phase.Driver != nil {
		return r.drive(ctx, s, attempt)
	}
	if err := r.vars.refresh(); err != nil && s.Cleanup == nil { // what is there has to go all the same
		return err
	}
	switch {
	case s.Prepare != nil:
		return r.prepare(s.Prepare)
	case s.Sources != nil:
		return r.sources(ctx, s.Sources, attempt)
	case s.Restore != nil:
		return transfer.RestoreCaches(ctx, r.env, s.Restore)
	case s.Archive != nil:
		return transfer.ArchiveCaches(ctx, r.env, s.Archive)
	case s.Download != nil:
		return r.withArtifacts(func(a transfer.Artifacts) error { return transfer.DownloadArtifacts(ctx, r.env, a, s.Download) })
	case s.Upload != nil:
		return r.withArtifacts(func(a transfer.Artifacts) error { return transfer.UploadArtifacts(ctx, r.env, a, s.Upload) })
	case s.Cleanup != nil:
		return source.Cleanup(ctx, r.env, s.Cleanup)
	case s.Script != nil:
		return r.script(ctx, s)
	}
	return fmt.Errorf("step %s has nothing to do", s.Name)
}

func (r *run) withArtifacts(f func(transfer.Artifacts) error) error {
	if r.artifacts == nil {
		a, err := r.work.Artifacts(r.phase.Server)
		if err != nil {
			return fmt.Errorf("reach the server for artifacts: %w", err)
		}
		r.artifacts = a
	}
	return f(r.artifacts)
}

// sources gets the sources, after a failed attempt into a working tree that was cleared.
func (r *run) sources(ctx context.Context, s *tranter.SourcesStep, attempt int) error {
	if attempt > 1 {
		r.clearing(func() error { return source.ClearWorktree(ctx, r.env) })
	}
	return source.Get(ctx, r.env, s)
}

// clearing tells of the step between two attempts to get the sources.
func (r *run) clearing(do func() error) {
	const name = "clear_worktree"
	r.log.SectionStart(name)
	r.log.Headline("Deleting all tracked and untracked files due to source fetch failure")
	if err := do(); err != nil {
		r.log.Warning("%s failed: %v", name, err)
	}
	r.log.SectionEnd(name)
}

// prepare makes the job's directories and tells where it runs.
func (r *run) prepare(s *tranter.PrepareStep) error {
	r.log.Plain(s.Greeting, hostname())
	dirs := r.phase.Dirs
	if err := os.MkdirAll(filepath.Dir(dirs.Project), 0o777); err != nil { //nolint:gosec // as a shell would make it
		return fmt.Errorf("make the builds directory: %w", err)
	}
	if err := makeTemp(r.phase); err != nil {
		return fmt.Errorf("make the job's temporary directory: %w", err)
	}
	if err := r.vars.removeLeftFileVariables(); err != nil {
		return err
	}
	if err := os.Remove(r.vars.gitlabEnv()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if shared(r.phase) { // whoever's script is first to write to it, the others have to be able to, too
		return r.vars.writeFile(r.vars.gitlabEnv(), "")
	}
	return nil
}

// noteScript takes notice that a script of the user starts.
func (r *run) noteScript(s *tranter.Step) {
	if s.Script.User && !s.Script.After {
		r.result.ScriptReached = true
	}
	asked, err := time.ParseDuration(strings.TrimSpace(r.env.Get("RUNNER_AFTER_SCRIPT_TIMEOUT")))
	if s.Script.After && err == nil && asked == s.Timeout && !r.phase.Deadline.IsZero() && s.Timeout > time.Until(r.phase.Deadline) {
		r.log.Warning("RUNNER_AFTER_SCRIPT_TIMEOUT of %v is longer than what is left of the job's timeout", s.Timeout)
	}
}

// script runs a script of the user in the job's shell.
func (r *run) script(ctx context.Context, s *tranter.Step) error {
	r.noteScript(s)
	if s.Script.After {
		r.env.Environ = append(r.env.Environ, "CI_JOB_STATUS="+jobStatus(r.result.Status))
	}
	started := time.Now()
	err := r.shell(ctx, script.Script{
		Dir: r.phase.Dirs.Project, Commands: s.Script.Commands, Echo: true, Trace: s.Script.Trace, ExitChecks: s.Script.ExitChecks,
		Sections: s.Script.Sections, Section: sectionPrefix(s), Now: time.Now,
	})
	if !s.Script.After {
		r.spent += time.Since(started)
	}
	return err
}

func sectionPrefix(s *tranter.Step) string {
	if s.Script.After {
		return "after_script_step"
	}
	return "script_step"
}

// jobStatus is the value of CI_JOB_STATUS for after_script.
func jobStatus(s tranter.PhaseStatus) string {
	switch s {
	case tranter.PhaseSucceeded:
		return "success"
	case tranter.PhaseCanceled:
		return "canceled"
	case tranter.PhaseTimedOut:
		return "timedout"
	default:
		return "failed"
	}
}

// traced says whether the job's scripts show each command that they run (CI_DEBUG_TRACE).
func traced(p *tranter.Phase) bool {
	return slices.ContainsFunc(p.Steps, func(s tranter.Step) bool { return s.Script != nil && s.Script.Trace })
}

// hook runs commands as a hook of another step. What they export holds for the rest of that step.
func (r *run) hook(ctx context.Context, dir string, commands []string) error {
	left, err := os.CreateTemp(string(r.dir), "hook-environment.*") // for nobody else to read
	if err != nil {
		return fmt.Errorf("make a file for what the hook exports: %w", err)
	}
	defer os.Remove(left.Name()) //nolint:errcheck // it goes with the directory
	defer left.Close()
	if err := r.shell(ctx, script.Script{Dir: dir, Commands: commands, Echo: true, Trace: traced(r.phase), Now: time.Now, After: script.SaveEnviron(left.Name())}); err != nil {
		return err
	}
	return r.vars.adopt(left)
}

// shell runs a script in the job's shell with its output in the log. A script that fails is a *scriptError.
func (r *run) shell(ctx context.Context, s script.Script) error {
	sh, ok := script.Shells(r.phase.Login)[r.phase.Shell]
	if !ok {
		return &tranter.ConfigError{Err: fmt.Errorf("unknown shell %q: expected bash, sh, pwsh or powershell", r.phase.Shell)}
	}
	program, err := findShell(r.phase, sh.Program)
	if err != nil {
		return err
	}
	s.Variables = r.vars.exports()
	cmd := exec.Command(program, sh.Args...)
	cmd.Env = r.vars.scriptEnviron()
	stdout, stderr := r.log.Stdout(), r.log.Stderr()
	defer stdout.Close()
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	done, err := r.feed(cmd, sh, sh.Text(s))
	if err != nil {
		return fmt.Errorf("write the script: %w", err)
	}
	defer done()
	ReleaseProgram()
	err = r.exec(ctx, cmd)
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case !ok:
		return ExplainStart(err)
	case r.phase.Container != nil:
		code := shellCode(exit)
		return &scriptError{err: fmt.Errorf("exit code %d", code), code: code}
	}
	return &scriptError{err: err, code: int(int32(exit.ExitCode()))} //nolint:gosec // Windows' codes are unsigned: runner contract, section 3.8
}

// feed gives the script to the shell without its text in a process list.
func (r *run) feed(cmd *exec.Cmd, sh script.Shell, text string) (done func(), err error) {
	if sh.File == "" {
		f, err := stdinFile(string(r.dir), text)
		if err != nil {
			return nil, err
		}
		cmd.Stdin = f
		return func() { _ = f.Close() }, nil
	}
	f, err := os.CreateTemp(string(r.dir), "script.*"+sh.File)
	if err != nil {
		return nil, err
	}
	cmd.Args = append(cmd.Args, f.Name())
	_, err = f.WriteString(text)
	return func() { _ = os.Remove(f.Name()) }, errors.Join(err, f.Close())
}

// exec runs a command of any step.
func (r *run) exec(ctx context.Context, cmd *exec.Cmd) error {
	return execute(ctx, cmd, func() time.Duration { return time.Duration(r.grace.Load()) })
}
