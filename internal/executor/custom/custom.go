// Package custom is the executor whose environments are made, used and removed by programs of the user: a driver with
// the executables config, prepare, run and cleanup (runner contract, section 10).
//
// Config and prepare run in the manager. The agent, on the manager's host and detached from it, runs the stages of a job:
// it writes each as a script and calls the driver with it. Cleanup runs in the manager again, also in one that was started
// since.
package custom

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/driver"
)

// Command is one of a driver's programs.
type Command struct {
	Exec    string        `json:"exec"` // "": none
	Args    []string      `json:"args,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"` // 0: none
}

// Options say which programs the driver has.
type Options struct {
	Agent                         []string // the program that has the command "agent run DIR"
	Config, Prepare, Run, Cleanup Command
	Grace, Force                  time.Duration // between SIGTERM and SIGKILL of a program, and after it
	Log                           *slog.Logger  // of the manager: what cleanup says
}

// Executor makes environments by way of a driver.
type Executor struct{ options Options }

// New returns the executor.
func New(o Options) *Executor { return &Executor{options: o} }

// Features returns what jobs can expect of this executor.
func Features() tranter.Features {
	return tranter.Features{Variables: true, Shared: true, ServiceVariables: true}
}

// answer is what config prints (runner contract, section 10.3).
type answer struct {
	Driver struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"driver"`
	Hostname     string            `json:"hostname"`
	Builds       string            `json:"builds_dir"`
	Cache        string            `json:"cache_dir"`
	SharedBuilds *bool             `json:"builds_dir_is_shared"`
	JobEnv       map[string]string `json:"job_env"`
	Shell        string            `json:"shell"`
}

// maxAnswer bounds what config prints, in bytes.
const maxAnswer = 16 << 20

// Open implements tranter.Executor: config, then prepare, and cleanup if one of them fails.
func (e *Executor) Open(ctx context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the job's directory: %w", err)
	}
	s := &session{options: e.options, dir: spec.Dir}
	// A manager that was killed while it made the environment has left it to us.
	if err := s.load(); err == nil {
		if err := s.Close(ctx); err != nil {
			return nil, err
		}
	}
	err := s.open(ctx, spec)
	if err == nil {
		return s, nil
	}
	return nil, errors.Join(err, s.giveUp(ctx))
}

// giveUp removes what there is of an environment that could not be made, also when that has been called off.
func (s *session) giveUp(ctx context.Context) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), s.CloseLimit())
	defer stop()
	return s.Close(ctx)
}

func (s *session) open(ctx context.Context, spec tranter.SessionSpec) error {
	o := s.options
	temp, err := os.MkdirTemp("", "custom-executor")
	if err != nil {
		return fmt.Errorf("make the driver's temporary directory: %w", err)
	}
	s.state = state{Temp: temp, Run: o.Run, Cleanup: o.Cleanup, Grace: o.Grace, Force: o.Force}
	environ := environ{temp: temp, variables: spec.Variables, job: spec.Job}
	s.state.Env = environ.list()
	if err := s.save(); err != nil {
		return err
	}
	if err := environ.writeResponse(); err != nil {
		return err
	}
	said, err := s.config(ctx, spec)
	if err != nil {
		return err
	}
	dirs := spec.Dirs
	if spec.Settle != nil {
		around := tranter.Surroundings{Builds: said.Builds, Cache: said.Cache, Shell: said.Shell, SharedBuilds: said.SharedBuilds}
		if dirs, environ.variables, err = spec.Settle(around); err != nil {
			return err
		}
	}
	if err := checkDirs(dirs); err != nil {
		return err
	}
	if said.Shell != "" {
		if err := CheckShell(said.Shell); err != nil {
			return err
		}
	}
	environ.jobEnv = said.JobEnv
	s.state.Env, s.state.Host = environ.list(), said.Hostname
	if err := s.save(); err != nil {
		return err
	}
	return s.prepare(ctx, spec, said)
}

// CheckShell says whether scripts can be written for a shell. The error is a *tranter.ConfigError.
func CheckShell(name string) error {
	switch name {
	case "", "bash", "sh":
		return nil
	case "pwsh", "powershell":
		return &tranter.ConfigError{Err: fmt.Errorf("the executor custom has no scripts for the shell %s yet: use bash or sh", name)}
	}
	return &tranter.ConfigError{Err: fmt.Errorf("unknown shell %q: the executor custom expects bash or sh", name)}
}

func checkDirs(d tranter.Dirs) error {
	for _, dir := range []struct{ name, value string }{{"builds_dir", d.Builds}, {"cache_dir", d.Cache}} {
		if path.IsAbs(dir.value) { // for a POSIX shell, whatever this host is
			continue
		}
		return &tranter.ConfigError{Err: fmt.Errorf("the executor custom needs a %[1]s, an absolute path where the job runs: set %[1]s of the runner, or let config_exec print it", dir.name)}
	}
	return nil
}

// config asks the driver for settings of the job.
func (s *session) config(ctx context.Context, spec tranter.SessionSpec) (answer, error) {
	var said answer
	if s.options.Config.Exec == "" {
		return said, nil
	}
	var out bytes.Buffer
	log := &lines{each: func(line string) { _, _ = fmt.Fprintln(spec.Log, line) }}
	defer log.flush()
	short := &limited{buffer: &out, left: maxAnswer}
	err := s.run(ctx, s.options.Config, "config_exec", driver.Program{Stdout: short, Stderr: log})
	if short.left < 0 {
		err = errTooMuch
	}
	if err != nil {
		return said, fmt.Errorf("config_exec: %w", err)
	}
	if len(bytes.TrimSpace(out.Bytes())) == 0 {
		return said, nil
	}
	if err := json.Unmarshal(out.Bytes(), &said); err != nil {
		return said, fmt.Errorf("config_exec has printed what is not the JSON that is expected: %w", err)
	}
	return said, nil
}

// prepare has the driver make the environment.
func (s *session) prepare(ctx context.Context, spec tranter.SessionSpec, said answer) error {
	with := ""
	if said.Driver.Name != "" {
		with = " with driver " + said.Driver.Name
		if said.Driver.Version != "" {
			with += " " + said.Driver.Version
		}
	}
	_, _ = fmt.Fprintf(spec.Log, "Using Custom executor%s...\n", with)
	if s.options.Prepare.Exec == "" {
		return nil
	}
	log := &lines{each: func(line string) { _, _ = fmt.Fprintln(spec.Log, line) }}
	defer log.flush()
	if err := s.run(ctx, s.options.Prepare, "prepare_exec", driver.Program{Stdout: log, Stderr: log}); err != nil {
		return fmt.Errorf("prepare_exec: %w", err)
	}
	return nil
}

// run runs one of the programs that the manager runs.
func (s *session) run(ctx context.Context, c Command, key string, p driver.Program) error {
	if c.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("it took longer than %s_timeout allows: %v", key, c.Timeout))
		defer stop()
	}
	p.Path, p.Args, p.Dir, p.Env = c.Exec, c.Args, s.state.Temp, append(os.Environ(), s.state.Env...)
	p.Exit, p.Grace, p.Force = exitFile(s.state.Temp), s.state.Grace, s.state.Force
	p.Started = s.started
	err := driver.Run(ctx, p)
	s.started(0)
	return err
}

// reference is what Ref gives.
type reference struct {
	Kind string `json:"kind"`
	Dir  string `json:"dir"`
}

const kind = "custom"

// Refers says whether ref is of a session of this executor.
func Refers(ref json.RawMessage) bool {
	var r reference
	return json.Unmarshal(ref, &r) == nil && r.Kind == kind
}

// Reopen implements tranter.Executor. What the session was opened with holds, whatever the configuration says now.
func (e *Executor) Reopen(_ context.Context, ref json.RawMessage) (tranter.Session, error) {
	var r reference
	if err := json.Unmarshal(ref, &r); err != nil || r.Kind != kind || r.Dir == "" {
		return nil, fmt.Errorf("reopen a session: malformed reference %q", ref)
	}
	s := &session{options: e.options, dir: r.Dir}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("reopen a session: %w", err)
	}
	return s, nil
}
