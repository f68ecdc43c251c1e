package custom

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
	"github.com/tranter-ci/tranter/internal/agent/driver"
)

// state is what has to be known of an environment to use and remove it. It lies in the job's directory from before the
// driver is called first until cleanup is done, and holds secrets.
type state struct {
	Temp    string        `json:"temp"` // TMPDIR of the driver's programs
	Env     []string      `json:"env"`  // of them, after the manager's own
	Host    string        `json:"host,omitempty"`
	Run     Command       `json:"run"`
	Cleanup Command       `json:"cleanup"`
	Grace   time.Duration `json:"grace"`
	Force   time.Duration `json:"force"`
	Process int           `json:"process,omitempty"` // program of the manager that was started last
}

const stateFile = "custom.json"

// session is one job's environment.
type session struct {
	options Options
	dir     string
	state   state

	mu    sync.Mutex
	waits []func()
}

func (s *session) statePath() string { return filepath.Join(s.dir, stateFile) }

// load reads the state. There being none is fs.ErrNotExist.
func (s *session) load() error {
	data, err := os.ReadFile(s.statePath())
	if err != nil {
		return fmt.Errorf("read what is known of the environment: %w", err)
	}
	if err := json.Unmarshal(data, &s.state); err != nil {
		return fmt.Errorf("read what is known of the environment: %w", err)
	}
	return nil
}

func (s *session) save() error {
	data, err := json.Marshal(s.state)
	if err != nil {
		return err
	}
	temp := s.statePath() + ".new"
	if err = os.WriteFile(temp, data, 0o600); err == nil {
		err = os.Rename(temp, s.statePath())
	}
	if err != nil {
		return fmt.Errorf("record the environment: %w", err)
	}
	return nil
}

// started keeps which process there is to end, should the manager be killed now; 0 is none.
func (s *session) started(process int) {
	s.state.Process = process
	if err := s.save(); err != nil {
		s.log().Warn("The driver's process can't be recorded", "error", err)
	}
}

// endStray ends the program that a manager was waiting for when it was killed.
func (s *session) endStray(ctx context.Context) {
	if s.state.Process > 0 {
		driver.EndStray(ctx, s.state.Process, "TMPDIR="+s.state.Temp, s.state.Grace)
	}
}

func (s *session) log() *slog.Logger {
	if s.options.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.options.Log
}

func (s *session) phaseDir(id string) string { return filepath.Join(s.dir, "phase-"+id) }

// Start implements tranter.Session.
func (s *session) Start(_ context.Context, p tranter.Phase) error {
	if err := CheckShell(p.Shell); err != nil {
		return err
	}
	p.Driver = &tranter.Driver{
		Exec: s.state.Run.Exec, Args: s.state.Run.Args, Env: s.state.Env, Dir: s.state.Temp, Exit: exitFile(s.state.Temp),
		Grace: s.state.Grace, Force: s.state.Force, Host: s.state.Host,
	}
	wait, err := agent.Start(s.phaseDir(p.ID), agent.Launch{Argv: s.options.Agent, Env: os.Environ()}, p)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = append(s.waits, wait)
	return nil
}

// Attach implements tranter.Session.
func (s *session) Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	return agent.Attach(ctx, s.phaseDir(phaseID), offset, w)
}

// Cancel implements tranter.Session. How long a program of the driver gets to end is the driver's setting.
func (s *session) Cancel(_ context.Context, phaseID string, abort bool, grace time.Duration) error {
	return agent.Cancel(s.phaseDir(phaseID), abort, grace)
}

// CloseLimit is how long Close may take because the user's configuration lets cleanup take so long.
func (s *session) CloseLimit() time.Duration {
	const ours = time.Minute
	return s.state.Cleanup.Timeout + s.state.Grace + s.state.Force + ours
}

// Close implements tranter.Session: agents that still run are killed, then the driver cleans up.
func (s *session) Close(ctx context.Context) error {
	phases, err := filepath.Glob(filepath.Join(s.dir, "phase-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range phases {
		if !agent.Ended(dir) { // else what carries its mark is the driver's own, such as a connection that is kept open
			errs = append(errs, agent.End(dir))
		}
	}
	s.mu.Lock()
	waits := s.waits
	s.waits = nil
	s.mu.Unlock()
	if err := agent.WaitAll(ctx, waits); err != nil {
		return err
	}
	if err := s.cleanup(ctx); err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, dir := range phases {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// cleanup has the driver remove the environment, once. That it fails is only told.
func (s *session) cleanup(ctx context.Context) error {
	if _, err := os.Stat(s.statePath()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s.endStray(ctx) // it may be a cleanup too, and two of them must not run at once
	if c := s.state.Cleanup; c.Exec != "" {
		log := s.log()
		out := &lines{each: func(line string) { log.Debug("Custom executor's cleanup", "output", line) }}
		errs := &lines{each: func(line string) { log.Warn("Custom executor's cleanup", "output", line) }}
		err := s.run(ctx, c, "cleanup_exec", driver.Program{Stdout: out, Stderr: errs})
		out.flush()
		errs.flush()
		if ctx.Err() != nil {
			return fmt.Errorf("cleanup_exec: %w", context.Cause(ctx))
		}
		if err != nil {
			log.Warn("The driver's cleanup has failed", "program", c.Exec, "error", err)
		}
	}
	if err := os.RemoveAll(s.state.Temp); err != nil {
		return fmt.Errorf("remove the driver's temporary directory: %w", err)
	}
	return os.Remove(s.statePath())
}

// Ref implements tranter.Session.
func (s *session) Ref() json.RawMessage {
	data, _ := json.Marshal(reference{Kind: kind, Dir: s.dir})
	return data
}
