package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
	"github.com/tranter-ci/tranter/internal/view"
)

// pruneFlags say what is to be removed.
type pruneFlags struct {
	images, volumes, all, mirror, dryRun *bool
	age                                  *time.Duration
	output                               *outputFormat
}

func newDockerPrune(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images and cache volumes that jobs have not used for a while, and what jobs have left behind",
		Long: `Remove, from the container engines of the docker executor, cache volumes and images that
jobs of this host's manager have used, but not within the last day (--min-age), and
containers, networks and volumes of jobs that have long ended.

Images that no job of this manager has used stay, as do the helper image, images that no
registry has, and whatever a container uses. It may run beside a running manager.`,
		Example: `  tranter docker prune --dry-run
  tranter docker prune --min-age 168h
  tranter docker prune --runner "build host" --volumes
  tranter docker prune --mirror       remove the registry mirror with its data, nothing else`,
		Args: onlyFlags,
	}
	where := addEngineFlags(cmd)
	flags := pruneFlags{
		dryRun:  cmd.Flags().Bool("dry-run", false, "only show what would be removed, and what would stay and why"),
		images:  cmd.Flags().Bool("images", false, "only images; with --volumes, both"),
		volumes: cmd.Flags().Bool("volumes", false, "only cache volumes; with --images, both"),
		all:     cmd.Flags().Bool("all", false, "also cache volumes that GitLab Runner or another manager has made, and images that no registry has; with --mirror, the mirrors of all managers"),
		mirror:  cmd.Flags().Bool("mirror", false, "only the registry mirror that registry_mirror = \"start\" has started"),
		age:     cmd.Flags().Duration("min-age", 24*time.Hour, "how long what is removed must not have been used"),
		output:  addOutputFlag(cmd.Flags()),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *flags.age < 0 {
			return fmt.Errorf("--min-age: %s is less than nothing", *flags.age)
		}
		if *flags.mirror && (*flags.images || *flags.volumes) {
			return errors.New("--mirror removes the registry mirror only: leave --images and --volumes out")
		}
		reports := []prunedEngine{}
		err := where.eachEngine(cmd, s, func(ctx context.Context, e *openedEngine) error {
			report, err := flags.prune(ctx, s, e)
			reports = append(reports, report)
			return err
		})
		if *flags.output == "json" {
			err = errors.Join(err, writeJSON(s.out, reports))
		}
		return err
	}
	return cmd
}

// prunedEngine is what was done on an engine.
type prunedEngine struct {
	Engine  string   `json:"engine"` // the name of its machine
	Runners []string `json:"runners,omitempty"`
	DryRun  bool     `json:"dry_run"`
	// Removed is what is gone, or would be; Kept is what stays of what is ours.
	Removed    []janitor.Removal `json:"removed"`
	Kept       []janitor.Removal `json:"kept"`
	Containers []string          `json:"containers,omitempty"` // of jobs that have long ended, or a mirror
	Networks   []string          `json:"networks,omitempty"`
	Volumes    []string          `json:"volumes,omitempty"`
	Freed      uint64            `json:"freed"` // bytes, as far as sizes are known
}

// prune removes what the flags say from one engine, and tells it people if they are to read it.
func (f pruneFlags) prune(ctx context.Context, s streams, e *openedEngine) (prunedEngine, error) {
	out := prunedEngine{Engine: e.engine.Facts().Name, Runners: e.runners, DryRun: *f.dryRun, Removed: []janitor.Removal{}, Kept: []janitor.Removal{}}
	p := &pruneView{w: s.out, dryRun: *f.dryRun}
	if *f.output == "json" {
		p.w = io.Discard
	}
	fmt.Fprintf(p.w, "Engine %s%s:\n", view.Printable(out.Engine), view.Printable(e.of()))
	var errs []error
	if !*f.mirror {
		errs = append(errs, f.things(ctx, e, p, &out))
	}
	swept, err := f.leftovers(ctx, e)
	out.Containers, out.Networks, out.Volumes = swept.Containers, swept.Networks, swept.Volumes
	p.finish(out, swept)
	return out, errors.Join(append(errs, err)...)
}

// leftovers removes what jobs have left, or the mirror, unless the flags are about other things.
func (f pruneFlags) leftovers(ctx context.Context, e *openedEngine) (janitor.Swept, error) {
	owner := e.owner
	if *f.all {
		owner = "" // anybody's
	}
	switch {
	case *f.mirror && owner == "" && !*f.all:
		return janitor.Swept{}, errors.New("no manager has run with this configuration and state directory, so none of the engine's mirrors is known to be its own: --all removes those of all managers")
	case *f.mirror && *f.dryRun:
		return janitor.Mirrors(ctx, e.engine, owner)
	case *f.mirror:
		return janitor.RemoveMirror(ctx, e.engine, owner)
	case *f.images || *f.volumes:
		return janitor.Swept{}, nil
	default: // jobs of ours may be running: only what has expired is known to be nobody's
		return janitor.Sweeping{Preview: *f.dryRun}.Run(ctx, e.engine)
	}
}

// things removes images and cache volumes.
func (f pruneFlags) things(ctx context.Context, e *openedEngine, shown *pruneView, out *prunedEngine) error {
	p := janitor.Pruning{
		Limits: janitor.Limits{All: true, MinAge: *f.age}, Owner: e.owner, Keep: e.keep, Sizes: true, Foreign: *f.all,
	}
	if *f.images {
		p.Kinds = append(p.Kinds, janitor.Image)
	}
	if *f.volumes {
		p.Kinds = append(p.Kinds, janitor.Volume)
	}
	now := time.Now()
	things, err := p.Things(ctx, e.engine, e.uses)
	if err != nil {
		return err
	}
	steps := janitor.Plan(things, diskspace.Room{}, p.Limits, now)
	for _, t := range things {
		if why := janitor.Stays(t, *f.age, now); why != "" && t.Ours {
			out.Kept = append(out.Kept, janitor.Removal{Thing: t, Reason: why})
		}
	}
	shown.plan(steps, out.Kept, now)
	if *f.dryRun {
		out.Removed = append(out.Removed, steps...)
		for _, step := range steps {
			out.Freed += uint64(max(step.Size, 0))
		}
		return nil
	}
	p.Sizes = len(steps) > 0
	p.Report = func(o janitor.Outcome) {
		shown.outcome(o)
		if o.Err != nil {
			out.Kept = append(out.Kept, janitor.Removal{Thing: o.Thing, Reason: whyKept(o.Err)})
		}
	}
	pruned, err := p.Run(ctx, e.engine, e.uses, diskspace.Room{})
	out.Removed, out.Freed = append(out.Removed, pruned.Removed...), pruned.Freed
	return errors.Join(err, e.uses.Save())
}

func whyKept(err error) string {
	if janitor.InUse(err) {
		return "in use"
	}
	return err.Error()
}

// pruneView shows people what happens on an engine.
type pruneView struct {
	w           io.Writer
	dryRun      bool
	done, total int
}

// plan shows what is to be removed, and, if nothing is going to be, what stays.
func (v *pruneView) plan(steps, kept []janitor.Removal, now time.Time) {
	v.total = len(steps)
	v.table(steps, now)
	if v.dryRun && len(kept) > 0 {
		fmt.Fprintln(v.w, "\nWhat stays:")
		kept = slices.Clone(kept)
		slices.SortFunc(kept, func(a, b janitor.Removal) int { return a.Last.Compare(b.Last) })
		v.table(kept, now)
	}
}

func (v *pruneView) table(rows []janitor.Removal, now time.Time) {
	if len(rows) == 0 {
		return
	}
	t := tabwriter.NewWriter(v.w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KIND\tNAME\tSIZE\tLAST USED\tREASON")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.Kind, view.Printable(r.Name), size(r.Size), lastUsed(r.Last, now), view.Printable(r.Reason))
	}
	_ = t.Flush()
}

// outcome shows one removal.
func (v *pruneView) outcome(o janitor.Outcome) {
	v.done++
	v.total = max(v.total, v.done)
	if o.Err != nil {
		fmt.Fprintf(v.w, "%d/%d kept %s %s: %s\n", v.done, v.total, o.Kind, view.Printable(o.Name), view.Printable(whyKept(o.Err)))
		return
	}
	fmt.Fprintf(v.w, "%d/%d removed %s %s\n", v.done, v.total, o.Kind, view.Printable(o.Name))
}

// finish says what it has come to.
func (v *pruneView) finish(out prunedEngine, swept janitor.Swept) {
	verb := "Removed"
	if v.dryRun {
		verb = "Would be removed"
	}
	if swept.Count() > 0 {
		fmt.Fprintf(v.w, "%s: %s.\n", verb, view.Printable(swept.String()))
	}
	if len(out.Removed) == 0 {
		if swept.Count() == 0 {
			fmt.Fprintln(v.w, "There is nothing to remove.")
		}
		return
	}
	images := 0
	for _, r := range out.Removed {
		if r.Kind == janitor.Image {
			images++
		}
	}
	fmt.Fprintf(v.w, "%s: %s and %s, %s in all.\n", verb, view.Count(images, "image"), view.Count(len(out.Removed)-images, "cache volume"), janitor.Bytes(out.Freed))
}

// size is that of a thing, for people.
func size(n int64) string {
	if n < 0 {
		return "?"
	}
	return janitor.Bytes(uint64(n))
}

func lastUsed(at, now time.Time) string {
	if at.IsZero() {
		return "?"
	}
	return view.Short(now.Sub(at)) + " ago"
}
