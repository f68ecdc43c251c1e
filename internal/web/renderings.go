package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

const (
	maxRenderings = 256  // pages kept for a moment
	worthGzip     = 1000 // bytes: less fits into a packet anyway
)

// renderings keeps what was rendered until the next look at what is there, so that many viewers of one page cost as much as one.
type renderings struct {
	mu   sync.Mutex
	gen  uint64
	kept map[string]*rendering
}

// rendering is one answer. Who finds it locked waits for whoever renders it.
type rendering struct {
	mu     sync.Mutex
	done   bool
	status int
	header http.Header
	plain  []byte
	packed []byte // nil: not worth it
	tag    string
}

func newRenderings() *renderings { return &renderings{kept: map[string]*rendering{}} }

// find returns the place for what is rendered under a key from the look with the given number.
func (c *renderings) find(gen uint64, key string) *rendering {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gen != gen || len(c.kept) >= maxRenderings {
		c.gen = gen
		clear(c.kept)
	}
	r, ok := c.kept[key]
	if !ok {
		r = &rendering{}
		c.kept[key] = r
	}
	return r
}

// cached lets h render a page once for all who want it at the time: those who may do the same and ask for the same address. What h
// shows may depend on nothing else of the request.
func (s *Server) cached(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hasFlash(r) {
			h(w, r)
			return
		}
		_, gen, _ := s.now.get(r.Context())
		v := visitorOf(r)
		key := fmt.Sprintf("%d %t %t %s", v.role, v.session, isFragment(r), r.URL.RequestURI())
		kept := s.cache.find(gen, key)
		kept.fill(h, r)
		kept.serve(w, r)
	})
}

func (k *rendering) fill(h http.HandlerFunc, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done {
		return
	}
	into := &recorder{header: http.Header{}}
	h(into, r)
	if r.Context().Err() != nil {
		k.set(into) // for this one, who is gone; the next renders anew
		return
	}
	k.set(into)
	k.done = true
}

func (k *rendering) set(from *recorder) {
	k.status, k.header, k.plain = from.code(), from.header, from.body.Bytes()
	k.packed = pack(k.plain)
	sum := sha256.Sum256(k.plain)
	k.tag = `"` + hex.EncodeToString(sum[:12]) + `"`
}

// serve answers a request with what was rendered.
func (k *rendering) serve(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	status, header, plain, packed, tag := k.status, k.header, k.plain, k.packed, k.tag
	k.mu.Unlock()
	to := w.Header()
	maps.Copy(to, header)
	if status == http.StatusOK {
		to.Set("ETag", tag)
		if matches(r.Header.Get("If-None-Match"), tag) {
			to.Del("Content-Length")
			to.Set("Vary", "Accept-Encoding, Cookie, HX-Request")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	send(w, r, status, plain, packed)
}

// answer sends a body, packed when that is worth it and wanted.
func answer(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	var packed []byte
	if acceptsGzip(r) {
		packed = pack(body)
	}
	send(w, r, status, body, packed)
}

func send(w http.ResponseWriter, r *http.Request, status int, plain, packed []byte) {
	to := w.Header()
	to.Set("Vary", "Accept-Encoding, Cookie, HX-Request")
	body := plain
	if packed != nil && acceptsGzip(r) {
		to.Set("Content-Encoding", "gzip")
		body = packed
	}
	to.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the reader may be gone, which concerns nobody
	}
}

func pack(body []byte) []byte {
	if len(body) < worthGzip {
		return nil
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed+2)
	if err != nil {
		return nil
	}
	if _, err := z.Write(body); err != nil {
		return nil
	}
	if err := z.Close(); err != nil {
		return nil
	}
	return b.Bytes()
}

func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.TrimSpace(name) == "gzip" {
			q = strings.ReplaceAll(q, " ", "")
			return q != "q=0" && q != "q=0.0" && q != "q=0.00" && q != "q=0.000"
		}
	}
	return false
}

func matches(wanted, tag string) bool {
	for part := range strings.SplitSeq(wanted, ",") {
		if part = strings.TrimPrefix(strings.TrimSpace(part), "W/"); part == tag || part == "*" {
			return true
		}
	}
	return false
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}
