package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Trace opens the log of a job as far as it has come.
func (c *Coordinator) Trace(id int64) (io.ReadCloser, error) {
	if _, err := c.Job(id); err != nil {
		return nil, err
	}
	f, err := os.Open(c.disk.tracePath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	if err != nil {
		return nil, fmt.Errorf("log of job %d: %w", id, err)
	}
	return f, nil
}

// Follow copies the log of a job to w as it grows, until the job is over or ctx ends.
func (c *Coordinator) Follow(ctx context.Context, id int64, w io.Writer) error {
	b := c.book
	offset := int64(0)
	for {
		b.mu.Lock()
		j, changed := b.jobs[id], b.changed
		over, size := true, int64(0)
		if j != nil {
			over, size = j.Status.Finished(), j.Log.size
		}
		b.mu.Unlock()
		if j == nil {
			return notFound("job", id)
		}
		if size > offset {
			if err := copyRange(w, c.disk.tracePath(id), offset, size-offset); err != nil {
				return fmt.Errorf("follow job %d: %w", id, err)
			}
		}
		offset = size // a log that is sent again starts anew
		if over {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func copyRange(w io.Writer, path string, offset, n int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, io.NewSectionReader(f, offset, n))
	return err
}

// Artifacts lists what a job has uploaded.
func (c *Coordinator) Artifacts(id int64) ([]StoredArtifact, error) {
	j, err := c.Job(id)
	return j.Artifacts, err
}

// OpenArtifact opens an uploaded file: the archive, or a report as it was uploaded (most are compressed by gzip).
func (c *Coordinator) OpenArtifact(id int64, kind string) (*os.File, error) {
	j, err := c.Job(id)
	if err != nil {
		return nil, err
	}
	for _, a := range j.Artifacts {
		if a.Type == kind {
			f, err := os.Open(c.disk.artifactPath(id, kind))
			if err != nil {
				return nil, fmt.Errorf("artifact of job %d: %w", id, err)
			}
			return f, nil
		}
	}
	return nil, fmt.Errorf("artifact %s of job %d: %w", kind, id, ErrNotFound)
}
