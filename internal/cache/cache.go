// Package cache stores the archives of job caches in directories: the job's own on the machine that it runs on, and one
// that several runners share (runner contract, section 7.1).
//
// It knows names and bytes, not what is in an archive; package transfer makes and unpacks them. Several processes may
// use a directory at the same time, over a network file system too: archives appear by renaming, whole or not at all.
package cache

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// The files of an object. The archive has this name whatever its format is.
const (
	archiveName  = "cache.zip"
	metadataName = "metadata.json"
	remoteName   = "remote.json"
	tempPrefix   = ".tranter-"
)

const (
	// maxMetadata bounds what is read of metadata, which anybody with the directory may have written.
	maxMetadata = 64 << 10
	// staleAfter is the age at which an unfinished archive is taken for one whose writer has died.
	staleAfter = 24 * time.Hour
	// copyChunk is how much is copied between looks at the context.
	copyChunk = 32 << 20
)

// Directory is a store: each object is a directory below it with an archive and its metadata.
type Directory struct {
	dir     string
	maxSize int64
}

// New returns the store in dir, which is made when something is saved. An archive larger than maxSize bytes is not
// saved; 0 sets no limit.
func New(dir string, maxSize int64) *Directory { return &Directory{dir: dir, maxSize: maxSize} }

// Info describes a stored archive.
type Info struct {
	Size    int64
	ModTime time.Time
	Key     string // the cache's key as the user knows it
	Content string // fingerprint of the files in the archive; empty if it is not known
	Tag     string // ETag of the same archive in a distributed cache; empty if it is not known
}

// Archive is a stored archive, open for reading. It stays readable when another one takes its place.
type Archive struct {
	File *os.File
	Info Info

	object string
}

// Close closes the file.
func (a *Archive) Close() error { return a.File.Close() }

// metadata is the form of Info in metadata.json. All values are strings, as GitLab Runner expects. Size and Modified
// tell to which archive the content belongs: archive and metadata do not change in one moment.
type metadata struct {
	Key      string `json:"cachekey,omitempty"`
	Content  string `json:"content,omitempty"`
	Tag      string `json:"etag,omitempty"`
	Size     string `json:"size,omitempty"`
	Modified string `json:"modified,omitempty"`
}

// locate opens the store and returns the path of object in it.
func (d *Directory) locate(object string) (*os.Root, string, error) {
	name, err := filepath.Localize(object)
	if err != nil || name == "." {
		return nil, "", fmt.Errorf("%q cannot be the name of a cache", object)
	}
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		return nil, "", fmt.Errorf("open the cache directory: %w", err)
	}
	return root, name, nil
}

// Stat describes the archive of object. There being none is fs.ErrNotExist.
func (d *Directory) Stat(object string) (Info, error) {
	root, name, err := d.locate(object)
	if err != nil {
		return Info{}, err
	}
	defer func() { _ = root.Close() }()
	info, err := root.Lstat(filepath.Join(name, archiveName))
	if err != nil {
		return Info{}, fmt.Errorf("look up the cache: %w", err)
	}
	return describe(root, name, info)
}

// Open opens the archive of object. There being none is fs.ErrNotExist.
func (d *Directory) Open(object string) (*Archive, error) {
	if _, err := d.Stat(object); err != nil { // before opening: a pipe would block
		return nil, err
	}
	root, name, err := d.locate(object)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	f, err := root.Open(filepath.Join(name, archiveName))
	if err != nil {
		return nil, fmt.Errorf("open the cache: %w", err)
	}
	stat, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	info, err := describe(root, name, stat)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Archive{File: f, Info: info, object: object}, nil
}

// describe adds to what the file system tells of an archive what its metadata tells.
func describe(root *os.Root, name string, stat fs.FileInfo) (Info, error) {
	if !stat.Mode().IsRegular() {
		return Info{}, fmt.Errorf("look up the cache: %s is not a regular file", filepath.Join(name, archiveName))
	}
	info := Info{Size: stat.Size(), ModTime: stat.ModTime()}
	m := readMetadata(root, filepath.Join(name, metadataName))
	info.Key = m.Key
	if m.Size == strconv.FormatInt(info.Size, 10) && m.Modified == modified(info.ModTime) {
		info.Content, info.Tag = m.Content, m.Tag
	}
	return info, nil
}

func modified(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 10) }

// readMetadata returns nothing for metadata that is missing or malformed: it is only a help.
func readMetadata(root *os.Root, name string) metadata {
	if stat, err := root.Lstat(name); err != nil || !stat.Mode().IsRegular() {
		return metadata{}
	}
	f, err := root.Open(name)
	if err != nil {
		return metadata{}
	}
	defer f.Close()
	var m metadata
	if err := json.NewDecoder(io.LimitReader(f, maxMetadata)).Decode(&m); err != nil {
		return metadata{}
	}
	return m
}

// Save stores what write writes as the archive of object, in place of an older one, and describes it. Of info it takes
// all but Size; a zero ModTime is now. An archive over the limit is tranter.ErrTooLarge. After any error the older
// archive is still there.
func (d *Directory) Save(ctx context.Context, object string, info Info, write func(w io.Writer) error) (Info, error) {
	return d.Fill(ctx, object, func(f *os.File) (Info, error) {
		if err := write(&limited{ctx: ctx.Err, f: f, limit: d.maxSize}); err != nil {
			return Info{}, err
		}
		return info, ctx.Err()
	})
}

// Fill does what Save does for a fill that writes to the file in any order, and says only then what the archive is. The
// limit is fill's business.
func (d *Directory) Fill(ctx context.Context, object string, fill func(f *os.File) (Info, error)) (Info, error) {
	root, name, err := d.room(object)
	if err != nil {
		return Info{}, err
	}
	defer func() { _ = root.Close() }()
	target := filepath.Join(name, archiveName)
	var info Info
	err = replace(root, target, func(f *os.File) (time.Time, error) {
		if info, err = fill(f); err != nil {
			return time.Time{}, err
		}
		return info.ModTime, ctx.Err()
	})
	if err != nil {
		return Info{}, fmt.Errorf("save the cache: %w", err)
	}
	stat, err := root.Lstat(target)
	if err != nil {
		return Info{}, fmt.Errorf("save the cache: %w", err)
	}
	info.Size, info.ModTime = stat.Size(), stat.ModTime()
	if err := writeMetadata(root, filepath.Join(name, metadataName), info); err != nil {
		return Info{}, fmt.Errorf("save the metadata of the cache: %w", err)
	}
	return info, nil
}

// room opens the store and makes the directory of object in it.
func (d *Directory) room(object string) (*os.Root, string, error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, "", fmt.Errorf("make the cache directory: %w", err)
	}
	root, name, err := d.locate(object)
	if err != nil {
		return nil, "", err
	}
	if err := root.MkdirAll(name, 0o700); err != nil {
		return nil, "", errors.Join(fmt.Errorf("make the cache directory: %w", err), root.Close())
	}
	removeStale(root, name)
	return root, name, nil
}

func writeMetadata(root *os.Root, target string, info Info) error {
	m := metadata{Key: info.Key, Content: info.Content, Tag: info.Tag, Size: strconv.FormatInt(info.Size, 10), Modified: modified(info.ModTime)}
	return replace(root, target, func(f *os.File) (time.Time, error) { return time.Time{}, json.NewEncoder(f).Encode(m) })
}

// Note remembers that a distributed cache has an archive of object as info describes it, whether it is here or not.
func (d *Directory) Note(object string, info Info) error {
	root, name, err := d.room(object)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := writeMetadata(root, filepath.Join(name, remoteName), info); err != nil {
		return fmt.Errorf("note what the distributed cache has: %w", err)
	}
	return nil
}

// Noted returns what Note has remembered of object: Key, Content and Tag.
func (d *Directory) Noted(object string) Info {
	root, name, err := d.locate(object)
	if err != nil {
		return Info{}
	}
	defer func() { _ = root.Close() }()
	m := readMetadata(root, filepath.Join(name, remoteName))
	return Info{Key: m.Key, Content: m.Content, Tag: m.Tag}
}

// Forget removes the note about object.
func (d *Directory) Forget(object string) { d.remove(object, remoteName) }

// Remove removes the archive of object, if there is one.
func (d *Directory) Remove(object string) { d.remove(object, archiveName) }

// remove is done as well as can be: what is left is looked at before it is used.
func (d *Directory) remove(object, file string) {
	root, name, err := d.locate(object)
	if err != nil {
		return
	}
	defer func() { _ = root.Close() }()
	_ = root.Remove(filepath.Join(name, file))
}

// replace writes a new file, gives it the time that write returns unless that is zero, and renames it to target.
func replace(root *os.Root, target string, write func(*os.File) (time.Time, error)) error {
	temp := filepath.Join(filepath.Dir(target), tempPrefix+rand.Text())
	f, err := root.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	modTime, err := write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && !modTime.IsZero() {
		err = root.Chtimes(temp, modTime, modTime)
	}
	if err == nil {
		err = root.Rename(temp, target)
	}
	if err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	return nil
}

// removeStale removes what writers that died have left behind. It is done as well as can be.
func removeStale(root *os.Root, name string) {
	entries, err := fs.ReadDir(root.FS(), filepath.ToSlash(name))
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > staleAfter {
			_ = root.Remove(filepath.Join(name, e.Name()))
		}
	}
}

// limited writes to f until there would be too much of it, or ctx tells an error.
type limited struct {
	ctx     func() error
	f       *os.File
	limit   int64
	written int64
}

func (l *limited) Write(p []byte) (int, error) {
	if err := l.ctx(); err != nil {
		return 0, err
	}
	if err := l.take(int64(len(p))); err != nil {
		return 0, err
	}
	return l.f.Write(p)
}

func (l *limited) take(n int64) error {
	if l.written += n; l.limit > 0 && l.written > l.limit {
		return fmt.Errorf("%w: the limit is %d bytes", tranter.ErrTooLarge, l.limit)
	}
	return nil
}

// ReadFrom lets the system copy between files by itself, in chunks.
func (l *limited) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	for {
		if err := l.ctx(); err != nil {
			return total, err
		}
		n, err := l.f.ReadFrom(io.LimitReader(r, copyChunk))
		total += n
		if err == nil {
			err = l.take(n)
		}
		if err != nil || n == 0 {
			return total, err
		}
	}
}

// Copy saves an archive in d as object, with its metadata and its time. One over the limit is tranter.ErrTooLarge.
func (d *Directory) Copy(ctx context.Context, object string, from *Archive) (Info, error) {
	if d.maxSize > 0 && from.Info.Size > d.maxSize {
		return Info{}, fmt.Errorf("%w: it has %d bytes, the limit is %d", tranter.ErrTooLarge, from.Info.Size, d.maxSize)
	}
	if _, err := from.File.Seek(0, io.SeekStart); err != nil {
		return Info{}, fmt.Errorf("read the cache: %w", err)
	}
	return d.Save(ctx, object, from.Info, func(w io.Writer) error {
		n, err := io.Copy(w, from.File)
		if err == nil && n != from.Info.Size {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}

// Discard removes the archive a, which has turned out to be of no use, unless another one has taken its place.
func (d *Directory) Discard(a *Archive) error {
	root, name, err := d.locate(a.object)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	target := filepath.Join(name, archiveName)
	mine, err := a.File.Stat()
	if err != nil {
		return fmt.Errorf("discard the cache: %w", err)
	}
	now, err := root.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(mine, now) {
		return nil
	}
	if err == nil {
		err = root.Remove(target)
	}
	if err != nil {
		return fmt.Errorf("discard the cache: %w", err)
	}
	return nil
}
