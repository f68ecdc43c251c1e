package enginetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/tranter-ci/tranter/internal/filelock"
)

// Server is a registry on the loopback interface that ends with the test process. Its files go when another one starts.
type Server struct {
	Address        string // host and port
	User, Password string // empty: it is open to all
	mu             sync.Mutex
	pushed         map[string]bool
	dir            string
	lock           *os.File // says that dir is in use
}

const (
	registryUser     = "tester"
	registryPassword = "correct horse"
	manifestType     = "application/vnd.docker.distribution.manifest.v2+json"
	startLimit       = 20 * time.Second
	startTries       = 3
)

// Registry returns the registry that is open to all.
func Registry(t testing.TB) *Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.open == nil {
		shared.open = startRegistry(t, &Server{})
	}
	return shared.open
}

// PrivateRegistry returns the registry that needs a login.
func PrivateRegistry(t testing.TB) *Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.closed == nil {
		shared.closed = startRegistry(t, &Server{User: registryUser, Password: registryPassword})
	}
	return shared.closed
}

// Push puts the test image called name into the registry as repository:tag and returns the whole reference.
// A tag that exists is moved.
func (s *Server) Push(t testing.TB, name, repository, tag string) string {
	t.Helper()
	b := image(t, name)
	reference := s.Address + "/" + repository + ":" + tag
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pushed[reference+" "+b.tag()] {
		return reference
	}
	if err := s.push(t.Context(), b, repository, tag); err != nil {
		t.Fatalf("push the test image %q to %s: %v", name, reference, err)
	}
	for known := range s.pushed {
		if strings.HasPrefix(known, reference+" ") {
			delete(s.pushed, known)
		}
	}
	s.pushed[reference+" "+b.tag()] = true
	return reference
}

func (s *Server) push(ctx context.Context, b *built, repository, tag string) error {
	type blob struct {
		MediaType string `json:"mediaType"`
		Size      int64  `json:"size"`
		Digest    string `json:"digest"`
	}
	config := blob{"application/vnd.docker.container.image.v1+json", int64(len(b.config)), digestOf(b.config)}
	if err := s.upload(ctx, repository, config.Digest, config.Size, bytes.NewReader(b.config)); err != nil {
		return err
	}
	var layers []blob
	for _, l := range b.layers {
		layers = append(layers, blob{"application/vnd.docker.image.rootfs.diff.tar.gzip", l.Size, l.Digest})
		data, err := l.open()
		if err != nil {
			return err
		}
		err = s.upload(ctx, repository, l.Digest, l.Size, data)
		_ = data.Close()
		if err != nil {
			return err
		}
	}
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": layers})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+s.Address+"/v2/"+repository+"/manifests/"+tag, bytes.NewReader(manifest))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", manifestType)
	return s.do(r, http.StatusCreated, nil)
}

func (s *Server) upload(ctx context.Context, repository, digest string, size int64, data io.Reader) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://"+s.Address+"/v2/"+repository+"/blobs/"+digest, nil)
	if err != nil {
		return err
	}
	if err := s.do(r, http.StatusOK, nil); err == nil {
		return nil
	}
	r, err = http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Address+"/v2/"+repository+"/blobs/uploads/", nil)
	if err != nil {
		return err
	}
	var at *url.URL
	err = s.do(r, http.StatusAccepted, func(answer *http.Response) (err error) {
		at, err = answer.Location()
		return err
	})
	if err != nil {
		return err
	}
	query := at.Query()
	query.Set("digest", digest)
	at.RawQuery = query.Encode()
	r, err = http.NewRequestWithContext(ctx, http.MethodPut, at.String(), data)
	if err != nil {
		return err
	}
	r.ContentLength = size
	return s.do(r, http.StatusCreated, nil)
}

// do sends a request, and shows the wanted answer to look.
func (s *Server) do(r *http.Request, want int, look func(*http.Response) error) error {
	if s.User != "" {
		r.SetBasicAuth(s.User, s.Password)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
	switch {
	case err != nil:
		return err
	case answer.StatusCode != want:
		return fmt.Errorf("%s %s: %s: %s", r.Method, r.URL.Path, answer.Status, body)
	case look != nil:
		return look(answer)
	}
	return nil
}

func startRegistry(t testing.TB, s *Server) *Server {
	t.Helper()
	s.pushed = map[string]bool{}
	s.makeStore(t)
	for try := 1; ; try++ { // the port may be taken before the registry has it
		err := s.start(t)
		if err == nil {
			return s
		}
		if try == startTries {
			t.Fatalf("start a registry (is docker-registry installed? run tools/setup test): %v", err)
		}
	}
}

func (s *Server) start(t testing.TB) error {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.Address = listener.Addr().String()
	if err := listener.Close(); err != nil {
		return err
	}
	config := "version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: \"" + s.dir + "\"}, delete: {enabled: true}}\nhttp: {addr: \"" + s.Address + "\", secret: test}\n"
	logins := ""
	if s.User != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(s.Password), bcrypt.MinCost)
		if err != nil {
			return err
		}
		config += "auth: {htpasswd: {realm: test, path: /dev/fd/4}}\n"
		logins = s.User + ":" + string(hash) + "\n"
	}
	var files []*os.File // unnamed, so nothing is left whatever becomes of this process
	for _, content := range []string{config, logins} {
		f, err := unnamed(content)
		if err != nil {
			return err
		}
		defer f.Close()
		files = append(files, f)
	}
	var said bytes.Buffer
	cmd := exec.Command("docker-registry", "serve", "/dev/fd/3") // it is to outlive the test that needs it first
	cmd.ExtraFiles, cmd.Stderr, cmd.Stdout = files, &said, nil
	ended, err := bound(cmd)
	if err != nil {
		return err
	}
	if err := s.wait(t.Context(), ended); err != nil {
		_ = cmd.Process.Kill()
		<-ended
		return fmt.Errorf("%w: %s", err, said.String())
	}
	return nil
}

// makeStore makes the directory of the registry's files, and removes those of processes that have ended.
func (s *Server) makeStore(t testing.TB) {
	t.Helper()
	all := filepath.Join(cacheDir(t), "stores")
	if err := os.MkdirAll(all, 0o755); err != nil {
		t.Fatal(err)
	}
	defer Only(t, all+".lock")()
	found, err := os.ReadDir(all)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range found {
		dir := filepath.Join(all, entry.Name())
		f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			continue
		}
		if filelock.Try(f) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = f.Close()
	}
	s.dir = filepath.Join(all, rand.Text()) // not the test's own directory: the registry outlives the test
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if s.lock, err = os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := filelock.Try(s.lock); err != nil {
		t.Fatal(err)
	}
}

func unnamed(content string) (*os.File, error) {
	f, err := os.CreateTemp("", "enginetest")
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(content)
	if err := errors.Join(err, os.Remove(f.Name())); err != nil {
		_ = f.Close()
		return nil, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

// wait returns when the registry answers.
func (s *Server) wait(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Address+"/v2/", nil)
		if err != nil {
			return err
		}
		err = s.do(r, http.StatusOK, nil)
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return errors.New("it has ended")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-tick.C:
		}
	}
}
