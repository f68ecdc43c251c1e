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
func (v *views) Trace(id int64) (io.ReadCloser, error) {
	if _, err := v.Job(id); err != nil {
		return nil, err
	}
	f, err := os.Open(v.book.disk.tracePath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	if err != nil {
		return nil, fmt.Errorf("log of job %d: %w", id, err)
	}
	return f, nil
}

// Follow copies the log of a job to w as it grows, until the job is over or ctx ends. A log that is sent anew, because
// it had arrived damaged, is copied anew.
func (v *views) Follow(ctx context.Context, id int64, w io.Writer) error {
	b := v.book
	offset, resends := int64(0), 0
	for {
		b.mu.Lock()
		j := b.jobs[id]
		if j == nil {
			b.mu.Unlock()
			return notFound("job", id)
		}
		changed, over, log := j.bell.wait(), j.Status.Finished(), j.Log
		b.mu.Unlock()
		if log.Resends != resends {
			offset, resends = 0, log.Resends
		}
		if log.size > offset {
			if err := copyRange(w, v.book.disk.tracePath(id), offset, log.size-offset); err != nil {
				return fmt.Errorf("follow job %d: %w", id, err)
			}
			offset = log.size
		}
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
func (v *views) Artifacts(id int64) ([]StoredArtifact, error) {
	j, err := v.Job(id)
	return j.Artifacts, err
}

// OpenArtifact opens an uploaded file: the archive, or a report as it was uploaded (most are compressed by gzip).
func (v *views) OpenArtifact(id int64, kind string) (*os.File, error) {
	j, err := v.Job(id)
	if err != nil {
		return nil, err
	}
	for _, a := range j.Artifacts {
		if a.Type == kind {
			f, err := os.Open(v.book.disk.artifactPath(id, kind))
			if err != nil {
				return nil, fmt.Errorf("artifact of job %d: %w", id, err)
			}
			return f, nil
		}
	}
	return nil, fmt.Errorf("artifact %s of job %d: %w", kind, id, ErrNotFound)
}
