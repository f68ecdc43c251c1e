//go:build unix

package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/executortest"
	"github.com/tranter-ci/tranter/internal/executor/shell"
	"github.com/tranter-ci/tranter/internal/worker"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "agent" && os.Args[2] == "worker" {
		if err := worker.Serve(context.Background(), os.Args[3], worker.ServeOptions{Executor: inside, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(executortest.Main(m))
}

// inside makes the executor of the worker that this program is.
func inside(json.RawMessage) (tranter.Executor, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	e, err := shell.New(shell.Options{Agent: []string{self}})
	return &wayward{e}, err
}

// wayward is an executor that does what a job's variables tell it.
type wayward struct{ tranter.Executor }

func (w *wayward) Open(ctx context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	for _, v := range spec.Variables {
		switch v.Key {
		case "FAIL":
			return nil, fail(v.Value)
		case "SETTLE":
			no := false
			dirs, vars, err := spec.Settle(tranter.Surroundings{Builds: v.Value, SharedBuilds: &no})
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(spec.Log, "settled: %s, %d variables\n", dirs.Builds, len(vars))
		case "SAY":
			fmt.Fprint(spec.Log, v.Value)
		case "HANG":
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
	}
	return w.Executor.Open(ctx, spec)
}

func fail(kind string) error {
	err := errors.New("no " + kind)
	switch kind {
	case "config":
		return &tranter.ConfigError{Err: err}
	case "build":
		return &tranter.BuildError{ExitCode: 3, Err: err}
	case "pull":
		return &tranter.PullError{Err: err}
	case "dependency":
		return &tranter.DependencyError{Err: err}
	}
	return err
}

// site is a shared directory with a manager, and with workers that are processes of this host.
type site struct {
	t       *testing.T
	options worker.Options
	office  *worker.Office
	stop    func()
	workers map[string]*process
}

type process struct {
	cmd   *exec.Cmd
	said  bytes.Buffer
	ended chan struct{}
}

func newSite(t *testing.T, o worker.Options) *site {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if o.Dir == "" {
		o.Dir = executortest.OpenDir(t)
	}
	if o.Program == "" {
		o.Program = self
	}
	o.Self = self
	s := &site{t: t, options: o, workers: map[string]*process{}}
	s.start()
	t.Cleanup(func() {
		s.stop()
		for name, p := range s.workers {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-p.ended:
			case <-time.After(20 * time.Second):
				_ = p.cmd.Process.Kill()
				t.Errorf("worker %s does not end:\n%s", name, p.said.String())
				<-p.ended
			}
			if t.Failed() {
				t.Logf("worker %s:\n%s", name, p.said.String())
			}
		}
	})
	return s
}

// start starts a manager, also instead of the one before.
func (s *site) start() {
	s.t.Helper()
	office, err := worker.NewOffice(s.options)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(s.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := office.Run(ctx); err != nil {
			s.t.Errorf("run: %v", err)
		}
	}()
	s.office, s.stop = office, sync.OnceFunc(func() { stop(); <-done })
}

func (s *site) restart() {
	s.t.Helper()
	s.stop()
	s.start()
	for name := range s.workers {
		s.office.Follow(name)
	}
}

// submit prepares an allocation and runs its script.
func (s *site) submit(a worker.Assignment) *process {
	s.t.Helper()
	script, err := s.office.Prepare(a)
	if err != nil {
		s.t.Fatal(err)
	}
	s.office.Follow(a.Name)
	return s.launch(a, script)
}

func (s *site) launch(a worker.Assignment, script string) *process {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "script")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		s.t.Fatal(err)
	}
	p := &process{ended: make(chan struct{})}
	p.cmd = exec.Command("/bin/sh", "-c", script)
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	if a.As != nil {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.As.UID, Gid: a.As.GID}
	}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait()
	}()
	s.workers[a.Name] = p
	return p
}

// sign waits for a sign.
func (s *site) sign(name string, kind worker.SignKind) worker.Sign {
	s.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case sign := <-s.office.Signs():
			if sign.Name == name && sign.Kind == kind {
				return sign
			}
		case <-limit:
			s.t.Fatalf("no sign %s of %s:\n%s", kind, name, s.workers[name].said.String())
		}
	}
}

func (s *site) executor(name string) tranter.Executor {
	s.t.Helper()
	e, err := s.office.Executor(name)
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

// subject is the executor of an allocation for package executortest: each test has a site of its own, and a manager that is
// asked for again is one that was started again.
func subject(listen string) executortest.Subject {
	var mu sync.Mutex
	sites := map[*testing.T]*site{}
	return executortest.Subject{
		New: func(t *testing.T) tranter.Executor {
			mu.Lock()
			s := sites[t]
			mu.Unlock()
			if s == nil {
				s = newSite(t, worker.Options{Listen: listen})
				s.submit(worker.Assignment{Name: "tranter-1", Places: 8, Linger: time.Minute})
				mu.Lock()
				sites[t] = s
				mu.Unlock()
			} else {
				s.restart()
			}
			return follower{s}
		},
		Alive: alive,
		Spoil: func(spec *tranter.SessionSpec) {
			spec.Variables = append(spec.Variables, tranter.Variable{Key: "FAIL", Value: "config"})
		},
	}
}

func TestSessionsInAnAllocationAreLikeAllOthers(t *testing.T) {
	t.Run("directory", func(t *testing.T) { executortest.Run(t, subject("")) })
	t.Run("connection", func(t *testing.T) { executortest.Run(t, subject("127.0.0.1:0")) })
}

func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := bytes.Cut(data, []byte(") "))
	return err == nil && !bytes.HasPrefix(state, []byte("Z"))
}

// follower is the executor of the manager that there is: what was opened with one before is reopened.
type follower struct{ site *site }

func (f follower) now() tranter.Executor { return f.site.executor("tranter-1") }

func (f follower) Open(ctx context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	s, err := f.now().Open(ctx, spec)
	if err != nil {
		return nil, err
	}
	return followed{f, s.Ref()}, nil
}

func (f follower) Reopen(ctx context.Context, ref json.RawMessage) (tranter.Session, error) {
	s, err := f.now().Reopen(ctx, ref)
	if err != nil {
		return nil, err
	}
	return followed{f, s.Ref()}, nil
}

type followed struct {
	follower follower
	ref      json.RawMessage
}

func (f followed) now(ctx context.Context) tranter.Session {
	s, err := f.follower.now().Reopen(ctx, f.ref)
	if err != nil {
		f.follower.site.t.Fatal(err)
	}
	return s
}

func (f followed) Start(ctx context.Context, p tranter.Phase) error { return f.now(ctx).Start(ctx, p) }

func (f followed) Attach(ctx context.Context, id string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	return f.now(ctx).Attach(ctx, id, offset, w)
}

func (f followed) Cancel(ctx context.Context, id string, abort bool, grace time.Duration) error {
	return f.now(ctx).Cancel(ctx, id, abort, grace)
}

func (f followed) Close(ctx context.Context) error { return f.now(ctx).Close(ctx) }

func (f followed) Ref() json.RawMessage { return f.ref }
