package notice_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// metadata is a cloud's metadata server, which is as strict as the cloud's own.
type metadata struct {
	cloud string // "aws", "gcp", "azure", "alibaba", or none of them

	mu      sync.Mutex
	answers map[string]string // path without its query → what is there
	token   int               // the number of the one that is taken
	changed chan struct{}     // closed with the next change
	asked   map[string]int    // path → how often
	broken  int               // status of all answers; 0: it works
}

func newMetadata(cloud string) *metadata {
	m := &metadata{cloud: cloud, answers: map[string]string{}, asked: map[string]int{}, changed: make(chan struct{})}
	switch cloud {
	case "aws":
		m.set("/latest/meta-data/instance-id", "i-0123456789abcdef0")
		m.set("/latest/meta-data/instance-life-cycle", "spot")
	case "gcp":
		m.set("/computeMetadata/v1/instance/preempted", "FALSE")
		m.set("/computeMetadata/v1/instance/maintenance-event", "NONE")
	case "azure":
		m.set("/metadata/instance/compute/name", "vm-7")
		m.set("/metadata/scheduledevents", `{"DocumentIncarnation":1,"Events":[]}`)
	case "alibaba":
		m.set("/latest/meta-data/instance-id", "i-bp1234")
	}
	return m
}

// set changes what is at a path.
func (m *metadata) set(path, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers[path] = text
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *metadata) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// count says how often paths with a beginning were asked for.
func (m *metadata) count(beginning string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for path, times := range m.asked {
		if strings.HasPrefix(path, beginning) {
			n += times
		}
	}
	return n
}

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked[r.URL.Path]++
	if m.broken != 0 {
		w.WriteHeader(m.broken)
		return
	}
	if !m.allowed(w, r) {
		return
	}
	if r.FormValue("wait_for_change") == "true" {
		m.holdLocked(r)
	}
	text, ok := m.answers[r.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if m.cloud == "gcp" {
		w.Header().Set("Metadata-Flavor", "Google")
		w.Header().Set("ETag", etag(text))
	}
	fmt.Fprint(w, text)
}

func etag(text string) string { return fmt.Sprintf("%x", text) }

// holdLocked keeps an answer back until it changes.
func (m *metadata) holdLocked(r *http.Request) {
	limit, err := time.ParseDuration(r.FormValue("timeout_sec") + "s")
	if err != nil {
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for etag(m.answers[r.URL.Path]) == r.FormValue("last_etag") {
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
			m.mu.Lock()
		case <-timer.C:
			m.mu.Lock()
			return
		case <-r.Context().Done():
			m.mu.Lock()
			return
		}
	}
}

// allowed says whether a request has what the cloud wants of it; it answers it otherwise.
func (m *metadata) allowed(w http.ResponseWriter, r *http.Request) bool {
	vendor, prefix := map[string]string{"aws": "aws-ec2", "alibaba": "aliyun-ecs"}[m.cloud], ""
	switch m.cloud {
	case "aws", "alibaba":
		prefix = "/latest/"
		token := fmt.Sprintf("token-%d==", m.token)
		switch {
		case r.URL.Path == prefix+"api/token" && r.Method == http.MethodPut && r.Header.Get("X-"+vendor+"-metadata-token-ttl-seconds") == "21600":
			fmt.Fprint(w, token)
			return false
		case r.URL.Path == prefix+"api/token":
			w.WriteHeader(http.StatusBadRequest)
			return false
		case strings.HasPrefix(r.URL.Path, prefix) && r.Header.Get("X-"+vendor+"-metadata-token") != token:
			w.WriteHeader(http.StatusUnauthorized)
			return false
		}
	case "gcp":
		if strings.HasPrefix(r.URL.Path, "/computeMetadata/") && r.Header.Get("Metadata-Flavor") != "Google" {
			w.WriteHeader(http.StatusForbidden)
			return false
		}
	case "azure":
		if strings.HasPrefix(r.URL.Path, "/metadata/") && (r.Header.Get("Metadata") != "true" || r.FormValue("api-version") == "") {
			w.WriteHeader(http.StatusBadRequest)
			return false
		}
	}
	return true
}

// wire leads to a server without a network, so that time can be virtual.
type wire struct {
	conns chan net.Conn
	done  chan struct{}
	cut   atomic.Pointer[error] // with which reaching fails
	made  atomic.Int32
}

// serve starts a server behind a wire until the test ends.
func serve(t *testing.T, h http.Handler) *wire {
	t.Helper()
	w := &wire{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: h}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(w)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return w
}

func (w *wire) reach(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := w.cut.Load(); err != nil {
		return nil, *err
	}
	near, far := net.Pipe()
	select {
	case w.conns <- far:
		w.made.Add(1)
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-w.done:
		return nil, net.ErrClosed
	}
}

// fail makes reaching fail; nil: not any more.
func (w *wire) fail(err error) {
	if err == nil {
		w.cut.Store(nil)
		return
	}
	w.cut.Store(&err)
}

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error {
	close(w.done)
	return nil
}

func (w *wire) Addr() net.Addr { return &net.UnixAddr{Name: "wire"} }

var errLink = errors.New("the connection to the machine was lost")
