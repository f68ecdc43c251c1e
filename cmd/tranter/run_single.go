package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/store"
)

func newRunSingle(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run-single",
		Short: "Run jobs for one runner that is given on the command line",
		Long: `Take jobs for one runner, given by flags or as one section of a configuration,
one at a time, until told to stop, or until --max-builds or --wait-timeout is reached.
No configuration file is needed, and none is written.`,
		Example: `  tranter run-single --url https://gitlab.example.com --token glrt-... --executor shell --max-builds 1
  tranter run-single --config config.toml --runner "build host" --wait-timeout 600`,
		Args: onlyFlags,
	}
	file := cmd.Flags().StringP("config", "c", "", "configuration to take a section from")
	withEnv(cmd.Flags(), "config", "CONFIG_FILE")
	name := cmd.Flags().StringP("runner", "r", "", "name of the section; flags that are given win over it")
	builds := cmd.Flags().Int("max-builds", 0, "end after so many jobs (0: no limit)")
	withEnv(cmd.Flags(), "max-builds", "RUNNER_MAX_BUILDS")
	idle := cmd.Flags().Int("wait-timeout", 0, "end when there was no job for so many seconds (0: wait for ever)")
	withEnv(cmd.Flags(), "wait-timeout", "RUNNER_WAIT_TIMEOUT")
	state := addStateDirFlag(cmd.Flags())
	addRunnerFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, problems, err := singleConfig(cmd.Flags(), *file, *name)
		if err != nil {
			return err
		}
		log, err := logFlags(cmd.Flags()).logger(s.err, new(slog.LevelVar))
		if err != nil {
			return err
		}
		logProblems(log, problems)
		return runSingle(cmd.Context(), c, single{
			options: manager.Options{MaxJobs: *builds, MaxIdle: time.Duration(*idle) * time.Second, Log: log}, state: *state,
		})
	}
	return cmd
}

// singleConfig makes the configuration of run-single: a section of a file, if one is named, and the flags over it.
func singleConfig(flags *pflag.FlagSet, file, name string) (config.Config, []config.Problem, error) {
	section, problems := config.Apply(runnerValues(flags))
	if config.Failed(problems, false) {
		return config.Config{}, nil, problemList(problems)
	}
	if name != "" {
		under, err := namedSection(file, name)
		if err != nil {
			return config.Config{}, nil, err
		}
		for _, e := range under {
			if section.Get(e.Key) == nil {
				section = section.With(e.Key, e.Value)
			}
		}
	}
	for _, key := range []string{"url", "executor"} {
		if section.Get(key) == nil {
			return config.Config{}, nil, fmt.Errorf("--%s is missing: name it, or a section of a configuration with --config and --runner", key)
		}
	}
	if section.Get("token") == nil && section.Get("token_file") == nil {
		return config.Config{}, nil, errors.New("--token is missing: name it, or --token-file, or a section of a configuration with --config and --runner")
	}
	c, problems, err := sectionConfig(section)
	if err == nil && config.Failed(problems, false) {
		err = problemList(problems)
	}
	return c, problems, err
}

// namedSection returns the section of a file whose name is name.
func namedSection(file, name string) (config.Section, error) {
	if file == "" {
		file = defaultConfigPath()
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	sections, problems := config.Sections(config.Source{Name: file, Data: data})
	if config.Failed(problems, false) {
		return nil, problemList(problems)
	}
	for _, s := range sections {
		if s.Get("name") == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("no runner in %s is called %q", file, name)
}

// single is what run-single does besides the runner's configuration.
type single struct {
	options manager.Options
	state   string
}

// singleDrain is how long the machines of a run without a state directory of its own may take to be removed.
const singleDrain = 5 * time.Minute

func runSingle(ctx context.Context, c config.Config, o single) error {
	dir, temporary, err := o.stateDir()
	if err != nil {
		return err
	}
	log := o.options.Log
	around, err := newSurroundings("", "", newSystemID(), log)
	if err != nil {
		return err
	}
	around.cache = newCacheServer(dir, log)
	if temporary && c.Runners[0].Cache.Type == "builtin" {
		log.Warn("The built-in cache lasts as long as this command: name a --state-dir to keep it")
	}
	defer around.cache.close()
	st, err := store.Open(ctx, filepath.Join(dir, "tranter.db"))
	if errors.Is(err, store.ErrInUse) {
		return fmt.Errorf("another manager uses the state directory %s: end it, or name another directory with --state-dir", dir)
	}
	if err != nil {
		return err
	}
	around.machines = newMachinePools(dir, engineOwner(around.systemID, dir), st.Machines(), log)
	settings, err := around.settings(ctx, c)
	if err != nil {
		around.machines.close()
		return errors.Join(err, st.Close())
	}
	settings.Concurrent = 1
	o.options.Dir, o.options.Records, o.options.Adopt = filepath.Join(dir, "jobs"), st, around.adopt
	d := &daemon{Manager: manager.New(o.options, settings), around: around, dir: dir, log: log}
	log.Info("Taking jobs for one runner", "url", c.Runners[0].URL, "runner", c.Runners[0].Token.Short(), "executor", c.Runners[0].Executor)
	err = d.untilEnded(ctx)
	if temporary { // nobody would remember its machines
		err = errors.Join(err, around.machines.removeAll(context.WithoutCancel(ctx), singleDrain))
	}
	around.machines.close()
	around.cache.close()
	left, e := st.Jobs(context.WithoutCancel(ctx))
	err = errors.Join(err, e, st.Close())
	switch {
	case len(left) > 0:
		log.Warn("Jobs are not reported yet; run again with this state directory to do it", "jobs", len(left), "state_dir", dir)
	case temporary:
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// stateDir is the named directory, or one of this process alone: many of them may run on a host.
func (o single) stateDir() (dir string, temporary bool, err error) {
	if o.state != "" {
		if err := os.MkdirAll(o.state, 0o700); err != nil {
			return "", false, fmt.Errorf("make the state directory: %w", err)
		}
		dir, err = filepath.Abs(o.state)
		return dir, false, err
	}
	dir, err = os.MkdirTemp("", "tranter-single-")
	if err != nil {
		return "", false, fmt.Errorf("make the state directory: %w", err)
	}
	return dir, true, nil
}

// newSystemID returns an id for a process whose id is not stored (contract 1.4).
func newSystemID() string { return "r_" + rand.Text()[:12] }
