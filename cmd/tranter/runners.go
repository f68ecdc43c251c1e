package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/executor/apptainer"
	"github.com/tranter-ci/tranter/internal/executor/custom"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/plan"
	"github.com/tranter-ci/tranter/internal/pool"
)

// surroundings are what runners are made in, besides their configuration.
type surroundings struct {
	dir      string // relative builds and cache directories start here
	state    string // the state directory; empty: none
	user     string // system user of the shell executor's jobs; empty: ours
	systemID string
	self     string       // path of this program, which is also the agent
	program  string       // path at which a new version of it is looked for
	cache    *cacheServer // the built-in cache
	uses     *engineUses
	programs *docker.Programs
	machines *machinePools  // nil: there can be none
	clusters *batchClusters // nil: there can be none
	site     *siteConfig    // whose launch commands are run; nil: there are none
	observe  *outlook       // nil: nobody looks
	log      *slog.Logger
}

// newSurroundings finds this program and the directory that relative paths start at.
func newSurroundings(dir, user, systemID string, log *slog.Logger) (surroundings, error) {
	self, err := os.Executable()
	if err != nil {
		return surroundings{}, fmt.Errorf("find this program: %w", err)
	}
	if dir == "" {
		if dir, err = os.Getwd(); err != nil {
			return surroundings{}, fmt.Errorf("find the working directory: %w", err)
		}
	}
	return surroundings{dir: dir, user: user, systemID: systemID, self: self, program: programPath(self), uses: &engineUses{}, programs: docker.NewPrograms(""), log: log}, nil
}

// clientVersion is how we name ourselves to servers.
func clientVersion() gitlab.Program {
	return gitlab.Program{Version: version, Revision: commit}
}

// newClient connects to a runner's server.
func newClient(c config.Config, r config.Runner, systemID string, log *slog.Logger) (*gitlab.Client, error) {
	return newToldClient(c, r, systemID, log, nil)
}

// newToldClient makes one that tells of its calls.
func newToldClient(c config.Config, r config.Runner, systemID string, log *slog.Logger, observe func(gitlab.Call)) (*gitlab.Client, error) {
	client, err := gitlab.New(gitlab.Options{
		URL: r.URL, Token: r.Token, SystemID: systemID, Version: clientVersion(), Runner: jobRequest(c, r),
		TLSCAFile: r.TLSCAFile, TLSCertFile: r.TLSCertFile, TLSKeyFile: r.TLSKeyFile, CertDir: filepath.Join(filepath.Dir(defaultConfigPath()), "certs"),
		ConnectionMaxAge: c.ConnectionMaxAge, Log: log, Observe: observe,
	})
	if err != nil {
		return nil, fmt.Errorf("runner %s: %w", cmp.Or(r.Name, r.Token.Short()), err)
	}
	return client, nil
}

// settings makes a configuration's runners ready, and starts the built-in cache if one of them uses it.
func (s surroundings) settings(ctx context.Context, c config.Config) (manager.Settings, error) {
	out := manager.Settings{Concurrent: c.Concurrent, CheckInterval: c.CheckInterval, ShutdownTimeout: c.ShutdownTimeout}
	s.clusters.anew()
	for _, r := range c.Runners {
		ready, err := s.runner(c, r)
		if err != nil {
			return manager.Settings{}, err
		}
		if ready.Caches, err = s.distributedCache(ctx, c, r); err != nil {
			return manager.Settings{}, fmt.Errorf("runner %s: %w", cmp.Or(r.Name, r.Token.Short()), err)
		}
		out.Runners = append(out.Runners, ready)
	}
	if s.machines != nil {
		s.machines.settle(ctx, s)
	}
	if s.clusters == nil {
		return out, nil
	}
	if err := s.openLaunches(); err != nil {
		return manager.Settings{}, err
	}
	s.clusters.settle(ctx)
	return out, nil
}

// runner makes one section ready, but for its distributed cache.
func (s surroundings) runner(c config.Config, r config.Runner) (manager.Runner, error) {
	client, err := newToldClient(c, r, s.systemID, s.log, s.observe.calls(r))
	if err != nil {
		return manager.Runner{}, err
	}
	driver, ok := executors()[r.Executor]
	if !ok {
		return manager.Runner{}, fmt.Errorf("runner %s: the executor %q is not built yet; use executor = \"shell\", \"docker\", \"docker+machine\" or \"custom\"", cmp.Or(r.Name, r.Token.Short()), r.Executor)
	}
	executor, err := s.executor(driver, c, r, client)
	if err != nil {
		return manager.Runner{}, fmt.Errorf("runner %s: %w", cmp.Or(r.Name, r.Token.Short()), err)
	}
	shell := cmp.Or(r.Shell, driver.shell())
	planned := s.plan(r, driver, shell)
	return manager.Runner{
		Name: r.Name, URL: r.URL, Token: r.Token, Coordinator: client, Executor: executor, Measure: measure(r, client),
		Request: tranter.Request{Executor: r.Executor, Shell: shell, Features: features(c, driver), Labels: labels(c, r), GPUs: r.Docker.GPUs},
		Plan:    planned,
		Ready:   readiness(executor, s.guard(c.DiskGuard, driver, planned.Dirs)),
		Changed: changes(executor),
		Expect:  expectation(executor),
		Limits: manager.Limits{
			Jobs: r.Limit, Requests: r.RequestConcurrency, Strict: r.StrictCheckInterval, Faults: r.UnhealthyRequestsLimit,
			Pause: r.UnhealthyInterval, Prepare: r.PrepareTimeout, Tries: r.FinalUpdateRetryLimit,
		},
	}, nil
}

// executor makes what runs a section's jobs: here, or in batch jobs.
func (s surroundings) executor(d driver, c config.Config, r config.Runner, client *gitlab.Client) (tranter.Executor, error) {
	if r.Batch.Scheduler != "" {
		return s.inBatch(r, client)
	}
	return d.open(s, c, r)
}

// diskPatience is how long a disk may take to say how much room it has.
const diskPatience = 2 * time.Second

// guard returns what looks after the disks of this host on which a runner's jobs work.
func (s surroundings) guard(g config.DiskGuard, d driver, dirs plan.DirSettings) func() error {
	guarded := diskspace.Guard{Bytes: uint64(g.MinFreeMiB) << 20, Inodes: uint64(g.MinFreeInodes)} //nolint:gosec // checked to be 0 or more
	if s.state != "" {
		guarded.Dirs = append(guarded.Dirs, s.state)
	}
	if d.host {
		guarded.Dirs = append(guarded.Dirs, dirs.Builds, dirs.Cache)
	}
	return diskspace.NewWatch(guarded, diskPatience, []string{s.self, "agent", "room"}).Check
}

// readiness asks the executor too, if it has something to say about whether jobs can be taken.
func readiness(e tranter.Executor, host func() error) func() error {
	own, ok := e.(interface{ Ready() error })
	if !ok {
		return host
	}
	return func() error { return cmp.Or(host(), own.Ready()) }
}

// changes returns what tells when the executor may say otherwise of whether jobs can be taken, if it can tell.
func changes(e tranter.Executor) func() <-chan struct{} {
	own, ok := e.(interface{ Changed() <-chan struct{} })
	if !ok {
		return nil
	}
	return own.Changed
}

// expectation returns what is to be told of jobs that were taken, for an executor that knows how many there may be.
func expectation(e tranter.Executor) func(job int64) {
	own, ok := e.(interface{ Expect() func(job int64) })
	if !ok {
		return nil
	}
	return own.Expect()
}

// labels merges the global labels and the runner's, which win.
func labels(c config.Config, r config.Runner) map[string]string {
	merged := map[string]string{}
	maps.Copy(merged, c.Labels)
	maps.Copy(merged, r.Labels)
	return merged
}

// features is what a runner promises: what the agent does for all executors, and what the executor adds.
func features(c config.Config, d driver) tranter.Features {
	f := d.features
	terminals := c.SessionServer.ListenAddress != ""
	f.Session, f.Terminal = f.Session && terminals, f.Terminal && terminals
	f.Artifacts, f.UploadMultipleArtifacts, f.UploadRawArtifacts, f.ArtifactsExclude = true, true, true, true
	f.Cache, f.FallbackCacheKeys = true, true
	f.Refspecs, f.Masking, f.RawVariables = true, true, true
	f.MultiBuildSteps, f.ReturnExitCode, f.JobInputs = true, true, true
	return f
}

// plan is what a section contributes to its jobs' plans.
func (s surroundings) plan(r config.Runner, d driver, shell string) plan.Settings {
	p := plan.Settings{
		Name: r.Name, Executor: r.Executor, ServerURL: r.URL, ShortToken: r.Token.Short(), SystemID: s.systemID,
		Environment: r.Environment, Flags: r.FeatureFlags, OutputLimit: int64(r.OutputLimit) << 10,
		Dirs:  s.dirs(r, d),
		Shell: shell, Login: d.login, Shared: d.features.Shared,
		Scripts: plan.Scripts{
			PreGetSources: r.PreGetSourcesScript, PostGetSources: r.PostGetSourcesScript, PreBuild: r.PreBuildScript, PostBuild: r.PostBuildScript,
		},
		Limits: plan.Limits{
			Prepare: r.PrepareTimeout, GetSources: r.GetSourcesTimeout, Upload: r.Artifact.UploadTimeout, UploadHeader: r.Artifact.ResponseHeaderTimeout,
		},
		Git: plan.GitSettings{CloneURL: r.CloneURL, SafeDirectory: r.SafeDirectoryCheckout.Or(!d.features.Shared), CleanConfig: r.CleanGitConfig.Or(true)},
		Cache: plan.CacheSettings{
			Type: r.Cache.Type, Directory: r.Cache.Directory.Path, Path: r.Cache.Path, Shared: r.Cache.Shared, MaxUpload: r.Cache.MaxUploadedArchiveSize,
		},
		Program:            plan.Program{Version: version, Commit: commit, Arch: runtime.GOOS + "/" + runtime.GOARCH},
		DebugTraceDisabled: r.DebugTraceDisabled, RestartLost: r.Machine.RestartLostJobs,
	}
	if d.boxed {
		p.Containers = plan.Containers{Container: true, Helper: !r.Docker.DisableHelper, Network: r.Docker.NetworkMode == "", ReadFile: os.ReadFile}
	}
	if d.inside {
		p.Containers = plan.Containers{Container: true, Helper: true}
	}
	return p
}

// dirs says where the jobs of a section work. Those of an executor with places of its own have no defaults here.
func (s surroundings) dirs(r config.Runner, d driver) plan.DirSettings {
	dirs := plan.DirSettings{Builds: r.BuildsDir, Cache: r.CacheDir, Custom: r.CustomBuildDir.Enabled.Or(!d.features.Shared)}
	switch {
	case d.boxed:
		dirs.Builds, dirs.Cache = cmp.Or(r.BuildsDir, "/builds"), cmp.Or(r.CacheDir, containerCacheDir)
		dirs.SharedBuilds = spec.SharedBuilds(r.Docker, dirs.Builds)
	case r.Batch.Scheduler != "":
		shared := s.batchDir(r.Batch)
		dirs.Builds, dirs.Cache = cmp.Or(r.BuildsDir, filepath.Join(shared, "builds")), cmp.Or(r.CacheDir, filepath.Join(shared, "cache"))
		dirs.SharedBuilds = d.features.Shared
	case !d.apart:
		dirs.Builds, dirs.Cache = s.path(cmp.Or(r.BuildsDir, "builds")), s.path(cmp.Or(r.CacheDir, "cache"))
		dirs.SharedBuilds = d.features.Shared
	}
	return dirs
}

// path makes a path absolute.
func (s surroundings) path(p string) string {
	if strings.HasPrefix(p, "/") || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(s.dir, p)
}

// removedRunner is what a runner is called that is not in the configuration any more.
const removedRunner = "removed"

// adopt makes a runner for a job whose section is not in the configuration any more, good enough to report it.
func (s surroundings) adopt(rec tranter.JobRecord) (manager.Runner, error) {
	c := config.Default()
	r := config.DefaultRunner()
	r.Name, r.URL, r.Executor, r.Token = removedRunner, rec.URL, "shell", tranter.Secret(rec.Runner)
	switch { // the session knows its driver, or its engine
	case custom.Refers(rec.Session):
		r.Executor = "custom"
	case docker.Refers(rec.Session):
		r.Executor = "docker"
	case apptainer.Refers(rec.Session):
		r.Executor = "apptainer"
	default:
		if _, ok := pool.Refers(rec.Session); ok {
			r.Executor = "docker+machine"
		}
	}
	ready, err := s.runner(c, r)
	if err != nil {
		return manager.Runner{}, err
	}
	if class, ok := cluster.Refers(rec.Session); ok {
		if k := s.clusters.find(class); k != nil {
			ready.Executor = k.Executor()
		}
	}
	return ready, nil
}
