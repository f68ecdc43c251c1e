package apptainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
	"github.com/tranter-ci/tranter/internal/executor/apptainer/image"
)

// state is what has to be known of a session to use it and to remove it. It lies in the job's directory.
type state struct {
	Dirs      tranter.Dirs `json:"dirs"`
	Container *container   `json:"container,omitempty"` // nil: the job names no image
	Ref       string       `json:"ref,omitempty"`       // by which the image is found again
	Network   int          `json:"network,omitempty"`   // process whose network the job is in
	Note      string       `json:"note,omitempty"`
}

// Names within the job's directory.
const (
	boxDir     = "box" // all but phases
	stateFile  = "state.json"
	networkDir = "network"
)

// session is one job's phases, some of them in containers.
type session struct {
	executor *Executor
	dir      string
	state    state
	note     string // for Sweep

	mu     sync.Mutex
	waits  []func()
	images []*image.Image
	clean  map[string]bool // directories of phases of which no process is left
}

func (s *session) box(names ...string) string {
	return filepath.Join(append([]string{s.dir, boxDir}, names...)...)
}

func (s *session) load() error {
	data, err := os.ReadFile(s.box(stateFile))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &s.state); err != nil {
		return fmt.Errorf("read what is known of the job's containers: %w", err)
	}
	s.note = s.state.Note
	return nil
}

func (s *session) save() error {
	if err := writeJSON(s.box(stateFile), s.state); err != nil {
		return fmt.Errorf("keep what is known of the job's containers: %w", err)
	}
	return nil
}

// holdImage keeps the image from being removed: the manager that did so has ended.
func (s *session) holdImage(ctx context.Context) {
	if s.state.Ref == "" {
		return
	}
	o := s.executor.options
	if img, err := o.Images.Get(ctx, s.state.Ref, image.Want{Policies: []string{"never"}, Form: s.executor.runtime.form(o.Settings.ImageForm)}); err == nil {
		s.hold(img)
	}
}

func (s *session) hold(img *image.Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images = append(s.images, img)
}

func (s *session) phaseDir(id string) string { return filepath.Join(s.dir, "phase-"+id) }

// Start implements tranter.Session.
func (s *session) Start(_ context.Context, p tranter.Phase) error {
	dir := s.phaseDir(p.ID)
	launch := s.executor.outside
	inside := s.state.Container != nil && (p.Container == nil || p.Container.Place != tranter.PlaceHelper)
	// The phases have one user, so that nothing has to be open to others.
	p.Container = nil
	if inside {
		p.Container = &tranter.Container{Place: tranter.PlaceBuild}
		p.Login = false // what profiles of the host would be good for, the image says
		made, err := s.command(dir, []string{agentPath})
		if err != nil {
			return err
		}
		launch = agent.Launch{Argv: made.Argv, Env: made.Env}
	}
	launch.Ended = func(clean bool) { s.ended(dir, clean) }
	wait, err := agent.Start(dir, launch, p)
	if err != nil {
		if inside {
			return fmt.Errorf("run the job's container with %s: %w", s.executor.runtime, err)
		}
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = append(s.waits, wait)
	return nil
}

// agentPath is where the agent's program is in containers. The rest of its command line is the same as outside.
const agentPath = "/.tranter/tranter"

// command returns what runs argv in the job's container. The directories that it works in are made: they are mounted.
func (s *session) command(mark string, argv []string) (invocation, error) {
	if err := makeDirs(s.state.Dirs); err != nil {
		return invocation{}, err
	}
	network, err := s.network()
	if err != nil {
		return invocation{}, err
	}
	if len(argv) == 1 && argv[0] == agentPath {
		argv = append(argv, s.executor.options.Agent[1:]...)
	}
	return s.state.Container.command(network, mark, argv)
}

func makeDirs(dirs tranter.Dirs) error {
	if dirs.Project != "" {
		if err := os.MkdirAll(dirs.Project, 0o777); err != nil { //nolint:gosec // as a shell would make it
			return fmt.Errorf("make the job's working directory: %w", err)
		}
	}
	if dirs.Temp == "" {
		return nil
	}
	if err := os.Mkdir(dirs.Temp, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the job's directory for files: %w", err)
	}
	return nil
}

// Attach implements tranter.Session.
func (s *session) Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	return agent.Attach(ctx, s.phaseDir(phaseID), offset, w)
}

// Cancel implements tranter.Session.
func (s *session) Cancel(_ context.Context, phaseID string, abort bool, grace time.Duration) error {
	return agent.Cancel(s.phaseDir(phaseID), abort, grace)
}

// killTime is what killed processes need at most to end, unless they hang in the system.
const killTime = 10 * time.Second

// Close implements tranter.Session: all processes are ended, then all directories but those of the sources removed.
func (s *session) Close(ctx context.Context) error {
	phases, err := filepath.Glob(filepath.Join(s.dir, "phase-*"))
	if err != nil {
		return err
	}
	errs := []error{s.end(ctx, phases)}
	s.mu.Lock()
	images := s.images
	s.images = nil
	s.mu.Unlock()
	for _, img := range images {
		img.Release()
	}
	for _, dir := range append(phases, s.box()) {
		errs = append(errs, removeAll(dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the job's containers: %w", err)
	}
	if s.note != "" {
		if err := os.Remove(s.note); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget the job's containers: %w", err)
		}
	}
	return nil
}

// end ends the agents and services, and whatever they have started: it carries their marks, or is in their process
// namespaces. What has ended by itself is not looked for among all processes.
func (s *session) end(ctx context.Context, phases []string) error {
	marks, _ := filepath.Glob(s.box("service-*"))
	marks = append(marks, s.box(runMark))
	if s.state.Network != 0 {
		marks = append(marks, s.box(networkDir))
	}
	waits := s.take()
	if len(marks) == 1 && allEnded(phases) {
		brief, stop := context.WithTimeout(ctx, exitTime)
		_ = agent.WaitAll(brief, waits)
		stop()
		if !s.ran() {
			marks = nil
		}
	}
	var errs []error
	for _, mark := range append(marks, phases...) {
		if !s.isClean(mark) {
			errs = append(errs, agent.End(mark))
		}
	}
	if errors.Join(errs...) == nil {
		killed, stop := context.WithTimeout(ctx, killTime)
		defer stop()
		errs = append(errs, agent.WaitAll(killed, waits))
	}
	return errors.Join(errs...)
}

// exitTime is what an agent needs at most to end once its result is there.
const exitTime = 2 * time.Second

func allEnded(phases []string) bool {
	for _, dir := range phases {
		if !agent.Ended(dir) {
			return false
		}
	}
	return true
}

// runMark is the mark of what Command runs.
const runMark = "run"

// ran says whether Command may have been used.
func (s *session) ran() bool {
	_, err := os.Lstat(s.box(runMark))
	return err == nil
}

func (s *session) ended(dir string, clean bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clean == nil {
		s.clean = map[string]bool{}
	}
	s.clean[dir] = clean
}

func (s *session) isClean(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clean[dir]
}

func (s *session) take() []func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	waits := s.waits
	s.waits = nil
	return waits
}

// Ref implements tranter.Session.
func (s *session) Ref() json.RawMessage {
	data, _ := json.Marshal(reference{Box: s.dir})
	return data
}
