package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/plan"
)

// surroundings are what runners are made in, besides their configuration.
type surroundings struct {
	dir      string // relative builds and cache directories start here
	user     string // system user of the shell executor's jobs; empty: ours
	systemID string
	self     string // path of this program, which is also the agent
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
	return surroundings{dir: dir, user: user, systemID: systemID, self: self, log: log}, nil
}

// clientVersion is how we name ourselves to servers.
func clientVersion() gitlab.Program {
	return gitlab.Program{Version: version, Revision: commit}
}

// newClient connects to a runner's server.
func newClient(c config.Config, r config.Runner, systemID string, log *slog.Logger) (*gitlab.Client, error) {
	client, err := gitlab.New(gitlab.Options{
		URL: r.URL, Token: r.Token, SystemID: systemID, Version: clientVersion(), Runner: jobRequest(c, r),
		TLSCAFile: r.TLSCAFile, TLSCertFile: r.TLSCertFile, TLSKeyFile: r.TLSKeyFile, CertDir: filepath.Join(filepath.Dir(defaultConfigPath()), "certs"),
		ConnectionMaxAge: c.ConnectionMaxAge, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("runner %s: %w", cmp.Or(r.Name, r.Token.Short()), err)
	}
	return client, nil
}

// settings makes a configuration's runners ready.
func (s surroundings) settings(c config.Config) (manager.Settings, error) {
	out := manager.Settings{Concurrent: c.Concurrent, CheckInterval: c.CheckInterval, ShutdownTimeout: c.ShutdownTimeout}
	for _, r := range c.Runners {
		ready, err := s.runner(c, r)
		if err != nil {
			return manager.Settings{}, err
		}
		out.Runners = append(out.Runners, ready)
	}
	return out, nil
}

// runner makes one section ready.
func (s surroundings) runner(c config.Config, r config.Runner) (manager.Runner, error) {
	client, err := newClient(c, r, s.systemID, s.log)
	if err != nil {
		return manager.Runner{}, err
	}
	driver, ok := executors()[r.Executor]
	if !ok {
		return manager.Runner{}, fmt.Errorf("runner %s: the executor %q is not built yet; use executor = \"shell\"", cmp.Or(r.Name, r.Token.Short()), r.Executor)
	}
	executor, err := driver.open(s, c, r)
	if err != nil {
		return manager.Runner{}, fmt.Errorf("runner %s: %w", cmp.Or(r.Name, r.Token.Short()), err)
	}
	shell := cmp.Or(r.Shell, driver.shell())
	return manager.Runner{
		Name: r.Name, URL: r.URL, Token: r.Token, Coordinator: client, Executor: executor,
		Request: tranter.Request{Executor: r.Executor, Shell: shell, Features: features(driver), Labels: labels(c, r), GPUs: r.Docker.GPUs},
		Plan:    s.plan(r, driver, shell),
		Limits: manager.Limits{
			Jobs: r.Limit, Requests: r.RequestConcurrency, Strict: r.StrictCheckInterval, Faults: r.UnhealthyRequestsLimit,
			Pause: r.UnhealthyInterval, Prepare: r.PrepareTimeout, Tries: r.FinalUpdateRetryLimit,
		},
	}, nil
}

// labels merges the global labels and the runner's, which win.
func labels(c config.Config, r config.Runner) map[string]string {
	merged := map[string]string{}
	maps.Copy(merged, c.Labels)
	maps.Copy(merged, r.Labels)
	return merged
}

// features is what a runner promises: what the agent does for all executors, and what the executor adds.
func features(d driver) tranter.Features {
	f := d.features
	f.Artifacts, f.UploadMultipleArtifacts, f.UploadRawArtifacts, f.ArtifactsExclude = true, true, true, true
	f.Cache, f.FallbackCacheKeys = true, true
	f.Refspecs, f.Masking, f.RawVariables = true, true, true
	f.MultiBuildSteps, f.ReturnExitCode, f.JobInputs = true, true, true
	return f
}

// plan is what a section contributes to its jobs' plans.
func (s surroundings) plan(r config.Runner, d driver, shell string) plan.Settings {
	return plan.Settings{
		Name: r.Name, Executor: r.Executor, ServerURL: r.URL, ShortToken: r.Token.Short(), SystemID: s.systemID,
		Environment: r.Environment, Flags: r.FeatureFlags, OutputLimit: int64(r.OutputLimit) << 10,
		Dirs: plan.DirSettings{
			Builds:       s.path(cmp.Or(r.BuildsDir, "builds")),
			Cache:        s.path(cmp.Or(r.CacheDir, "cache")),
			SharedBuilds: d.features.Shared,
			Custom:       r.CustomBuildDir.Enabled.Or(!d.features.Shared),
		},
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
		DebugTraceDisabled: r.DebugTraceDisabled,
	}
}

// path makes a path absolute.
func (s surroundings) path(p string) string {
	if strings.HasPrefix(p, "/") || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(s.dir, p)
}

// adopt makes a runner for a job whose section is not in the configuration any more, good enough to report it.
func (s surroundings) adopt(rec tranter.JobRecord) (manager.Runner, error) {
	c := config.Default()
	r := config.DefaultRunner()
	r.Name, r.URL, r.Executor = "removed", rec.URL, "shell"
	ready, err := s.runner(c, r)
	if err != nil {
		return manager.Runner{}, err
	}
	ready.Token = tranter.Secret(rec.Runner)
	return ready, nil
}
