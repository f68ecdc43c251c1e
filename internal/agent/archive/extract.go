package archive

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxDirectory bounds what is read of a zip archive's directory, and with it the memory for its entries: room for
	// about two million files.
	maxDirectory = 256 << 20
	// maxLate bounds how many directories and links of an archive are remembered until its end.
	maxLate = 1 << 20
	// maxWindow bounds the memory for unpacking zstd. It is what the zstd program accepts without being asked.
	maxWindow = 128 << 20
	// maxTarget bounds the length of a symbolic link.
	maxTarget = 4096
)

// Extract unpacks the archive f, whose format it finds out, into the directory dir, which exists. Files that exist are
// replaced, never written through. Members that would lead out of dir, or that are no file, directory or link, are left
// out with a warning. An archive that cannot be read is ErrDamaged. After that, and after any other fault, what had been
// unpacked is removed again: part of an archive is worse than nothing. Only the end of ctx leaves it as it is.
func Extract(ctx context.Context, f *os.File, dir string, log Reporter) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the project directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	s := &sink{root: root, log: log, buf: make([]byte, bufferSize)}
	defer s.leave()
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the archive: %w", err)
	}
	switch {
	case magic == [4]byte{0x28, 0xB5, 0x2F, 0xFD}:
		err = extractTar(ctx, f, s)
	case magic[0] == 0x1F && magic[1] == 0x8B:
		return fmt.Errorf("%w: files in the format gzip cannot be unpacked", ErrDamaged)
	default:
		err = extractZip(ctx, f, s)
	}
	if err == nil {
		err = s.finish(ctx)
	}
	if err != nil && ctx.Err() == nil {
		s.undo()
	}
	s.summary()
	return err
}

// entry is a member of an archive as the archive tells it: nothing about it can be trusted.
type entry struct {
	name    string
	mode    fs.FileMode
	modTime time.Time
	link    string // target of a symbolic link; of a hard link if hard is set
	hard    bool
}

// damaged marks errors that come from the archive, as opposed to those of the disk that is written to.
func damaged(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, io.EOF) || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// content returns a reader of r that ends with ctx and whose errors are ErrDamaged.
func content(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := r.Read(p)
		return n, damaged(ctx, err)
	})
}

func extractTar(ctx context.Context, f *os.File, s *sink) error {
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
		e := entry{name: h.Name, mode: h.FileInfo().Mode(), modTime: h.ModTime, link: h.Linkname, hard: h.Typeflag == tar.TypeLink}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := s.put(e, content(ctx, tr)); err != nil {
			return fmt.Errorf("extract %q: %w", h.Name, err)
		}
	}
}

func extractZip(ctx context.Context, f *os.File, s *sink) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read the archive: %w", err)
	}
	budget := &budget{r: f, left: maxDirectory}
	zr, err := zip.NewReader(budget, info.Size())
	if err != nil {
		return damaged(ctx, err)
	}
	budget.left = math.MaxInt64
	inflater := &inflater{}
	zr.RegisterDecompressor(zip.Deflate, inflater.open)
	unzstd := zstd.ZipDecompressor(zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	zr.RegisterDecompressor(methodZstd, unzstd)
	zr.RegisterDecompressor(methodZstdOld, unzstd)
	for _, zf := range zr.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := extractMember(ctx, zf, s); err != nil {
			return fmt.Errorf("extract %q: %w", zf.Name, err)
		}
	}
	return nil
}

func extractMember(ctx context.Context, zf *zip.File, s *sink) error {
	e := described(zf)
	if e.mode.Type()&^fs.ModeSymlink != 0 {
		return s.put(e, nil)
	}
	body, err := zf.Open()
	if err != nil {
		return damaged(ctx, err)
	}
	defer body.Close()
	r := content(ctx, body)
	if e.mode.Type() == fs.ModeSymlink {
		target, err := io.ReadAll(io.LimitReader(r, maxTarget+1))
		if err != nil {
			return err
		}
		e.link = string(target)
	}
	return s.put(e, r)
}

// described returns what a zip archive tells of a member. One that was made where there are no permissions tells none, and
// a date of zero is none.
func described(zf *zip.File) entry {
	e := entry{name: zf.Name, mode: zf.Mode(), modTime: zf.Modified}
	if zf.CreatorVersion>>8 == 0 {
		e.mode &^= 0o777
	}
	if zf.ModifiedDate == 0 && e.modTime.Year() < 1980 {
		e.modTime = time.Time{}
	}
	return e
}

// budget is a reader that gives a limited number of bytes.
type budget struct {
	r    io.ReaderAt
	left int64
}

var errTooManyEntries = errors.New("too many entries")

func (b *budget) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errTooManyEntries
	}
	return b.r.ReadAt(p, off)
}

// inflater keeps one decompressor and its buffer for all members, which are read one after the other.
type inflater struct {
	in *bufio.Reader
	r  io.ReadCloser
}

func (i *inflater) open(in io.Reader) io.ReadCloser {
	if i.r == nil {
		i.in = bufio.NewReaderSize(in, bufferSize)
		i.r = flate.NewReader(i.in)
		return io.NopCloser(i.r)
	}
	i.in.Reset(in)
	if r, ok := i.r.(flate.Resetter); ok && r.Reset(i.in, nil) == nil {
		return io.NopCloser(i.r)
	}
	return flate.NewReader(i.in)
}
