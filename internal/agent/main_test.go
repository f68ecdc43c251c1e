package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
)

// TestMain lets this program be the agent that the tests start, as the real one is.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "agent" && os.Args[2] == "run" {
		limitFiles(os.Getenv("TEST_FILE_LIMIT"))
		err := agent.Run(context.Background(), os.Args[3], agent.Work{Artifacts: func(tranter.Server) (transfer.Artifacts, error) {
			return nil, errors.New("no server")
		}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 4 && os.Args[1] == "agent" && os.Args[2] == "terminal" {
		if err := agent.Terminal(context.Background(), os.Args[3], os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// play is one phase and what comes of it.
type play struct {
	dir    string
	launch agent.Launch
	phase  tranter.Phase
	log    *watched
}

// newPlay makes a phase with the given steps.
func newPlay(t *testing.T, steps ...tranter.Step) *play {
	t.Helper()
	root := t.TempDir()
	project := filepath.Join(root, "builds", "project")
	p := &play{
		dir:    filepath.Join(root, "phase"),
		launch: agent.Launch{Argv: []string{os.Args[0]}, Env: append(os.Environ(), "HOME="+root, "GIT_CONFIG_NOSYSTEM=1")},
		phase: tranter.Phase{
			ID: "1", JobID: 7, Shell: "bash", Steps: steps, FlatBackoff: true,
			Dirs: tranter.Dirs{Builds: filepath.Join(root, "builds"), Project: project, Temp: project + ".tmp", Cache: filepath.Join(root, "cache")},
		},
		log: &watched{},
	}
	for _, d := range []string{project, project + ".tmp"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := agent.End(p.dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *play) file(name string) string { return filepath.Join(p.phase.Dirs.Project, name) }

// start puts the agent to work.
func (p *play) start(t *testing.T) {
	t.Helper()
	wait, err := agent.Start(p.dir, p.launch, p.phase)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = agent.End(p.dir)
		wait()
	})
}

// end waits for the phase's end and returns its result.
func (p *play) end(t *testing.T) tranter.PhaseResult {
	t.Helper()
	ctx, stop := context.WithTimeoutCause(t.Context(), 50*time.Second, errors.New("the phase does not end"))
	defer stop()
	p.log.reset()
	r, err := agent.Attach(ctx, p.dir, 0, p.log)
	if err != nil {
		t.Fatalf("attach: %v\n%s", err, p.log)
	}
	if int64(len(p.log.String())) != r.LogBytes {
		t.Errorf("the result says %d bytes, the journal has %d", r.LogBytes, len(p.log.String()))
	}
	return r
}

// run does all of it.
func (p *play) run(t *testing.T) tranter.PhaseResult {
	t.Helper()
	p.start(t)
	return p.end(t)
}

// await follows the journal until it has text in it.
func (p *play) await(t *testing.T, text string) {
	t.Helper()
	ctx, stop := context.WithTimeoutCause(t.Context(), 30*time.Second, errors.New("it does not come"))
	defer stop()
	found := &watched{text: text, seen: stop}
	if _, err := agent.Attach(ctx, p.dir, 0, found); ctx.Err() == nil || !strings.Contains(found.String(), text) {
		t.Fatalf("waiting for %q: %v\n%s", text, err, found)
	}
}

// watched keeps what is written to it and tells when a text has come.
type watched struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	text string
	seen func()
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.buf.Write(p)
	if w.seen != nil && strings.Contains(w.buf.String(), w.text) {
		w.seen()
	}
	return n, err
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func (w *watched) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Reset()
}

func userScript(commands ...string) tranter.Step {
	return tranter.Step{
		Name: "step_script", Title: `Executing "step_script" stage of the job script`, When: tranter.OnSuccess,
		Script: &tranter.ScriptStep{Commands: commands, User: true},
	}
}

func afterScript(commands ...string) tranter.Step {
	return tranter.Step{
		Name: "after_script", Title: "Running after_script", When: tranter.AfterScript, Timeout: 20 * time.Second,
		Script: &tranter.ScriptStep{Commands: commands, User: true, After: true, IgnoreErrors: true},
	}
}

// onFailure is what is done for a job that has failed, such as saving its caches.
func onFailure() tranter.Step {
	return tranter.Step{Name: "archive_cache_on_failure", Title: "On failure", When: tranter.OnFailure, Archive: &tranter.ArchiveStep{}}
}

func cleanup() tranter.Step {
	return tranter.Step{Name: "cleanup_file_variables", Title: "Cleaning up", When: tranter.Always, Cleanup: &tranter.CleanupStep{Strategy: "none"}}
}

// inOrder fails unless the parts are in text one after another.
func inOrder(t *testing.T, text string, parts ...string) {
	t.Helper()
	at := 0
	for _, p := range parts {
		i := strings.Index(text[at:], p)
		if i < 0 {
			t.Errorf("%q is missing, or not in its place, in:\n%s", p, text)
			return
		}
		at += i + len(p)
	}
}

func without(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if strings.Contains(text, p) {
			t.Errorf("%q must not be in:\n%s", p, text)
		}
	}
}
