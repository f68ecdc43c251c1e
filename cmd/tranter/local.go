package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/store"
)

// The pace of a runner that polls a coordinator in its own process: nobody else is to be spared.
const (
	localCheckInterval = 20 * time.Millisecond
	localReport        = 250 * time.Millisecond
	localPatience      = 10 * time.Second       // for jobs to be cleaned up after
	localShutdown      = 500 * time.Millisecond // of a stop at once, when the processes of jobs are killed already
)

// errStoppedByUser is why jobs end that are not waited for.
var errStoppedByUser = errors.New("stopped by the user")

// local is a GitLab on loopback and a runner of ours that polls it, both in this process.
type local struct {
	*coordinator.Coordinator
	dir   string // the state directory
	url   string // under which this machine reaches it
	log   *slog.Logger
	serve context.CancelFunc
	owned sync.WaitGroup
	ended error // of serving

	executor localExecutor
	manager  *manager.Manager
	sweeper  tranter.Sweeper // of the executor, if it has one
	machines *machinePools   // nil: there are none
	store    *store.Store    // of the machines
	page     string          // address of the web page; empty: none
	outlook  *outlook        // nil: there is no page
	graph    *pipelineGraph  // that the page shows
}

// openLocal takes the state directory and serves it where only jobs reach it. What a killed process has left at work is
// ended.
func openLocal(ctx context.Context, dir string, executor localExecutor, log *slog.Logger) (*local, error) {
	c, err := coordinator.Open(coordinator.Options{Dir: dir, Log: log, UpdateInterval: time.Second, SweepEvery: 200 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	l := &local{Coordinator: c, dir: dir, log: log, executor: executor}
	err = l.endLeftovers()
	if err == nil {
		err = l.listen(ctx, executor.address)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return l, nil
}

// listen begins to serve on the address.
func (l *local) listen(ctx context.Context, address string) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	l.url = "http://" + listener.Addr().String()
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		l.url = fmt.Sprintf("http://127.0.0.1:%d", tcp.Port)
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.serve = stop
	l.owned.Go(func() { l.ended = l.Serve(serving, listener) })
	return nil
}

// endLeftovers ends the pipelines and agents of a process before this one.
func (l *local) endLeftovers() error {
	for _, v := range l.Pipelines() {
		if v.Status.Finished() {
			continue
		}
		if err := l.Cancel(v.ID, true); err != nil {
			return fmt.Errorf("cancel what an earlier run has left: %w", err)
		}
	}
	if err := l.killAgents(); err != nil {
		return err
	}
	return os.RemoveAll(l.jobsDir())
}

func (l *local) jobsDir() string { return filepath.Join(l.dir, "runner", "jobs") }

// killAgents ends all processes of jobs at once.
func (l *local) killAgents() error {
	phases, err := filepath.Glob(filepath.Join(l.jobsDir(), "*", "phase-*"))
	if err != nil {
		return fmt.Errorf("find the agents of jobs: %w", err)
	}
	var errs []error
	for _, dir := range phases {
		errs = append(errs, agent.End(dir))
	}
	return errors.Join(errs...)
}

// runnerName is under which the coordinator knows the runner of this process.
const runnerName = "this host"

// ownRunner returns the runner of this state directory, made if there is none: its token stays, and with it the
// directories of builds and caches, which are named by it.
func (l *local) ownRunner() (coordinator.Runner, error) {
	for _, r := range l.Runners() {
		if r.Description == runnerName {
			return r, nil
		}
	}
	return l.CreateRunner(coordinator.RunnerSpec{RunUntagged: true, Description: runnerName})
}

// start lets the runner take jobs, also those with the given tags.
func (l *local) start(ctx context.Context, concurrent int, tags []string) error {
	runner, err := l.ownRunner()
	if err != nil {
		return err
	}
	if err := l.setTags(ctx, runner.ID, tags); err != nil {
		return err
	}
	reachLoopback()
	if err := l.openOutlook(ctx); err != nil {
		return err
	}
	settings, err := l.settings(ctx, runner.Token, concurrent)
	if err != nil {
		return err
	}
	l.sweeper, _ = settings.Runners[0].Executor.(tranter.Sweeper)
	options := manager.Options{Dir: l.jobsDir(), Records: forgetful{}, Log: l.log, Secrets: externalSecrets()}
	l.outlook.into(ctx, &options)
	l.manager = manager.New(options, settings)
	if err := l.look(ctx); err != nil {
		return err
	}
	running := context.WithoutCancel(ctx) // it is drained, or stopped, when the pipeline is over
	l.owned.Go(func() {
		if err := l.manager.Run(running); err != nil {
			l.log.Error("The runner has failed", "error", err)
		}
	})
	return nil
}

// settings are those of a configuration with one section, for this coordinator.
func (l *local) settings(ctx context.Context, token tranter.Secret, concurrent int) (manager.Settings, error) {
	c := config.Default()
	c.Concurrent, c.CheckInterval, c.ShutdownTimeout = concurrent, localCheckInterval, localShutdown
	r := config.DefaultRunner()
	r.Name, r.URL, r.Token = runnerName, l.url, token
	r.BuildsDir, r.CacheDir = filepath.Join(l.dir, "runner", "builds"), filepath.Join(l.dir, "runner", "cache")
	l.executor.configure(&r)
	around, err := newSurroundings(l.dir, "", "s_local", l.log)
	if err != nil {
		return manager.Settings{}, err
	}
	if r.Executor != "shell" {
		around.state = l.dir
	}
	if r.Executor == machineExecutor {
		if l.machines, err = l.openMachines(ctx); err != nil {
			return manager.Settings{}, err
		}
		around.machines = l.machines
	}
	ready, err := around.runner(c, r)
	if err != nil {
		return manager.Settings{}, err
	}
	ready.Coordinator = eager{ready.Coordinator}
	ready.Limits.Report = localReport
	return manager.Settings{
		Concurrent: c.Concurrent, CheckInterval: c.CheckInterval, ShutdownTimeout: c.ShutdownTimeout, Runners: []manager.Runner{ready},
	}, nil
}

// setTags lets the runner take jobs with the tags. It goes the way of any administrator.
func (l *local) setTags(ctx context.Context, runner int64, tags []string) error {
	if tags == nil {
		tags = []string{}
	}
	body, err := json.Marshal(map[string]any{"tag_list": tags, "run_untagged": true, "paused": false})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, fmt.Sprintf("%s/api/v4/runners/%d", l.url, runner), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Private-Token", l.AdminToken().Reveal())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("tell the coordinator the runner's tags: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return fmt.Errorf("tell the coordinator the runner's tags: it answered %s: %s", resp.Status, text)
	}
	return nil
}

// stop ends all. With now, the processes of jobs are killed instead of waited for.
func (l *local) stop(now bool) error {
	var errs []error
	if l.manager != nil {
		l.manager.Drain()
		if now {
			l.manager.Stop(errStoppedByUser)
			errs = append(errs, l.killAgents())
		}
		// A job that the coordinator has given up may still be at work.
		limit := time.AfterFunc(localPatience, func() { l.manager.Stop(errStoppedByUser) })
		defer limit.Stop()
	}
	l.serve() // requests that are held end, and with them the polling
	l.owned.Wait()
	errs = append(errs, l.sweep(now), l.closeMachines(), l.outlook.close())
	if now {
		errs = append(errs, l.killAgents(), os.RemoveAll(l.jobsDir())) // one may have been started meanwhile
	}
	return errors.Join(append(errs, l.ended, l.Close())...)
}

// sweepTime is how long the removal of what jobs have left may take.
const sweepTime = 20 * time.Second

// sweep removes the containers of jobs that were not waited for.
func (l *local) sweep(now bool) error {
	if !now || l.sweeper == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(context.Background(), sweepTime)
	defer stop()
	return l.sweeper.Sweep(ctx, func(string) bool { return false })
}

// eager leaves the interval of reports as it is: a server asks for a second at least, which is long on one machine.
type eager struct{ tranter.Coordinator }

// Append implements tranter.Coordinator.
func (e eager) Append(ctx context.Context, job tranter.JobRef, offset int64, log []byte) (tranter.Answer, error) {
	a, err := e.Coordinator.Append(ctx, job, offset, log)
	a.Interval = 0
	return a, err
}

// Update implements tranter.Coordinator.
func (e eager) Update(ctx context.Context, job tranter.JobRef, u tranter.Update) (tranter.Answer, error) {
	a, err := e.Coordinator.Update(ctx, job, u)
	a.Interval = 0
	return a, err
}

// forgetful keeps no records: no job of a local pipeline outlives this process.
type forgetful struct{}

// Save implements manager.Records.
func (forgetful) Save(context.Context, tranter.JobRecord) error { return nil }

// Remove implements manager.Records.
func (forgetful) Remove(context.Context, string) error { return nil }

// Jobs implements manager.Records.
func (forgetful) Jobs(context.Context) ([]tranter.JobRecord, error) { return nil, nil }

// reachLoopback keeps git in jobs from asking a proxy for what is on this machine.
func reachLoopback() {
	for _, name := range []string{"no_proxy", "NO_PROXY"} {
		have := os.Getenv(name)
		if !strings.Contains(have, "127.0.0.1") {
			_ = os.Setenv(name, strings.TrimPrefix(have+",127.0.0.1", ",")) // it cannot fail for such a name
		}
	}
}
