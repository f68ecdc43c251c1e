package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/view"
)

// exitStopped is the exit code of a run that its user has stopped.
const exitStopped = 130

// gitDepth is how much history jobs get unless they say otherwise: as much as in a new project on GitLab.
const gitDepth = 20

// runOptions are the flags of pipeline run.
type runOptions struct {
	pipelineRequest
	state      string
	follow     []string
	artifacts  string
	concurrent int
	list       bool
	json       bool
	executor   localExecutor
	brief      bool // without a terminal, say nothing when a job starts
	logs       logOptions
	page       string // address of the web page; empty: none
}

func newPipelineRun(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [DIR]",
		Short: "Run the pipeline of a working tree on this machine, uncommitted changes included",
		Long: `Run the pipeline of the working tree in DIR (default: the current directory), as
it is: uncommitted changes and new files are in it, ignored files are not. The
pipeline is compiled as GitLab does it; a local stand-in for GitLab gives its
jobs to the real runner, in stage and needs order. Jobs run in the shell of this
host, or with --executor docker in containers, with their images and services. The
working tree, the index and the branches stay as they are.

The exit code is 0 when the pipeline has succeeded, 1 when it failed or could not
be made, and 130 when it was stopped. Ctrl-C cancels the pipeline as GitLab does:
scripts are ended, after_script runs. A second Ctrl-C ends at once.`,
		Example: `  tranter pipeline run
  tranter pipeline run --job "unit tests" --variable DEBUG=1
  tranter pipeline run --follow build --artifacts out ../project
  tranter pipeline run --executor docker --image golang:1.26
  tranter pipeline run --web 127.0.0.1:9253
  tranter pipeline run --list
  tranter pipeline run --output json > result.json`,
		Args: cobra.MaximumNArgs(1),
	}
	var o runOptions
	addRequestFlags(cmd.Flags(), &o.pipelineRequest)
	addJobFlag(cmd.Flags(), &o.pipelineRequest)
	cmd.Flags().StringArrayVar(&o.follow, "follow", nil, "show the log of the job with this name as it grows; may be repeated (with one --job: that one)")
	addExecutorFlags(cmd.Flags(), &o.executor)
	addPageFlag(cmd.Flags(), &o.page)
	cmd.Flags().BoolVar(&o.list, "list", false, "show which jobs would run, and which ones rules leave out; run nothing")
	cmd.Flags().IntVar(&o.concurrent, "concurrent", runtime.NumCPU(), "jobs at the same time")
	cmd.Flags().Lookup("concurrent").DefValue = "as many as processors"
	cmd.Flags().StringVar(&o.artifacts, "artifacts", "", "directory for the jobs' artifacts (default: one of the run in the state directory)")
	cmd.Flags().StringVar(&o.state, "state-dir", "", "directory for clones, caches, logs and artifacts (default: one of the project in the user's cache directory)")
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.dir, o.json, o.logs = directoryOf(args), *output == "json", logFlags(cmd.Flags())
		if o.list {
			return listPipeline(cmd, s, &o.pipelineRequest, *output)
		}
		if o.concurrent < 1 {
			return errors.New("--concurrent: at least one job must be allowed to run")
		}
		return runPipeline(cmd.Context(), s, &o)
	}
	return cmd
}

func addJobFlag(flags *pflag.FlagSet, r *pipelineRequest) {
	flags.StringArrayVar(&r.jobs, "job", nil, "only the job with this name, and what it needs; may be repeated; a manual job is run")
}

// session is one run of a pipeline on this machine.
type session struct {
	*local
	options  *runOptions
	out      io.Writer // for people
	data     io.Writer // for programs
	tree     *tree
	commit   coordinator.Commit
	compiled *compiled
	id       int64
	began    time.Time
}

// runPipeline is the command pipeline run.
func runPipeline(ctx context.Context, s streams, o *runOptions) error {
	leaveHook()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, append(stopSignals(), reloadSignals()...)...)
	defer signal.Stop(signals)
	r := &session{options: o, out: s.out, data: s.out, began: time.Now()}
	if o.json {
		r.out = s.err
	}
	if !isTerminal(r.out) {
		// A program that dies of a broken pipe leaves its jobs at work. Nothing reads from this channel: with it, such a
		// write is an error like any other.
		pipes := make(chan os.Signal, 1)
		signal.Notify(pipes, syscall.SIGPIPE)
		defer signal.Stop(pipes)
		r.out = &audience{w: r.out, left: func() {
			select {
			case signals <- syscall.SIGPIPE:
			default: // it is being stopped
			}
		}}
	}
	err := stoppable(ctx, signals, func(ctx context.Context) error { return r.prepare(ctx, s) })
	if r.local == nil {
		return r.unmade(err)
	}
	if err != nil {
		return r.unmade(errors.Join(err, r.stop(ctx, true)))
	}
	return r.finish(ctx, signals)
}

// errStoppedEarly means that a signal came before there was a pipeline.
var errStoppedEarly = errors.New("stopped")

// stoppable does what f does, in a context that a signal ends.
func stoppable(ctx context.Context, signals <-chan os.Signal, f func(context.Context) error) error {
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = f(limited)
	}()
	select {
	case <-done:
		return err
	case <-signals:
		cancel(errStoppedEarly)
		<-done
		return &exitError{code: exitStopped, err: errStoppedEarly}
	}
}

// prepare does all up to the start of the pipeline.
func (r *session) prepare(ctx context.Context, s streams) error {
	o := r.options
	var err error
	if r.tree, err = openTree(ctx, o.dir, o.file); err != nil {
		return err
	}
	dir, err := makeStateDir(o.state, r.tree.dir)
	if err != nil {
		return err
	}
	log, err := o.logger(s.err, dir)
	if err != nil {
		return err
	}
	o.executor.say = r.out
	if err := o.executor.settle(ctx, dir, log); err != nil {
		return err
	}
	l, err := openLocal(ctx, dir, o.executor, log)
	if errors.Is(err, coordinator.ErrInUse) {
		return fmt.Errorf("a pipeline of this project is running: wait for it, or name another directory with --state-dir: %w", err)
	}
	if err != nil {
		return err
	}
	r.local = l
	l.page = o.page
	if err := r.compile(ctx, s.err); err != nil {
		return err
	}
	if err := o.claimArtifacts(); err != nil {
		return err
	}
	r.introduce()
	return r.launch(ctx)
}

// claimArtifacts finds out whether artifacts can be written, before there are any.
func (o *runOptions) claimArtifacts() error {
	if o.artifacts == "" {
		return nil
	}
	if err := os.MkdirAll(o.artifacts, 0o755); err != nil { //nolint:gosec // the user's own output
		return fmt.Errorf("make the directory for artifacts: %w", err)
	}
	probe, err := os.CreateTemp(o.artifacts, ".tranter-*")
	if err != nil {
		return fmt.Errorf("write to the directory for artifacts: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// logger is for what the machinery has to say: to the user if asked for, else to a file.
func (o *runOptions) logger(w io.Writer, dir string) (*slog.Logger, error) {
	if !o.logs.debug && o.logs.level == "" {
		f, err := os.OpenFile(filepath.Join(dir, "tranter.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open the log: %w", err)
		}
		w = f // open until the process ends
	}
	return o.logs.logger(w, new(slog.LevelVar))
}

// compile makes the commit and the pipeline for it.
func (r *session) compile(ctx context.Context, problems io.Writer) error {
	project, err := r.CreateProject(r.tree.project(), r.tree.dir)
	if err != nil {
		return err
	}
	if r.commit, err = r.snapshot(ctx, r.tree, project.ID); err != nil {
		return err
	}
	given, err := r.options.given()
	if err != nil {
		return err
	}
	if r.compiled, err = r.tree.compile(ctx, r.commit, r.url, given); err != nil {
		return err
	}
	printPipelineProblems(problems, r.compiled.problems)
	if r.compiled.pipeline == nil {
		return r.compiled.impossible()
	}
	jobs, unknown := r.compiled.choose(r.options.jobs)
	if len(unknown) > 0 {
		return r.compiled.unknownJob(unknown[0])
	}
	if len(r.options.jobs) == 1 && len(r.options.follow) == 0 {
		r.options.follow = r.options.jobs
	}
	for _, name := range r.options.follow {
		if _, unknown := r.compiled.choose([]string{name}); len(unknown) > 0 {
			return fmt.Errorf("--follow: %w", r.compiled.unknownJob(name))
		}
	}
	for _, name := range r.compiled.alone(r.options.jobs, jobs) {
		fmt.Fprintf(problems, "%s takes artifacts from jobs of earlier stages, which are not run: name them with --job too\n", name)
	}
	return nil
}

// introduce says what is run.
func (r *session) introduce() {
	jobs, _ := r.compiled.choose(r.options.jobs)
	what := "commit " + r.commit.SHA[:8]
	switch {
	case r.commit.Head == "":
		what = "the files of " + r.tree.dir
	case r.commit.Dirty:
		what = "commit " + r.commit.Head[:8] + " with your uncommitted changes"
	}
	fmt.Fprintf(r.out, "%s · %s · %s\n", orName(r.compiled.pipeline.Name), view.Count(len(jobs), "job"), what)
	if names := unused(jobs); names != "" && r.options.executor.name == "shell" {
		fmt.Fprintf(r.out, "Not used: %s. Jobs run in the shell of this host.\n", names)
	}
	fmt.Fprintln(r.out)
}

// launch starts the pipeline and the runner.
func (r *session) launch(ctx context.Context) error {
	project, err := r.CreateProject(r.tree.project(), r.tree.dir)
	if err != nil {
		return err
	}
	var tags []string
	for _, j := range r.compiled.pipeline.Jobs {
		tags = append(tags, j.Tags...)
	}
	r.id, err = r.StartPipeline(ctx, project.ID, coordinator.PipelineSpec{
		Pipeline: r.compiled.pipeline, Ref: r.commit.Ref, SHA: r.commit.SHA, Before: r.tree.before(r.commit),
		Predefined: r.compiled.predefined, Variables: r.compiled.given, Only: r.options.jobs, Depth: gitDepth,
	})
	if err != nil {
		return err
	}
	if err := r.start(ctx, r.options.concurrent, tags); err != nil {
		return err
	}
	r.introducePage(r.out)
	return nil
}

// finish sees the pipeline through and tells how it went.
func (r *session) finish(ctx context.Context, signals <-chan os.Signal) error {
	w := newWatch(r)
	shown, err := w.run(ctx, signals)
	if errors.Is(err, errEndNow) {
		fmt.Fprintln(r.out, "Ended at once: after_script did not run.")
		return errors.Join(&exitError{code: exitStopped}, r.stop(ctx, true), r.unmadeJSON(err))
	}
	if err != nil {
		return r.unmade(errors.Join(err, r.stop(ctx, true)))
	}
	result, err := r.export(ctx, shown)
	result.Stopped = w.canceled
	err = errors.Join(err, r.report(result, w.followed()))
	if !w.canceled {
		r.keepPage(ctx, r.out, signals)
	}
	ending := errors.Join(r.stop(ctx, false), err)
	switch {
	case w.canceled:
		return errors.Join(&exitError{code: exitStopped}, ending)
	case ending != nil:
		return ending
	case result.failed():
		return &exitError{code: 1}
	}
	return nil
}

// stop prunes old runs and ends all.
func (r *session) stop(ctx context.Context, now bool) error {
	if !now {
		if err := r.pruneRuns(ctx); err != nil {
			r.log.Warn("Old runs could not be removed", "error", err)
		}
	}
	return r.local.stop(now) //nolint:contextcheck // a manager has contexts of its own, which end in an order
}
