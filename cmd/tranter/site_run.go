package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/site"
)

func newSiteRun(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the jobs of a site file's runners: in batch jobs, by its launch command, or here",
		Long: `Run the jobs of the runners of a site file, until told to stop.

Runners with [batch] run their jobs in batch jobs that the manager submits. For runners
with [launch] the manager looks at the jobs that wait and runs the command for them, once
for each. Runners with neither run their jobs here. Signals, the state directory and the
other commands (status, job, drain, upgrade) are those of "tranter run". A change of the
site file, or of the runners by "tranter site apply", is taken up while the manager runs.`,
		Example: `  tranter site apply && tranter site run
  tranter site run --config /etc/tranter/site.toml --state-dir /var/lib/tranter --apply`,
		Args: onlyFlags,
	}
	var f runFlags
	file := addSiteFlag(cmd.Flags())
	f.state = addStateDirFlag(cmd.Flags())
	apply := cmd.Flags().Bool("apply", false, "first create and update the runners in GitLab, as \"tranter site apply\" does; what would be deleted is left")
	cmd.Flags().StringVarP(&f.dir, "working-directory", "d", "", "directory that builds and caches without a directory of their own are made in (default: the current one)")
	cmd.Flags().StringVarP(&f.user, "user", "u", "", "system user as whom the shell executor runs jobs (default: ours)")
	addLookedFlags(cmd, &f.at)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f.logs = logFlags(cmd.Flags())
		source := &siteConfig{file: namedSite(*file, nil), stateFlag: *f.state}
		f.source, f.site = source, source
		if *apply {
			if err := source.apply(cmd.Context(), s, f.logs); err != nil {
				return err
			}
		}
		unlock, err := source.lock()
		if err != nil {
			return err
		}
		defer unlock()
		return runManager(cmd.Context(), s, f)
	}
	return cmd
}

// siteConfig is a site file as the configuration of a manager.
type siteConfig struct {
	file, stateFlag string
	current         atomic.Pointer[site.Site]
}

// apply makes GitLab have the site's runners; it removes none.
func (f *siteConfig) apply(ctx context.Context, s streams, logs logOptions) error {
	log, err := logs.logger(s.err, new(slog.LevelVar))
	if err != nil {
		return err
	}
	c := &siteApply{s: s, log: log, path: &f.file, stateDir: &f.stateFlag, facts: site.Facts{RotateBefore: defaultRotateBefore, KeepRemoved: true}}
	return c.run(ctx, nil)
}

// lock keeps a second manager from the site.
func (f *siteConfig) lock() (unlock func(), err error) {
	s, problems, err := parseSite(f.file)
	if err != nil {
		return nil, err
	}
	if config.Failed(problems, false) { // the manager says so
		return func() {}, nil
	}
	dir, err := f.dir(&s)
	if err != nil {
		return nil, err
	}
	return lockSite(dir, s.Name, f.file, siteRuns)
}

func (f *siteConfig) name() string { return f.file }

// read returns the configuration of the runners that take jobs here. Those that a command takes them for are in launches.
func (f *siteConfig) read() (config.Config, []config.Problem, error) {
	s, problems, err := parseSite(f.file)
	if err != nil || config.Failed(problems, false) {
		return config.Config{}, problems, err
	}
	tokens, err := f.tokens(s)
	if err != nil {
		return config.Config{}, problems, err
	}
	c := site.Config(s, tokens)
	for _, r := range s.Runners {
		if _, known := tokens[r.Name]; !known {
			problems = append(problems, config.Problem{
				File: r.File, Line: r.Line, Column: r.Column, Severity: config.Warning,
				Text: fmt.Sprintf("the runner %s is not in GitLab yet, so its jobs are not run", r.Name), Hint: `Run "tranter site apply"`,
			})
		}
	}
	f.current.Store(&s)
	return c, problems, nil
}

// state changes with any of the site's files, and with the runners' tokens.
func (f *siteConfig) state() string {
	files := []string{f.file}
	if s := f.current.Load(); s != nil {
		files = s.Files
		if path, err := f.tokensPath(s.Name); err == nil {
			files = append(slices.Clip(files), path)
		}
	}
	var b strings.Builder
	for _, file := range files {
		b.WriteString(fileState(file).String())
		b.WriteByte('\n')
	}
	return b.String()
}

func (f *siteConfig) dir(s *site.Site) (string, error) {
	return stateDir(f.stateFlag, s.Manager.StateDir)
}

func (f *siteConfig) tokens(s site.Site) (map[string]site.Token, error) {
	dir, err := f.dir(&s)
	if err != nil {
		return nil, err
	}
	return loadSiteTokens(dir, s.Name)
}

func (f *siteConfig) tokensPath(name string) (string, error) {
	dir, err := f.dir(f.current.Load())
	if err != nil {
		return "", err
	}
	return sitePath(dir, name, siteTokensSuffix)
}

// rotate implements configSource: the token is replaced in the state directory, and in the generated configuration.
func (f *siteConfig) rotate(ctx context.Context, r config.Runner, client *gitlab.Client, now time.Time) error {
	s := f.current.Load()
	if s == nil {
		return errors.New("the site file was not read yet")
	}
	dir, err := f.dir(s)
	if err != nil {
		return err
	}
	record, err := readSiteRecord(dir, s.Name)
	if err != nil {
		return err
	}
	for name, entry := range record.Runners {
		if entry.Token.Token != r.Token {
			continue
		}
		if err := replaceSiteToken(ctx, dir, s.Name, name, entry.Token); err != nil {
			return fmt.Errorf("the token is left as it is, because a new one could not be saved: %w", err)
		}
		got, err := client.ResetToken(ctx)
		if err != nil {
			return err
		}
		next := site.Token{ID: entry.ID, Token: got.Token, ObtainedAt: now, ExpiresAt: got.TokenExpiresAt}
		// The old token is gone: this has to be done.
		if err := replaceSiteToken(context.WithoutCancel(ctx), dir, s.Name, name, next); err != nil {
			return rescueToken(got.Token, err)
		}
		return f.renew(*s, dir)
	}
	return errors.New("the runner is not in the state directory any more")
}

// renew writes the configuration of what is launched anew.
func (f *siteConfig) renew(s site.Site, dir string) error {
	tokens, err := loadSiteTokens(dir, s.Name)
	if err != nil {
		return err
	}
	path, err := siteConfigPath(dir, s.Name)
	if err != nil {
		return err
	}
	_, err = writeSiteConfig(path, s, tokens)
	return err
}

// launched is a runner for whose jobs a command of the site is run.
type launched struct {
	runner site.Runner
	site   *site.Site
	token  site.Token
	config string // path of the generated configuration
}

// launches returns the runners for whose jobs commands are run, as the file was read last.
func (f *siteConfig) launches() ([]launched, error) {
	s := f.current.Load()
	if s == nil {
		return nil, nil
	}
	dir, err := f.dir(s)
	if err != nil {
		return nil, err
	}
	tokens, err := loadSiteTokens(dir, s.Name)
	if err != nil {
		return nil, err
	}
	path, err := siteConfigPath(dir, s.Name)
	if err != nil {
		return nil, err
	}
	var out []launched
	for _, r := range s.Runners {
		if t, known := tokens[r.Name]; known && r.Launch != nil && r.Section.Batch.Scheduler == "" {
			out = append(out, launched{runner: r, site: s, token: t, config: path})
		}
	}
	return out, nil
}

// priority is the launch priority of the runner of that name; those without one come last.
func (f *siteConfig) priority(name string) int {
	if f == nil {
		return 0
	}
	if s := f.current.Load(); s != nil {
		for _, r := range s.Runners {
			if r.Section.Name == name {
				return launchPriority(r)
			}
		}
	}
	return -1
}

// launchPriority is a runner's, with those that have none after all others.
func launchPriority(r site.Runner) int {
	return r.Priority.Or(-1)
}
