package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/archive"
	"github.com/tranter-ci/tranter/internal/agent/env"
)

// ahead is how many archives are downloaded at the same time, or lie on the disk and wait for those before them, if a
// job wants parallel transfers.
const ahead = 4

// copyBuffer is how much is read of a connection at a time.
const copyBuffer = 1 << 20

// DownloadArtifacts fetches the artifacts of earlier jobs and unpacks them into the project, in their order. The first
// that cannot be had ends it with an error, which wraps the coordinator's.
func DownloadArtifacts(ctx context.Context, e *env.Env, a Artifacts, s *tranter.DownloadStep) error {
	var list []*arrival
	for _, d := range s.Dependencies {
		if d.File != nil && d.File.Filename != "" {
			list = append(list, &arrival{d: d, parallel: s.Parallel, done: make(chan struct{})})
		}
	}
	n := 1
	if s.Parallel {
		n = ahead
	}
	fetching, stop := context.WithCancel(ctx)
	slots := make(chan struct{}, n)
	var all sync.WaitGroup
	all.Go(func() {
		for _, r := range list {
			select {
			case slots <- struct{}{}:
				all.Go(func() {
					e.Log.Info("Downloading artifacts for %s (%d)...", r.d.Name, r.d.ID)
					r.fetch(fetching, e, a)
				})
			case <-fetching.Done():
				close(r.done)
			}
		}
	})
	defer func() {
		stop()
		all.Wait()
		for _, r := range list {
			r.discard()
		}
	}()
	for _, r := range list {
		<-r.done
		if err := r.unpack(ctx, e); err != nil {
			return fmt.Errorf("artifacts of %s (%d): %w", r.d.Name, r.d.ID, cause(ctx, err))
		}
		<-slots
	}
	return nil
}

// download fetches the artifacts of one job and unpacks them.
func download(ctx context.Context, e *env.Env, a Artifacts, d tranter.Dependency) error {
	r := &arrival{d: d, done: make(chan struct{})}
	r.fetch(ctx, e, a)
	return r.unpack(ctx, e)
}

// arrival is an archive on its way here.
type arrival struct {
	d        tranter.Dependency
	parallel bool

	done   chan struct{}
	err    error
	file   *os.File
	remove func()
}

// fetch downloads the archive into a temporary file.
func (r *arrival) fetch(ctx context.Context, e *env.Env, a Artifacts) {
	defer close(r.done)
	if r.file, r.remove, r.err = tempFile(e); r.err != nil {
		return
	}
	m := newMeter(e, "Downloading artifacts", r.d.File.Size)
	defer m.end()
	err := errNoParts
	if r.parallel {
		err = fetchParts(ctx, a, r.d, r.file, m)
	}
	if err != nil && ctx.Err() == nil { // in one piece, as ever
		err = repeat(ctx, e.Log, downloadWait, func() error { return fetch(ctx, a, r.d, r.file, m) })
	}
	switch {
	case ctx.Err() != nil:
		r.err = ctx.Err()
	case err != nil:
		e.Log.Error("Downloading artifacts from coordinator... %s  id=%d", reason(err), r.d.ID)
		r.err = fmt.Errorf("download: %w", err)
	default:
		e.Log.Plain("Downloading artifacts from coordinator... ok  id=%d responseStatus=200 OK token=%s", r.d.ID, r.d.Token.Short())
	}
}

func (r *arrival) unpack(ctx context.Context, e *env.Env) error {
	defer r.discard()
	if err := errors.Join(r.err, ctx.Err()); err != nil {
		return err
	}
	o := archive.ExtractOptions{Workers: wholeNumber(e, "FASTZIP_EXTRACTOR_CONCURRENCY")}
	if err := archive.ExtractWith(ctx, r.file, e.Dirs().Project, o, e.Log); err != nil {
		return fmt.Errorf("extract: %w", err)
	}
	return nil
}

func (r *arrival) discard() {
	if r.remove != nil {
		r.remove()
		r.remove = nil
	}
}

// fetch writes the archive of d to f, from its beginning.
func fetch(ctx context.Context, a Artifacts, d tranter.Dependency, f *os.File, m *meter) error {
	m.restart()
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	body, err := a.Download(ctx, tranter.JobRef{ID: d.ID, Token: d.Token})
	if err != nil {
		return err
	}
	defer body.Close()
	stop := context.AfterFunc(ctx, func() { _ = body.Close() }) // ends a read that waits
	defer stop()
	n, err := io.CopyBuffer(m.writer(struct{ io.Writer }{f}), struct{ io.Reader }{body}, make([]byte, copyBuffer))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && n < d.File.Size {
		err = fmt.Errorf("%w: got %d of %d bytes", io.ErrUnexpectedEOF, n, d.File.Size)
	}
	return err
}

// reason is how a failed transfer is told in GitLab's words.
func reason(err error) string {
	switch {
	case errors.Is(err, tranter.ErrForbidden):
		return "forbidden"
	case errors.Is(err, tranter.ErrNotFound):
		return "not found"
	case errors.Is(err, tranter.ErrTooLarge):
		return "413 Request Entity Too Large"
	default:
		return "error: " + err.Error()
	}
}
