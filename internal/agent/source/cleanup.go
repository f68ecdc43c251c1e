package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/env"
)

// Cleanup takes away what the job must not leave behind (runner contract, section 6.9): file variables, credentials,
// lock files, and the working tree's changes if the step says so. It goes on after a failure and returns all of them.
func Cleanup(ctx context.Context, e *env.Env, s *tranter.CleanupStep) error {
	temp, project := e.Dirs().Temp, e.Dirs().Project
	var errs []error
	if s.WipeBuild {
		errs = append(errs, wipe(ctx, e, s))
	}
	names := []string{"gitlab_runner_env", "masking.db", settingsName, env.FileVariables}
	for _, v := range e.Phase.Variables {
		if v.File && v.Key != "" && filepath.IsLocal(v.Key) && v.Key == filepath.Base(v.Key) {
			names = append(names, v.Key)
		}
	}
	credentials, err := filepath.Glob(filepath.Join(temp, credentialName+"*"))
	errs = append(errs, err)
	for _, c := range credentials {
		names = append(names, filepath.Base(c))
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(temp, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, os.RemoveAll(filepath.Join(temp, templateName)), removeLocks(project, true))
	_ = os.Remove(temp) // what the job has put there itself stays, and the directory with it
	return errors.Join(errs...)
}

// wipe takes the job's changes out of the working tree, or all of it when the next job would not use it.
func wipe(ctx context.Context, e *env.Env, s *tranter.CleanupStep) error {
	project := e.Dirs().Project
	switch s.Strategy {
	case "none":
		return nil
	case "clone", "empty":
		return removeTree(project)
	}
	if !exists(filepath.Join(project, ".git")) {
		return nil
	}
	g, err := newGit(e)
	if err != nil {
		return err
	}
	steps := [][]string{{"reset", "--hard"}}
	if s.CleanFlags != nil {
		steps = slices.Insert(steps, 0, slices.Concat([]string{"clean"}, s.CleanFlags))
	}
	if exists(filepath.Join(project, ".gitmodules")) {
		for _, args := range slices.Clone(steps) {
			words := []string{"git"}
			for _, a := range args {
				words = append(words, quote(a))
			}
			steps = append(steps, []string{"submodule", "foreach", "--recursive", strings.Join(words, " ")})
		}
	}
	var errs []error
	for _, args := range steps {
		if args[0] == "clean" {
			args = slices.Insert(slices.Clone(args), 1, mounted(project)...)
		}
		errs = append(errs, g.in(ctx, project, "clean the working tree", args...))
	}
	return errors.Join(errs...)
}

// ClearWorktree makes the working tree ready for another try to get the sources (runner contract, section 6.7). A
// repository that git can't do it with goes altogether.
func ClearWorktree(ctx context.Context, e *env.Env) error {
	project := e.Dirs().Project
	if !exists(project) {
		return nil
	}
	g, err := newGit(e)
	if err != nil {
		return err
	}
	if err := removeLocks(project, true); err != nil {
		return err
	}
	for _, args := range [][]string{{"rm", "-rf", "--ignore-unmatch", "--quiet", "."}, slices.Concat([]string{"clean", "-ffdx", "-q"}, mounted(project))} {
		if _, err = g.output(ctx, project, args...); err != nil {
			break
		}
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	return removeTree(project)
}

// removeForeign deletes a .git that is a file or a link: a job has put it there, and git, and what tidies up for it, would
// follow it to a repository somewhere else.
func removeForeign(project string) error {
	path := filepath.Join(project, ".git")
	if info, err := os.Lstat(path); err != nil || info.IsDir() {
		return nil //nolint:nilerr // no repository, or one of ours
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the .git of an earlier job, which is no directory: %w", err)
	}
	return nil
}

// removeLocks deletes what a git command that was killed leaves behind (runner contract, section 6.3, 2).
func removeLocks(project string, submodules bool) error {
	names := []string{"index.lock", "shallow.lock", "HEAD.lock", filepath.Join("hooks", "post-checkout"), "config.lock"}
	dir := filepath.Join(project, ".git")
	var errs []error
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) && !isNotDir(err) {
			errs = append(errs, fmt.Errorf("remove a lock of git: %w", err))
		}
	}
	if submodules {
		errs = append(errs, removeBelow(filepath.Join(dir, "modules"), func(_ string, d fs.DirEntry) bool {
			return !d.IsDir() && slices.ContainsFunc(names, func(n string) bool { return filepath.Base(n) == d.Name() })
		}))
	}
	errs = append(errs, removeBelow(filepath.Join(dir, "refs"), func(_ string, d fs.DirEntry) bool {
		return !d.IsDir() && strings.HasSuffix(d.Name(), ".lock")
	}))
	return errors.Join(errs...)
}

// removeConfig deletes settings and hooks, which a job may have changed for the next one (runner contract, section
// 6.3, 3). With keep the settings of the main repository stay: none has changed them.
func removeConfig(project string, submodules, keep bool) error {
	dir := filepath.Join(project, ".git")
	errs := []error{os.RemoveAll(filepath.Join(dir, "hooks"))}
	if !keep {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, "config")))
	}
	if submodules {
		errs = append(errs, removeBelow(filepath.Join(dir, "modules"), func(_ string, d fs.DirEntry) bool {
			return d.IsDir() && d.Name() == "hooks" || !d.IsDir() && d.Name() == "config"
		}))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove git's settings of an earlier job: %w", err)
	}
	return nil
}

// removeBelow deletes the files and directories below root that pick chooses. It follows no links.
func removeBelow(root string, pick func(path string, d fs.DirEntry) bool) error {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || isNotDir(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if !pick(path, d) {
			return nil
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("tidy up in %s: %w", root, err)
	}
	return nil
}

// removeTree deletes a directory, also where permissions of the job's own are in the way, and where it can only be
// emptied because something is mounted on it. What is mounted below it stays.
func removeTree(dir string) error {
	if keep := mountsBelow(dir); keep != nil {
		return removeAround(dir, keep)
	}
	if os.RemoveAll(dir) == nil {
		return nil
	}
	// What can't be read can't be removed either, and RemoveAll tells.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // it is about to go
		}
		return nil
	})
	err := os.RemoveAll(dir)
	if err == nil {
		return nil
	}
	if left, readErr := os.ReadDir(dir); readErr == nil && len(left) == 0 {
		return nil
	}
	return err
}
