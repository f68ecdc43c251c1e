package builtin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// copyBuffer is how much is read at once.
	copyBuffer = 128 << 10
	// maxParts is how many parts an upload has at most.
	maxParts = 10000
	partEnd  = ".part"
	// maxList bounds the list of parts that completes an upload.
	maxList = 4 << 20
	// wholeBlock is the size of the blocks of an archive that came in one piece.
	wholeBlock = 8 << 20
	// wholeStep is how many bytes of it room is made for at once; at least copyBuffer.
	wholeStep = 256 << 10
	// quiet is how long the other side may send nothing.
	quiet = 2 * time.Minute
	// slowest is how many bytes a second a download has to take.
	slowest = 16 << 10
)

// partRecord is kept beside an upload's content for each part that is there.
type partRecord struct {
	Size int64  `json:"size"`
	Sum  []byte `json:"sum"`
	// Until is when the upload's signature ends, in seconds since 1970.
	Until int64 `json:"until,omitempty"`
}

func (p partRecord) tag() string { return `"` + hex.EncodeToString(p.Sum) + `"` }

// fits says whether a part is the one with the tag, and as large as it has to be.
func (p partRecord) fits(tag string, block int64, last bool) bool {
	return strings.Trim(tag, `"`) == strings.Trim(p.tag(), `"`) && (p.Size == block || last && p.Size > 0)
}

func partName(number int) string { return strconv.Itoa(number) + partEnd }

// readUpload reads what there is of an upload: what its parts take, and when it ends.
func readUpload(dir string) *upload {
	up := &upload{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return up
	}
	if info, err := os.Stat(dir); err == nil {
		up.used = info.ModTime()
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), partEnd) {
			continue // the content has any size
		}
		if p, err := readPart(filepath.Join(dir, e.Name())); err == nil {
			up.bytes += p.Size
			up.until = max(up.until, p.Until)
		}
	}
	return up
}

func readPart(path string) (partRecord, error) {
	var p partRecord
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	return p, err
}

// uploadPart takes a part. It goes to its place in the upload's content at once, so that there is nothing to be put
// together in the end; its record is written when all of it is there.
func (s *Store) uploadPart(w http.ResponseWriter, r *http.Request, t ticket) {
	number, err := strconv.Atoi(r.URL.Query().Get("partNumber"))
	if err != nil || number < 1 || number > maxParts || r.ContentLength < 0 || r.ContentLength > t.block {
		refuse(w, http.StatusBadRequest, "InvalidPart")
		return
	}
	s.mu.Lock()
	err = s.uploads.begin(t)
	s.mu.Unlock()
	if err != nil {
		s.fail(w, t, err)
		return
	}
	record := s.path(uploadsDir, t.upload, partName(number))
	s.forgetPart(t.upload, record)
	flight := newName() // the bytes are its own until all are here: an upload that is aborted gives back what is on the disk
	var part partRecord
	if err = s.reserve(flight, r.ContentLength); err == nil {
		part, err = s.receivePart(w, r, t.upload, int64(number-1)*t.block)
	}
	if err = s.endPart(t.upload, flight, record, part, err); err != nil {
		s.fail(w, t, err)
		return
	}
	w.Header().Set("ETag", part.tag())
	w.WriteHeader(http.StatusOK)
}

// forgetPart takes away the record of a part that is sent again, as the answer to it was lost. Of several that do so at
// the same time one gives back what was reserved.
func (s *Store) forgetPart(upload, record string) {
	mine := record + "." + newName()
	if os.Rename(record, mine) != nil {
		return // it is the first time
	}
	if before, err := readPart(mine); err == nil {
		s.mu.Lock()
		if up := s.uploads.all[upload]; up != nil {
			up.bytes -= before.Size
			s.total -= before.Size
		}
		s.mu.Unlock()
	}
	_ = os.Remove(mine)
}

func (s *Store) receivePart(w http.ResponseWriter, r *http.Request, id string, at int64) (partRecord, error) {
	s.mu.Lock() // who drops the upload does so before or after
	f, err := s.uploads.open(id)
	s.mu.Unlock()
	if err != nil {
		return partRecord{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := receive(w, r, io.MultiWriter(io.NewOffsetWriter(f, at), h))
	if err != nil {
		return partRecord{}, err
	}
	return partRecord{Size: n, Sum: h.Sum(nil)}, f.Close()
}

// receive copies a request's body, which has to have the length that it says.
func receive(w http.ResponseWriter, r *http.Request, to io.Writer) (int64, error) {
	control := http.NewResponseController(w)
	buf := make([]byte, copyBuffer)
	var total int64
	for {
		if err := control.SetReadDeadline(time.Now().Add(quiet)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return total, err
		}
		n, err := r.Body.Read(buf)
		if _, err := to.Write(buf[:n]); err != nil {
			return total, err
		}
		total += int64(n)
		switch {
		case errors.Is(err, io.EOF) && total == r.ContentLength:
			return total, nil
		case errors.Is(err, io.EOF):
			return total, lost{io.ErrUnexpectedEOF}
		case err != nil:
			return total, lost{err}
		}
	}
}

// lost is an error of the connection: nobody is there to be told.
type lost struct{ error }

func writeRecord(path string, p partRecord) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	temp := path + "." + newName()
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, path)
}

// completeUpload makes the parts that the request lists the archive.
func (s *Store) completeUpload(w http.ResponseWriter, r *http.Request, t ticket) {
	var list struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Parts   []struct {
			PartNumber int
			ETag       string
		} `xml:"Part"`
	}
	if err := xml.NewDecoder(io.LimitReader(r.Body, maxList)).Decode(&list); err != nil || len(list.Parts) == 0 {
		refuse(w, http.StatusBadRequest, "MalformedXML")
		return
	}
	dir := s.path(uploadsDir, t.upload)
	s.mu.Lock()
	if up := s.uploads.all[t.upload]; up != nil {
		up.used = time.Now()
	}
	s.mu.Unlock()
	content := filepath.Join(dir, contentName)
	if _, err := os.Stat(content); errors.Is(err, fs.ErrNotExist) {
		refuse(w, http.StatusNotFound, "NoSuchUpload")
		return
	}
	o := &object{Name: t.object, Key: t.key, Block: t.block}
	for i, listed := range list.Parts {
		p, err := readPart(filepath.Join(dir, partName(i+1)))
		if err != nil || listed.PartNumber != i+1 || !p.fits(listed.ETag, t.block, i == len(list.Parts)-1) {
			refuse(w, http.StatusBadRequest, "InvalidPart")
			return
		}
		o.Size += p.Size
		o.Sums = append(o.Sums, p.Sum)
	}
	err := os.Truncate(content, o.Size)
	if err == nil {
		err = s.publish(o, t.upload, content)
	}
	if err != nil {
		s.fail(w, t, err)
		return
	}
	s.uploads.remove(t.upload)
	w.Header().Set("Content-Type", "application/xml")
	_, _ = fmt.Fprintf(w, "<CompleteMultipartUploadResult><ETag>&quot;%s&quot;</ETag></CompleteMultipartUploadResult>", strings.Trim(o.tag(), `"`))
}

// abortUpload removes what there is of an upload.
func (s *Store) abortUpload(w http.ResponseWriter, _ *http.Request, t ticket) {
	s.dropUpload(t.upload)
	w.WriteHeader(http.StatusNoContent)
}

// dropUpload ends an upload: no part of it is taken any more.
func (s *Store) dropUpload(id string) {
	s.mu.Lock()
	s.total -= s.uploads.drop(id)
	s.mu.Unlock()
	s.uploads.remove(id)
}

// uploadWhole takes an archive in one piece.
func (s *Store) uploadWhole(w http.ResponseWriter, r *http.Request, t ticket) {
	if r.ContentLength <= 0 {
		refuse(w, http.StatusLengthRequired, "MissingContentLength")
		return
	}
	id := newName() // another one for each try
	defer func() {
		s.mu.Lock()
		s.total -= s.uploads.forget(id)
		s.mu.Unlock()
		s.uploads.remove(id)
	}()
	s.mu.Lock()
	fits := s.fits(r.ContentLength)
	s.mu.Unlock()
	if !fits {
		s.fail(w, t, errFull)
		return
	}
	o := &object{Name: t.object, Key: t.key, Block: wholeBlock, Size: r.ContentLength}
	dir := s.path(uploadsDir, id)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		room := &reserving{store: s, upload: id, rest: r.ContentLength}
		err = receiveWhole(w, r, o, filepath.Join(dir, contentName), room)
	}
	if err == nil {
		err = s.publish(o, id, filepath.Join(dir, contentName))
	}
	if err != nil {
		s.fail(w, t, err)
		return
	}
	w.Header().Set("ETag", o.tag())
	w.WriteHeader(http.StatusOK)
}

func receiveWhole(w http.ResponseWriter, r *http.Request, o *object, path string, room *reserving) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	b := &blocks{size: int(o.Block)}
	if _, err := receive(w, r, io.MultiWriter(room, f, b)); err != nil {
		return err
	}
	o.Sums = b.finish()
	return f.Close()
}

// reserving makes room for what comes, as it comes: other archives do not go for the mere announcement of a large one.
type reserving struct {
	store  *Store
	upload string
	rest   int64 // of what was announced
	left   int64 // of what room was made for
}

func (r *reserving) Write(p []byte) (int, error) {
	n := int64(len(p))
	if n > r.left {
		more := min(wholeStep, r.rest)
		if err := r.store.reserve(r.upload, more); err != nil {
			return 0, err
		}
		r.left, r.rest = r.left+more, r.rest-more
	}
	r.left -= n
	return len(p), nil
}

// blocks hashes what is written to it in blocks.
type blocks struct {
	size int
	n    int // bytes in the block that is not full
	h    interface {
		io.Writer
		Sum(b []byte) []byte
	}
	sums [][]byte
}

func (b *blocks) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		if b.h == nil {
			b.h, b.n = sha256.New(), 0
		}
		n := min(len(p), b.size-b.n)
		_, _ = b.h.Write(p[:n]) // a hash has no errors
		b.n, p = b.n+n, p[n:]
		if b.n == b.size {
			b.sums, b.h = append(b.sums, b.h.Sum(nil)), nil
		}
	}
	return written, nil
}

func (b *blocks) finish() [][]byte {
	if b.h != nil {
		b.sums, b.h = append(b.sums, b.h.Sum(nil)), nil
	}
	return b.sums
}
