// Package driver runs the programs of a custom executor's driver: with an environment, a time limit and two ways to end
// them, and with exit codes that say whose failure it is (runner contract, sections 10.2, 10.4 and 10.5).
//
// It knows no steps and no configuration. Package agent uses it for the stages of a job, package executor/custom for what
// comes before and after them.
package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// The exit codes by which a program says whose failure it is.
const (
	BuildFailure  = 1
	SystemFailure = 2
)

const (
	defaultGrace = 10 * time.Minute
	defaultForce = 10 * time.Second
	// outputDelay is how long output is still read after a program has ended while others hold its pipe.
	outputDelay = time.Second
)

// Program is one run of a program.
type Program struct {
	Path, Dir      string
	Args, Env      []string
	Exit           string // file in which it may leave the exit code of a job's script
	Stdout, Stderr io.Writer
	Grace, Force   time.Duration // between SIGTERM and SIGKILL, and after it; 0: ten minutes and ten seconds
	Started        func(pid int) // told once it runs; may be nil
}

// Run runs a program to its end. The error is ctx's cause if that ended it, a *tranter.BuildError if the program says
// that the job is at fault, else a fault of the system that may be passing.
func Run(ctx context.Context, p Program) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := os.Remove(p.Exit); err != nil && p.Exit != "" && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the exit code of a stage before: %w", err)
	}
	cmd := exec.Command(p.Path, p.Args...) //nolint:noctx // the whole group is ended with ctx
	cmd.Dir, cmd.Env = p.Dir, p.Env
	cmd.Stdout, cmd.Stderr = p.Stdout, p.Stderr
	cmd.WaitDelay = outputDelay
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the driver's program %s: %w", p.Path, err)
	}
	if p.Started != nil {
		p.Started(cmd.Process.Pid)
	}
	var how error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		how = cmd.Wait()
	}()
	select {
	case <-ended:
		return p.judge(how)
	case <-ctx.Done():
	}
	if err := p.end(cmd, ended); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return context.Cause(ctx)
}

// end ends the program and all in its group, first kindly, then by force.
func (p Program) end(cmd *exec.Cmd, ended <-chan struct{}) error {
	terminateGroup(cmd)
	kind := waitFor(ended, p.Grace, defaultGrace)
	killGroup(cmd) // also those that did not mind the kind way
	if kind || waitFor(ended, p.Force, defaultForce) {
		reapGroup(cmd)
		return nil
	}
	return fmt.Errorf("the driver's program %s (process %d) can't be killed", p.Path, cmd.Process.Pid)
}

func waitFor(ended <-chan struct{}, limit, fallback time.Duration) bool {
	if limit <= 0 {
		limit = fallback
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
		return false
	}
}

// judge says what a program's end means.
func (p Program) judge(err error) error {
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return fmt.Errorf("run the driver's program %s: %w", p.Path, err)
	}
	switch code := exit.ExitCode(); code {
	case BuildFailure:
		return p.buildFailure()
	case SystemFailure:
		return fmt.Errorf("the driver's program %s reports a system failure (%w)", filepath.Base(p.Path), err)
	case -1:
		return fmt.Errorf("the driver's program %s was killed (%w)", filepath.Base(p.Path), err)
	default:
		return fmt.Errorf("unknown Custom executor executable exit code %d of the driver's program %s; expected 0, BUILD_FAILURE_EXIT_CODE or SYSTEM_FAILURE_EXIT_CODE",
			code, filepath.Base(p.Path))
	}
}

// maxExit is more than the first line of an exit code's file has.
const maxExit = 256

// buildFailure reads the exit code that the program has left, if it has.
func (p Program) buildFailure() error {
	code := 1
	f, err := os.Open(p.Exit)
	if err == nil {
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxExit))
		if err != nil {
			return fmt.Errorf("read the exit code in BUILD_EXIT_CODE_FILE: %w", err)
		}
		line, _, _ := bytes.Cut(data, []byte("\n"))
		if code, err = strconv.Atoi(strings.TrimSpace(string(line))); err != nil {
			return fmt.Errorf("BUILD_EXIT_CODE_FILE: expected a whole number in the first line, got %q", line)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the exit code in BUILD_EXIT_CODE_FILE: %w", err)
	}
	return &tranter.BuildError{ExitCode: code, Err: fmt.Errorf("exit status %d", code)}
}

// Script is what a driver runs for a stage.
type Script struct {
	Stage, Text    string
	Stdout, Stderr io.Writer
}

// Stage has a driver run the script of a stage.
func Stage(ctx context.Context, d *tranter.Driver, s Script) error {
	dir, err := os.MkdirTemp(d.Dir, "script")
	if err != nil {
		return fmt.Errorf("write the script of the stage: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "script")
	if err := os.WriteFile(path, []byte(s.Text), 0o700); err != nil { //nolint:gosec // drivers run it
		return fmt.Errorf("write the script of the stage: %w", err)
	}
	return Run(ctx, Program{
		Path: d.Exec, Args: append(append([]string(nil), d.Args...), path, s.Stage), Dir: d.Dir, Env: append(os.Environ(), d.Env...),
		Exit: d.Exit, Stdout: s.Stdout, Stderr: s.Stderr, Grace: d.Grace, Force: d.Force,
	})
}
