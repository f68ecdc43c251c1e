package blob_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/blob"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content is of a kind that shows when a part is in the wrong place.
func content(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	_, _ = r.Read(b)
	return b
}

const chunk = 64 << 10

func client(t *testing.T, change ...func(*blob.Options)) *blob.Client {
	t.Helper()
	o := blob.Options{Chunk: chunk, Concurrency: 4, Buffer: 8 << 10, Wait: time.Millisecond, Patience: 5 * time.Second}
	for _, c := range change {
		c(&o)
	}
	out := blob.New(o)
	t.Cleanup(out.Close)
	return out
}

// fault is what goes wrong with one request.
type fault struct {
	when   func(*http.Request) bool // nil: any
	code   int                      // answer with it
	header map[string]string
	cut    int                   // > 0: break the connection off after so many bytes of the answer's body
	sever  int                   // > 0: break it off after so many bytes of the request's body
	lost   bool                  // do what was asked for, then break it off
	before func()                // called first
	body   func(b []byte) []byte // changes the answer's body
}

// storage is one object in a storage, which is strict about what it is asked for.
type storage struct {
	*httptest.Server
	t testing.TB

	mu       sync.Mutex
	object   []byte // nil: there is none
	modified time.Time
	header   map[string]string // of downloads
	ranges   bool
	weak     bool
	faults   []fault
	requests []string
	sent     atomic.Int64 // bytes of answers
	parts    map[int][]byte
	blocks   map[string][]byte
	session  []byte
	open     bool // the session
	aborted  int
	refuse   int // code of answers to parts; 0: taken
	mean     int // bytes of each part that a session takes at most; 0: all
	inflight int
	most     int
}

func newStorage(t testing.TB) *storage {
	s := &storage{t: t, ranges: true, modified: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), parts: map[int][]byte{}, blocks: map[string][]byte{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// mend forgets the faults that have not happened yet.
func (s *storage) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

func (s *storage) inject(f ...fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f...)
}

func (s *storage) next(r *http.Request) fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Query().Get("do")+" "+r.Header.Get("Range")+r.Header.Get("Content-Range"))
	for i, f := range s.faults {
		if f.when == nil || f.when(r) {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			return f
		}
	}
	return fault{}
}

func (s *storage) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// cutter breaks off after a number of bytes.
type cutter struct {
	http.ResponseWriter
	s    *storage
	f    fault
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if c.f.body != nil {
		p = c.f.body(bytes.Clone(p))
	}
	if c.f.cut > 0 {
		if c.left == 0 {
			_ = http.NewResponseController(c.ResponseWriter).Flush()
			panic(http.ErrAbortHandler)
		}
		p = p[:min(len(p), c.left)]
		c.left -= len(p)
	}
	n, err := c.ResponseWriter.Write(p)
	c.s.sent.Add(int64(n))
	return n, err
}

func (s *storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := s.next(r)
	if f.before != nil {
		f.before()
	}
	if f.sever > 0 {
		_, _ = io.CopyN(io.Discard, r.Body, int64(f.sever))
		panic(http.ErrAbortHandler)
	}
	if f.code != 0 {
		for k, v := range f.header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(f.code)
		_, _ = io.WriteString(w, "<Error><Code>Injected</Code><Message>"+html.EscapeString(r.URL.String())+"</Message></Error>")
		return
	}
	if r.URL.Query().Get("signature") != "SECRET"+r.URL.Query().Get("do")+r.URL.Query().Get("part") {
		http.Error(w, "bad signature of "+r.URL.String(), http.StatusForbidden)
		return
	}
	if f.lost {
		s.serve(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
	s.serve(&cutter{ResponseWriter: w, s: s, f: f, left: f.cut}, r)
}

func (s *storage) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	body := []byte(nil)
	if r.Method != http.MethodGet {
		s.mu.Lock()
		s.inflight++
		s.most = max(s.most, s.inflight)
		s.mu.Unlock()
		var err error
		body, err = io.ReadAll(r.Body)
		s.mu.Lock()
		s.inflight--
		s.mu.Unlock()
		if err != nil || int64(len(body)) != r.ContentLength {
			panic(http.ErrAbortHandler)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.Method + " " + q.Get("do") {
	case "GET get":
		s.get(w, r)
	case "PUT whole":
		s.object = body
		w.Header().Set("ETag", tagOf(body))
	case "PUT part":
		s.part(w, q, body)
	case "POST complete":
		s.complete(w, body)
	case "DELETE abort":
		s.aborted++
		w.WriteHeader(http.StatusNoContent)
	case "PUT block":
		id, err := base64.StdEncoding.DecodeString(q.Get("part"))
		if err != nil || len(id) != 8 || s.refuse != 0 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.blocks[q.Get("part")] = body
		w.WriteHeader(http.StatusCreated)
	case "PUT blocklist":
		s.blocklist(w, body)
	case "POST begin":
		if r.Header.Get("X-Goog-Resumable") != "start" || len(body) != 0 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.open, s.session = true, nil
		w.Header().Set("Location", "/object?do=session&signature=SECRETsession")
		w.WriteHeader(http.StatusCreated)
	case "PUT session":
		s.resume(w, r.Header.Get("Content-Range"), body)
	case "DELETE session":
		s.open = false
		s.aborted++
		w.WriteHeader(499)
	default:
		s.t.Errorf("unexpected request: %s %s", r.Method, r.URL)
		w.WriteHeader(http.StatusBadRequest)
	}
}

func tagOf(b []byte) string { return fmt.Sprintf(`"%x"`, md5.Sum(b)) }

func (s *storage) get(w http.ResponseWriter, r *http.Request) {
	if s.object == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	tag := tagOf(s.object)
	if s.weak {
		tag = "W/" + tag
	}
	w.Header().Set("ETag", tag)
	for k, v := range s.header {
		w.Header().Set(k, v)
	}
	if !s.ranges {
		r.Header.Del("Range")
	}
	object := s.object
	s.mu.Unlock() // a fault may want it
	defer s.mu.Lock()
	http.ServeContent(struct{ http.ResponseWriter }{w}, r, "", s.modified, bytes.NewReader(object))
}

func (s *storage) part(w http.ResponseWriter, q url.Values, body []byte) {
	if s.refuse != 0 {
		w.WriteHeader(s.refuse)
		return
	}
	n, err := strconv.Atoi(q.Get("part"))
	if err != nil || n < 1 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.parts[n] = body
	w.Header().Set("ETag", tagOf(body))
}

func (s *storage) complete(w http.ResponseWriter, body []byte) {
	var doc struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Parts   []struct {
			PartNumber int
			ETag       string
		} `xml:"Part"`
	}
	if len(s.parts) == 0 {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "<Error><Code>NoSuchUpload</Code></Error>")
		return
	}
	var whole []byte
	err := xml.Unmarshal(body, &doc)
	for i, p := range doc.Parts {
		if p.PartNumber != i+1 || p.ETag != tagOf(s.parts[i+1]) || i < len(doc.Parts)-1 && len(s.parts[i+1]) != chunk {
			err = fmt.Errorf("part %d is wrong", i+1)
		}
		whole = append(whole, s.parts[i+1]...)
	}
	if err != nil || len(doc.Parts) != len(s.parts) {
		s.t.Errorf("%v: %s", err, body)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.object, s.parts = whole, map[int][]byte{}
	_, _ = fmt.Fprintf(w, "  \n<CompleteMultipartUploadResult><ETag>%s</ETag></CompleteMultipartUploadResult>", tagOf(whole))
}

func (s *storage) blocklist(w http.ResponseWriter, body []byte) {
	var doc struct {
		XMLName xml.Name `xml:"BlockList"`
		Latest  []string
	}
	if err := xml.Unmarshal(body, &doc); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var whole []byte
	for _, id := range doc.Latest {
		b, ok := s.blocks[id]
		if !ok {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		whole = append(whole, b...)
	}
	s.object = whole
	w.Header().Set("ETag", tagOf(whole))
	w.WriteHeader(http.StatusCreated)
}

// resume is what a session does with a part.
func (s *storage) resume(w http.ResponseWriter, text string, body []byte) {
	rest, ok := strings.CutPrefix(text, "bytes ")
	part, total, _ := strings.Cut(rest, "/")
	if !ok || !s.open {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if part != "*" {
		from, end, _ := strings.Cut(part, "-")
		a, _ := strconv.Atoi(from)
		b, _ := strconv.Atoi(end)
		if a > len(s.session) || b-a+1 != len(body) || total == "*" && len(body)%(16<<10) != 0 {
			s.t.Errorf("%s with %d bytes, there are %d", text, len(body), len(s.session))
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if s.mean > 0 && len(body) > s.mean {
			body = body[:s.mean]
		}
		s.session = append(s.session[:a], body...)
	}
	if total == strconv.Itoa(len(s.session)) {
		s.object, s.open = bytes.Clone(s.session), false
		w.Header().Set("ETag", tagOf(s.object))
		return
	}
	if n := len(s.session); n > 0 {
		w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", n-1))
	}
	w.WriteHeader(http.StatusPermanentRedirect)
}

func (s *storage) request(method, do string) *tranter.SignedRequest {
	return &tranter.SignedRequest{Method: method, URL: tranter.Secret(s.URL + "/object?do=" + do + "&signature=SECRET" + do)}
}

func (s *storage) download() *tranter.SignedRequest { return s.request("GET", "get") }

func (s *storage) upload(protocol string) *tranter.RemoteUpload {
	up := &tranter.RemoteUpload{Whole: s.request("PUT", "whole")}
	p := &tranter.PartUpload{Protocol: protocol, PartBytes: chunk}
	switch protocol {
	case tranter.PartsS3:
		p.Part = *s.request("PUT", "part&part={part}")
		p.Part.URL = tranter.Secret(s.URL + "/object?do=part&part={part}&signature={signature}")
		for n := range 100 {
			p.Signatures = append(p.Signatures, "SECRETpart"+strconv.Itoa(n+1))
		}
		p.Complete, p.Abort = s.request("POST", "complete"), s.request("DELETE", "abort")
	case tranter.PartsAzure:
		p.Part = tranter.SignedRequest{Method: "PUT", URL: tranter.Secret(s.URL + "/object?do=block&part={block}&signature=SECRETblock{block}")}
		p.Complete = s.request("PUT", "blocklist")
	case tranter.PartsGCS:
		p.Part = *s.request("POST", "begin")
		p.Part.Header = map[string]string{"x-goog-resumable": "start"}
	}
	up.Parts = p
	return up
}

func file(t testing.TB) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func read(t testing.TB, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	must(t, err)
	return b
}
