package gitlab

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

const (
	runnerToken = "glrt-t1_abcdefghijklmnopqrst"
	jobToken    = "glcbt-64_AbCdEfGhIjKlMnOpQr"
)

// theJob is what the tests report about.
func theJob() tranter.JobRef { return tranter.JobRef{ID: 77, Token: jobToken} }

// payload is the shortest that a server could send.
const payload = `{"id":77,"token":"` + jobToken + `","job_info":{"name":"build"}}`

// reply is one answer of a scripted server.
type reply struct {
	status int
	body   string
	header map[string]string
}

// seen is one request that reached a server.
type seen struct {
	method, path, query string
	header              http.Header
	body                string
	length              int64
}

// script is a server that gives its replies in order; the last one goes on.
type script struct {
	*httptest.Server
	mu      sync.Mutex
	calls   []seen
	replies []reply
}

func newScript(t *testing.T, replies ...reply) *script {
	t.Helper()
	s := &script{replies: replies}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP notes the request and answers it.
func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.calls = append(s.calls, seen{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone(), string(body), r.ContentLength})
	a := s.replies[min(len(s.calls), len(s.replies))-1]
	s.mu.Unlock()
	if strings.HasPrefix(a.body, "{") {
		w.Header().Set("Content-Type", "application/json")
	}
	for key, value := range a.header {
		w.Header().Set(key, value)
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

func (s *script) seen() []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]seen(nil), s.calls...)
}

// patient is a client whose waits are noted and take no time.
type patient struct {
	*Client
	mu    sync.Mutex
	waits []time.Duration
}

func connect(t *testing.T, url string, change ...func(*Options)) *patient {
	t.Helper()
	o := Options{
		URL: url, Token: runnerToken, SystemID: "s_0123456789ab", Version: Program{Version: "1.2.3", Revision: "0123456789"},
		Proxy: http.ProxyURL(nil),
	}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p := &patient{Client: c}
	c.pause = func(ctx context.Context, d time.Duration) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.waits = append(p.waits, d)
		return ctx.Err()
	}
	t.Cleanup(func() {
		if c.transport.current != nil {
			c.transport.current.CloseIdleConnections()
		}
	})
	return p
}

// discreet fails the test when a token can be read in an error.
func discreet(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	for _, secret := range []string{runnerToken, jobToken, "glpat-", "X-Amz-Signature"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}
