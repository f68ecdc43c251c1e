// Package builtin is a distributed cache that needs no set-up: the manager serves archives from a directory, to jobs that
// have a URL which it has signed for one archive, one direction and the job's time.
//
// It is not a store for anything else than caches: what is used least goes when the directory is full, and what is
// damaged goes when that is seen. Package main serves it; package cache/remote has its Signer fill in the jobs' requests.
package builtin

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The directories of a store. An upload is a directory below uploads with its content and a record of each part; an
// object is one below objects, by the hash of its name, with its description and its content.
const (
	objectsDir  = "objects"
	uploadsDir  = "uploads"
	infoName    = "object.json"
	contentName = "content" // of an upload
	contentEnd  = ".archive"
)

const (
	// staleAfter is the age at which an upload is taken for one whose job has died.
	staleAfter = 24 * time.Hour
	// cleanEvery is how often such uploads, and those whose signature is over, are looked for.
	cleanEvery = 10 * time.Minute
	// inUse is how long an archive counts as being served after a request: its download takes many of them.
	inUse = time.Minute
	// touchEvery is how exactly the last use of an archive is kept for the next start.
	touchEvery = time.Minute
)

// Options describe a store.
type Options struct {
	Dir   string
	Limit int64  // bytes of archives and uploads together; 0: no limit
	Key   []byte // for the signatures
	Log   *slog.Logger
	InUse time.Duration // after a request for which an archive is not evicted; 0: a minute
	Idle  time.Duration // after a part for which an unfinished upload may stay if room is short; 0: two minutes
}

// Store keeps archives and serves them. It is an http.Handler.
type Store struct {
	dir   string
	limit int64
	inUse time.Duration
	idle  time.Duration
	sign  signatures
	log   *slog.Logger

	mu      sync.Mutex
	objects map[string]*object // by the hash of their names
	uploads unfinished
	total   int64 // of all objects and uploads
}

// Open opens the store in a directory, which is made if it is not there, and removes what is of no use in it. One
// process at a time may have it open.
func Open(o Options) (*Store, error) {
	s := &Store{
		dir: o.Dir, limit: o.Limit, inUse: cmp.Or(o.InUse, inUse), idle: cmp.Or(o.Idle, quiet), sign: signatures{key: o.Key}, log: o.Log,
		objects: map[string]*object{}, uploads: unfinished{dir: filepath.Join(o.Dir, uploadsDir), log: o.Log, all: map[string]*upload{}},
	}
	for _, dir := range []string{o.Dir, s.path(objectsDir), s.path(uploadsDir)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the directory of the built-in cache: %w", err)
		}
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("read the built-in cache: %w", err)
	}
	s.clean(time.Now())
	s.mu.Lock()
	gone := s.evict(0)
	s.mu.Unlock()
	s.removeObjects(gone)
	return s, nil
}

// Run removes uploads that nobody will complete, until ctx ends.
func (s *Store) Run(ctx context.Context) {
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.clean(now)
		}
	}
}

// Size returns how many bytes archives and uploads take.
func (s *Store) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// load finds the objects and uploads in the directory. What a crash has left half done is removed.
func (s *Store) load() error {
	objects, err := os.ReadDir(s.path(objectsDir))
	if err != nil {
		return err
	}
	for _, e := range objects {
		dir := s.path(objectsDir, e.Name())
		o, err := readObject(dir)
		if err != nil {
			s.log.Warn("The built-in cache has something that is no archive; it is removed", "path", dir, "error", err)
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		removeOthers(dir, o.File)
		s.objects[e.Name()] = o
		s.total += o.Size
	}
	uploads, err := os.ReadDir(s.path(uploadsDir))
	if err != nil {
		return err
	}
	for _, e := range uploads {
		up := readUpload(s.path(uploadsDir, e.Name()))
		if up.bytes == 0 { // one in a single piece, or without a whole part: it begins anew
			if err := os.RemoveAll(s.path(uploadsDir, e.Name())); err != nil {
				return err
			}
			continue
		}
		s.uploads.all[e.Name()] = up
		s.total += up.bytes
	}
	return nil
}

// removeOthers removes contents of an object that are not its own any more.
func removeOthers(dir, keep string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Name() != keep && e.Name() != infoName {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// clean removes uploads in which nothing has happened for long, or nothing may happen any more.
func (s *Store) clean(now time.Time) {
	entries, err := os.ReadDir(s.path(uploadsDir))
	if err != nil {
		return
	}
	for _, e := range entries {
		s.mu.Lock()
		up := s.uploads.all[e.Name()]
		over := up != nil && up.over(now)
		s.mu.Unlock()
		if info, err := e.Info(); over || err == nil && now.Sub(info.ModTime()) > staleAfter {
			s.dropUpload(e.Name())
		}
	}
}

// reserve makes room for n bytes of an upload: unfinished uploads that are of no use or take too much, and what was used
// least recently, go, but nothing if that would not do.
func (s *Store) reserve(upload string, n int64) error {
	var gone []*object
	var dropped []string
	s.mu.Lock()
	fits := s.fits(n)
	if fits {
		dropped, _ = s.uploads.spare(n, s.limit, s.idle)
		for _, id := range dropped {
			s.total -= s.uploads.drop(id)
		}
		gone = s.evict(n)
		s.uploads.add(upload, n)
		s.total += n
	}
	s.mu.Unlock()
	for _, id := range dropped {
		s.log.Info("An unfinished upload to the built-in cache is removed: its time is over, or room was needed", "upload", id)
		s.uploads.remove(id)
	}
	s.removeObjects(gone)
	if !fits {
		return errFull
	}
	return nil
}

var errFull = errors.New("the built-in cache is full of archives that are in use")

// fits says whether there is room for n more bytes without what may go. The caller has the lock.
func (s *Store) fits(n int64) bool {
	_, spare := s.uploads.spare(n, s.limit, s.idle)
	stays, now := s.total-spare, time.Now()
	for _, o := range s.objects {
		if o.idle(now, s.inUse) {
			stays -= o.Size
		}
	}
	return s.limit == 0 || n <= s.limit-stays // n may be any number
}

// idle says whether an object may go: nobody reads it, nor has for the given time.
func (o *object) idle(now time.Time, inUse time.Duration) bool {
	return o.readers == 0 && now.Sub(o.used) >= inUse
}

// evict takes out what has to go for n more bytes. The caller has the lock, and removes the files without it.
func (s *Store) evict(n int64) []*object {
	var gone []*object
	now := time.Now()
	for s.limit > 0 && s.total+n > s.limit {
		hash, oldest := "", (*object)(nil)
		for h, o := range s.objects {
			if o.idle(now, s.inUse) && (oldest == nil || o.used.Before(oldest.used)) {
				hash, oldest = h, o
			}
		}
		if oldest == nil {
			break
		}
		delete(s.objects, hash)
		s.total -= oldest.Size
		gone = append(gone, oldest)
	}
	return gone
}

// removeObjects removes the files of objects that were taken out, unless others have taken their places.
func (s *Store) removeObjects(gone []*object) {
	for _, o := range gone {
		s.log.Info("The built-in cache is full; the archive that was not used for longest is removed", "archive", o.Name, "bytes", o.Size, "last_used", o.used)
		s.removeFiles(o)
	}
}

// removeFiles removes an object's content, and its directory if there is nothing else in it. Should the description
// stay behind, the object is not read any more.
func (s *Store) removeFiles(o *object) {
	dir := s.path(objectsDir, hashName(o.Name))
	err := os.Remove(filepath.Join(dir, o.File))
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, replaced := s.objects[hashName(o.Name)]; replaced {
		return
	}
	if e := os.RemoveAll(dir); e != nil {
		err = errors.Join(err, e)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("An archive of the built-in cache could not be removed", "path", dir, "error", err)
	}
}

// newName returns a name for a file that nobody else has.
func newName() string { return rand.Text() }
