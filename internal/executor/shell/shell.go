// Package shell is the executor that runs jobs on this host, as the current system user or as a given one.
//
// The agent of each job is a process of its own that outlives the manager. What jobs share (the home directory, the
// network, installed programs) they can change for each other: it isolates nothing but directories.
package shell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
)

// Options say how jobs run.
type Options struct {
	Agent  []string // the program that has the command "agent run DIR"
	User   string   // system user of the jobs; "": the current one
	Secret []string // values, such as runner tokens, that jobs must not find in their environment
}

// Executor makes sessions on this host.
type Executor struct {
	launch agent.Launch
}

// New returns the executor. The error is a *tranter.ConfigError if the user does not exist.
func New(o Options) (*Executor, error) {
	e := &Executor{launch: agent.Launch{Argv: o.Agent, Env: environment(os.Environ(), o.Secret)}}
	if o.User == "" {
		return e, nil
	}
	as, err := identity(o.User)
	if err != nil {
		return nil, &tranter.ConfigError{Err: err}
	}
	e.launch.As = as
	e.launch.Env = userEnvironment(e.launch.Env, as)
	return e, nil
}

// Features returns what jobs can expect of this executor.
func Features() tranter.Features {
	terminals := runtime.GOOS != "windows"
	return tranter.Features{Variables: true, Shared: true, Session: terminals, Terminal: terminals}
}

// environment returns environ without what belongs to the manager alone.
func environment(environ, secrets []string) []string {
	var out []string
	for _, kv := range environ {
		key, value, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(key, "TRANTER_") || key == "CI_SERVER_TOKEN" || key == "REGISTRATION_TOKEN" || key == "NOTIFY_SOCKET" {
			continue
		}
		if value != "" && slices.ContainsFunc(secrets, func(s string) bool { return s != "" && strings.Contains(value, s) }) {
			continue
		}
		out = append(out, kv)
	}
	return out
}

// userEnvironment returns environ as it is right for another user.
func userEnvironment(environ []string, as *agent.Identity) []string {
	own := map[string]string{"HOME": as.Home, "USER": as.Name, "LOGNAME": as.Name}
	var out []string
	for _, kv := range environ {
		key, _, _ := strings.Cut(kv, "=")
		if _, replaced := own[key]; replaced || key == "MAIL" || strings.HasPrefix(key, "XDG_") || strings.HasPrefix(key, "SUDO_") {
			continue
		}
		out = append(out, kv)
	}
	for _, key := range []string{"HOME", "USER", "LOGNAME"} {
		out = append(out, key+"="+own[key])
	}
	return out
}

// Open implements tranter.Executor: there is nothing to make but the directory.
func (e *Executor) Open(_ context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the job's directory: %w", err)
	}
	if e.launch.As != nil {
		// The agent must get to the phases, which are its own, through a directory which is not.
		if err := os.Chmod(spec.Dir, 0o711); err != nil { //nolint:gosec // names of phases are no secret
			return nil, fmt.Errorf("open the job's directory to its user: %w", err)
		}
		if err := makeBuildsRoot(spec.Dirs, e.launch.As); err != nil {
			return nil, err
		}
	}
	_, _ = fmt.Fprintf(spec.Log, "Using Shell (%s) executor...\n", e.describe())
	return &session{launch: e.launch, dir: spec.Dir}, nil
}

func (e *Executor) describe() string {
	if e.launch.As != nil {
		return "as user " + e.launch.As.Name
	}
	return "on this host"
}

// makeBuildsRoot gives the job's user a place of its own to work in, where it could not make one by itself.
func makeBuildsRoot(dirs tranter.Dirs, as *agent.Identity) error {
	for _, d := range []string{dirs.Builds, dirs.Cache} {
		if _, err := os.Stat(d); err == nil || d == "" {
			continue
		}
		if err := os.MkdirAll(d, 0o755); err != nil { //nolint:gosec // as a shell would make it
			return fmt.Errorf("make the directory %s: %w", d, err)
		}
		if err := os.Chown(d, int(as.UID), int(as.GID)); err != nil {
			return fmt.Errorf("give the directory %s to user %s: %w", d, as.Name, err)
		}
	}
	return nil
}

// reference is what Ref gives.
type reference struct {
	Dir string `json:"dir"`
}

// Reopen implements tranter.Executor.
func (e *Executor) Reopen(_ context.Context, ref json.RawMessage) (tranter.Session, error) {
	var r reference
	if err := json.Unmarshal(ref, &r); err != nil || r.Dir == "" {
		return nil, fmt.Errorf("reopen a session: malformed reference %q", ref)
	}
	if _, err := os.Stat(r.Dir); err != nil {
		return nil, fmt.Errorf("reopen a session: %w", err)
	}
	return &session{launch: e.launch, dir: r.Dir}, nil
}

// session is one job's phases on this host.
type session struct {
	launch agent.Launch
	dir    string

	mu     sync.Mutex
	waits  []func()
	clean  map[string]bool // directories of phases of which no process is left
	beside bool            // a terminal was opened, whose processes no agent ends
}

func (s *session) phaseDir(id string) string { return filepath.Join(s.dir, "phase-"+id) }

// Start implements tranter.Session.
func (s *session) Start(_ context.Context, p tranter.Phase) error {
	dir, launch := s.phaseDir(p.ID), s.launch
	launch.Ended = func(clean bool) { s.ended(dir, clean) }
	wait, err := agent.Start(dir, launch, p)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = append(s.waits, wait)
	return nil
}

func (s *session) ended(dir string, clean bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clean == nil {
		s.clean = map[string]bool{}
	}
	s.clean[dir] = clean
}

// Attach implements tranter.Session.
func (s *session) Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	return agent.Attach(ctx, s.phaseDir(phaseID), offset, w)
}

// Cancel implements tranter.Session.
func (s *session) Cancel(_ context.Context, phaseID string, abort bool, grace time.Duration) error {
	return agent.Cancel(s.phaseDir(phaseID), abort, grace)
}

// Close implements tranter.Session: what still runs is killed, the phases' files, which hold secrets, go.
func (s *session) Close(ctx context.Context) error {
	phases, err := filepath.Glob(filepath.Join(s.dir, "phase-*"))
	if err != nil {
		return err
	}
	errs := s.endAll(ctx, phases)
	s.mu.Lock()
	waits := s.waits
	s.waits = nil
	s.mu.Unlock()
	if errors.Join(errs...) == nil { // else what can't be ended would be waited for
		killed, stop := context.WithTimeout(ctx, killTime)
		errs = append(errs, agent.WaitAll(killed, waits))
		stop()
	}
	for _, dir := range phases {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// exitTime is what an agent needs at most to end once its result is there.
const exitTime = 2 * time.Second

// killTime is what killed agents need at most to end, unless they hang in the system.
const killTime = 10 * time.Second

// endAll ends what is left of the phases. To look for it among all processes of the host takes a while on a busy one: it
// is not done for phases whose agents have ended in an orderly way.
func (s *session) endAll(ctx context.Context, phases []string) []error {
	if waits, beside := s.started(); !beside && !slices.ContainsFunc(phases, func(dir string) bool { return !agent.Ended(dir) }) {
		brief, stop := context.WithTimeout(ctx, exitTime)
		_ = agent.WaitAll(brief, waits)
		stop()
	}
	var errs []error
	for _, dir := range phases {
		if !s.isClean(dir) {
			errs = append(errs, agent.End(dir))
		}
	}
	return errs
}

func (s *session) started() (waits []func(), beside bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.waits), s.beside
}

func (s *session) isClean(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clean[dir] && !s.beside
}

// Ref implements tranter.Session.
func (s *session) Ref() json.RawMessage {
	data, _ := json.Marshal(reference{Dir: s.dir})
	return data
}
