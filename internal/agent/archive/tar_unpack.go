package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/klauspost/compress/zstd"
)

// untar calls do with each entry of the tar in f.
func untar(ctx context.Context, f *os.File, do func(h *tar.Header, body io.Reader) error) error {
	zr, err := zstd.NewReader(io.NewSectionReader(f, 0, math.MaxInt64), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return damaged(ctx, err)
	}
	defer zr.Close()
	tr := tar.NewReader(content(ctx, zr))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return damaged(ctx, err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := do(h, content(ctx, tr)); err != nil {
			return err
		}
	}
}

// manyEntries is from where on an archive is counted to its end before more of it is unpacked: to make a million files
// and to remove them again takes longer than to find out that there are too many.
const manyEntries = 5_000

func extractTar(ctx context.Context, f *os.File, s *sink, o ExtractOptions) error {
	entries := int64(0)
	return untar(ctx, f, func(h *tar.Header, body io.Reader) error {
		if entries++; entries == min(manyEntries, o.entries()+1) {
			if err := countTar(ctx, f, o.entries()); err != nil {
				return err
			}
		}
		if s.room -= h.Size; h.Size < 0 || s.room < 0 {
			return fmt.Errorf("%w: there is no room for %q", ErrTooLarge, h.Name)
		}
		e := entry{name: h.Name, mode: h.FileInfo().Mode(), modTime: h.ModTime, link: h.Linkname, hard: h.Typeflag == tar.TypeLink}
		if err := s.put(e, body); err != nil {
			return fmt.Errorf("extract %q: %w", h.Name, err)
		}
		return nil
	})
}

// countTar refuses a tar of more than the given number of entries.
func countTar(ctx context.Context, f *os.File, most int64) error {
	n := int64(0)
	return untar(ctx, f, func(*tar.Header, io.Reader) error {
		if n++; n > most {
			return fmt.Errorf("%w: it has more than %d entries", ErrTooLarge, most)
		}
		return nil
	})
}
