// Package transfer carries out the steps of a phase that move files in and out of the working tree: caches and artifacts
// (runner contract, sections 7 and 8). Its messages are those that GitLab users know.
//
// How archives look is package archive's business, where caches lie package cache's, how to talk to the coordinator
// that of whoever gives the Artifacts. Package agent calls it.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/archive"
	"github.com/tranter-ci/tranter/internal/agent/env"
)

// Artifacts is the part of a coordinator that keeps artifacts; see tranter.Coordinator for its methods.
type Artifacts interface {
	Upload(ctx context.Context, job tranter.JobRef, a tranter.ArtifactUpload) error
	Download(ctx context.Context, job tranter.JobRef) (io.ReadCloser, error)
}

// tries is how often a transfer is tried in total (runner contract, sections 8.2 and 1.11).
const tries = 3

// Waits between tries.
const (
	downloadWait = time.Second
	uploadWait   = 2 * time.Second
)

// lasting says whether trying again cannot help.
func lasting(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, tranter.ErrForbidden) || errors.Is(err, tranter.ErrNotFound) || errors.Is(err, tranter.ErrTooLarge) ||
		errors.Is(err, errUnpacked)
}

// cause returns why ctx has ended, if it has, else err: the caller of a step tells a timeout from a cancel by it.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// repeat calls do until it succeeds, up to three times, or fails in a lasting way. It warns about each failure before
// another try; the last one is the caller's to tell.
func repeat(ctx context.Context, log archive.Reporter, wait time.Duration, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if err == nil || try == tries || lasting(ctx, err) {
			return err
		}
		log.Warning("%v; trying again", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// tempFile makes a file for an archive on its way. It is gone after the returned function.
func tempFile(e *env.Env) (*os.File, func(), error) {
	dir := e.Get("ARCHIVER_STAGING_DIR")
	switch {
	case dir == "":
		dir = e.Dirs().Temp
	case !filepath.IsAbs(dir):
		dir = filepath.Join(e.Dirs().Project, dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the directory for temporary files: %w", err)
	}
	f, err := os.CreateTemp(dir, "archive-*")
	if err != nil {
		return nil, nil, fmt.Errorf("make a temporary file: %w", err)
	}
	return f, func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}, nil
}

// expand expands patterns by the rules of a shell. One that cannot be expanded, or that comes to nothing, is left out.
func expand(e *env.Env, patterns []string) []string {
	var out []string
	for _, p := range patterns {
		x, err := e.Expand(p)
		switch {
		case err != nil:
			e.Log.Warning("%s: %v", p, err)
		case x == "":
			e.Log.Warning("%q: expands to nothing", p)
		default:
			out = append(out, x)
		}
	}
	return out
}

// collect finds files of the project.
func collect(ctx context.Context, e *env.Env, paths, exclude []string, untracked bool) (archive.Files, error) {
	sel := archive.Selection{Paths: expand(e, paths), Exclude: expand(e, exclude)}
	if untracked {
		sel.Untracked = func(ctx context.Context, names io.Writer) error {
			cmd := exec.Command("git", "ls-files", "-o", "-z") //nolint:noctx // Exec ends the whole process group with ctx
			cmd.Dir, cmd.Env, cmd.Stdout = e.Dirs().Project, e.Environ, names
			stderr := e.Log.Stderr()
			defer stderr.Close()
			cmd.Stderr = stderr
			return e.Exec(ctx, cmd)
		}
	}
	return archive.Collect(ctx, e.Dirs().Project, sel, e.Log)
}

// level reads the compression level from the variable key.
func level(e *env.Env, key string) archive.Level {
	l, ok := archive.ParseLevel(e.Get(key))
	if !ok {
		e.Log.Warning("%s: unknown level %q, using %q (known: fastest, fast, default, slow, slowest)", key, e.Get(key), l)
	}
	return l
}
