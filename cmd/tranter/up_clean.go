package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/view"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cache/remote"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
	"github.com/tranter-ci/tranter/internal/gitlab"
)

// errGoingDown is why jobs end when all is removed.
var errGoingDown = errors.New("the runner is taken down")

// clean removes all that the record names, for the cleanup timeout at most. What is left stays in the record, and the error
// names it. A patient one asks a server that does not answer again and again.
func (u *launcher) clean(ctx context.Context, patient bool) error {
	ctx, stop := context.WithTimeoutCause(ctx, u.want.cleanupTimeout, fmt.Errorf("--cleanup-timeout of %s is over", u.want.cleanupTimeout))
	defer stop()
	c := cleaning{launcher: u, patient: patient}
	c.readConfigs()
	end, ended := c.endJobs(ctx)
	var around sync.WaitGroup
	var fromServer, fromEngines, fromBuckets, machines error
	var left []upRegistration
	var prefixes []string
	around.Go(func() { left, fromServer = c.unregister(ctx) })
	around.Go(func() { fromEngines = c.emptyEngines(ctx) })
	around.Go(func() { prefixes, fromBuckets = c.emptyBuckets(ctx) })
	around.Go(func() { machines = end(ctx) })
	around.Wait()
	work := errors.Join(ended, machines, fromEngines)
	if work == nil && fromBuckets == nil {
		work = c.removeFiles()
	}
	u.record.Registrations, u.record.Prefixes = left, prefixes
	u.record.Work = u.record.Work && (work != nil || fromBuckets != nil)
	return errors.Join(fromServer, work, fromBuckets, u.record.write())
}

// cleaning is the removal of what was made.
type cleaning struct {
	*launcher

	patient bool
	configs []config.Config // those that managers have run with, the last one first
	broken  error           // why one of them can't be had
}

// last is the configuration that the last manager had; without runners if there is none.
func (c cleaning) last() config.Config {
	if len(c.configs) == 0 {
		return config.Default()
	}
	return c.configs[0]
}

// runners are those of all configurations.
func (c cleaning) runners() []config.Runner {
	var all []config.Runner
	for _, one := range c.configs {
		all = append(all, one.Runners...)
	}
	return all
}

// leftConfigPattern are the configurations of starts of which something was left when another one came.
const leftConfigPattern = "left-*.toml"

// leave puts the configuration aside that is needed to remove what could not be removed.
func (u *launcher) leave() error {
	if !u.record.Work && len(u.record.Prefixes) == 0 {
		return nil
	}
	path := filepath.Join(u.dir, strings.Replace(leftConfigPattern, "*", time.Now().UTC().Format(upLogTime), 1))
	if err := os.Rename(u.configPath(), path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep the configuration of an earlier start: %w", err)
	}
	return nil
}

// leftConfigs are the paths of all configurations in a state directory, the last one first.
func leftConfigs(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(dir, leftConfigPattern))
	slices.Sort(found)
	slices.Reverse(found)
	return append([]string{filepath.Join(dir, upConfigFile)}, found...)
}

// readConfigs reads the configurations that are in the state directory.
func (c *cleaning) readConfigs() {
	for _, path := range leftConfigs(c.dir) {
		settings, problems, err := parseConfig(path, false)
		if err == nil && config.Failed(problems, false) {
			err = problemList(problems)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // no manager has run with it
		case err != nil:
			c.broken = errors.Join(c.broken, err)
			c.log.Warn("A configuration that the runner had can't be used; what is removed is found without it", "config", path, "error", err)
		default:
			c.configs = append(c.configs, settings)
		}
	}
}

// idleSource is a configuration with which machines are removed and none is made.
type idleSource struct {
	configFile

	config config.Config
}

func (s idleSource) read() (config.Config, []config.Problem, error) {
	c := s.config
	c.Runners = slices.Clone(c.Runners)
	for i := range c.Runners {
		m := &c.Runners[i].Machine
		m.IdleCount, m.IdleCountMin, m.IdleScaleFactor, m.StoppedCount, m.Autoscaling = 0, 0, 0, 0, nil
	}
	c.SessionServer = config.SessionServer{}
	return c, nil, nil
}

// endJobs ends the jobs that the state directory knows. The returned function removes the machines.
func (c cleaning) endJobs(ctx context.Context) (removeMachines func(context.Context) error, err error) {
	nothing := func(context.Context) error { return nil }
	if !c.record.Work {
		return nothing, nil
	}
	if _, err := os.Stat(filepath.Join(c.dir, "tranter.db")); errors.Is(err, fs.ErrNotExist) {
		return nothing, nil
	}
	state := c.dir
	source := idleSource{configFile(c.configPath()), c.last()}
	settings, _, _ := source.read()
	m, closeAll, err := runFlags{source: source, state: &state, dir: c.workDir(), logs: c.logs}.manager(ctx, settings, c.log)
	if err != nil && len(settings.Runners) > 0 {
		c.log.Warn("The configuration that the runner had can't be used; what is removed is found without it", "error", err)
		settings.Runners = nil
		m, closeAll, err = runFlags{source: source, state: &state, dir: c.workDir(), logs: c.logs}.manager(ctx, settings, c.log)
	}
	if err != nil {
		return nothing, fmt.Errorf("jobs and machines: %w", err)
	}
	m.Stop(errGoingDown) //nolint:contextcheck // it ends the manager, not this call
	err = m.Run(ctx)
	return func(ctx context.Context) error {
		errs := []error{m.around.machines.removeAll(ctx, c.want.cleanupTimeout), c.leftMachines(ctx, m)}
		m.around.cache.close()
		return errors.Join(append(errs, closeAll())...)
	}, err
}

// leftMachines names the machines that are not gone.
func (c cleaning) leftMachines(ctx context.Context, m *daemon) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	book := m.around.machines.book
	pools, err := book.Pools(ctx)
	errs := []error{err}
	for _, pool := range pools {
		machines, err := book.Load(ctx, pool)
		errs = append(errs, err)
		for _, left := range machines {
			errs = append(errs, fmt.Errorf("machine %s is left: %s", left.Name, view.Printable(strings.TrimSpace(left.Reason+" "+left.Problem))))
		}
	}
	return errors.Join(errs...)
}

// unregister removes the runners from their servers, and returns those that are left.
func (c cleaning) unregister(ctx context.Context) ([]upRegistration, error) {
	var left []upRegistration
	var errs []error
	for _, r := range c.record.Registrations {
		if err := c.unregisterOne(ctx, r); err != nil {
			left, errs = append(left, r), append(errs, err)
		}
	}
	return left, errors.Join(errs...)
}

func (c cleaning) unregisterOne(ctx context.Context, r upRegistration) error {
	switch {
	case r.Kind == kindLegacy:
		return nil // it was there before
	case r.Token == "":
		return errors.New(r.lost())
	}
	for wait := time.Second; ; wait = min(2*wait, 10*time.Second) {
		err := c.unregisterAt(ctx, r)
		switch {
		case err == nil:
			c.log.Info("The runner is unregistered", "runner", r.Token.Short(), "url", r.URL)
			return nil
		case errors.Is(err, tranter.ErrForbidden):
			c.log.Warn("GitLab does not know the runner any more", "runner", r.Token.Short(), "url", r.URL)
			return nil
		}
		if !c.patient || !passingFault(err) || !pause(ctx, wait) {
			return fmt.Errorf("the runner %q (%s, id %d) could not be unregistered from %s: %w", r.Name, r.Token.Short(), r.ID, r.URL, err)
		}
		c.log.Warn("GitLab can't be asked; trying again", "error", err)
	}
}

func (c cleaning) unregisterAt(ctx context.Context, r upRegistration) error {
	runner := config.DefaultRunner()
	runner.URL, runner.Token, runner.Name = r.URL, r.Token, r.Name
	runner.TLSCAFile, runner.TLSCertFile, runner.TLSKeyFile = r.CA, r.Cert, r.Key
	for _, now := range c.runners() { // the manager may have replaced the token
		if now.ID != 0 && now.ID == r.ID && sameServer(now.URL, r.URL) {
			runner.Token = now.Token
		}
	}
	client, err := newClient(c.last(), runner, systemID(c.configPath(), c.log), c.log)
	if err != nil {
		return err
	}
	return unregisterOrGone(ctx, client, r.Kind)
}

// unregisterOrGone is unregisterManager for a caller to whom a manager that is not known is as good as removed.
func unregisterOrGone(ctx context.Context, client *gitlab.Client, kind tokenKind) error {
	err := client.Unregister(ctx)
	if errors.Is(err, tranter.ErrNotFound) && kind == kindCreated {
		return nil
	}
	return err
}

// emptyEngines removes containers, networks and volumes from the engines of the docker executor.
func (c cleaning) emptyEngines(ctx context.Context) error {
	if !c.record.Work {
		return nil
	}
	owner := engineOwner(systemID(c.configPath(), c.log), c.dir)
	var places []enginePlace
	for _, r := range c.runners() {
		if r.Executor == "docker" {
			places = enginePlace{options: engine.Options{Log: c.log}, state: c.dir, owner: owner}.with(places, r)
		}
	}
	var errs []error
	for _, p := range places {
		errs = append(errs, c.emptyEngine(ctx, p))
	}
	return errors.Join(errs...)
}

func (c cleaning) emptyEngine(ctx context.Context, p enginePlace) error {
	e, err := engine.Open(ctx, p.options)
	if err != nil {
		return fmt.Errorf("containers and volumes with the label io.tranter.owner=%s may be left%s: connect to the container engine: %w", p.owner, p.of(), err)
	}
	swept, err := janitor.RemoveOwned(ctx, e, p.owner)
	if swept.Count() > 0 {
		c.log.Info("Removed from the container engine", "what", swept.String())
	}
	return errors.Join(err, e.Close())
}

// emptyBuckets removes the caches below prefixes of ours, and returns the prefixes that are left.
func (c cleaning) emptyBuckets(ctx context.Context) ([]string, error) {
	var left []string
	var errs []error
	for _, prefix := range c.record.Prefixes {
		if c.broken != nil {
			left, errs = append(left, prefix), append(errs, fmt.Errorf("caches may be left in a bucket below %s: the configuration that names the bucket can't be used: %w", prefix, c.broken))
			continue
		}
		for _, r := range c.runners() {
			if err := c.emptyBucket(ctx, prefix, r.Cache); err != nil {
				left, errs = append(left, prefix), append(errs, err)
			}
		}
	}
	return left, errors.Join(errs...)
}

func (c cleaning) emptyBucket(ctx context.Context, prefix string, cache config.Cache) error {
	switch {
	case remoteCache(cache) == nil || !strings.Contains(cache.Path, prefix):
		return nil
	case cache.Type != "s3":
		return fmt.Errorf("caches are left in the bucket below %s: those of type %s are not removed yet, so remove them there and run \"tranter up --clean --forget\"", cache.Path, cache.Type)
	}
	n, err := remote.NewS3(s3Options(cache.S3)).RemovePrefix(ctx, cache.Path)
	if n > 0 {
		c.log.Info("Removed caches", "bucket", cache.S3.BucketName, "prefix", cache.Path, "objects", n)
	}
	if err != nil {
		return fmt.Errorf("caches are left in the bucket %s below %s: %w", cache.S3.BucketName, cache.Path, err)
	}
	return nil
}

// removeFiles removes what a manager has in the state directory. Its history, the logs and the system id stay.
func (c cleaning) removeFiles() error {
	var errs []error
	for _, path := range leftConfigs(c.dir) {
		errs = append(errs, os.RemoveAll(path))
	}
	for _, name := range []string{"work", "cache", "cache-server.json", "jobs", "machines", "tmp", "tranter.db", "tranter.db-wal", "tranter.db-shm"} {
		errs = append(errs, os.RemoveAll(filepath.Join(c.dir, name)))
	}
	return errors.Join(errs...)
}
