//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/bench/measure"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/store"
)

// site is a coordinator, and a manager that works for it.
type site struct {
	bench   *bench
	dir     string
	c       *coordinator.Coordinator
	unserve context.CancelFunc
	served  chan error
	short   string // the runner's token
	manager *exec.Cmd
	ended   chan error // of the manager
	log     journal
	cpu     time.Duration // of the manager and what it had started, once it has ended
	memory  float64       // most of the manager, MB
}

// section is what of a configuration a measurement chooses.
type section struct {
	concurrent, limit int
	helper            bool
	access            string // to engines; empty: ssh
	machine           string // lines of [runners.machine], then its tables
	bare              bool   // machines get no images beforehand
}

// journal is what the manager logs.
type journal struct {
	mu    sync.Mutex
	lines []line
	text  bytes.Buffer
}

// line is one that the manager has logged.
type line struct {
	At      time.Time `json:"time"`
	Message string    `json:"msg"`
	Machine string    `json:"machine"`
	Steps   string    `json:"steps"`
}

// read takes the log until its end.
func (l *journal) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var parsed line
		err := json.Unmarshal(lines.Bytes(), &parsed)
		l.mu.Lock()
		l.text.Write(append(lines.Bytes(), '\n'))
		if err == nil {
			l.lines = append(l.lines, parsed)
		}
		l.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, r) // of a line that is too long
}

// with returns the lines of a message.
func (l *journal) with(message string) []line {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []line
	for _, one := range l.lines {
		if one.Message == message {
			found = append(found, one)
		}
	}
	return found
}

func (l *journal) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// What the manager logs.
const (
	saidWanted   = "A machine is to be created"
	saidReady    = "The machine is ready"
	saidWarm     = "The machine is warm"
	saidPrepared = "A job is prepared on the machine"
	saidGone     = "The machine is gone"
)

// open makes a coordinator and starts a manager.
func (b *bench) open(ctx context.Context, sec section) (s *site, err error) {
	s = &site{bench: b, ended: make(chan error, 1), served: make(chan error, 1)}
	if s.dir, err = os.MkdirTemp(b.dir, "site-"); err != nil {
		return nil, err
	}
	url, err := s.listen(ctx)
	if err == nil {
		err = s.configure(url, sec)
	}
	if err == nil {
		err = s.start()
	}
	if err != nil {
		return nil, errors.Join(err, s.close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// listen starts the coordinator and returns its address. Jobs have no sources, so only the manager asks it.
func (s *site) listen(ctx context.Context) (url string, err error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	url = "http://" + listener.Addr().String()
	s.c, err = coordinator.Open(coordinator.Options{Dir: filepath.Join(s.dir, "gitlab"), URL: url, UpdateInterval: time.Minute})
	if err != nil {
		return "", errors.Join(err, listener.Close())
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.unserve = stop
	go func() { s.served <- s.c.Serve(serving, listener) }()
	return url, nil
}

func (s *site) configure(url string, sec section) error {
	runner, err := s.c.CreateRunner(coordinator.RunnerSpec{Description: "bench", RunUntagged: true})
	if err != nil {
		return err
	}
	s.short = runner.Token.Short()
	s.bench.runners = append(s.bench.runners, s.short)
	images, helper := fmt.Sprintf("%q", s.bench.image), "disable_helper = true"
	if sec.helper {
		images, helper = images+fmt.Sprintf(", %q", s.bench.helper), fmt.Sprintf("helper_image = %q", s.bench.helper)
	}
	if sec.bare {
		images = ""
	}
	access := sec.access
	if access == "" {
		access = "ssh"
	}
	text := fmt.Sprintf(`concurrent = %d
[[runners]]
name = "bench"
url = %q
token = %q
executor = "docker+machine"
limit = %d
[runners.docker]
image = %q
pull_policy = "if-not-present"
network_mode = "host"
disable_cache = true
volumes = []
%s
[runners.machine]
MachineName = "m-%%s"
%s
[runners.machine.engine]
access = %q
preload_images = [%s]
[runners.machine.provision]
notices = ["none"]
`, sec.concurrent, url, runner.Token.Reveal(), sec.limit, s.bench.image, helper, sec.machine, access, images)
	return os.WriteFile(s.path("config.toml"), []byte(text), 0o600)
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) start() error {
	cmd := exec.Command(s.bench.program, "run", "--config", s.path("config.toml"), "--state-dir", s.path("state"), //nolint:gosec // the user's
		"--working-directory", s.dir, "--log-format", "json", "--log-level", "debug")
	cmd.Env = append(os.Environ(), "HOME="+s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this process, which stops it
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	cmd.Stdout = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	s.manager = cmd
	go func() {
		s.log.read(out)
		s.ended <- cmd.Wait()
	}()
	return nil
}

// close stops the manager and the coordinator, and removes the machines.
func (s *site) close(ctx context.Context) error {
	var errs []error
	errs = append(errs, s.stop())
	if s.unserve != nil {
		s.unserve()
		errs = append(errs, <-s.served)
	}
	if s.c != nil {
		errs = append(errs, s.c.Close())
	}
	if s.short != "" {
		errs = append(errs, s.bench.sweep(ctx, s.short))
	}
	if s.bench.logs {
		fmt.Fprint(os.Stderr, s.log.String())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// stop ends the manager, and says what it has taken. A second call does nothing.
func (s *site) stop() error {
	if s.manager == nil {
		return nil
	}
	cmd := s.manager
	s.manager = nil
	s.memory = float64(measure.MemoryOf(cmd.Process.Pid).Peak) / 1e6
	_ = cmd.Process.Signal(syscall.SIGTERM)
	const patience = 30 * time.Second
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	err := <-s.ended
	timer.Stop()
	if p := cmd.ProcessState; p != nil {
		s.cpu = p.UserTime() + p.SystemTime()
	}
	if err != nil {
		return fmt.Errorf("the manager: %w\n%s", err, s.log.String())
	}
	return nil
}

// busy is the processor time of the manager so far.
func (s *site) busy() time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.manager.Process.Pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	const tick = 10 * time.Millisecond
	var ticks int64
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
		n, _ := strconv.ParseInt(string(fields[i]), 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * tick
}

// await waits until the manager has logged a message so many times, and returns those lines.
func (s *site) await(ctx context.Context, message string, count int) ([]line, error) {
	const limit = 3 * time.Minute
	ctx, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not logged %d times within %v: %s", count, limit, message))
	defer stop()
	for {
		if found := s.log.with(message); len(found) >= count {
			return found, nil
		}
		select {
		case err := <-s.ended:
			s.ended <- err
			return nil, fmt.Errorf("the manager has ended: %w\n%s", err, s.log.String())
		default:
		}
		if err := settle(ctx, 5*time.Millisecond); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, s.log.String())
		}
	}
}

// enqueue queues jobs.
func (s *site) enqueue(count int, script string) ([]int64, error) {
	var ids []int64
	for range count {
		id, err := s.c.Enqueue(tranter.Job{
			Info:      tranter.JobInfo{Name: "bench", Stage: "test", ProjectID: 1, ProjectFullPath: "bench/machines"},
			Variables: []tranter.Variable{{Key: "GIT_STRATEGY", Value: "none"}},
			Steps:     []tranter.JobStep{{Name: "script", Script: []string{script}, Timeout: 3600, When: "on_success"}},
		})
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// finish waits until jobs are over.
func (s *site) finish(ctx context.Context, ids []int64) ([]coordinator.JobView, error) {
	const limit = 5 * time.Minute
	var views []coordinator.JobView
	for _, id := range ids {
		waiting, stop := context.WithTimeout(ctx, limit)
		v, err := s.c.Wait(waiting, id, func(v coordinator.JobView) bool { return v.Status.Finished() })
		stop()
		if err != nil {
			return nil, fmt.Errorf("wait for job %d: %w\n%s", id, err, s.log.String())
		}
		if v.Status != coordinator.Success {
			return nil, fmt.Errorf("job %d: %s, %s\n%s", id, v.Status, v.Problem, s.log.String())
		}
		views = append(views, v)
	}
	return views, nil
}

// work has jobs done.
func (s *site) work(ctx context.Context, count int, script string) ([]coordinator.JobView, error) {
	ids, err := s.enqueue(count, script)
	if err != nil {
		return nil, err
	}
	return s.finish(ctx, ids)
}

// history returns what has happened to each machine that was wanted, in that order, once the manager has ended.
func (s *site) history(ctx context.Context) ([][]fleet.Event, error) {
	st, err := store.Open(ctx, s.path("state/tranter.db"))
	if err != nil {
		return nil, err
	}
	var all [][]fleet.Event
	for _, wanted := range s.log.with(saidWanted) {
		const most = 10_000
		events, failed := st.Machines().History(ctx, wanted.Machine, most)
		err = errors.Join(err, failed)
		all = append(all, events)
	}
	return all, errors.Join(err, st.Close())
}
