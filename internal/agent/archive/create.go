package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
)

// Options say how to pack.
type Options struct {
	Format Format // empty: Zip
	Level  Level  // empty: Default
}

// packer writes members of one format. Body is nil for anything but a regular file, of which f.Size bytes are expected.
type packer interface {
	add(f File, body io.Reader) error
	close() error
}

// Create packs files and writes the archive to w, as it is made. A file that has vanished since it was found is left
// out with a warning; one that cannot be read is an error. Gzip and Raw take regular files only, Raw exactly one.
func Create(ctx context.Context, w io.Writer, files Files, o Options, log Reporter) error {
	root, err := os.OpenRoot(files.Dir)
	if err != nil {
		return fmt.Errorf("open the project directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	p, err := newPacker(w, files, o)
	if err != nil {
		return err
	}
	for _, f := range files.List {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := pack(ctx, root, f, p, log); err != nil {
			return fmt.Errorf("archive %s: %w", f.Path, err)
		}
	}
	if err := p.close(); err != nil {
		return fmt.Errorf("finish the archive: %w", err)
	}
	return nil
}

func newPacker(w io.Writer, files Files, o Options) (packer, error) {
	buf := make([]byte, bufferSize)
	switch o.Format {
	case Gzip:
		return &gzipPacker{w: w, buf: buf}, nil
	case Raw:
		if len(files.List) != 1 {
			return nil, Unfit(fmt.Sprintf("the format raw takes one file, not %d", len(files.List)))
		}
		return &rawPacker{w: w, buf: buf}, nil
	case TarZstd:
		return newTarPacker(w, o.Level, buf)
	default:
		return newZipPacker(w, o, buf), nil
	}
}

func pack(ctx context.Context, root *os.Root, f File, p packer, log Reporter) error {
	if !f.Mode.IsRegular() {
		return p.add(f, nil)
	}
	file, err := root.Open(filepath.FromSlash(f.Path))
	if errors.Is(err, fs.ErrNotExist) {
		log.Warning("%s: has vanished, not archived", f.Path)
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		log.Warning("%s: is no regular file any more, not archived", f.Path)
		return nil
	}
	f.Mode, f.Size, f.ModTime = info.Mode().Perm(), info.Size(), info.ModTime()
	return p.add(f, untilDone(ctx, file))
}

// Unfit says why files cannot be packed in the format that was asked for: trying again does not help.
type Unfit string

func (u Unfit) Error() string { return string(u) }

const errNotRegular = Unfit("not a regular file: the format takes files only, not directories or links")

// gzipPacker writes one gzip member for each file; its comment holds the path.
type gzipPacker struct {
	w   io.Writer
	gz  *gzip.Writer
	buf []byte
}

func (p *gzipPacker) add(f File, body io.Reader) error {
	if body == nil {
		return errNotRegular
	}
	if p.gz == nil {
		p.gz = gzip.NewWriter(p.w)
	} else {
		p.gz.Reset(p.w)
	}
	p.gz.Name, p.gz.Comment, p.gz.ModTime = latin(path.Base(f.Path)), latin(f.Path), f.ModTime
	if _, err := io.CopyBuffer(onlyWriter{p.gz}, body, p.buf); err != nil {
		return err
	}
	return p.gz.Close()
}

func (p *gzipPacker) close() error { return nil }

// latin escapes text that a gzip header cannot hold (runner contract, section 7.7).
func latin(s string) string {
	for i := range len(s) {
		if s[i] == 0 || s[i] >= 0x80 {
			return "e:" + url.PathEscape(s)
		}
	}
	return s
}

type rawPacker struct {
	w   io.Writer
	buf []byte
}

func (p *rawPacker) add(_ File, body io.Reader) error {
	if body == nil {
		return errNotRegular
	}
	_, err := io.CopyBuffer(onlyWriter{p.w}, body, p.buf)
	return err
}

func (p *rawPacker) close() error { return nil }

// onlyWriter hides other methods, so that a copy uses the given buffer.
type onlyWriter struct{ io.Writer }
