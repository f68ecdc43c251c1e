package builtin

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// object is a stored archive. Its exported fields are its description on the disk.
type object struct {
	Name     string    `json:"name"`
	File     string    `json:"file"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	Key      string    `json:"key,omitempty"` // of the cache, as the user knows it
	// Block is the size of the blocks whose SHA-256 Sums has, all but the last.
	Block int64    `json:"block"`
	Sums  [][]byte `json:"sums"`

	// Guarded by the store's mutex.
	readers int
	used    time.Time
	touched time.Time

	checking sync.Mutex
	checked  []bool // blocks that were compared with their sums since the start
}

// hashName is the name of an object's directory, whatever characters the object's has.
func hashName(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// tag is the object's ETag, from its content.
func (o *object) tag() string {
	h := sha256.New()
	for _, sum := range o.Sums {
		h.Write(sum)
	}
	return `"` + hex.EncodeToString(h.Sum(nil)) + `"`
}

// readObject reads an object's description and checks that it fits what is there.
func readObject(dir string) (*object, error) {
	path := filepath.Join(dir, infoName)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	if filepath.Base(dir) != hashName(o.Name) || filepath.Base(o.File) != o.File || o.Block <= 0 || int64(len(o.Sums)) != (o.Size+o.Block-1)/o.Block {
		return nil, errors.New("its description is damaged")
	}
	info, err := os.Lstat(filepath.Join(dir, o.File))
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() != o.Size {
		return nil, errors.New("its content does not have the length that it was stored with")
	}
	if info, err = os.Stat(path); err != nil {
		return nil, err
	}
	o.used, o.touched = info.ModTime(), info.ModTime()
	o.checked = make([]bool, len(o.Sums))
	return &o, nil
}

// publish makes content, a file of an upload whose size and sums o has, the archive of o's name. Whatever happens, there
// is the archive from before or this one.
func (s *Store) publish(o *object, upload, content string) error {
	hash := hashName(o.Name)
	dir := s.path(objectsDir, hash)
	o.File, o.Modified = newName()+contentEnd, time.Now().UTC()
	o.checked = make([]bool, len(o.Sums))
	if err := syncFile(content); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	s.mu.Lock() // so that nobody removes the directory meanwhile
	defer s.mu.Unlock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the archive's directory: %w", err)
	}
	if err := link(content, filepath.Join(dir, o.File)); err != nil {
		return fmt.Errorf("put the archive in its place: %w", err)
	}
	if err := describe(dir, o); err != nil {
		return errors.Join(fmt.Errorf("describe the archive: %w", err), os.Remove(filepath.Join(dir, o.File)))
	}
	if before := s.objects[hash]; before != nil {
		s.total -= before.Size
		_ = os.Remove(filepath.Join(dir, before.File)) // one that is being read stays until that is over
	}
	o.used, o.touched = time.Now(), time.Now()
	s.objects[hash] = o
	// The upload's bytes are the object's now.
	s.total += o.Size - s.uploads.forget(upload)
	return nil
}

// link gives content its second name. The first stays until all is done: after a crash the upload is completed again.
func link(content, to string) error {
	if os.Link(content, to) == nil {
		return nil
	}
	return os.Rename(content, to) // not all file systems have links
}

// describe writes an object's description, whole or not at all.
func describe(dir string, o *object) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	temp := filepath.Join(dir, newName())
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := syncFile(temp); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, filepath.Join(dir, infoName)); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(dir)
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// acquire returns the object called name, which then is not evicted until release; nil if there is none.
func (s *Store) acquire(name string) *object {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[hashName(name)]
	if o == nil {
		return nil
	}
	o.readers++
	o.used = time.Now()
	if o.used.Sub(o.touched) > touchEvery {
		o.touched = o.used
		_ = os.Chtimes(s.path(objectsDir, hashName(name), infoName), o.used, o.used) // for the next start
	}
	return o
}

func (s *Store) release(o *object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.readers--
	o.used = time.Now()
}

// discard removes an object that has turned out to be of no use.
func (s *Store) discard(o *object, why error) {
	s.log.Warn("An archive of the built-in cache is damaged and removed", "archive", o.Name, "error", why)
	s.mu.Lock()
	there := s.objects[hashName(o.Name)] == o
	if there {
		delete(s.objects, hashName(o.Name))
		s.total -= o.Size
	}
	s.mu.Unlock()
	if there {
		s.removeFiles(o)
	}
}

// download answers GET and HEAD, with ranges. Blocks are compared with their sums before anything of them is sent for
// the first time since the start.
func (s *Store) download(w http.ResponseWriter, r *http.Request, t ticket) {
	o := s.acquire(t.object)
	if o == nil {
		refuse(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	defer s.release(o)
	f, err := os.Open(s.path(objectsDir, hashName(o.Name), o.File))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // such as too many open files: that is not the archive's fault
		s.log.Warn("An archive of the built-in cache could not be read", "archive", o.Name, "error", err)
		refuse(w, http.StatusInternalServerError, "InternalError")
		return
	}
	if err == nil {
		defer f.Close()
		err = o.check(f, r.Header.Get("Range"))
	}
	if err != nil {
		s.discard(o, err)
		refuse(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	h := w.Header()
	h.Set("ETag", o.tag())
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Tranter-Meta-Cachekey", o.Key)
	if len(o.Sums) == 1 {
		h.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(o.Sums[0])+":")
	}
	// Who reads slower than any network keeps the archive from being evicted.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(quiet + time.Duration(o.Size/slowest)*time.Second))
	http.ServeContent(w, r, "", o.Modified, f)
}

// check compares the blocks that a Range header asks for, or all, with their sums.
func (o *object) check(f *os.File, header string) error {
	if info, err := f.Stat(); err != nil || info.Size() != o.Size {
		return errors.Join(errors.New("its content does not have the length that it was stored with"), err)
	}
	first, last := 0, len(o.Sums)-1
	var from, to int64
	if n, err := fmt.Sscanf(header, "bytes=%d-%d", &from, &to); err == nil && n == 2 && !strings.Contains(header, ",") && from >= 0 && from <= to {
		first, last = int(min(from/o.Block, int64(len(o.Sums)))), int(min(to/o.Block, int64(last)))
	}
	for i := first; i <= last; i++ {
		if err := o.checkBlock(f, i); err != nil {
			return err
		}
	}
	return nil
}

// checkBlock compares one block, once. Two requests may do it at the same time.
func (o *object) checkBlock(f io.ReaderAt, i int) error {
	o.checking.Lock()
	done := o.checked[i]
	o.checking.Unlock()
	if done {
		return nil
	}
	h := sha256.New()
	at := int64(i) * o.Block
	if _, err := io.CopyBuffer(h, io.NewSectionReader(f, at, min(o.Block, o.Size-at)), make([]byte, copyBuffer)); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), o.Sums[i]) {
		return fmt.Errorf("the hash of block %d is not the one that it was stored with", i)
	}
	o.checking.Lock()
	defer o.checking.Unlock()
	o.checked[i] = true
	return nil
}
