package link_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
	"github.com/tranter-ci/tranter/internal/agent/link"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
)

// TestMain lets this program be the agent that the tests start, as the real one is.
func TestMain(m *testing.M) {
	work := agent.Work{Artifacts: func(tranter.Server) (transfer.Artifacts, error) { return nil, errors.New("no server") }}
	ctx := context.Background()
	std := link.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	var err error
	switch {
	case filepath.Base(os.Args[0]) == "tranter-work":
		root := os.Getenv(link.WorkEnv)
		err = link.Work(ctx, root, work)
	case len(os.Args) > 3 && os.Args[1] == "agent" && os.Args[2] == "serve":
		s := link.Serving{Root: os.Args[3], Umask: 0, Open: []string{filepath.Join(os.Args[3], "open")}, Worker: os.Getenv("TEST_WORKER")}
		if len(os.Args) > 4 {
			s.Entrypoint = os.Args[4:]
		}
		err = link.Serve(ctx, s, work, std)
	case len(os.Args) == 4 && os.Args[1] == "agent" && os.Args[2] == "connect":
		err = link.Connect(ctx, os.Args[3], std)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tranter:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// place is a directory with an agent at work in it, as in a container.
type place struct {
	root, dir string
	cmd       *exec.Cmd
	ended     chan struct{}
	client    *link.Client
}

// program starts this program with pipes for its streams. The client has them.
func program(t *testing.T, env []string, args ...string) (*exec.Cmd, chan struct{}, *link.Client) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...)
	files := [6]*os.File{}
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		files[2*i], files[2*i+1] = r, w
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[3], files[5]
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _, _ = files[0].Close(), files[3].Close(), files[5].Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	client := link.New(files[1], files[2], files[4])
	t.Cleanup(func() {
		_ = client.Close()
		_ = cmd.Process.Signal(os.Interrupt)
		limit := time.NewTimer(20 * time.Second)
		defer limit.Stop()
		select {
		case <-ended:
		case <-limit.C:
			t.Error("the agent does not end")
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	return cmd, ended, client
}

// serve starts an agent, with an entrypoint if one is given.
func serve(t *testing.T, entrypoint ...string) *place {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "link") //nolint:usetesting // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	_ = os.Chmod(dir, 0o755)
	p := &place{root: filepath.Join(dir, "job"), dir: dir}
	worker := filepath.Join(dir, "tranter-work")
	copyProgram(t, worker)
	p.cmd, p.ended, p.client = program(t, []string{"TEST_WORKER=" + worker}, append([]string{"agent", "serve", p.root}, entrypoint...)...)
	return p
}

// copyProgram puts this program where every user can run it.
func copyProgram(t *testing.T, path string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(self, path); err == nil {
		return
	}
	if err := exec.Command("cp", self, path).Run(); err != nil {
		t.Fatal(err)
	}
}

// connect makes a new stream to the agent.
func (p *place) connect(t *testing.T) *link.Client {
	t.Helper()
	_, _, c := program(t, nil, "agent", "connect", p.root)
	return c
}

func (p *place) enter(t *testing.T, environ ...string) link.Hello {
	t.Helper()
	h, err := p.client.Enter(soon(t), environ)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// phase returns one with a script of the user.
func (p *place) phase(id string, commands ...string) tranter.Phase {
	project := filepath.Join(p.dir, "builds", "project")
	return tranter.Phase{
		ID: id, JobID: 7, Shell: "bash", Container: &tranter.Container{Place: tranter.PlaceBuild, Shared: true},
		Dirs: tranter.Dirs{Builds: filepath.Join(p.dir, "builds"), Project: project, Temp: project + ".tmp", Cache: filepath.Join(p.dir, "cache")},
		Steps: []tranter.Step{
			{Name: "step_script", When: tranter.OnSuccess, Script: &tranter.ScriptStep{Commands: commands, User: true}},
		},
	}
}

// begin starts a phase.
func (p *place) begin(t *testing.T, id string, commands ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(p.dir, "builds", "project"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"builds", "builds/project"} {
		if err := os.Chmod(filepath.Join(p.dir, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.client.Start(soon(t), p.phase(id, commands...)); err != nil {
		t.Fatal(err)
	}
}

// follow attaches from the beginning and returns the journal.
func (p *place) follow(t *testing.T, id string) (tranter.PhaseResult, string) {
	t.Helper()
	var b bytes.Buffer
	r, err := p.client.Attach(soon(t), id, 0, &b)
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	if r.LogBytes != int64(b.Len()) {
		t.Errorf("the result says %d bytes, %d have come", r.LogBytes, b.Len())
	}
	return r, b.String()
}

func (p *place) play(t *testing.T, id string, commands ...string) (tranter.PhaseResult, string) {
	t.Helper()
	p.begin(t, id, commands...)
	return p.follow(t, id)
}

func (p *place) file(name string) string { return filepath.Join(p.dir, "builds", "project", name) }

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, stop := context.WithTimeoutCause(t.Context(), 30*time.Second, errors.New("it takes too long"))
	t.Cleanup(stop)
	return ctx
}

// eventually waits until what is asked for holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 2000 {
		if holds() {
			return
		}
		<-tick.C
	}
	t.Fatal("it does not come to this: " + what)
}

func exists(path string) func() bool {
	return func() bool {
		_, err := os.Stat(path)
		return err == nil
	}
}

// noLeaks fails the test if a client's goroutines are left at its end.
func noLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		buf := make([]byte, 1<<20)
		eventually(t, "no goroutine of a client is left", func() bool {
			return !strings.Contains(string(buf[:runtime.Stack(buf, true)]), "link.(*Client)")
		})
	})
}

// gate is a writer that tells when it has a text.
type gate struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	text string
	seen func()
}

func (g *gate) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, err := g.buf.Write(b)
	if g.seen != nil && strings.Contains(g.buf.String(), g.text) {
		g.seen()
	}
	return n, err
}

func (g *gate) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.String()
}

var _ io.Writer = (*gate)(nil)
