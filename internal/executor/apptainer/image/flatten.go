package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// The names that stand for what a layer takes away (OCI image specification, "Representing Changes").
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

const (
	entryCost  = 512  // bytes that an entry counts at least
	mostLinks  = 40   // symbolic links on the way to one file
	mostDepth  = 200  // directories in each other; each costs time for all that is below
	mostPath   = 4000 // bytes, about what systems take
	mostOpen   = 64   // directories that are kept open
	mostParent = 4096 // ways to directories that are remembered
)

// errTooLarge means that an image has more in it than it may.
var errTooLarge = errors.New("it is larger than an image may be once it is unpacked")

// badLayer is what is wrong with a layer itself.
type badLayer struct{ err error }

func (b *badLayer) Error() string { return b.err.Error() }
func (b *badLayer) Unwrap() error { return b.err }

// flattener writes layers on top of each other into a directory. What layers say is not trusted: nothing outside of the
// directory is read or written, wherever their links lead. Owners, extended attributes, setuid and setgid bits and devices
// are left out.
type flattener struct {
	root    *os.Root
	left    int64 // bytes
	share   bool  // everybody may read all
	skipped int   // devices and the like

	parents map[string]string   // directories of layers and where they really are
	open    map[string]*os.Root // by where they really are
	written map[string]bool     // of the layer at work
	buffer  []byte
}

// newFlattener writes to dir, which is there and empty, at most most bytes.
func newFlattener(dir string, most int64, share bool) (*flattener, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &flattener{root: root, left: most, share: share, parents: map[string]string{}, open: map[string]*os.Root{}, buffer: make([]byte, 128<<10)}, nil
}

func (f *flattener) close() {
	f.forget(".")
	_ = f.root.Close() // nothing was written by it
}

// forget drops what is known of a directory that is about to go, of those below it and, as links may lead there, of all
// ways to directories.
func (f *flattener) forget(at string) {
	for dir, r := range f.open {
		if at == "." || dir == at || strings.HasPrefix(dir, at+"/") {
			_ = r.Close() // nothing was written by it
			delete(f.open, dir)
		}
	}
	clear(f.parents)
}

// unpacked opens a layer, whatever it is packed with.
func unpacked(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 1<<20)
	head, err := b.Peek(4)
	switch {
	case len(head) < 4 && err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	default:
		return io.NopCloser(b), nil
	}
}

// counted takes what is read off what may still be read.
type counted struct {
	io.Reader
	left *int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if *c.left -= int64(n); *c.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// layer writes one layer. A *badLayer is the image's fault, as errTooLarge is.
func (f *flattener) layer(ctx context.Context, packed io.Reader) error {
	plain, err := unpacked(packed)
	if err != nil {
		return &badLayer{fmt.Errorf("a layer can't be unpacked: %w", err)}
	}
	defer plain.Close()
	f.written = map[string]bool{}
	in := f.left // what is read counts apart from what is written: a sparse file is small in the layer
	archive := tar.NewReader(counted{plain, &in})
	for ctx.Err() == nil {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if errors.Is(err, errTooLarge) {
			return err
		}
		if err != nil {
			return &badLayer{fmt.Errorf("a layer is damaged: %w", err)}
		}
		if f.left -= entryCost; f.left < 0 {
			return errTooLarge
		}
		if err := f.entry(h, archive); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func (f *flattener) entry(h *tar.Header, content io.Reader) error {
	name := clean(h.Name)
	if name == "." || strings.ContainsRune(h.Name, 0) {
		return nil
	}
	base := path.Base(name)
	dir, err := f.directory(path.Dir(name))
	if err != nil {
		return fmt.Errorf("%s: %w", shorten(h.Name, 200), err)
	}
	parent, err := f.opened(dir)
	if err != nil {
		return err
	}
	switch {
	case base == opaque:
		err = f.clear(dir)
	case strings.HasPrefix(base, whiteout):
		err = f.takeAway(parent, dir, strings.TrimPrefix(base, whiteout))
	default:
		at := path.Join(dir, base)
		f.mark(at)
		err = f.write(h, content, parent, at)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", shorten(h.Name, 200), err)
	}
	return nil
}

// mark remembers what is of the layer at work, with the directories that it is in.
func (f *flattener) mark(at string) {
	for ; at != "." && !f.written[at]; at = path.Dir(at) {
		f.written[at] = true
	}
}

// takeAway removes what a whiteout names, if it is of a layer below.
func (f *flattener) takeAway(parent *os.Root, dir, gone string) error {
	if gone == "" || gone == "." || gone == ".." || f.written[path.Join(dir, gone)] {
		return nil
	}
	return f.remove(parent, path.Join(dir, gone))
}

// write makes what an entry is.
func (f *flattener) write(h *tar.Header, content io.Reader, parent *os.Root, at string) error {
	base := path.Base(at)
	if h.Typeflag == tar.TypeDir {
		return f.mkdir(parent, at, h.FileInfo().Mode())
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeSymlink, tar.TypeLink, tar.TypeGNUSparse:
	default:
		f.skipped++
		return nil
	}
	if h.Typeflag == tar.TypeLink {
		return f.link(h, parent, at)
	}
	if err := f.remove(parent, at); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		if h.Linkname == "" || len(h.Linkname) > 4095 {
			return &badLayer{errors.New("a symbolic link leads nowhere")}
		}
		return parent.Symlink(h.Linkname, base)
	}
	if f.left -= h.Size; f.left < 0 {
		return errTooLarge
	}
	return f.file(h, content, parent, base)
}

func (f *flattener) file(h *tar.Header, content io.Reader, parent *os.Root, base string) error {
	out, err := parent.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	// The destination must not read from the source by itself, which would not use the buffer.
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{content}, f.buffer); err != nil {
		if errors.Is(err, errTooLarge) {
			return err
		}
		if _, ours := errors.AsType[*fs.PathError](err); ours {
			return err
		}
		return &badLayer{fmt.Errorf("a layer is damaged: %w", err)}
	}
	if err := out.Chmod(f.mode(h.FileInfo().Mode().Perm() | 0o400)); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return parent.Chtimes(base, time.Time{}, sane(h.ModTime))
}

// sane keeps times within what file systems know.
func sane(t time.Time) time.Time {
	if t.Unix() < 0 || t.Year() > 2105 {
		return time.Unix(0, 0)
	}
	return t
}

// mode is what a file gets: all that its user may, others may too where all are to read it.
func (f *flattener) mode(m fs.FileMode) fs.FileMode {
	if f.share {
		m |= m >> 6 & 0o5
		m |= m >> 3 & 0o50
	}
	return m
}

func (f *flattener) mkdir(parent *os.Root, at string, mode fs.FileMode) error {
	base := path.Base(at)
	info, err := parent.Lstat(base)
	if err == nil && !info.IsDir() {
		if err := f.remove(parent, at); err != nil {
			return err
		}
	}
	if err != nil || !info.IsDir() {
		if err := parent.Mkdir(base, 0o700); err != nil {
			return err
		}
	}
	return parent.Chmod(base, f.mode(mode.Perm()|0o700)|mode&fs.ModeSticky)
}

// link makes a hard link to what is in the image already.
func (f *flattener) link(h *tar.Header, parent *os.Root, at string) error {
	target := clean(h.Linkname)
	if target == "." {
		return &badLayer{errors.New("a hard link leads nowhere")}
	}
	dir, err := f.directory(path.Dir(target))
	if err != nil {
		return err
	}
	from := path.Join(dir, path.Base(target))
	if from == at {
		return nil
	}
	info, err := f.root.Lstat(from)
	if err != nil || info.IsDir() {
		return &badLayer{fmt.Errorf("a hard link leads to %s, which is no file of the image", shorten(h.Linkname, 200))}
	}
	if err := f.remove(parent, at); err != nil {
		return err
	}
	return f.root.Link(from, at)
}

// remove removes what is at a place, if there is something.
func (f *flattener) remove(parent *os.Root, at string) error {
	base := path.Base(at)
	info, err := parent.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		return parent.Remove(base)
	}
	f.forget(at)
	return f.root.RemoveAll(at)
}

// clear removes what lower layers have in a directory.
func (f *flattener) clear(dir string) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		at := path.Join(dir, name)
		if f.written[at] {
			if info, err := f.root.Lstat(at); err == nil && info.IsDir() {
				err = f.clear(at)
				if err != nil {
					return err
				}
			}
			continue
		}
		f.forget(at)
		if err := f.root.RemoveAll(at); err != nil {
			return err
		}
	}
	return nil
}

// clean makes a name relative to the root of the image, which no .. leaves.
func clean(name string) string {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name == "" {
		return "."
	}
	return name
}

// directory returns where a directory of an image really is, with the links on the way followed inside of the image. What
// is missing is made.
func (f *flattener) directory(name string) (string, error) {
	if name == "." {
		return name, nil
	}
	if at, ok := f.parents[name]; ok {
		return at, nil
	}
	at, err := f.follow(name)
	if err != nil {
		return "", err
	}
	if len(f.parents) > mostParent {
		clear(f.parents)
	}
	f.parents[name] = at
	return at, nil
}

func (f *flattener) follow(name string) (string, error) {
	at, todo, links := ".", strings.Split(name, "/"), 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		if len(next) > mostPath || strings.Count(next, "/") > mostDepth {
			return "", &badLayer{errors.New("its path is too long")}
		}
		target, err := f.step(next)
		if err != nil {
			return "", err
		}
		if target == "" {
			at = next
			continue
		}
		if links++; links > mostLinks {
			return "", &badLayer{errors.New("its directory is a circle of symbolic links")}
		}
		if path.IsAbs(target) {
			at = "."
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return at, nil
}

// step makes sure that there is a directory, or returns where a symbolic link in its place leads.
func (f *flattener) step(at string) (target string, err error) {
	info, err := f.root.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", err
	case info.IsDir():
		return "", nil
	case info.Mode()&fs.ModeSymlink != 0:
		target, err = f.root.Readlink(at)
		if err == nil && target == "" {
			err = &badLayer{errors.New("a symbolic link leads nowhere")}
		}
		return target, err
	default:
		f.forget(at)
		if err := f.root.RemoveAll(at); err != nil {
			return "", err
		}
	}
	if f.left -= entryCost; f.left < 0 {
		return "", errTooLarge
	}
	if err := f.root.Mkdir(at, 0o700); err != nil {
		return "", err
	}
	return "", f.root.Chmod(at, 0o755)
}

// opened returns a directory, which stays open for what follows in it.
func (f *flattener) opened(dir string) (*os.Root, error) {
	if r := f.open[dir]; r != nil {
		return r, nil
	}
	if len(f.open) >= mostOpen {
		for _, r := range f.open {
			_ = r.Close() // nothing was written by it
		}
		clear(f.open)
	}
	r, err := f.root.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f.open[dir] = r
	return r, nil
}
