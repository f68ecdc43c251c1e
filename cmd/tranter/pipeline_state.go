package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// keptRuns is how many runs of a project are kept, with their logs and artifacts.
const keptRuns = 10

// cacheRoot is where state of projects is kept when nothing names a place. Without a home directory it is in the
// directory for temporary files, under the user's number.
func cacheRoot() string {
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "tranter")
	}
	return filepath.Join(os.TempDir(), "tranter-"+strconv.Itoa(os.Geteuid()))
}

// projectStateDir is the state directory of the project in dir.
func projectStateDir(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	name := strings.Trim(notInName().ReplaceAllString(filepath.Base(dir), "-"), "-.")
	return filepath.Join(cacheRoot(), "pipelines", name+"-"+hex.EncodeToString(sum[:5]))
}

// makeStateDir makes the state directory of a pipeline of the tree, out of the way of git should it lie in the tree.
func makeStateDir(dir, tree string) (string, error) {
	if dir == "" {
		dir = projectStateDir(tree)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the state directory: %w", err)
	}
	if rel, err := filepath.Rel(dir, tree); err == nil && filepath.IsLocal(rel) {
		return "", fmt.Errorf("the state directory %s can't be the project's directory or hold it: name another with --state-dir", dir)
	}
	entries, err := os.ReadDir(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return "", noStateDir(err)
	}
	if err := ownDir(dir); err != nil {
		return "", err
	}
	if len(entries) == 0 {
		if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("*\n"), 0o600); err != nil {
			return "", noStateDir(err)
		}
	}
	return dir, nil
}

// noStateDir says what to do when the state directory can't be made, such as for a user whose home is not there.
func noStateDir(err error) error {
	return fmt.Errorf("make the state directory (--state-dir names another): %w", err)
}

// runsDir is where people find logs and artifacts.
func runsDir(state string) string { return filepath.Join(state, "runs") }

// pruneRuns removes all but the latest runs.
func (l *local) pruneRuns(ctx context.Context) error {
	views := l.Pipelines() // the newest first
	var errs []error
	for _, v := range views[min(keptRuns, len(views)):] {
		if v.Status.Finished() {
			errs = append(errs, l.Forget(ctx, v.ID))
		}
	}
	entries, err := os.ReadDir(runsDir(l.dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	var ids []int
	for _, e := range entries {
		if id, err := strconv.Atoi(e.Name()); err == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids[:max(0, len(ids)-keptRuns)] {
		errs = append(errs, os.RemoveAll(filepath.Join(runsDir(l.dir), strconv.Itoa(id))))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove old runs: %w", err)
	}
	return nil
}
