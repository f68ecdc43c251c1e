//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// site is a coordinator, and a runner that works for it.
type site struct {
	bench    *bench
	scenario scenario
	dir      string
	c        *coordinator.Coordinator
	project  int64
	commit   coordinator.Commit
	short    string // the runner's token
	runner   *exec.Cmd
	ended    chan error // of the runner
	output   bytes.Buffer
	served   chan error
	unserve  context.CancelFunc
	idle     float64 // cores that other work takes before the first job
	timeline *timeline
	closers  []func() error
}

// open makes a coordinator and starts a runner for a scenario. With a timeline, what they ask of the engine and of the
// coordinator is noted there.
func (b *bench) open(ctx context.Context, sc scenario, t *timeline) (s *site, err error) {
	s = &site{bench: b, scenario: sc, ended: make(chan error, 1), served: make(chan error, 1), timeline: t}
	if s.dir, err = os.MkdirTemp(b.dir, "site-"); err != nil {
		return nil, err
	}
	url, host, err := s.listen(ctx)
	if err == nil {
		err = s.configure(ctx, url, host)
	}
	if err == nil {
		err = s.start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// listen starts the coordinator, and returns the addresses of it and of the engine, as the runner is to know them.
func (s *site) listen(ctx context.Context) (url, host string, err error) {
	address, err := s.bench.address(s.scenario)
	if err != nil {
		return "", "", err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return "", "", err
	}
	url, host = "http://"+listener.Addr().String(), s.bench.host
	if s.timeline != nil {
		socket := filepath.Join(s.dir, "engine.sock")
		host = "unix://" + socket
		stop, err := s.timeline.serve("unix", socket, s.bench.socket, engineCalls)
		if err != nil {
			return "", "", errors.Join(err, listener.Close())
		}
		s.closers = append(s.closers, stop)
	}
	s.c, err = coordinator.Open(coordinator.Options{Dir: filepath.Join(s.dir, "gitlab"), URL: url, UpdateInterval: time.Minute})
	if err != nil {
		return "", "", errors.Join(err, listener.Close())
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.unserve = stop
	if s.timeline == nil {
		go func() { s.served <- s.c.Serve(serving, listener) }()
		return url, host, nil
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		stop()
		s.served <- nil
		return "", "", errors.Join(err, listener.Close())
	}
	go func() { s.served <- s.c.Serve(serving, inner) }()
	s.closers = append(s.closers, s.timeline.serveOn(listener, inner.Addr().Network(), inner.Addr().String(), gitlabCalls))
	return url, host, nil
}

func (s *site) configure(ctx context.Context, url, host string) error {
	project, err := s.c.CreateProject("bench/docker", filepath.Join(s.bench.dir, "repo"))
	if err != nil {
		return err
	}
	s.project = project.ID
	if s.commit, err = s.c.Snapshot(ctx, project.ID); err != nil {
		return err
	}
	runner, err := s.c.CreateRunner(coordinator.RunnerSpec{Description: "bench", RunUntagged: true})
	if err != nil {
		return err
	}
	s.short = runner.Token.Short()
	s.bench.runners = append(s.bench.runners, s.short)
	var text strings.Builder
	fmt.Fprintf(&text, "concurrent = %d\n[[runners]]\nname = \"bench\"\nurl = %q\ntoken = %q\nexecutor = \"docker\"\n[runners.docker]\nhost = %q\nimage = %q\npull_policy = \"if-not-present\"\n",
		s.scenario.concurrent, url, runner.Token.Reveal(), host, s.image())
	if s.scenario.noCache {
		text.WriteString("disable_cache = true\nvolumes = []\n")
	} else {
		text.WriteString("volumes = [\"/cache\"]\n")
	}
	if s.scenario.network != "" {
		fmt.Fprintf(&text, "network_mode = %q\n", s.scenario.network)
	}
	if s.bench.helper != "" && !strings.Contains(s.scenario.settings, "disable_helper") {
		fmt.Fprintf(&text, "helper_image = %q\n", s.bench.helper)
	}
	if g := s.bench.group; g.usable() {
		fmt.Fprintf(&text, "cgroup_parent = %q\nservice_cgroup_parent = %q\n", g.parent, g.parent)
	}
	text.WriteString(s.scenario.settings)
	return os.WriteFile(filepath.Join(s.dir, "config.toml"), []byte(text.String()), 0o600)
}

func (s *site) image() string {
	if s.scenario.image != "" {
		return s.bench.images[s.scenario.image]
	}
	return s.bench.images[jobImage]
}

func (s *site) start(ctx context.Context) error {
	cmd := exec.Command(s.bench.program, "run", "--config", filepath.Join(s.dir, "config.toml"), "--state-dir", filepath.Join(s.dir, "state"), "--working-directory", s.dir) //nolint:gosec // the user's
	cmd.Env = append(os.Environ(), "HOME="+s.dir)
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this process, which stops it
	if err := cmd.Start(); err != nil {
		return err
	}
	s.runner = cmd
	go func() { s.ended <- cmd.Wait() }()
	const calm = 2 * time.Second
	if err := settle(ctx, calm); err != nil {
		return err
	}
	before := s.bench.meter.read(cmd.Process.Pid)
	if err := settle(ctx, calm); err != nil {
		return err
	}
	spent := s.bench.meter.read(cmd.Process.Pid).sub(before)
	s.idle = (spent.machine - spent.self - spent.manager).Seconds() / calm.Seconds()
	return nil
}

// close stops the runner and the coordinator. A runner that does not stop is killed; what it leaves is swept later.
func (s *site) close(ctx context.Context) error {
	var errs []error
	if s.runner != nil {
		errs = append(errs, s.stopRunner())
	}
	if s.unserve != nil {
		s.unserve()
		errs = append(errs, <-s.served)
	}
	for _, stop := range s.closers {
		errs = append(errs, stop())
	}
	if s.c != nil {
		errs = append(errs, s.c.Close())
	}
	if s.short != "" {
		errs = append(errs, s.bench.sweep(ctx, "label", labelOf(s.short)))
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

func (s *site) stopRunner() error {
	const patience = 15 * time.Second
	_ = s.runner.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-s.ended:
		if err != nil {
			return fmt.Errorf("the runner: %w\n%s", err, s.output.String())
		}
		return nil
	case <-timer.C:
		_ = s.runner.Process.Kill()
		return fmt.Errorf("the runner did not stop and was killed: %w", <-s.ended)
	}
}

// enqueue queues jobs of the scenario.
func (s *site) enqueue(count int) ([]int64, error) {
	var ids []int64
	for range count {
		id, err := s.c.Enqueue(s.payload())
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (s *site) payload() tranter.Job {
	job := tranter.Job{
		AllowGitFetch: true,
		Info:          tranter.JobInfo{Name: "bench", Stage: "test", ProjectID: s.project, ProjectFullPath: "bench/docker"},
		Git: tranter.GitInfo{
			Ref: s.commit.Ref, SHA: s.commit.SHA, RefType: "branch", ObjectFormat: "sha1", Depth: 20,
			Refspecs: []string{"+refs/heads/*:refs/remotes/origin/*"},
		},
		Variables: s.scenario.variables,
		Steps:     []tranter.JobStep{{Name: "script", Script: []string{"echo MARK"}, Timeout: 3600, When: "on_success"}},
	}
	for i := range s.scenario.services {
		job.Services = append(job.Services, tranter.Image{Name: s.bench.images[serviceImage], Alias: fmt.Sprint("service-", i)})
	}
	return job
}

// finish waits until jobs are over, and returns when each was assigned and had its final state.
func (s *site) finish(ctx context.Context, ids []int64) ([]coordinator.Times, error) {
	const limit = 5 * time.Minute
	var times []coordinator.Times
	for _, id := range ids {
		waiting, stop := context.WithTimeout(ctx, limit)
		v, err := s.c.Wait(waiting, id, func(v coordinator.JobView) bool { return v.Status.Finished() })
		stop()
		if err != nil {
			return nil, fmt.Errorf("wait for job %d: %w\n%s", id, err, s.output.String())
		}
		if v.Status != coordinator.Success {
			return nil, fmt.Errorf("job %d: %s, %s\n%s", id, v.Status, v.Problem, s.output.String())
		}
		times = append(times, v.Times)
	}
	return times, nil
}

// work lets the runner do some jobs, and waits until what they have left is removed.
func (s *site) work(ctx context.Context, count int) ([]coordinator.Times, error) {
	ids, err := s.enqueue(count)
	if err != nil {
		return nil, err
	}
	times, err := s.finish(ctx, ids)
	if err != nil {
		return nil, err
	}
	return times, s.bench.quiet(ctx, s.short)
}
