package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/crypto/bcrypt"
)

// server is a registry behind a proxy that counts.
type server struct {
	address        string
	user, password string

	mu   sync.Mutex
	seen map[string]int // method and path
	fail func(w http.ResponseWriter, r *http.Request) bool
}

// startRegistry starts Debian's docker-registry; with a user it asks for the login.
func startRegistry(t testing.TB, user, password string) *server {
	t.Helper()
	dir := t.TempDir()
	port := freePort(t)
	auth := ""
	if user != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "htpasswd"), user+":"+string(hash)+"\n")
		auth = fmt.Sprintf("auth:\n  htpasswd:\n    realm: r\n    path: %s/htpasswd\n", dir)
	}
	write(t, filepath.Join(dir, "config.yml"), fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s/data\nhttp:\n  addr: 127.0.0.1:%d\n%s", dir, port, auth))
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "docker-registry", "serve", filepath.Join(dir, "config.yml"))
	if err := cmd.Start(); err != nil {
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); cmd.Wait() })
	back := &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := net.DialTimeout("tcp", back.Host, time.Second)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the registry does not start: ", err)
		}
		<-time.After(10 * time.Millisecond)
	}
	return front(t, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(back); r.Out.Host = r.In.Host }}, user, password)
}

// front counts what is asked of a registry.
func front(t testing.TB, back http.Handler, user, password string) *server {
	s := &server{user: user, password: password, seen: map[string]int{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	h := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen[r.Method+" "+r.URL.Path]++
		fail := s.fail
		s.mu.Unlock()
		if fail != nil && fail(w, r) {
			return
		}
		back.ServeHTTP(w, r)
	})}
	var served sync.WaitGroup
	served.Go(func() { h.Serve(l) })
	t.Cleanup(func() { h.Close(); served.Wait() })
	return s
}

// count is how often something was asked for whose path has the text.
func (s *server) count(method, text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for what, times := range s.seen {
		if strings.HasPrefix(what, method+" ") && strings.Contains(what, text) {
			n += times
		}
	}
	return n
}

func (s *server) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.seen)
}

func (s *server) failWith(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

func (s *server) login(host string) (string, string, bool) {
	return s.user, s.password, host == s.address && s.user != ""
}

// push pushes an image and returns its digest.
func (s *server) push(t testing.TB, repository string, img v1.Image) (ref, digest string) {
	t.Helper()
	r, err := name.ParseReference(s.address + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	auth := authn.Anonymous
	if s.user != "" {
		auth = &authn.Basic{Username: s.user, Password: s.password}
	}
	if err := remote.Write(r, img, remote.WithAuth(auth)); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	s.forget()
	return r.String(), d.String()
}

// entry is a member of a layer.
type entry struct {
	name, text, link string
	kind             byte
	mode             int64
}

func layerOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Linkname: e.link, Size: int64(len(e.text)), ModTime: time.Unix(1e9, 0)}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if e.mode == 0 {
			h.Mode = 0o644
		}
		if h.Typeflag == tar.TypeDir && e.mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.text)
	}
	w.Close()
	return b.Bytes()
}

// imageOf makes an image of layers.
func imageOf(t testing.TB, layers ...[]byte) v1.Image {
	t.Helper()
	img, err := mutate.Config(empty.Image, v1.Config{Entrypoint: []string{"/entry"}, Cmd: []string{"run"}, Env: []string{"A=1"}, User: "1000", WorkingDir: "/work", ExposedPorts: map[string]struct{}{"443": {}, "80/tcp": {}, "53/udp": {}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range layers {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", mustPlatform(t).Architecture
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}

func mustPlatform(t testing.TB) v1.Platform {
	t.Helper()
	p, err := parsePlatform("")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.transport.CloseIdleConnections() })
	return s
}

// get gets an image, and releases it at the end.
func get(t testing.TB, s *Store, ref string, w Want) *Image {
	t.Helper()
	img, err := s.Get(t.Context(), ref, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(img.Release)
	return img
}

func mustTag(t testing.TB, ref string) name.Tag {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}
