package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/docker/image"
)

const (
	manifestType = "application/vnd.docker.distribution.manifest.v2+json"
	listType     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// tiny is an image of one file.
type tiny struct {
	arch   string // empty: amd64
	config map[string]any
	bytes  int // of the file
}

// push puts images into a registry, as a list where there are several, and returns the digest of the tag and the ids. The
// engine has none of them when the test is over.
func push(t *testing.T, server *enginetest.Server, repository, tag string, images ...tiny) (digest string, ids []string) {
	t.Helper()
	var listed []map[string]any
	for i, img := range images {
		if img.arch == "" {
			img.arch = "amd64"
		}
		diff, layer := img.layer(t)
		config := encode(t, map[string]any{
			"architecture": img.arch, "os": "linux", "config": img.config,
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diff}},
		})
		upload(t, server, repository, config)
		upload(t, server, repository, layer)
		manifest := encode(t, map[string]any{
			"schemaVersion": 2, "mediaType": manifestType,
			"config": map[string]any{"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": digestOf(config)},
			"layers": []map[string]any{{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(layer), "digest": digestOf(layer)}},
		})
		id := digestOf(config)
		ids = append(ids, id)
		t.Cleanup(func() { remove(t, id) })
		name := tag
		if len(images) > 1 {
			name = fmt.Sprintf("%s-%d", tag, i)
		}
		request(t, server, http.MethodPut, "/v2/"+repository+"/manifests/"+name, manifestType, manifest, http.StatusCreated)
		digest = digestOf(manifest)
		listed = append(listed, map[string]any{
			"mediaType": manifestType, "size": len(manifest), "digest": digest,
			"platform": map[string]any{"os": "linux", "architecture": img.arch},
		})
	}
	if len(images) > 1 {
		list := encode(t, map[string]any{"schemaVersion": 2, "mediaType": listType, "manifests": listed})
		request(t, server, http.MethodPut, "/v2/"+repository+"/manifests/"+tag, listType, list, http.StatusCreated)
		digest = digestOf(list)
	}
	return digest, ids
}

// layer is a random file, so that no engine has it.
func (i tiny) layer(t *testing.T) (diff string, compressed []byte) {
	t.Helper()
	content := make([]byte, max(16, i.bytes))
	rand.Read(content)
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	w.Write(content)
	w.Close()
	z := gzip.NewWriter(&packed)
	z.Write(plain.Bytes())
	z.Close()
	return digestOf(plain.Bytes()), packed.Bytes()
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func upload(t *testing.T, server *enginetest.Server, repository string, blob []byte) {
	t.Helper()
	at := request(t, server, http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "", nil, http.StatusAccepted).Get("Location")
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("digest", digestOf(blob))
	request(t, server, http.MethodPut, u.Path+"?"+q.Encode(), "application/octet-stream", blob, http.StatusCreated)
}

func request(t *testing.T, server *enginetest.Server, method, path, kind string, body []byte, want int) http.Header {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+server.Address+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	if server.User != "" {
		r.SetBasicAuth(server.User, server.Password)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != want {
		t.Fatalf("%s %s: %s %s %v", method, path, answer.Status, said, err)
	}
	return answer.Header
}

func engine(t *testing.T) *client.Client {
	t.Helper()
	return enginetest.Client(t, enginetest.Host(t))
}

func remove(t *testing.T, id string) {
	api, err := client.New(client.FromEnv)
	if err != nil {
		t.Error(err)
		return
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = api.ImageRemove(ctx, id, client.ImageRemoveOptions{Force: true, PruneChildren: true})
	if err != nil && !strings.Contains(err.Error(), "No such image") {
		t.Errorf("remove the image %s: %v", id, err)
	}
}

// repo is a name that no other test uses.
func repo(t *testing.T) string {
	t.Helper()
	random := make([]byte, 6)
	rand.Read(random)
	return fmt.Sprintf("imagetest/x%x", random)
}

// proxy stands in front of a registry, counts, and fails as it is told.
type proxy struct {
	Address string
	Server  *enginetest.Server

	mu       sync.Mutex
	fault    func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	seen     []string                                          // method and path of each request
	withAuth int                                               // requests that carried a login
	arrived  chan struct{}                                     // one for each request that the fault has seen
}

func newProxy(t *testing.T, server *enginetest.Server) *proxy {
	t.Helper()
	p := &proxy{Server: server, arrived: make(chan struct{}, 1000)}
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server.Address})
	to.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.seen = append(p.seen, r.Method+" "+r.URL.Path)
		if r.Header.Get("Authorization") != "" {
			p.withAuth++
		}
		fault := p.fault
		p.mu.Unlock()
		if fault != nil {
			p.arrived <- struct{}{}
			if fault(w, r) {
				return
			}
		}
		to.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	p.Address = strings.TrimPrefix(s.URL, "http://")
	return p
}

func (p *proxy) fail(f func(w http.ResponseWriter, r *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// count returns how many requests there were whose method and path have the text in them.
func (p *proxy) count(text string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, s := range p.seen {
		if strings.Contains(s, text) {
			n++
		}
	}
	return n
}

func (p *proxy) logins() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.withAuth
}

// status fails the first n requests for manifests; negative: all.
func status(n, code int, body string) func(http.ResponseWriter, *http.Request) bool {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if !strings.Contains(r.URL.Path, "/manifests/") || n == 0 {
			return false
		}
		n--
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		io.WriteString(w, body)
		return true
	}
}

// outside is an address of this machine that the engine does not take for loopback.
func outside(t *testing.T) net.Listener {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		n, ok := a.(*net.IPNet)
		if !ok || n.IP.IsLoopback() || n.IP.To4() == nil {
			continue
		}
		if l, err := net.Listen("tcp", net.JoinHostPort(n.IP.String(), "0")); err == nil {
			return l
		}
	}
	t.Fatal("this machine has no address but loopback")
	return nil
}

// noPause makes a Store that does not wait between attempts.
func noPause(o image.Options) image.Options {
	o.Pause = func() time.Duration { return time.Millisecond }
	return o
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
