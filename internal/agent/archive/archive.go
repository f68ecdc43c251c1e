// Package archive packs files of a project and unpacks what other jobs have packed: the formats of GitLab's artifacts
// and caches (runner contract, sections 7.7 and 8.2).
//
// Everything is confined to one directory: files are found, read and written through os.Root, symbolic links are kept as
// links and never followed out, whatever an archive or a script has prepared. The package knows no server and no cache;
// package transfer uses it.
package archive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"
)

// Format is the format of an archive, by its name in a job's payload.
type Format string

// The formats.
const (
	Zip     Format = "zip"
	Gzip    Format = "gzip" // one member for each file, one after the other; cannot be unpacked
	Raw     Format = "raw"  // a single file as it is; cannot be unpacked
	TarZstd Format = "tarzstd"
	ZipZstd Format = "zipzstd"
)

// ParseFormat returns the format called name, in any case; the empty name is Zip. The result is false for others.
func ParseFormat(name string) (Format, bool) {
	switch f := Format(strings.ToLower(name)); f {
	case "":
		return Zip, true
	case Zip, Gzip, Raw, TarZstd, ZipZstd:
		return f, true
	default:
		return Zip, false
	}
}

// Extension returns the ending of a file name for the format, with its dot.
func (f Format) Extension() string {
	switch f {
	case Gzip:
		return ".gz"
	case TarZstd:
		return ".tar.zst"
	case Raw:
		return ""
	default:
		return ".zip"
	}
}

// Level says how hard to compress.
type Level string

// The levels.
const (
	Fastest Level = "fastest"
	Fast    Level = "fast"
	Default Level = "default"
	Slow    Level = "slow"
	Slowest Level = "slowest"
)

// ParseLevel returns the level called name, in any case. The empty name is Default; for an unknown one the result is
// false.
func ParseLevel(name string) (Level, bool) {
	switch l := Level(strings.ToLower(name)); l {
	case "":
		return Default, true
	case Fastest, Fast, Default, Slow, Slowest:
		return l, true
	default:
		return Default, false
	}
}

// File is one member of an archive. Path is relative to the project and has slashes.
type File struct {
	Path    string
	Mode    fs.FileMode
	Size    int64
	ModTime time.Time
	Link    string // where a symbolic link leads
}

// Files are members below the directory Dir, sorted by path, each once.
type Files struct {
	Dir  string
	List []File
}

// Reporter takes messages for the user. A *joblog.Log is one.
type Reporter interface {
	Plain(format string, args ...any)
	Warning(format string, args ...any)
}

// ErrDamaged is the cause when an archive cannot be read: it is cut short, altered, or not an archive at all.
var ErrDamaged = errors.New("the archive is damaged")

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// untilDone returns a reader of r that fails once ctx has ended. It hides other methods of r, so that copies use the
// caller's buffer.
func untilDone(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

const bufferSize = 256 << 10
