// Package executortest says as tests what every executor must do. A test of an executor calls Run, and Main from its
// TestMain; it knows no executor, and what is particular to one is for that one's own tests.
package executortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
)

// Subject is an executor to test.
type Subject struct {
	// New makes the executor. It is called several times: each stands for a manager that has been started again.
	New func(t *testing.T) tranter.Executor
	// Alive says whether the process runs that has this id within the environment; nil where the host can't tell.
	Alive func(pid int) bool
	// Shell runs the scripts; "" is sh.
	Shell string
	// Apart says that each phase has process ids of its own, so that in another one they mean nothing.
	Apart bool
	// Spoil makes a specification one with which Open fails; nil: a directory that can't be made does.
	Spoil func(*tranter.SessionSpec)
}

// Main runs the package's tests, or the agent if it is the agent that this program was started as. TestMain calls it.
func Main(m *testing.M) int {
	if len(os.Args) == 4 && os.Args[1] == "agent" && os.Args[2] == "run" {
		if err := agent.Run(context.Background(), os.Args[3], agent.Work{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if len(os.Args) == 4 && os.Args[1] == "agent" && os.Args[2] == "terminal" {
		if err := agent.Terminal(context.Background(), os.Args[3], os.Stdin, os.Stdout); err != nil {
			return 1
		}
		return 0
	}
	return m.Run()
}

// Agent returns the command line of an agent that every user of the system can start: a copy of this program.
func Agent(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(OpenDir(t), "agent")
	// A process that another test starts meanwhile would hold the file open until its exec: "text file busy" for ours.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755) //nolint:gosec // a program for everybody
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return []string{path}
}

// OpenDir returns a temporary directory that every user of the system can enter.
func OpenDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil { //nolint:gosec // that is what it is for
			t.Fatal(err)
		}
	}
	return dir
}

// Job is one job in an environment of the subject.
type Job struct {
	t       *testing.T
	subject Subject
	Spec    tranter.SessionSpec
	Session tranter.Session
	Log     *bytes.Buffer // what the executor has said
}

// patience is how long anything may take that has to happen.
const patience = time.Minute

var errImpatient = errors.New("it takes too long")

// Open makes an environment. It is closed at the end of the test.
func Open(t *testing.T, s Subject) *Job {
	t.Helper()
	j := prepare(t, s)
	session, err := s.New(t).Open(j.context(), j.Spec)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	j.Session = session
	t.Cleanup(func() {
		ctx, stop := context.WithTimeoutCause(context.WithoutCancel(t.Context()), patience, errImpatient)
		defer stop()
		if err := j.Session.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return j
}

func prepare(t *testing.T, s Subject) *Job {
	t.Helper()
	if s.Shell == "" {
		s.Shell = "sh"
	}
	root := OpenDir(t)
	project := filepath.Join(root, "builds", "group", "project")
	j := &Job{t: t, subject: s, Log: &bytes.Buffer{}}
	j.Spec = tranter.SessionSpec{
		Name: "job-" + filepath.Base(root), Dir: filepath.Join(root, "job"), Job: &tranter.Job{ID: 7, Token: "glcbt-token"}, Log: j.Log,
		Dirs: tranter.Dirs{Builds: filepath.Join(root, "builds"), Project: project, Temp: project + ".tmp", Cache: filepath.Join(root, "cache")},
	}
	if err := os.MkdirAll(j.Spec.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return j
}

func (j *Job) context() context.Context {
	ctx, stop := context.WithTimeoutCause(j.t.Context(), patience, errImpatient)
	j.t.Cleanup(stop)
	return ctx
}

// Phase makes a phase that runs commands, with an empty working tree before and afterScript's commands after, if any.
func (j *Job) Phase(id string, commands []string, afterScript ...string) tranter.Phase {
	steps := []tranter.Step{
		{Name: "prepare_script", When: tranter.OnSuccess, Prepare: &tranter.PrepareStep{Greeting: "Running on %s..."}},
		{Name: "get_sources", When: tranter.OnSuccess, Sources: &tranter.SourcesStep{Strategy: "none"}},
		{Name: "step_script", When: tranter.OnSuccess, Script: &tranter.ScriptStep{Commands: commands, User: true}},
	}
	if len(afterScript) > 0 {
		steps = append(steps, tranter.Step{Name: "after_script", When: tranter.AfterScript, Timeout: patience, Script: &tranter.ScriptStep{
			Commands: afterScript, User: true, After: true, IgnoreErrors: true,
		}})
	}
	return tranter.Phase{ID: id, JobID: 7, Dirs: j.Spec.Dirs, Shell: j.subject.Shell, Steps: steps, JobToken: "glcbt-token"}
}

// Start starts a phase.
func (j *Job) Start(p tranter.Phase) {
	j.t.Helper()
	if err := j.Session.Start(j.context(), p); err != nil {
		j.t.Fatalf("start: %v\n%s", err, j.Log)
	}
}

// End waits for the phase's end and returns its result and its whole log.
func (j *Job) End(id string) (tranter.PhaseResult, string) {
	j.t.Helper()
	var log bytes.Buffer
	r, err := j.Session.Attach(j.context(), id, 0, &log)
	if err != nil {
		j.t.Fatalf("attach: %v\n%s", err, log.String())
	}
	return r, log.String()
}

// Run starts a phase with the given commands and waits for its end.
func (j *Job) Run(commands ...string) (tranter.PhaseResult, string) {
	j.t.Helper()
	j.Start(j.Phase("1", commands))
	return j.End("1")
}

// Await follows the phase's log until it has text in it, and returns the log so far.
func (j *Job) Await(id, text string) string {
	j.t.Helper()
	ctx, stop := context.WithCancelCause(j.context())
	defer stop(nil)
	w := &until{text: text, stop: func() { stop(errSeen) }}
	_, err := j.Session.Attach(ctx, id, 0, w)
	if !errors.Is(err, errSeen) {
		j.t.Fatalf("waiting for %q: %v\n%s", text, err, w.log.String())
	}
	return w.log.String()
}

var errSeen = errors.New("seen")

// until is a writer that tells when a text has come.
type until struct {
	mu   sync.Mutex
	log  bytes.Buffer
	text string
	stop func()
}

func (u *until) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n, err := u.log.Write(p)
	if strings.Contains(u.log.String(), u.text) {
		u.stop()
	}
	return n, err
}
