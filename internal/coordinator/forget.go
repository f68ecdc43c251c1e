package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Forget removes a pipeline that is over, with its logs and artifacts, or returns ErrNotPossible or ErrNotFound. What its
// commit has in the repository goes with git's own clean-up.
func (c *Coordinator) Forget(ctx context.Context, id int64) error {
	r, err := c.book.drop(id)
	if err != nil {
		return err
	}
	var errs []error
	for _, j := range r.Jobs {
		errs = append(errs, os.RemoveAll(c.disk.jobDir(j.ID)))
	}
	return errors.Join(append(errs, c.unpin(ctx, r))...)
}

// drop takes a pipeline out of the book. Its number is not given again.
func (b *book) drop(id int64) (*run, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.runs[id]
	switch {
	case r == nil:
		return nil, notFound("pipeline", id)
	case !r.Status.Finished():
		return nil, fmt.Errorf("forget pipeline %d: %w", id, ErrNotPossible)
	}
	if err := b.saveSettings(); err != nil {
		return nil, fmt.Errorf("forget pipeline %d: %w", id, err)
	}
	if err := os.Remove(b.disk.runPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("forget pipeline %d: %w", id, err)
	}
	delete(b.runs, id)
	delete(b.live, id)
	delete(b.stale, r)
	for _, j := range r.Jobs {
		delete(b.jobs, j.ID)
		delete(b.tokens, j.Token)
		delete(b.unsaved, j)
		delete(b.active, j)
	}
	return r, nil
}

// unpin removes the ref that keeps the pipeline's commit.
func (c *Coordinator) unpin(ctx context.Context, r *run) error {
	c.repoMu.Lock()
	defer c.repoMu.Unlock()
	bare := c.disk.repoPath(r.Project)
	ref := "refs/pipelines/" + strconv.FormatInt(r.ID, 10)
	if _, err := os.Stat(filepath.Join(bare, "HEAD")); errors.Is(err, fs.ErrNotExist) || r.Commit.SHA == "" {
		return nil
	}
	_, err := git(ctx, bare, nil, "update-ref", "-d", ref)
	return err
}
