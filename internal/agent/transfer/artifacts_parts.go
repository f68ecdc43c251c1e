package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/tranter-ci/tranter"
)

// Parts is what Artifacts may be able to do besides: to give an archive in parts.
type Parts interface {
	// Locate finds the archive of job in an object storage that gives parts of it, and returns the archive's size in
	// bytes and a function that opens the bytes from one offset up to another. The error is about this way only: the
	// archive may still be had in one piece.
	Locate(ctx context.Context, job tranter.JobRef) (open func(ctx context.Context, from, to int64) (io.ReadCloser, error), size int64, err error)
}

// Sizes of a download in parts (runner contract, section 1.11).
const (
	partSize  = 16 << 20
	partsOnce = 16
)

var errNoParts = errors.New("the archive is not to be had in parts")

// fetchParts writes the archive of d to f, several parts at the same time. Part of an archive that is too small for that
// is not worth the question.
func fetchParts(ctx context.Context, a Artifacts, d tranter.Dependency, f *os.File, m *meter) error {
	p, ok := a.(Parts)
	if !ok || d.File.Size > 0 && d.File.Size <= partSize {
		return errNoParts
	}
	open, size, err := p.Locate(ctx, tranter.JobRef{ID: d.ID, Token: d.Token})
	if err != nil {
		return err
	}
	if size <= partSize || size < d.File.Size {
		return errNoParts
	}
	return fetchAll(ctx, open, size, f, m)
}

// fetchAll writes all parts of an archive of size bytes to f.
func fetchAll(ctx context.Context, open partOpener, size int64, f io.WriterAt, m *meter) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	starts := make(chan int64)
	var all sync.WaitGroup
	for range min(partsOnce, (size+partSize-1)/partSize) {
		all.Go(func() {
			for from := range starts {
				if err := fetchPart(ctx, open, io.NewOffsetWriter(f, from), span64{from, min(from+partSize, size)}, m); err != nil {
					cancel(err)
				}
			}
		})
	}
	for from := int64(0); from < size && ctx.Err() == nil; from += partSize {
		select {
		case starts <- from:
		case <-ctx.Done():
		}
	}
	close(starts)
	all.Wait()
	return context.Cause(ctx)
}

type span64 struct{ from, to int64 }

// partOpener opens an archive's bytes from one offset up to another.
type partOpener = func(ctx context.Context, from, to int64) (io.ReadCloser, error)

// fetchPart writes one part to w. Where a connection breaks another one goes on; only one that brings nothing is a try
// in vain.
func fetchPart(ctx context.Context, open partOpener, w io.Writer, s span64, m *meter) error {
	for failed := 0; ; {
		n, err := onePart(ctx, open, w, s, m)
		if s.from += n; s.from >= s.to {
			return nil
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		if failed++; n > 0 {
			failed = 0
		}
		if failed == tries || lasting(ctx, err) {
			return fmt.Errorf("bytes %d to %d: %w", s.from, s.to, err)
		}
	}
}

func onePart(ctx context.Context, open partOpener, w io.Writer, s span64, m *meter) (int64, error) {
	body, err := open(ctx, s.from, s.to)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	stop := context.AfterFunc(ctx, func() { _ = body.Close() })
	defer stop()
	return io.CopyBuffer(m.writer(struct{ io.Writer }{w}), io.LimitReader(body, s.to-s.from), make([]byte, bufferPart))
}

const bufferPart = 256 << 10
