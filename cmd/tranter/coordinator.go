package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/view"
)

// benchOptions are the flags of coordinator.
type benchOptions struct {
	pipelineRequest
	state, address, url string
	registration        string
	project             string
	tags                []string
	run                 bool
	logs                logOptions
}

func newCoordinator(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "coordinator",
		Short: "Serve the part of GitLab that runners talk to, as a test bench for runners",
		Long: `Serve GitLab's Runner API, artifacts and repositories over HTTP, from a state
directory, until SIGINT or SIGTERM. It prints its address, an administrator's token
and a runner token. Pipelines of --project are started by --run and by
POST /api/v4/projects/ID/pipeline; any runner of GitLab's can take their jobs.`,
		Example: `  tranter coordinator --project . --run
  tranter coordinator --state-dir ./gitlab --listen 127.0.0.1:8929 --project . --run
  tranter coordinator --listen :8929 --url http://gitlab.test:8929 --registration-token secret`,
		Args: cobra.NoArgs,
	}
	var o benchOptions
	flags := cmd.Flags()
	flags.StringVar(&o.state, "state-dir", "", "directory of its state (default: coordinator in the user's cache directory)")
	flags.StringVar(&o.address, "listen", "127.0.0.1:8929", "address to listen on; port 0: any that is free")
	flags.StringVar(&o.url, "url", "", "address that runners and jobs are given, if it is not the one that is listened on")
	flags.StringVar(&o.registration, "registration-token", "", "let old runners register with this token")
	withEnv(flags, "registration-token", "REGISTRATION_TOKEN")
	flags.StringVar(&o.project, "project", "", "directory whose pipeline is run")
	flags.StringSliceVar(&o.tags, "tags", nil, "tags of the runner whose token is printed, separated by commas")
	flags.BoolVar(&o.run, "run", false, "start a pipeline of the project at once")
	addRequestFlags(flags, &o.pipelineRequest)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.logs = logFlags(cmd.Flags())
		if o.run && o.project == "" {
			return errors.New("--run needs --project: the directory whose pipeline is run")
		}
		if u, err := url.Parse(o.url); err != nil || o.url != "" && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			return fmt.Errorf("--url %s: an address such as http://gitlab.test:8929 is needed", o.url)
		}
		return runCoordinator(cmd.Context(), s, &o)
	}
	return cmd
}

// bench is a running coordinator with the projects that it makes pipelines of.
type bench struct {
	*local
	options *benchOptions
	tree    *tree // of --project; nil: none
	project coordinator.Project
	out     io.Writer
	watches sync.WaitGroup
	ctx     context.Context //nolint:containedctx // of the process: pipelines are watched longer than the request that starts them lasts
}

// runCoordinator is the command coordinator.
func runCoordinator(ctx context.Context, s streams, o *benchOptions) error {
	leaveHook()
	ctx, release := signal.NotifyContext(ctx, stopSignals()...)
	defer release()
	b := &bench{options: o, out: &lockedWriter{w: s.out}, ctx: ctx}
	log, err := o.logs.or(logOptions{level: "warn"}).logger(s.err, new(slog.LevelVar))
	if err != nil {
		return err
	}
	if err := b.open(ctx, log); err != nil {
		return err
	}
	err = b.serveUntilStopped(ctx)
	release() // a second signal ends at once
	b.serve()
	b.owned.Wait()
	b.watches.Wait()
	return errors.Join(err, b.ended, b.Close())
}

// open takes the state directory, the project and the address.
func (b *bench) open(ctx context.Context, log *slog.Logger) error {
	o := b.options
	dir := o.state
	if dir == "" {
		dir = filepath.Join(cacheRoot(), "coordinator")
	}
	outside := string(filepath.Separator)
	if o.project != "" {
		var err error
		if b.tree, err = openTree(ctx, o.project, o.file); err != nil {
			return err
		}
		outside = b.tree.dir
	}
	dir, err := makeStateDir(dir, outside)
	if err != nil {
		return err
	}
	c, err := coordinator.Open(coordinator.Options{
		Dir: dir, URL: o.url, Registration: tranter.Secret(o.registration), Log: log, NewPipeline: b.newPipeline,
	})
	if err != nil {
		return err
	}
	b.local = &local{Coordinator: c, dir: dir, log: log}
	if err := b.listen(ctx, o.address); err != nil {
		return errors.Join(err, c.Close())
	}
	return nil
}

// serveUntilStopped makes project and runner, says how to use them, and waits for the end of ctx.
func (b *bench) serveUntilStopped(ctx context.Context) error {
	runner, err := b.ownRunner()
	if err != nil {
		return err
	}
	if err := b.setTags(ctx, runner.ID, b.options.tags); err != nil {
		return err
	}
	if b.tree != nil {
		if b.project, err = b.CreateProject(b.tree.project(), b.tree.dir); err != nil {
			return err
		}
	}
	b.describe(runner.Token)
	for _, v := range b.Pipelines() {
		if !v.Status.Finished() {
			b.watch(v.ID)
		}
	}
	if b.options.run {
		given, err := b.options.given()
		if err == nil {
			_, err = b.newPipeline(ctx, b.project, "", given)
		}
		if err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// describe prints what is needed to use it.
func (b *bench) describe(runner tranter.Secret) {
	address := b.URL()
	if address == "" {
		address = b.url
	}
	admin := b.AdminToken().Reveal()
	fmt.Fprintf(b.out, `The local GitLab is at %s

  administrator's token  %s
  runner token           %s
  state                  %s
`, address, admin, runner.Reveal(), b.dir)
	if b.options.registration != "" {
		fmt.Fprintf(b.out, "  registration token     as given\n")
	}
	if b.tree != nil {
		fmt.Fprintf(b.out, "  project %-14d %s, of %s\n", b.project.ID, b.project.Path, b.project.Source)
	}
	fmt.Fprintf(b.out, `
A runner for its jobs:

  tranter run-single --url %s --token %s --executor shell
`, address, runner.Reveal())
	if b.tree != nil {
		fmt.Fprintf(b.out, `
Another pipeline of the project as it is then:

  curl --header "PRIVATE-TOKEN: %s" --data ref=%s %s/api/v4/projects/%d/pipeline
`, admin, b.tree.commitOf().Ref, address, b.project.ID)
	}
	fmt.Fprintln(b.out)
}

// newPipeline starts a pipeline of the working tree as it is. A ref other than the tree's can't be had: its files are not
// there.
func (b *bench) newPipeline(ctx context.Context, p coordinator.Project, ref string, given []tranter.Variable) (int64, error) {
	if p.Source == "" {
		return 0, fmt.Errorf("the project %s has no directory: start the coordinator with --project", p.Path)
	}
	t, err := openTree(ctx, p.Source, b.options.file)
	if err != nil {
		return 0, err
	}
	commit, err := b.snapshot(ctx, t, p.ID)
	if err != nil {
		return 0, err
	}
	if ref != "" && ref != commit.Ref && ref != "HEAD" {
		return 0, fmt.Errorf("the working tree is on %s: check %s out to run its pipeline", commit.Ref, ref)
	}
	address := b.URL()
	if address == "" {
		address = b.url
	}
	c, err := t.compile(ctx, commit, address, given)
	if err != nil {
		return 0, err
	}
	if c.pipeline == nil {
		lines := make([]string, 0, len(c.problems))
		for _, problem := range c.problems {
			lines = append(lines, problem.String())
		}
		return 0, fmt.Errorf("the pipeline can't be made:\n%s", strings.Join(lines, "\n"))
	}
	id, err := b.StartPipeline(ctx, p.ID, coordinator.PipelineSpec{
		Pipeline: c.pipeline, Ref: commit.Ref, SHA: commit.SHA, Before: t.before(commit), Predefined: c.predefined, Variables: c.given,
		Depth: gitDepth,
	})
	if err != nil {
		return 0, err
	}
	printPipelineProblems(b.out, c.problems) // there are only warnings
	fmt.Fprintf(b.out, "pipeline %d: %s, %s\n", id, orName(c.pipeline.Name), view.Count(len(c.pipeline.Jobs), "job"))
	b.watch(id)
	return id, nil
}

// watch prints what becomes of a pipeline's jobs, until it is over or the coordinator ends.
func (b *bench) watch(id int64) {
	events, unsubscribe := b.Subscribe(id)
	show := &plainProgress{w: b.out, seen: map[int64]string{}}
	b.watches.Go(func() {
		defer unsubscribe()
		for {
			select {
			case <-b.ctx.Done():
				return
			case <-events:
				drain(events)
			}
			shown, err := b.Pipeline(id)
			if err != nil {
				return
			}
			show.update(rows(shown), time.Now())
			if shown.Status.Finished() {
				fmt.Fprintf(b.out, "pipeline %d: %s\n", id, shown.Status)
				return
			}
		}
	})
}
