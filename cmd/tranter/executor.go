package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/apptainer"
	"github.com/tranter-ci/tranter/internal/site"
)

// newExecutor returns the command that is a custom executor for the stock runner (runner contract, section 10): jobs run
// in containers as with the executor apptainer.
func newExecutor(s streams) *cobra.Command {
	var from executorSource
	cmd := &cobra.Command{
		Use:   "executor RUNNER config|prepare|run|cleanup [SCRIPT STAGE]",
		Short: "Be the custom executor of GitLab Runner, with containers of Apptainer and the like",
		Long: `Be the custom executor of GitLab Runner: it runs jobs in containers as the executor
"apptainer" does, by the settings of [runners.apptainer] of a site file's runner or of
a section of config.toml. GitLab Runner calls it:

  [runners.custom]
    config_exec = "/usr/bin/tranter"
    config_args = ["executor", "--site", "/etc/tranter/site.toml", "NAME", "config"]

and so on for prepare, run and cleanup. Sources, caches and artifacts are moved by this
program outside of the image.`,
		Example: `  tranter executor --site /etc/tranter/site.toml cpu prepare`,
		Args:    cobra.RangeArgs(2, 4),
	}
	f := cmd.Flags()
	f.StringVar(&from.site, "site", "", "site file that has the runner")
	withEnv(f, "site", "TRANTER_SITE")
	f.StringVarP(&from.config, "config", "c", "", "configuration file that has the runner, if no site file does")
	withEnv(f, "config", "CONFIG_FILE")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		from.name = args[0]
		return executorExit(s.err, executeStage(ctx, s, from, args[1:]))
	}
	return cmd
}

// executorExit turns how a stage has ended into the exit code that says so to GitLab Runner (runner contract, section 10.4).
func executorExit(w io.Writer, err error) error {
	if err == nil {
		return nil
	}
	code := func(variable string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n > 0 && n < 256 {
			return n
		}
		return otherwise
	}
	build, failed := errors.AsType[*tranter.BuildError](err)
	_, configured := errors.AsType[*tranter.ConfigError](err)
	if !failed || build.Err != nil {
		_, _ = fmt.Fprintln(w, "ERROR:", err)
	}
	if !failed && !configured {
		return &exitError{code: code("SYSTEM_FAILURE_EXIT_CODE", 2)}
	}
	if path := os.Getenv("BUILD_EXIT_CODE_FILE"); failed && path != "" {
		if err := os.WriteFile(path, []byte(strconv.Itoa(build.ExitCode)+"\n"), 0o600); err != nil {
			_, _ = fmt.Fprintln(w, "WARNING: the script's exit code can't be told:", err)
		}
	}
	return &exitError{code: code("BUILD_FAILURE_EXIT_CODE", 1)}
}

// executorSource says where the runner's settings are.
type executorSource struct{ site, config, name string }

// section finds the runner's section.
func (e executorSource) section(self string) (config.Runner, error) {
	switch {
	case e.site != "":
		return e.ofSite(self)
	case e.config != "":
		c, problems, err := parseConfig(e.config, false)
		if err != nil {
			return config.Runner{}, err
		}
		for _, r := range c.Runners {
			if r.Name == e.name {
				return r, nil
			}
		}
		return config.Runner{}, e.missing(e.config, problems)
	default:
		return config.Runner{}, &tranter.ConfigError{Err: errors.New("say where the runner's settings are: --site FILE, $TRANTER_SITE or --config FILE")}
	}
}

func (e executorSource) ofSite(self string) (config.Runner, error) {
	path, err := filepath.Abs(e.site)
	if err != nil {
		return config.Runner{}, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return config.Runner{}, fmt.Errorf("read the site file: %w", err)
	}
	home, _ := os.UserHomeDir() // only for a leading ~
	parsed, problems := site.Parse(site.Source{
		Name: e.site, Path: path, Data: data, Read: os.ReadFile, List: filepath.Glob, Env: os.LookupEnv, This: self, Home: home,
	})
	for _, r := range parsed.Runners {
		if r.Name == e.name {
			return r.Section, nil
		}
	}
	return config.Runner{}, e.missing(e.site, problems)
}

// missing says that there is no such runner, with what is wrong in the file, which may be why.
func (e executorSource) missing(path string, problems []config.Problem) error {
	var b strings.Builder
	for _, p := range problems {
		if p.Severity >= config.Error {
			b.WriteString("\n" + p.String())
		}
	}
	return &tranter.ConfigError{Err: fmt.Errorf("%s has no runner %q%s", path, e.name, b.String())}
}

// executorJob is the job that a stage is for.
type executorJob struct {
	streams
	executor *apptainer.Executor
	section  config.Runner
	self     string
	id       string
	temp     string // directory that all stages of the job share
	builds   string // directory of this job alone
}

// executeStage does what GitLab Runner asks for.
func executeStage(ctx context.Context, s streams, from executorSource, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	section, err := from.section(self)
	if err != nil {
		return err
	}
	j := &executorJob{streams: s, section: section, self: self}
	if err := j.surround(); err != nil {
		return err
	}
	if err := j.open(); err != nil {
		return err
	}
	switch stage := args[0]; {
	case stage == "run" && len(args) == 3:
		return j.run(ctx, args[1], args[2])
	case len(args) > 1:
	case stage == "config":
		return j.config()
	case stage == "prepare":
		return j.prepare(ctx)
	case stage == "cleanup":
		return j.cleanup(context.WithoutCancel(ctx))
	}
	return &tranter.ConfigError{Err: fmt.Errorf("%q is no stage with its arguments: write config, prepare, run SCRIPT STAGE or cleanup", strings.Join(args, " "))}
}

// surround finds out what the job is, and where it works.
func (j *executorJob) surround() error {
	j.id, j.temp = os.Getenv("CUSTOM_ENV_CI_JOB_ID"), os.Getenv("TMPDIR")
	if _, err := strconv.ParseUint(j.id, 10, 63); err != nil || !filepath.IsAbs(j.temp) {
		return errors.New("$CUSTOM_ENV_CI_JOB_ID and $TMPDIR are not there: this is for GitLab Runner to call, for a job")
	}
	if !filepath.IsAbs(j.section.BuildsDir) {
		return &tranter.ConfigError{Err: errors.New("the runner needs a builds_dir, as an absolute path")}
	}
	j.builds = filepath.Join(j.section.BuildsDir, j.id)
	return nil
}

// open makes the executor.
func (j *executorJob) open() error {
	around, err := newSurroundings("", "", "", discardLog())
	if err != nil {
		return err
	}
	opened, err := openApptainer(around, config.Config{}, j.section)
	if err != nil {
		return err
	}
	j.executor = opened.(*apptainer.Executor)
	return nil
}

// config tells GitLab Runner where the job works (runner contract, section 10.3).
func (j *executorJob) config() error {
	name := "Tranter"
	if text := j.executor.Describe(jobVariables(os.Environ())); text != "" {
		name += " (" + text + ")"
	}
	shared := false
	data, err := json.Marshal(map[string]any{
		"driver":     map[string]string{"name": name, "version": version},
		"builds_dir": j.builds, "cache_dir": cmp.Or(j.section.CacheDir, filepath.Join(filepath.Dir(j.section.BuildsDir), "cache")), "builds_dir_is_shared": shared,
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(j.out, "%s\n", data)
	return err
}

// session is the directory of the job's session.
func (j *executorJob) session() string { return filepath.Join(j.temp, "tranter") }

// cleanup removes the container and what belongs to it, then the job's directory.
func (j *executorJob) cleanup(ctx context.Context) error {
	err := j.executor.Remove(ctx, j.session())
	return errors.Join(err, os.RemoveAll(j.session()), os.RemoveAll(j.builds), os.RemoveAll(j.builds+".tmp"))
}
