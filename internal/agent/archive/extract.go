package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/tranter-ci/tranter/internal/diskspace"
)

const (
	// maxDirectory bounds the length of a zip archive's directory in bytes.
	maxDirectory = 512 << 20
	// maxLate bounds how many directories and links of an archive are remembered until its end.
	maxLate = 1 << 20
	// maxWindow bounds the memory for unpacking a tar with zstd. It is what the zstd program accepts without being asked.
	maxWindow = 128 << 20
	// maxTarget bounds the length of a symbolic link.
	maxTarget = 4096
)

// ExtractOptions say how to unpack. The zero value is for most.
type ExtractOptions struct {
	Workers int   // goroutines that write the files of a zip archive; 0: one for each processor, 16 at most
	Entries int64 // of an archive at most; 0: two million
	// Room is how many bytes an archive may unpack to; 0: what is free on the disk but for a reserve of a twentieth, 256
	// MiB at most.
	Room int64
}

const (
	defaultEntries = 2_000_000
	maxReserve     = 256 << 20
)

func (o ExtractOptions) entries() int64 { return cmp.Or(o.Entries, defaultEntries) }

func (o ExtractOptions) workers() int { return Options{Workers: o.Workers}.workers() }

// room returns how many bytes may be written below dir.
func (o ExtractOptions) room(dir string) int64 {
	if o.Room > 0 {
		return o.Room
	}
	r, err := diskspace.Of(dir)
	if err != nil || r.Bytes == 0 && !r.Counted {
		return math.MaxInt64 // it is not known
	}
	free := int64(min(r.Bytes, math.MaxInt64))
	return free - min(free/20, maxReserve)
}

// ErrTooLarge is the cause when an archive unpacks to more files or bytes than there is room for, or than is allowed.
var ErrTooLarge = errors.New("the archive is too large to unpack")

// Extract is ExtractWith with the zero ExtractOptions.
func Extract(ctx context.Context, f *os.File, dir string, log Reporter) error {
	return ExtractWith(ctx, f, dir, ExtractOptions{}, log)
}

// ExtractWith unpacks the archive f, whose format it finds out, into the directory dir, which exists. Files that exist are
// replaced, never written through. Members that would lead out of dir, or that are no file, directory or link, are left
// out with a warning. An archive that cannot be read, or whose claims cannot be true, is ErrDamaged; one that is too
// large is ErrTooLarge. After that, and after any other fault, what had been unpacked is removed again: part of an
// archive is worse than nothing. Only the end of ctx leaves it as it is.
func ExtractWith(ctx context.Context, f *os.File, dir string, o ExtractOptions, log Reporter) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the project directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	s := &sink{root: root, log: log, buf: make([]byte, bufferSize), room: o.room(dir)}
	defer s.leave()
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the archive: %w", err)
	}
	switch {
	case magic == [4]byte{0x28, 0xB5, 0x2F, 0xFD}:
		err = extractTar(ctx, f, s, o)
	case magic[0] == 0x1F && magic[1] == 0x8B:
		return fmt.Errorf("%w: files in the format gzip cannot be unpacked", ErrDamaged)
	default:
		err = extractZip(ctx, f, s, o)
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
