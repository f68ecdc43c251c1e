package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// storage is a bucket whose addresses are signed: one may be read, the other written.
type storage struct {
	*httptest.Server

	mu     sync.Mutex
	object []byte
	header http.Header // of the upload
}

func newStorage(t *testing.T) *storage {
	t.Helper()
	s := &storage{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch signature := r.URL.Query().Get("sig"); {
		case r.Method == http.MethodPut && signature == "write":
			data, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			s.object, s.header = data, r.Header.Clone()
		case r.Method == http.MethodGet && signature == "read" && s.object == nil:
			http.NotFound(w, r)
		case r.Method == http.MethodGet && signature == "read":
			http.ServeContent(w, r, "", time.Unix(1_000_000_000, 0), bytes.NewReader(s.object))
		default:
			http.Error(w, "SignatureDoesNotMatch", http.StatusForbidden)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// command runs a command line of the program in the current directory.
func jobside(t *testing.T, args ...string) (output string, code int) {
	t.Helper()
	var out bytes.Buffer
	code = run(context.WithoutCancel(t.Context()), args, streams{in: strings.NewReader(""), out: &out, err: &out})
	return out.String(), code
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A cache goes from one machine to another by signed addresses, as GitLab Runner's scripts give them.
func TestCacheCommands(t *testing.T) {
	s := newStorage(t)
	one, other := t.TempDir(), t.TempDir()
	t.Chdir(one)
	t.Setenv("CACHE_METADATA", `{"cachekey":"main"}`)
	put(t, "deps/a b", "content")
	args := []string{
		"cache-archiver", "--file", filepath.Join(one, "cache", "main", "cache.zip"), "--alternate-file", "x/cache.zip", "--timeout", "2", "--path", "deps/", "--path", "none/",
		"--retry", "1", "--max-uploaded-archive-size", "1000000",
	}
	if out, code := jobside(t, args...); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	if s.object != nil {
		t.Error("uploaded without an address")
	}
	args = append(args, "--url", s.URL+"/main?sig=write", "--header", "X-Amz-Meta-Cachekey: main", "--check-url", s.URL+"/main?sig=head", "--env-file", "none")
	if out, code := jobside(t, args...); code != 0 || s.object == nil || s.header.Get("X-Amz-Meta-Cachekey") != "main" || s.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("exit code %d, headers %v\n%s", code, s.header, out)
	}
	t.Chdir(other)
	local := []string{"cache-extractor", "--file", "../" + filepath.Base(other) + "/cache/main/cache.zip"}
	if out, code := jobside(t, local...); code != 1 || !strings.Contains(out, "does not exist") {
		t.Errorf("of nothing: exit code %d\n%s", code, out)
	}
	if out, code := jobside(t, append(local, "--url", s.URL+"/main?sig=read", "--head-url", "x")...); code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if data, err := os.ReadFile("deps/a b"); err != nil || string(data) != "content" {
		t.Errorf("%q, %v", data, err)
	}
	if out, code := jobside(t, append(local, "--url", s.URL+"/main?sig=stolen")...); strings.Contains(out, "stolen") {
		t.Errorf("exit code %d, and the signature is shown:\n%s", code, out)
	}
	for _, bad := range [][]string{
		{"cache-extractor", "--file", "some.zip"}, {"cache-extractor"}, {"cache-archiver", "--file", "c/cache.zip", "--url", s.URL, "--header", "none", "--path", "deps"},
	} {
		if out, code := jobside(t, bad...); code != 1 {
			t.Errorf("%q: exit code %d\n%s", bad, code, out)
		}
	}
}

// A cache that can't be uploaded fails the command, and stays on the machine.
func TestCacheThatCannotBeUploaded(t *testing.T) {
	s := newStorage(t)
	t.Chdir(t.TempDir())
	put(t, "deps/a", "content")
	out, code := jobside(t, "cache-archiver", "--file", "cache/main/cache.zip", "--path", "deps/", "--url", s.URL+"/main?sig=wrong")
	if code != 1 || strings.Contains(out, "sig=") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if _, err := os.Stat("cache/main/cache.zip"); err != nil {
		t.Error(err)
	}
}

func TestArtifactCommands(t *testing.T) {
	var mu sync.Mutex
	var archive []byte
	var query, token string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasSuffix(r.URL.Path, "/api/v4/jobs/42/artifacts") || r.Header.Get("JOB-TOKEN") != "glcbt-secret" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if r.Method == http.MethodGet {
			_, _ = w.Write(archive)
			return
		}
		query, token = r.URL.RawQuery, r.Header.Get("JOB-TOKEN")
		f, _, err := r.FormFile("file")
		if err != nil {
			t.Error(err)
			return
		}
		archive, _ = io.ReadAll(f)
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(server.Close)
	t.Chdir(t.TempDir())
	put(t, "bin/out", "built")
	put(t, "bin/tmp", "x")
	t.Setenv("CI_JOB_TOKEN", "glcbt-secret")
	t.Setenv("CI_SERVER_URL", server.URL)
	out, code := jobside(t, "artifacts-uploader", "--id", "42", "--path", "bin/", "--exclude", "bin/tmp", "--name", "x", "--expire-in", "1 day", "--artifact-format", "zip", "--artifact-type", "archive", "--timeout", "1m0s",
		"--generate-artifacts-metadata", "--runner-id", "3", "--started-at", "2026-01-02T03:04:05Z", "--ended-at", "2026-01-02T03:05:05Z", "--metadata-parameter", "A")
	if code != 0 || token != "glcbt-secret" || !strings.Contains(query, "artifact_type=archive") || !strings.Contains(out, "201 Created") || strings.Contains(out, "glcbt-secret") {
		t.Errorf("exit code %d, query %s\n%s", code, query, out)
	}
	t.Chdir(t.TempDir())
	if out, code := jobside(t, "artifacts-downloader", "--id", "42"); code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if data, err := os.ReadFile("bin/out"); err != nil || string(data) != "built" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := os.Stat("bin/tmp"); err == nil {
		t.Error("what was excluded is here")
	}
	if statement, err := os.ReadFile("x-metadata.json"); err != nil || !strings.Contains(string(statement), "2026-01-02T03:04:05") {
		t.Errorf("%s, %v", statement, err)
	}
	for _, bad := range [][]string{{"artifacts-downloader"}, {"artifacts-downloader", "--id", "43"}, {"artifacts-uploader", "--id", "42", "--token", "", "--artifact-format", "odd", "--path", "bin"}} {
		if out, code := jobside(t, bad...); code != 1 {
			t.Errorf("%q: exit code %d\n%s", bad, code, out)
		}
	}
}
