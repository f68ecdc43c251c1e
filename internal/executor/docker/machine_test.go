package docker_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/remote"
	"github.com/tranter-ci/tranter/internal/remote/sshtest"
)

// machine is a way to the engine that goes over SSH to where the engine is, as to a machine's, and can be lost.
type machine struct {
	conn   *remote.Conn
	socket string

	mu    sync.Mutex
	gone  error
	open  []net.Conn
	dials int
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	s := sshtest.Start(t)
	m := &machine{socket: strings.TrimPrefix(enginetest.Host(t), "unix://")}
	target, _, err := remote.Find(s.URL(""), s.Env)
	if err == nil {
		m.conn, err = remote.Dial(t.Context(), target)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.conn.Close() })
	return m
}

func (m *machine) dialed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dials
}

func (m *machine) dial(ctx context.Context) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dials++
	if m.gone != nil {
		return nil, m.gone
	}
	c, err := m.conn.Dial(ctx, "unix", m.socket)
	if err == nil {
		m.open = append(m.open, c)
	}
	return c, err
}

// lose ends all connections to the machine, and lets nobody make another one, for the reason.
func (m *machine) lose(why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = why
	for _, c := range m.open {
		_ = c.Close()
	}
	m.open = nil
}

// on makes the rig's jobs run on a machine called name. Its settings' host is one that nothing may use.
func (r *rig) on(m *machine, name string) {
	r.settings.Host = "unix:///nowhere/docker.sock"
	r.options.Dial, r.options.Address = m.dial, name
}

// manager returns an executor of the rig's options, as another manager has it.
func (r *rig) manager(change func(*docker.Options)) *docker.Executor {
	o := r.options
	o.Settings = r.settings
	if change != nil {
		change(&o)
	}
	return docker.New(o)
}

func TestAJobOnAMachine(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.shell = "sh"
	m := newMachine(t)
	host := r.settings.Host
	r.on(m, "runner-1")
	r.options.WarmImages = []string{r.settings.Image}
	r.executor = r.manager(nil)
	if err := r.executor.Warm(r.context()); err != nil {
		t.Fatal(err)
	}
	has(t, r.all("echo here"), "here\n")
	if name := string(r.session.Ref()); !strings.Contains(name, `"machine":"runner-1"`) || !docker.Refers(r.session.Ref()) {
		t.Errorf("on machine %q", name)
	}
	if files, _ := filepath.Glob(filepath.Join(r.options.State, "docker", "*")); len(files) > 0 {
		t.Errorf("kept of a machine that will not come back: %v", files)
	}
	for name, c := range map[string]struct {
		change func(*docker.Options)
		says   string
	}{
		"another machine's": {func(o *docker.Options) { o.Address = "runner-2" }, "the job is on machine runner-1"},
		"no machine's":      {func(o *docker.Options) { o.Dial, o.Settings.Host = nil, host }, "the job is on machine runner-1"},
	} {
		if _, err := r.manager(c.change).Reopen(r.context(), r.session.Ref()); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s executor: %v", name, err)
		}
	}
	if _, err := r.executor.Reopen(r.context(), []byte(`{"docker":{"host":"`+host+`"},"session":"s","containers":{"build":"b"}}`)); err == nil || !strings.Contains(err.Error(), "not on machine runner-1") {
		t.Errorf("a job elsewhere: %v", err)
	}
	again, err := r.manager(nil).Reopen(r.context(), r.session.Ref())
	if err != nil {
		t.Fatal(err)
	}
	r.session = again
	has(t, r.good(r.perform(r.phase("finish", tranter.PlaceHelper, "echo the end"))), "the end\n")
	r.close()
	if err := r.executor.Sweep(r.context(), func(string) bool { return false }); err != nil {
		t.Error(err)
	}
}

func TestAMachineIsLetGoAndTakenUpAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	m := newMachine(t)
	r.on(m, "runner-1")
	r.executor = r.manager(nil)
	for range 2 {
		if err := r.executor.Warm(r.context()); err != nil {
			t.Fatal(err)
		}
		before := m.dialed()
		if err := r.executor.Ready(); err != nil || m.dialed() != before {
			t.Errorf("%v after %d more dials", err, m.dialed()-before)
		}
		if err := errors.Join(r.executor.Disconnect(), r.executor.Disconnect()); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatAMachineIsNotReadyFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	m := newMachine(t)
	r.on(m, "runner-1")
	r.options.WarmImages = []string{"localhost:1/no/such:image"}
	r.settings.PullPolicy = []string{"never"}
	r.executor = r.manager(nil)
	err := r.executor.Warm(r.context())
	if err == nil || !strings.Contains(err.Error(), "localhost:1/no/such:image") {
		t.Errorf("without an image: %v", err)
	}
	r.open() // the machine can be used all the same
	r.close()
	m.lose(tranter.ErrMachineLost)
	if err := r.try(); !errors.Is(err, tranter.ErrMachineLost) {
		t.Errorf("a job on a machine that was lost since: %v", err)
	}
	_ = r.executor.Disconnect()
	began := time.Now()
	if err := r.executor.Warm(r.context()); !errors.Is(err, tranter.ErrMachineLost) || time.Since(began) > 5*time.Second {
		t.Errorf("a lost machine, after %v: %v", time.Since(began), err)
	}
}

func TestALostMachineEndsItsJobs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		why      error
		patience time.Duration
	}{
		"its pool says so":       {why: tranter.ErrMachineLost, patience: time.Minute},
		"it does not answer":     {why: errors.New("no route to host"), patience: time.Second},
		"it says so with detail": {why: errors.Join(errors.New("the provider has taken it away"), tranter.ErrMachineLost), patience: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "busybox")
			r.shell = "sh"
			m := newMachine(t)
			r.on(m, "runner-1")
			r.settings.ReconnectTimeout = c.patience
			r.open()
			r.sources()
			p := r.phase("script", tranter.PlaceBuild, "echo begun; sleep 1000")
			if err := r.session.Start(r.context(), p); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			log := &milestones{at: []string{"begun"}, do: func() { began = time.Now(); m.lose(c.why) }}
			_, err := r.session.Attach(r.context(), p.ID, 0, log)
			if !errors.Is(err, tranter.ErrMachineLost) || time.Since(began) > 10*time.Second {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
			if errors.Is(c.why, tranter.ErrMachineLost) {
				if err := r.session.Start(r.context(), r.phase("finish", tranter.PlaceHelper, "true")); !errors.Is(err, tranter.ErrMachineLost) {
					t.Errorf("the next phase: %v", err)
				}
				if err := r.session.Close(r.context()); err != nil {
					t.Errorf("there is nothing to remove on a machine that is lost: %v", err)
				}
			}
			m.lose(nil) // it was not: what it has is removed
			if r.session, err = r.manager(nil).Reopen(r.context(), r.session.Ref()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestAMachinesEngineIsNotLookedForInTheEnvironment(t *testing.T) { // not in parallel: it changes the environment
	o := options(t, settings(t, "busybox"))
	socket := strings.TrimPrefix(o.Settings.Host, "unix://")
	o.Settings.Host = ""
	t.Setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
	t.Setenv("DOCKER_API_VERSION", "nonsense")
	t.Setenv("DOCKER_CERT_PATH", os.DevNull)
	var dials atomic.Int32
	o.Address, o.Dial = "runner-1", func(ctx context.Context) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	e := docker.New(o)
	if err := e.Sweep(t.Context(), func(string) bool { return true }); err != nil || dials.Load() == 0 {
		t.Errorf("%v after %d dials", err, dials.Load())
	}
}
