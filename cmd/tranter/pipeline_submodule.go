package main

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/tranter-ci/tranter/internal/coordinator"
)

// snapshot makes the tree as it is fetchable, and the submodules that GitLab would have beside it.
func (l *local) snapshot(ctx context.Context, t *tree, project int64) (coordinator.Commit, error) {
	commit, err := l.Snapshot(ctx, project)
	if err == nil && t.git {
		err = l.offerSubmodules(ctx, t.dir, t.project())
	}
	if err != nil {
		return commit, fmt.Errorf("take the working tree as it is: %w", err)
	}
	return commit, nil
}

// offerSubmodules serves the submodules in dir whose URLs are relative to their project's, and theirs. What is not
// checked out is not here, and what has an address of its own is got from there.
func (l *local) offerSubmodules(ctx context.Context, dir, project string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for _, m := range submodules(ctx, dir) {
		name := strings.TrimSuffix(path.Join(project, m.url), ".git")
		sub := filepath.Join(dir, filepath.FromSlash(m.path))
		top, err := gitOutput(ctx, sub, "rev-parse", "--show-toplevel")
		if err != nil || filepath.FromSlash(strings.TrimSuffix(top, "\n")) != sub || !strings.Contains(name, "/") || name == project {
			continue
		}
		p, err := l.CreateProject(name, sub)
		if err != nil {
			return fmt.Errorf("submodule %s: %w", m.path, err)
		}
		if _, err := l.Snapshot(ctx, p.ID); err != nil {
			return fmt.Errorf("submodule %s: %w", m.path, err)
		}
		if err := l.offerSubmodules(ctx, sub, name); err != nil {
			return err
		}
	}
	return nil
}

type submodule struct{ path, url string }

// submodules lists those of the working tree in dir that have relative URLs.
func submodules(ctx context.Context, dir string) []submodule {
	out, err := gitOutput(ctx, dir, "config", "--null", "--file", ".gitmodules", "--get-regexp", `^submodule\..+\.(path|url)$`)
	if err != nil {
		return nil // there are none
	}
	paths, urls := map[string]string{}, map[string]string{}
	var names []string
	for entry := range strings.SplitSeq(out, "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		if name, ok := strings.CutSuffix(key, ".path"); ok {
			paths[name] = value
			names = append(names, name)
		} else if name, ok := strings.CutSuffix(key, ".url"); ok {
			urls[name] = value
		}
	}
	var list []submodule
	for _, name := range names {
		m := submodule{path: paths[name], url: urls[name]}
		if filepath.IsLocal(m.path) && (strings.HasPrefix(m.url, "./") || strings.HasPrefix(m.url, "../")) {
			list = append(list, m)
		}
	}
	return list
}
