// Package launch is a batch system out of any command: a job is what a site's own command starts, such as sbatch with a
// script of the site's on standard input.
//
// Each command is run once and never again, whatever dies: what is to be run is on disk before it is run, and it is run by a
// process of its own that outlives this one and writes down what came of it. If the command has handed a job to a batch
// system that is known, the launch stands as that job does; else it runs until it is forgotten.
package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
)

// Command is what a launch runs.
type Command struct {
	Executable  string        `json:"executable"`
	Args        []string      `json:"args,omitempty"`
	Workdir     string        `json:"workdir,omitempty"` // absolute; empty: the user's home, or ours
	Stdin       string        `json:"stdin,omitempty"`   // empty: the script of the batch job's description
	Environment []string      `json:"environment,omitempty"`
	Timeout     time.Duration `json:"timeout,omitempty"` // nanoseconds; 0: no limit
}

// Tracker is a batch system to which commands hand jobs.
type Tracker interface {
	// Jobs returns how the jobs stand, waiting, running and ended ones, in one query or two. Those that are not known any
	// more are left out. An error says nothing about any job.
	Jobs(ctx context.Context, ids []string) ([]tranter.BatchJob, error)
	// Cancel ends jobs. Those that are not there are no error.
	Cancel(ctx context.Context, ids []string) error
}

// Options are what a Launcher needs.
type Options struct {
	Dir   string   // for the state of launches; it is made, 0700
	Agent []string // the program that has the command "agent launch DIR"
	// Recognise returns the batch system to which a command has handed a job: sbatch, qsub, bsub or flux, by the path with
	// which it was run, or without a path if it was run inside another. nil: none of them is known.
	Recognise func(executable string) Tracker
	// Grace is how long a launch is unknown, of which nobody can tell what has become, before it is called failed, and a
	// job that its batch system does not name any more before it is called over; 0: a minute.
	Grace time.Duration
	Log   *slog.Logger
}

// Launcher runs commands as batch jobs. It is a tranter.Scheduler whose ids are the jobs' names.
type Launcher struct {
	o Options

	mu     sync.Mutex
	doubts map[string]time.Time // since when a launch is unknown
}

const (
	defaultGrace = time.Minute
	startLimit   = 30 * time.Second
)

// New returns a Launcher, which takes up the launches in its directory.
func New(o Options) *Launcher {
	if o.Grace == 0 {
		o.Grace = defaultGrace
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Launcher{o: o, doubts: map[string]time.Time{}}
}

// Prepare writes down what the launch called name runs. That of a launch which was begun can't be changed: that is no error.
func (l *Launcher) Prepare(name string, c Command) error {
	d, err := l.dir(name)
	if err != nil {
		return err
	}
	if c.Executable == "" {
		return fmt.Errorf("launch %s: no command is given: %w", name, tranter.ErrRejected)
	}
	if c.Workdir != "" && !filepath.IsAbs(c.Workdir) {
		return fmt.Errorf("launch %s: the working directory %q is not absolute: %w", name, c.Workdir, tranter.ErrRejected)
	}
	if d.has(begunFile) {
		return nil
	}
	if err := d.make(); err != nil {
		return fmt.Errorf("prepare the launch %s: %w", name, err)
	}
	if err := d.write(intentFile, intent{Command: c}); err != nil {
		return fmt.Errorf("prepare the launch %s: %w", name, err)
	}
	return nil
}

// Submit begins the launch that Prepare was called for, and returns its name. It does not wait for the command: List tells
// how that has ended. A launch that was begun is not begun again.
func (l *Launcher) Submit(ctx context.Context, spec tranter.BatchSpec) (string, error) {
	d, err := l.dir(spec.Name)
	if err != nil {
		return "", err
	}
	if d.has(begunFile) {
		return spec.Name, nil
	}
	var it intent
	if err := d.read(intentFile, &it); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("launch %s: it was not prepared: %w", spec.Name, tranter.ErrRejected)
		}
		return "", fmt.Errorf("launch %s: %w", spec.Name, err)
	}
	it.As = spec.As
	if it.Command.Stdin == "" {
		it.Command.Stdin = spec.Script
	}
	if it.Command.Workdir == "" {
		it.Command.Workdir = spec.Dir
	}
	if err := d.write(intentFile, it); err != nil {
		return "", fmt.Errorf("launch %s: %w", spec.Name, err)
	}
	if err := l.begin(ctx, d); err != nil {
		return "", fmt.Errorf("launch %s: %w", spec.Name, err)
	}
	return spec.Name, nil
}

// begin starts the process that runs the command, and returns once that is sure to run it.
func (l *Launcher) begin(ctx context.Context, d directory) error {
	log, err := os.OpenFile(d.file(logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(l.o.Agent[0], slices.Concat(l.o.Agent[1:], []string{"agent", "launch", string(d)})...)
	cmd.Env = batch.Client{}.Environ(nil)
	cmd.Dir = string(d)
	cmd.Stderr = log
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the program that runs it: %w", err)
	}
	ended := make(chan struct{})
	go func() { // it ends with its process, which may outlive this one: nobody waits for it
		defer close(ended)
		_ = cmd.Wait() // what came of it is in the directory
	}()
	return d.awaitBegin(ctx, ended)
}

// awaitBegin waits until the command is begun.
func (d directory) awaitBegin(ctx context.Context, ended <-chan struct{}) error {
	ctx, stop := context.WithTimeout(ctx, startLimit)
	defer stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if d.has(begunFile) {
			return nil
		}
		select {
		case <-ended:
			if d.has(begunFile) {
				return nil
			}
			return fmt.Errorf("the program that runs it has ended before it did: %s", batch.Brief(d.text(logFile)))
		case <-ctx.Done():
			return fmt.Errorf("wait until it is begun: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// Forget removes what is known of a launch. One whose command still runs is kept: cancel it first. One that is not there is
// no error.
func (l *Launcher) Forget(name string) error {
	d, err := l.dir(name)
	if err != nil {
		return err
	}
	alive, err := d.alive()
	if err != nil {
		return fmt.Errorf("forget the launch %s: %w", name, err)
	}
	if alive && !d.has(exitFile) {
		return fmt.Errorf("forget the launch %s: its command still runs", name)
	}
	l.sure(name)
	return d.remove()
}

// Check tells nothing: whether a command will do is known once it was run.
func (l *Launcher) Check(context.Context, tranter.BatchSpec) error { return nil }

// dir is the directory of a launch.
func (l *Launcher) dir(name string) (directory, error) {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	}
	if name == "" || len(name) > 200 || name[0] == '.' || strings.ContainsFunc(name, odd) {
		return "", fmt.Errorf("a launch can't be called %.250q: %w", name, tranter.ErrRejected)
	}
	return directory(filepath.Join(l.o.Dir, name)), nil
}
