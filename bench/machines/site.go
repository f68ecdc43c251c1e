//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
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
	manager *measure.Manager
}

// section is what of a configuration a measurement chooses.
type section struct {
	concurrent, limit int
	helper            bool
	access            string // to engines; empty: ssh
	machine           string // lines of [runners.machine], then its tables
	bare              bool   // machines get no images beforehand
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
	s = &site{bench: b, served: make(chan error, 1)}
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

func (s *site) start() (err error) {
	s.manager, err = measure.Start(s.bench.program, []string{
		"run", "--config", s.path("config.toml"), "--state-dir", s.path("state"), "--working-directory", s.dir, "--log-format", "json", "--log-level", "debug",
	}, []string{"HOME=" + s.dir})
	return err
}

// close stops the manager and the coordinator, and removes the machines.
func (s *site) close(ctx context.Context) error {
	var errs []error
	errs = append(errs, s.manager.Stop())
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
	if s.bench.logs && s.manager != nil {
		fmt.Fprint(os.Stderr, s.manager.Log.String())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
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
			return nil, fmt.Errorf("wait for job %d: %w\n%s", id, err, s.manager.Log.String())
		}
		if v.Status != coordinator.Success {
			return nil, fmt.Errorf("job %d: %s, %s\n%s", id, v.Status, v.Problem, s.manager.Log.String())
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
	for _, wanted := range s.manager.Log.With(saidWanted) {
		const most = 10_000
		events, failed := st.Machines().History(ctx, wanted.Machine, most)
		err = errors.Join(err, failed)
		all = append(all, events)
	}
	return all, errors.Join(err, st.Close())
}
