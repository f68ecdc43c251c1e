package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
)

func newDocker(s streams) *cobra.Command {
	return group("docker", "Look after the container engines of the docker executor", `  tranter docker ls
  tranter docker prune --dry-run`,
		newDockerList(s), newDockerPrune(s))
}

// engineFlags are those that say which container engines a command is about.
type engineFlags struct {
	config, runner, state *string
}

func addEngineFlags(cmd *cobra.Command) engineFlags {
	return engineFlags{
		config: addConfigFlag(cmd.Flags()),
		runner: cmd.Flags().String("runner", "", "only the engine of this runner, by its name (default: those of all runners)"),
		state:  addStateDirFlag(cmd.Flags()),
	}
}

// enginePlace is an engine of the configuration.
type enginePlace struct {
	options engine.Options
	runners []string
	keep    []string // images that stay
	state   string   // the state directory
	owner   string   // the manager's id on engines; empty: not known
}

// places are the engines that the flags select, each once. Without any runner of the docker executor it is the one that
// the environment names.
func (f engineFlags) places(log *slog.Logger) ([]enginePlace, error) {
	file, err := readRunners(*f.config, *f.runner == "")
	if err != nil {
		return nil, err
	}
	runners, err := selection{name: *f.runner}.of(file)
	if err != nil {
		return nil, err
	}
	dir, err := stateDir(*f.state, file.config.StateDir)
	if err != nil {
		return nil, err
	}
	base := enginePlace{options: engine.Options{Log: log}, state: dir, owner: knownOwner(*f.config, dir)}
	var out []enginePlace
	for _, r := range runners {
		if r.Executor != "docker" {
			continue
		}
		if err := file.faults[r.Index]; err != nil {
			return nil, fmt.Errorf("runner %s: %w", runnerLabel(r), err)
		}
		out = base.with(out, r)
	}
	if len(out) > 0 {
		return out, nil
	}
	if *f.runner != "" {
		return nil, fmt.Errorf("the runner %s of %s has no container engine: its executor is %q", *f.runner, *f.config, runners[0].Executor)
	}
	base.keep = helperImages(config.Docker{})
	return []enginePlace{base}, nil
}

// with adds the engine of a runner to those that are known.
func (p enginePlace) with(known []enginePlace, r config.Runner) []enginePlace {
	p.options.Host, p.options.CertPath, p.options.Verify = r.Docker.Host, r.Docker.TLSCertPath, r.Docker.TLSVerify
	i := slices.IndexFunc(known, func(other enginePlace) bool { return other.sameEngine(p) })
	if i < 0 {
		i, known = len(known), append(known, p)
	}
	known[i].runners = append(known[i].runners, cmp.Or(r.Name, r.Token.Short()))
	known[i].keep = append(known[i].keep, helperImages(r.Docker)...)
	return known
}

// sameEngine says whether both are reached in the same way.
func (p enginePlace) sameEngine(o enginePlace) bool {
	a, b := p.options, o.options
	return a.Host == b.Host && a.CertPath == b.CertPath && a.Verify == b.Verify
}

// knownOwner is the id on engines of the manager that uses this configuration and state directory; empty if none has run:
// to look does not make one.
func knownOwner(configPath, state string) string {
	data, err := os.ReadFile(filepath.Join(filepath.Dir(configPath), systemIDFile))
	id := strings.TrimSpace(string(data))
	if err != nil || !systemIDPattern().MatchString(id) {
		return ""
	}
	return engineOwner(id, state)
}

// openedEngine is an engine that answers, and the log of what jobs have used there.
type openedEngine struct {
	enginePlace

	engine *engine.Engine
	uses   *janitor.Uses
}

func (p enginePlace) open(ctx context.Context) (*openedEngine, error) {
	e, err := engine.Open(ctx, p.options)
	if err != nil {
		return nil, fmt.Errorf("connect to the container engine%s: %w", p.of(), err)
	}
	uses, err := janitor.OpenUses(janitor.UsesPath(p.state, e.Facts().ID))
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return &openedEngine{enginePlace: p, engine: e, uses: uses}, nil
}

// of says whose engine it is, for messages.
func (p enginePlace) of() string {
	if len(p.runners) == 0 {
		return ""
	}
	return " of " + strings.Join(p.runners, ", ")
}

// eachEngine does something with every engine that the flags select. One that does not answer stops no other.
func (f engineFlags) eachEngine(cmd *cobra.Command, s streams, do func(context.Context, *openedEngine) error) error {
	log, err := logFlags(cmd.Flags()).logger(s.err, new(slog.LevelVar))
	if err != nil {
		return err
	}
	places, err := f.places(log)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range places {
		if err := cmd.Context().Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		opened, err := p.open(cmd.Context())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, do(cmd.Context(), opened), opened.engine.Close())
	}
	return errors.Join(errs...)
}
