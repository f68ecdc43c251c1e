package archive

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/gzip"
)

// Options say how to pack.
type Options struct {
	Format Format // empty: Zip
	Level  Level  // empty: Default
	// Workers is how many goroutines read and compress for the zip formats; 0: one for each processor, 16 at most.
	Workers int
	// Block is how many bytes of a large file one of them takes at a time; 0: 1 MiB. Twice that is held for each two.
	Block int
	// Digest is told the SHA-256 of the content of each regular file of a zip archive, in the archive's order; nil: none
	// are made.
	Digest func(path string, sum [sha256.Size]byte)
	// Last gives one more file for the end of a zip archive, once all others are packed; nil: there is none.
	Last func() (path string, content []byte, err error)
}

// Limits of Options.
const (
	maxWorkers   = 256
	maxByDefault = 16
	minBlock     = 32 << 10
	maxBlock     = 16 << 20
	defaultBlock = 1 << 20
)

func (o Options) workers() int {
	if o.Workers > 0 {
		return min(o.Workers, maxWorkers)
	}
	return min(runtime.GOMAXPROCS(0), maxByDefault)
}

func (o Options) block() int { return min(max(cmp.Or(o.Block, defaultBlock), minBlock), maxBlock) }

// Check says whether files can be packed in the format; the error is Unfit. Create finds the same, but perhaps late.
func Check(files Files, format Format) error {
	if format == Raw && len(files.List) != 1 {
		return Unfit(fmt.Sprintf("the format raw takes one file, not %d", len(files.List)))
	}
	if format != Raw && format != Gzip {
		return nil
	}
	for _, f := range files.List {
		if !f.Mode.IsRegular() {
			return fmt.Errorf("archive %s: %w", f.Path, errNotRegular)
		}
	}
	return nil
}

// Create packs files and writes the archive to w, as it is made. A file that has vanished since it was found is left
// out with a warning; one that cannot be read is an error. Gzip and Raw take regular files only, Raw exactly one. The
// same files give the same bytes.
func Create(ctx context.Context, w io.Writer, files Files, o Options, log Reporter) error {
	if err := Check(files, o.Format); err != nil {
		return err
	}
	root, err := os.OpenRoot(files.Dir)
	if err != nil {
		return fmt.Errorf("open the project directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	switch o.Format {
	case Gzip:
		return inTurn(ctx, root, files, &gzipPacker{w: w, buf: make([]byte, bufferSize)}, log)
	case Raw:
		return inTurn(ctx, root, files, &rawPacker{w: w, buf: make([]byte, bufferSize)}, log)
	case TarZstd:
		p, err := newTarPacker(w, o)
		if err != nil {
			return err
		}
		return inTurn(ctx, root, files, p, log)
	default:
		return createZip(ctx, w, newLine(root, o), files, log)
	}
}

// packer writes members of one format. Body is nil for anything but a regular file, of which f.Size bytes are expected.
type packer interface {
	add(f File, body io.Reader) error
	close() error
}

// inTurn packs one file after the other.
func inTurn(ctx context.Context, root *os.Root, files Files, p packer, log Reporter) error {
	o := &opener{root: root}
	defer o.leave()
	for _, f := range files.List {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := pack(ctx, o, f, p, log); err != nil {
			return fmt.Errorf("archive %s: %w", f.Path, err)
		}
	}
	if err := p.close(); err != nil {
		return fmt.Errorf("finish the archive: %w", err)
	}
	return nil
}

func pack(ctx context.Context, o *opener, f File, p packer, log Reporter) error {
	if !f.Mode.IsRegular() {
		return p.add(f, nil)
	}
	file, err := o.open(&f)
	if why, ok := errors.AsType[absence](err); ok {
		log.Warning("%s: %s", f.Path, string(why))
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	return p.add(f, untilDone(ctx, file))
}

// opener opens files of a project. It keeps the directory of the last one open: files of one directory mostly follow
// each other.
type opener struct {
	root *os.Root
	at   string
	here *os.Root
}

// absence says why a file that was found is not archived.
type absence string

func (a absence) Error() string { return string(a) }

const (
	errVanished = absence("has vanished, not archived")
	errChanged  = absence("is no regular file any more, not archived")
)

// open opens the regular file f and brings what is known of it up to date. The error is an absence if there is no such
// file any more.
func (o *opener) open(f *File) (*os.File, error) {
	dir, err := o.enter(path.Dir(f.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errVanished
	}
	if err != nil {
		return nil, err
	}
	// What has the name by now may be a pipe: opening it must not wait.
	file, err := dir.OpenFile(path.Base(f.Path), os.O_RDONLY|nonBlocking, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errVanished
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errChanged
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	f.Mode, f.Size, f.ModTime = info.Mode().Perm(), info.Size(), info.ModTime()
	return file, nil
}

func (o *opener) enter(dir string) (*os.Root, error) {
	if dir == "." {
		return o.root, nil
	}
	if o.here != nil && o.at == dir {
		return o.here, nil
	}
	o.leave()
	here, err := o.root.OpenRoot(filepath.FromSlash(dir))
	if err != nil {
		return nil, err
	}
	o.at, o.here = dir, here
	return here, nil
}

func (o *opener) leave() {
	if o.here != nil {
		_ = o.here.Close()
		o.here = nil
	}
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
