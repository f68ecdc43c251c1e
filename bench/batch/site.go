//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/bench/measure"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// project is the one whose jobs are run.
const project = "bench/batch"

// site is a coordinator, and a manager that works for it.
type site struct {
	bench   *bench
	dir     string
	c       *coordinator.Coordinator
	project int64
	unserve context.CancelFunc
	served  chan error
	front   *http.Server // before the coordinator, if calls are counted
	asked   struct{ jobs, pending, other atomic.Int64 }
	manager *measure.Manager
}

// section is what of a configuration a measurement chooses.
type section struct {
	concurrent int
	executor   string
	order      string
	batch      string // lines of [runners.batch]
	tables     string // further ones of the runner
	pending    string // lines of [runners.batch.pending]
	counted    bool   // calls of the server are counted
}

// open makes a coordinator and starts a manager.
func (b *bench) open(ctx context.Context, sec section) (s *site, err error) {
	s = &site{bench: b, served: make(chan error, 1)}
	if s.dir, err = os.MkdirTemp(b.dir, "site-"); err != nil {
		return nil, err
	}
	address, err := s.listen(ctx, sec.counted)
	if err == nil {
		err = s.configure(address, sec)
	}
	if err == nil {
		s.manager, err = measure.Start(b.program, []string{
			"run", "--config", s.path("config.toml"), "--state-dir", s.path("state"), "--working-directory", s.dir, "--log-format", "json", "--log-level", "debug",
		}, append(b.environment(), "HOME="+s.dir))
	}
	if err != nil {
		return nil, errors.Join(err, s.close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// listen starts the coordinator and returns its address. Jobs have no sources, so only the manager asks it.
func (s *site) listen(ctx context.Context, counted bool) (address string, err error) {
	listener, address, err := loopback(ctx)
	if err != nil {
		return "", err
	}
	s.c, err = coordinator.Open(coordinator.Options{Dir: s.path("gitlab"), URL: address, UpdateInterval: time.Minute})
	if err != nil {
		return "", errors.Join(err, listener.Close())
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.unserve = stop
	go func() { s.served <- s.c.Serve(serving, listener) }()
	made, err := s.c.CreateProject(project, "")
	if err != nil || !counted {
		s.project = made.ID
		return address, err
	}
	s.project = made.ID
	return s.count(ctx, address)
}

func loopback(ctx context.Context) (net.Listener, string, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	return l, "http://" + l.Addr().String(), nil
}

// count has calls go through what counts them, and returns its address.
func (s *site) count(ctx context.Context, behind string) (string, error) {
	to, err := url.Parse(behind)
	if err != nil {
		return "", err
	}
	listener, address, err := loopback(ctx)
	if err != nil {
		return "", err
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
		w.WriteHeader(http.StatusBadGateway) // when the manager ends
	}}
	s.front = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/jobs/request"):
			s.asked.jobs.Add(1)
		case strings.HasSuffix(r.URL.Path, "/jobs"):
			s.asked.pending.Add(1)
		default:
			s.asked.other.Add(1)
		}
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = s.front.Serve(listener) }()
	return address, nil
}

func (s *site) configure(address string, sec section) error {
	runner, err := s.c.CreateRunner(coordinator.RunnerSpec{Description: "bench", RunUntagged: true, MaximumTimeout: longest})
	if err != nil {
		return err
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, `concurrent = %d
[[runners]]
name = "bench"
url = %q
token = %q
executor = %q
builds_dir = %q
%s
[runners.batch]
scheduler = "slurm"
order = %q
directory = %q
partition = "batch"
cpus = 1
memory = "100m"
walltime = "20m"
margin = "1m"
%s
`, sec.concurrent, address, runner.Token.Reveal(), sec.executor, s.path("builds"), sec.tables, sec.order, s.path("shared"), sec.batch)
	if sec.order == allocateFirst {
		fmt.Fprintf(&text, "[runners.batch.pending]\ntoken = %q\nprojects = [%q]\n%s\n", s.c.AdminToken().Reveal(), project, sec.pending)
	}
	return os.WriteFile(s.path("config.toml"), text.Bytes(), 0o600)
}

// longest is the longest timeout that a job may have: from it follows whether a job that waits fits into what is left of a
// batch job's walltime.
const longest = 10 * time.Minute

// The orders of [runners.batch].
const (
	allocateFirst = "allocate-first"
	takeFirst     = "take-first"
)

// close stops the manager and the coordinator, and ends the batch jobs.
func (s *site) close(ctx context.Context) error {
	var errs []error
	errs = append(errs, s.manager.Stop())
	if s.front != nil {
		errs = append(errs, s.front.Close())
	}
	if s.unserve != nil {
		s.unserve()
		errs = append(errs, <-s.served)
	}
	if s.c != nil {
		errs = append(errs, s.c.Close())
	}
	if s.bench.logs && s.manager != nil {
		fmt.Fprint(os.Stderr, s.manager.Log.String())
	}
	errs = append(errs, s.bench.empty(ctx))
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// enqueue queues jobs.
func (s *site) enqueue(count int, script ...string) ([]int64, error) {
	var ids []int64
	for range count {
		id, err := s.c.Enqueue(tranter.Job{
			Info:      tranter.JobInfo{Name: "bench", Stage: "test", ProjectID: s.project, ProjectFullPath: project},
			Variables: []tranter.Variable{{Key: "GIT_STRATEGY", Value: "none"}},
			Steps:     []tranter.JobStep{{Name: "script", Script: script, Timeout: 600, When: "on_success"}},
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
func (s *site) work(ctx context.Context, count int, script ...string) ([]coordinator.JobView, error) {
	ids, err := s.enqueue(count, script...)
	if err != nil {
		return nil, err
	}
	return s.finish(ctx, ids)
}
