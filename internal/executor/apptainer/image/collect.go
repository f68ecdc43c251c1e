package image

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// leftover is how old is what a process has left that did not come to its end.
	leftover = 24 * time.Hour
	// youngBlob is how long a layer stays at least: somebody may be about to read it.
	youngBlob = time.Hour
)

// item is something that may be removed.
type item struct {
	id   string // of an image; empty: a layer
	path string
	size int64
	used time.Time
}

// Collect removes what nobody uses: images and layers whose last use is too long ago, then the ones used longest ago until
// the rest is small enough, and what processes have left that died.
func (s *Store) Collect(ctx context.Context, l Limits) (Collected, error) {
	now, err := s.now()
	if err != nil {
		return Collected{}, err
	}
	s.sweep(now)
	items, err := s.items()
	if err != nil {
		return Collected{}, err
	}
	slices.SortFunc(items, func(a, b item) int { return a.used.Compare(b.used) })
	var total int64
	for _, i := range items {
		total += i.size
	}
	var done Collected
	for _, i := range items {
		old := l.MaxAge > 0 && now.Sub(i.used) > l.MaxAge
		if !old && (l.MaxSize <= 0 || total <= l.MaxSize) {
			continue
		}
		gone, err := s.removeItem(ctx, i, now)
		if err != nil {
			return done, err
		}
		if !gone {
			continue
		}
		total -= i.size
		done.Bytes += i.size
		if i.id == "" {
			done.Blobs++
		} else {
			done.Images++
		}
	}
	return done, nil
}

// now is what time it is for the file system, whose server may have another clock.
func (s *ground) now() (time.Time, error) {
	probe := filepath.Join(s.stage, ".now-"+rand.Text())
	if err := os.WriteFile(probe, []byte("now"), 0o600); err != nil {
		return time.Time{}, err
	}
	defer os.Remove(probe) //nolint:errcheck // sweep removes what stays
	info, err := os.Stat(probe)
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

func (s *ground) items() ([]item, error) {
	var all []item
	entries, err := os.ReadDir(s.path(imagesDir))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := s.path(imagesDir, e.Name())
		var n note
		info, err := os.Stat(filepath.Join(path, noteFile))
		if err != nil || readNote(filepath.Join(path, noteFile), &n) != nil {
			continue
		}
		all = append(all, item{id: e.Name(), path: path, size: n.Size, used: info.ModTime()})
	}
	if entries, err = os.ReadDir(s.blobs); err != nil {
		return nil, err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			all = append(all, item{path: filepath.Join(s.blobs, e.Name()), size: info.Size(), used: info.ModTime()})
		}
	}
	return all, nil
}

// removeItem removes what nobody uses.
func (s *ground) removeItem(ctx context.Context, i item, now time.Time) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if i.id == "" {
		if now.Sub(i.used) < youngBlob {
			return false, nil
		}
		return s.owned(i.path, os.Remove(i.path))
	}
	if s.used(i.id, now) {
		return false, nil
	}
	dir := s.path(useDir, i.id)
	if err := s.mkdir(dir); err != nil {
		return s.owned(i.path, err)
	}
	mark := filepath.Join(dir, condemned)
	if err := os.WriteFile(mark, nil, s.fileMode()); err != nil {
		return s.owned(i.path, err)
	}
	defer os.Remove(mark) //nolint:errcheck // a mark that stays is pardoned
	if s.used(i.id, now) {
		return false, nil
	}
	aside := filepath.Join(s.stage, "gone-"+rand.Text())
	if err := os.Rename(i.path, aside); err != nil {
		return s.owned(i.path, err)
	}
	return true, removeAll(aside)
}

// owned makes it no error that something is gone, or belongs to another user, whose own process will remove it.
func (s *ground) owned(path string, err error) (bool, error) {
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		s.log.Debug("an image is left", "path", path, "error", err)
		return false, nil
	default:
		return false, err
	}
}

// sweep removes what processes have left.
func (s *ground) sweep(now time.Time) {
	for _, dir := range []string{s.stage, s.tmp, s.path(locksDir)} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			info, err := e.Info()
			if err == nil && now.Sub(info.ModTime()) > leftover && (dir != s.tmp || s.tmp == s.stage || ours(e.Name())) {
				_ = removeAll(filepath.Join(dir, e.Name())) // the next time
			}
		}
	}
	entries, _ := os.ReadDir(s.path(useDir))
	for _, e := range entries {
		s.sweepUse(s.path(useDir, e.Name()), now)
	}
}

// sweepUse removes signs of use that are not given any more.
func (s *ground) sweepUse(dir string, now time.Time) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) > leftover {
			_ = os.Remove(filepath.Join(dir, e.Name())) // the next time
		}
	}
}

// ours says whether a name in a directory for temporary files is one that a store gives.
func ours(name string) bool {
	return slices.ContainsFunc([]string{"make-", "pull-", "open-", "blob-"}, func(p string) bool { return strings.HasPrefix(name, p) })
}
