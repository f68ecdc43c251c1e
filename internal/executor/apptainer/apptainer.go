// Package apptainer is the executor that runs jobs in containers without an engine and without privileges: by Apptainer
// or Singularity, Charliecloud, or bubblewrap.
//
// It works like the shell executor, with agents that are processes of this host. Those of phases with the job's scripts
// run inside a container: the runtime is in front of the agent's command line, and the agent's program is bound into
// the container. Sources, caches and artifacts are moved by an agent outside, so an image needs no more than a shell.
// An agent's result tells a container that did not start from a script that has failed, whatever exit code the runtime
// has (hpc, section 4.6).
package apptainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/apptainer/image"
)

// Options say how jobs run.
type Options struct {
	Agent    []string // the program that has the command "agent run DIR"; what is bound into containers is its file, which must be static
	Settings config.Apptainer
	Images   Images
	// Environment is KEY=VALUE that the runner's configuration gives to jobs: DOCKER_AUTH_CONFIG is looked for in it.
	Environment []string
	Home        string   // of the user whose logins to registries serve jobs; "": none
	State       string   // directory in which sessions are noted, for Sweep; "": they are not
	Secret      []string // values, such as runner tokens, that jobs must not find in their environment
	Log         *slog.Logger
}

// Images is where images come from: an *image.Store.
type Images interface {
	Get(ctx context.Context, ref string, w image.Want) (*image.Image, error)
}

// Executor makes sessions on this host.
type Executor struct {
	options Options
	runtime runtime
	tools   tools
	outside agent.Launch // of phases outside of containers
}

// New returns the executor. The error is a *tranter.ConfigError if the runtime is not there.
func New(o Options) (*Executor, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	rt, err := runtimeOf(o.Settings)
	if err != nil {
		return nil, err
	}
	tools, err := findTools(rt, o.Settings)
	if err != nil {
		return nil, &tranter.ConfigError{Err: err}
	}
	if len(o.Agent) == 0 {
		return nil, errors.New("apptainer: no agent is given")
	}
	if o.Agent[0], err = exec.LookPath(o.Agent[0]); err == nil {
		o.Agent[0], err = filepath.Abs(o.Agent[0])
	}
	if err != nil {
		return nil, fmt.Errorf("find the agent's program: %w", err)
	}
	return &Executor{options: o, runtime: rt, tools: tools, outside: agent.Launch{Argv: o.Agent, Env: environment(os.Environ(), o.Secret)}}, nil
}

// Features returns what jobs can expect of this executor.
func Features() tranter.Features {
	return tranter.Features{Variables: true, Shared: true, Image: true, Services: true, ServiceVariables: true, ServiceMultipleAliases: true}
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

// reference is what Ref gives: all else is in a file of the job's directory.
type reference struct {
	Box string `json:"apptainer"` // the job's directory
}

// Refers says whether a session's reference is one of this executor.
func Refers(ref json.RawMessage) bool {
	var r reference
	return json.Unmarshal(ref, &r) == nil && r.Box != ""
}

// Reopen implements tranter.Executor.
func (e *Executor) Reopen(ctx context.Context, ref json.RawMessage) (tranter.Session, error) {
	s, err := e.reopen(ctx, ref)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (e *Executor) reopen(ctx context.Context, ref json.RawMessage) (*session, error) {
	var r reference
	if err := json.Unmarshal(ref, &r); err != nil || r.Box == "" {
		return nil, fmt.Errorf("reopen a session: malformed reference %q", ref)
	}
	s := &session{executor: e, dir: r.Box}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("reopen a session: %w", err)
	}
	s.holdImage(ctx)
	return s, nil
}

// Sweep implements tranter.Sweeper: sessions that nobody wants, of a manager that was killed, are closed.
func (e *Executor) Sweep(ctx context.Context, live func(name string) bool) error {
	if e.options.State == "" {
		return nil
	}
	notes, err := filepath.Glob(filepath.Join(e.options.State, "*"+noteSuffix))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range notes {
		var n note
		if data, err := os.ReadFile(path); err != nil || json.Unmarshal(data, &n) != nil || n.Dir == "" {
			continue // it is being written, or removed
		}
		if live(n.Name) {
			continue
		}
		s := &session{executor: e, dir: n.Dir}
		_ = s.load() // there may be nothing yet: then only processes and directories are left
		s.note = path
		errs = append(errs, s.Close(ctx))
	}
	return errors.Join(errs...)
}

// note is about a session that may have to be swept away.
type note struct {
	Name string `json:"name"`
	Dir  string `json:"dir"`
}

const noteSuffix = ".session.json"

// keep notes a session before anything of it is made.
func (e *Executor) keep(n note) (path string, err error) {
	if e.options.State == "" {
		return "", nil
	}
	if err := os.MkdirAll(e.options.State, 0o700); err != nil {
		return "", fmt.Errorf("note the job's containers: %w", err)
	}
	path = filepath.Join(e.options.State, fileName(n.Name)+noteSuffix)
	return path, writeJSON(path, n)
}

// fileName makes a name one of a file.
func fileName(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == 0 {
			return '_'
		}
		return r
	}, name)
}

// writeJSON writes v so that readers see all of it or nothing. The file is for its owner only.
func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
