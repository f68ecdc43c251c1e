package builtin

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// maxDropped is how many uploads that were dropped are remembered. Their signatures are over before as many are.
const maxDropped = 4096

var errDropped = errors.New("the upload is over: it was aborted, or room was needed")

// upload is one that is not complete.
type upload struct {
	bytes int64
	until int64 // when its signature ends, in seconds since 1970; 0: it is not known
	busy  int   // requests that are on their way
	used  time.Time
}

func (u *upload) over(now time.Time) bool { return u.until != 0 && now.Unix() > u.until }

// unfinished are the uploads that are not complete. The store's mutex guards it.
type unfinished struct {
	dir     string
	log     *slog.Logger
	all     map[string]*upload // by their ids
	dropped []string           // that are refused, oldest first
}

// add counts n more bytes for an upload that is one request.
func (u *unfinished) add(id string, n int64) {
	if u.all[id] == nil {
		u.all[id] = &upload{busy: 1}
	}
	u.all[id].bytes += n
}

// begin notes that a part is on its way, unless its upload was dropped.
func (u *unfinished) begin(t ticket) error {
	if slices.Contains(u.dropped, t.upload) {
		return errDropped
	}
	if u.all[t.upload] == nil {
		u.all[t.upload] = &upload{}
	}
	up := u.all[t.upload]
	up.busy++
	up.until = t.until
	return nil
}

// forget takes an upload out and returns how many bytes it had.
func (u *unfinished) forget(id string) int64 {
	up := u.all[id]
	if up == nil {
		return 0
	}
	delete(u.all, id)
	return up.bytes
}

// drop is forget for an upload of which no part may come any more. One that never began may still do so.
func (u *unfinished) drop(id string) int64 {
	if u.all[id] == nil {
		return 0
	}
	if u.dropped = append(u.dropped, id); len(u.dropped) > maxDropped {
		u.dropped = slices.Delete(u.dropped, 0, len(u.dropped)-maxDropped)
	}
	return u.forget(id)
}

// spare returns the uploads that go when n more bytes come, and how many bytes they have: those whose signature is over,
// and if all would have more than half of the limit, those in which nothing happens, for longest first.
func (u *unfinished) spare(n, limit int64, quietFor time.Duration) (ids []string, bytes int64) {
	now := time.Now()
	var total int64
	var idle []string
	for id, up := range u.all {
		total += up.bytes
		switch {
		case up.over(now):
			ids = append(ids, id)
			bytes += up.bytes
		case up.busy == 0 && now.Sub(up.used) >= quietFor:
			idle = append(idle, id)
		}
	}
	slices.SortFunc(idle, func(a, b string) int { return u.all[a].used.Compare(u.all[b].used) })
	for _, id := range idle {
		if limit == 0 || n <= limit/2-(total-bytes) { // n may be any number
			break
		}
		ids = append(ids, id)
		bytes += u.all[id].bytes
	}
	return ids, bytes
}

// open opens the content of an upload for a part, unless it was dropped meanwhile.
func (u *unfinished) open(id string) (*os.File, error) {
	if u.all[id] == nil {
		return nil, errDropped
	}
	if err := os.MkdirAll(filepath.Join(u.dir, id), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(u.dir, id, contentName), os.O_WRONLY|os.O_CREATE, 0o600)
}

// remove removes the files of an upload that does not count any more. It needs no lock.
func (u *unfinished) remove(id string) {
	path := filepath.Join(u.dir, id)
	if err := os.RemoveAll(path); err != nil {
		u.log.Warn("What is left of an upload to the built-in cache could not be removed", "path", path, "error", err)
	}
}

// endPart makes the bytes of a part in flight those of its upload, and writes its record; err says why it did not come.
func (s *Store) endPart(id, flight, record string, part partRecord, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total -= s.uploads.forget(flight)
	up := s.uploads.all[id]
	if up == nil {
		return errors.Join(err, errDropped)
	}
	up.busy--
	up.used = time.Now()
	if err != nil {
		return err
	}
	part.Until = up.until
	if err := writeRecord(record, part); err != nil {
		return err
	}
	up.bytes += part.Size
	s.total += part.Size
	return nil
}
