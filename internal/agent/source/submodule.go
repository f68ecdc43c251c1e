package source

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// modules gets the submodules of a project.
type modules struct{ *getter }

// update brings the submodules to the commits that the checked out tree names (runner contract, section 6.5).
func (g modules) update(ctx context.Context) error {
	m := g.step.Submodules
	how := ""
	if m.Strategy == "recursive" {
		how = " recursively"
	}
	if m.Depth > 0 {
		how += fmt.Sprintf(" with git depth set to %d", m.Depth)
	}
	g.env.Log.Info("Updating/initializing submodules%s...", how)
	if !exists(filepath.Join(g.project, ".gitmodules")) {
		return nil
	}
	steps := [][]string{{"submodule", "init"}, g.sync()}
	steps = append(steps, g.foreach(g.cleanArgs()...))
	steps = append(steps, g.foreach("reset", "--hard"))
	if err := g.each(ctx, steps...); err != nil {
		// All this is work on what is there: the server has no part in it.
		if !g.existed || ctx.Err() != nil {
			return err
		}
		g.env.Log.Warning("submodules that an earlier job has left can't be used (%v); starting over", err)
		if err := g.startOver(ctx); err != nil {
			return err
		}
	}
	if err := g.each(ctx, g.fetchAll()); err == nil {
		g.env.Log.Info("Updated submodules")
		err = g.each(ctx, g.sync())
		if err != nil {
			return err
		}
	} else if err := g.retry(ctx, err); err != nil {
		return err
	}
	return g.finish(ctx)
}

// startOver makes the project as if its submodules had never been fetched.
func (g modules) startOver(ctx context.Context) error {
	if err := removeTree(filepath.Join(g.project, ".git", "modules")); err != nil {
		return fmt.Errorf("remove the submodules of an earlier job: %w", err)
	}
	return g.each(ctx, []string{"submodule", "deinit", "--force", "--all"}, []string{"submodule", "init"}, g.sync())
}

// retry tries once more after failed.
func (g modules) retry(ctx context.Context, failed error) error {
	if ctx.Err() != nil {
		return failed
	}
	g.env.Log.Warning("Updating submodules failed. Retrying...")
	var steps [][]string
	if slices.Contains(g.step.Submodules.UpdateFlags, "--remote") {
		steps = append(steps, g.remotely(g.foreach("fetch", "origin", allBranches)...))
	}
	return g.each(ctx, append(steps, g.sync(), g.fetchAll(), g.foreach("reset", "--hard"))...)
}

// finish leaves the submodules clean, and able to log in as the main repository is.
func (g modules) finish(ctx context.Context) error {
	var steps [][]string
	steps = append(steps, g.foreach(g.cleanArgs()...), []string{
		"submodule", "--quiet", "foreach", "--recursive",
		"git config --replace-all include.path " + quote(filepath.ToSlash(g.settingsFile())) + " " + quote(settingsPattern),
	})
	if g.lfs {
		steps = append(steps, g.remotely(g.foreach("lfs", "pull")...))
	}
	return g.each(ctx, steps...)
}

func (g modules) each(ctx context.Context, steps ...[]string) error {
	for _, args := range steps {
		if err := g.in(ctx, g.project, "update submodules", args...); err != nil {
			return err
		}
	}
	return nil
}

// cleanArgs are those of the main repository; submodules are cleaned also if that is not (runner contract, section 5.6).
func (g modules) cleanArgs() []string {
	if g.step.CleanFlags == nil {
		return []string{"clean", "-ffdx"}
	}
	return g.getter.cleanArgs()
}

func (g modules) recursive() []string {
	if g.step.Submodules.Strategy == "recursive" {
		return []string{"--recursive"}
	}
	return nil
}

func (g modules) paths() []string {
	if len(g.step.Submodules.Paths) == 0 {
		return nil
	}
	return append([]string{"--"}, g.step.Submodules.Paths...)
}

func (g modules) sync() []string {
	return slices.Concat([]string{"submodule", "sync"}, g.recursive(), g.paths())
}

// foreach returns the arguments that run a git command in every submodule.
func (g modules) foreach(args ...string) []string {
	words := []string{"git"}
	for _, a := range args {
		words = append(words, quote(a))
	}
	return slices.Concat([]string{"submodule", "foreach"}, g.recursive(), []string{strings.Join(words, " ")})
}

func (g modules) fetchAll() []string {
	m := g.step.Submodules
	return g.remotely(slices.Concat([]string{"submodule", "update", "--init"}, g.recursive(), depth(m.Depth), m.UpdateFlags, g.paths())...)
}
