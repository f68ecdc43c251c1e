package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// program is the built binary.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tranter-conformance-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "tranter")
		if err := build(program, "dev"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer removeAgent(program)
		enginetest.SideBySide(3)
		return m.Run()
	}())
}

// build makes the program with a version, as a release is made: what was compiled for one serves the other.
func build(path, version string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+version, "-o", path, "github.com/tranter-ci/tranter/cmd/tranter")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return nil
}

// rig is a GitLab and a runner that works for it.
type rig struct {
	*coordinatortest.GitLab
	t       *testing.T
	dir     string // configuration, state, builds and cache
	program string
	jobs    string   // lines of the configuration that say where jobs run, besides executor; empty: the shell executor
	kind    string   // the executor; empty: docker if jobs says where, else shell
	engine  string   // that jobs run on, if they do
	launch  []string // arguments that run the manager, besides those of all ways to do so; nil: run
	env     []string
	cmd     *exec.Cmd
	output  *output
	ended   chan struct{}
}

// output collects what the program prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// newRig makes a GitLab and a configuration with one runner; global and section are lines to add to the file.
func newRig(t *testing.T, global, section string) *rig {
	t.Helper()
	r := &rig{GitLab: coordinatortest.New(t, quick), t: t, dir: t.TempDir(), program: program, output: &output{}}
	r.configure(global, section)
	r.cleanUp()
	return r
}

// cleanUp ends the manager with the test.
func (r *rig) cleanUp() {
	t := r.t
	t.Cleanup(func() {
		if r.cmd != nil {
			r.kill()
		}
		if t.Failed() {
			t.Logf("the program said:\n%s", r.output)
		}
	})
}

// quick lets answers to updates come often, so that what a test waits for is seen soon.
func quick(o *coordinator.Options) { o.UpdateInterval = time.Second }

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) configure(global, section string) {
	r.t.Helper()
	text := fmt.Sprintf("concurrent = 4\ncheck_interval = 1\nshutdown_timeout = 20\n%s\n[[runners]]\nname = \"conformance\"\nurl = %q\ntoken = %q\nexecutor = %q\n%s\n%s\n",
		global, r.URL, r.Token.Reveal(), r.executor(), section, r.jobs)
	if err := os.WriteFile(r.path("config.toml"), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// executor is where jobs run, as the configuration calls it.
func (r *rig) executor() string {
	switch {
	case r.kind != "":
		return r.kind
	case r.jobs != "":
		return "docker"
	}
	return "shell"
}

// command is the program with arguments and a home of its own.
func (r *rig) command(args ...string) *exec.Cmd {
	cmd := exec.Command(r.program, args...)
	cmd.Dir = r.dir
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "CI_") && !strings.HasPrefix(kv, "HOME=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+r.dir, "GIT_CONFIG_NOSYSTEM=1")
	cmd.Env = append(cmd.Env, r.env...)
	return cmd
}

// start runs the manager.
func (r *rig) start() {
	r.t.Helper()
	r.startWith(nil, r.path("state"))
}

// startWith runs the manager by way of the given command, with its state elsewhere.
func (r *rig) startWith(wrap []string, state string) {
	r.t.Helper()
	launch := r.launch
	if launch == nil {
		launch = []string{"run", "--config", r.path("config.toml")}
	}
	cmd := r.command(append(slices.Clip(launch), "--state-dir", state, "--working-directory", r.dir)...)
	if len(wrap) > 0 {
		wrapped := exec.Command(wrap[0], append(wrap[1:len(wrap):len(wrap)], cmd.Args...)...)
		wrapped.Dir, wrapped.Env = cmd.Dir, cmd.Env
		cmd = wrapped
	}
	cmd.Stdout, cmd.Stderr = r.output, r.output
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.cmd, r.ended = cmd, make(chan struct{})
	ended := r.ended
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
}

// tool runs a command of the program to its end and returns its output and exit code.
func (r *rig) tool(args ...string) (string, int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	cmd := r.command(args...)
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (r *rig) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// wait returns the manager's exit code once it has ended.
func (r *rig) wait(limit time.Duration) int {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(limit):
		r.t.Fatalf("the manager has not ended within %v; it said:\n%s", limit, r.output)
	}
	code := r.cmd.ProcessState.ExitCode()
	r.cmd = nil
	return code
}

// kill ends the manager as a crash does.
func (r *rig) kill() {
	r.t.Helper()
	_ = r.cmd.Process.Kill()
	<-r.ended
	r.cmd = nil
}

// eventually waits for what a test is about.
func (r *rig) eventually(what string, holds func() bool) {
	r.t.Helper()
	limit := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-limit:
			r.t.Fatalf("not within a minute: %s; the program said:\n%s", what, r.output)
		case <-tick.C:
		}
	}
}

// pause lets time go by in which nothing happens that a test could wait for.
func (r *rig) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.t.Context().Done():
	}
}

// file waits for a file that a job writes.
func (r *rig) file(path string) {
	r.t.Helper()
	r.eventually("the file "+path+" appears", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
}

// script is a job without sources.
func script(commands ...string) tranter.Job { return coordinatortest.Script(commands...) }

// with returns the payload with variables added.
func with(job tranter.Job, pairs ...string) tranter.Job {
	for i := 0; i < len(pairs); i += 2 {
		job.Variables = append(job.Variables, tranter.Variable{Key: pairs[i], Value: pairs[i+1], Public: true})
	}
	return job
}

// after returns the payload with an after_script.
func after(job tranter.Job, commands ...string) tranter.Job {
	job.Steps = append(job.Steps, tranter.JobStep{Name: "after_script", Script: commands, Timeout: 3600, When: "always", AllowFailure: true})
	return job
}

// repository makes a git repository with the given files.
func repository(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "."}, {"-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "first"}} {
		if out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return dir
}
