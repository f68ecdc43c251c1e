package transfer_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cache/builtin"
	"github.com/tranter-ci/tranter/internal/cache/remote"
)

// distributed is a distributed cache, and what was asked of it.
type distributed struct {
	*httptest.Server
	dir string
	key []byte

	mu    sync.Mutex
	down  bool
	asked []string
}

func newDistributed(t *testing.T) *distributed {
	t.Helper()
	s := &distributed{dir: t.TempDir(), key: []byte("a key of at least thirty-two bytes")}
	store, err := builtin.Open(builtin.Options{Dir: s.dir, Key: s.key, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.Query().Get("do"))
		down := s.down
		s.mu.Unlock()
		if down {
			w.WriteHeader(http.StatusNotImplemented)
			return
		}
		store.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// deeds returns what was asked for since the last call.
func (s *distributed) deeds() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := strings.Join(s.asked, " ")
	s.asked = nil
	return out
}

func (s *distributed) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// entry is the cache as the manager signs it.
func (s *distributed) entry(t *testing.T) tranter.CacheEntry {
	t.Helper()
	c := vendor("fallback")
	c.Store = tranter.CacheStore{Type: "s3", Prefix: "runner/abc/project/42"}
	for _, object := range c.Objects {
		a, err := builtin.NewSigner(s.URL, s.key).Sign(t.Context(), remote.Object{Name: c.Store.Prefix + "/" + object, Key: c.Key, Download: true, Upload: true}, time.Now().Add(time.Hour))
		must(t, err)
		c.Remote = append(c.Remote, a)
	}
	return c
}

func (s *distributed) place() string {
	return strings.TrimPrefix(s.URL, "http://") + "/runner/abc/project/42/main-protected"
}

func archives(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && (strings.HasSuffix(path, ".archive") || strings.HasSuffix(path, "cache.zip") || strings.Contains(path, "archive-")) {
			out = append(out, path)
		}
		return nil
	}))
	return out
}

// One job saves, another one on a fresh machine restores, changes nothing and uploads nothing.
func TestRemoteCache(t *testing.T) {
	for _, format := range []string{"zip", "zipzstd", "tarzstd"} {
		s := newDistributed(t)
		one, two := newVendorJob(t, "CACHE_COMPRESSION_FORMAT="+format), newVendorJob(t, "CACHE_COMPRESSION_FORMAT="+format)
		c := s.entry(t)
		save(t, one, c)
		one.expect(t, "Creating cache main-protected...", foundThree, "Uploading cache.zip to "+s.place(), "Created cache")
		if got := archives(t, filepath.Dir(one.Dirs().Builds)); len(got) > 0 {
			t.Errorf("archives on the job's disk: %q", got)
		}
		s.deeds()
		save(t, one, c)
		one.expect(t, "Creating cache main-protected...", foundThree, "Archive is up to date!", "Primary cache already exists remotely, skipping upload", "Created cache")
		if got := s.deeds(); got != "get abort" {
			t.Errorf("an unchanged cache cost %s", got)
		}

		two.clean(t)
		restore(t, two, c)
		two.expect(t, "Checking cache for main-protected...", "Downloading cache from "+s.place(), "Successfully extracted cache")
		if two.read(t, "vendor/a") != "a" || two.read(t, "vendor/b") != "b" {
			t.Error("the files are missing")
		}
		restore(t, two, c)
		two.expect(t, "Checking cache for main-protected...", "cache.zip is up to date", "Successfully extracted cache")
		save(t, two, c)
		two.expect(t, "Creating cache main-protected...", foundThree, "Archive is up to date!", "Primary cache already exists remotely, skipping upload", "Created cache")

		// A change goes up, and comes to the first machine.
		two.write(t, "vendor/a", "changed")
		save(t, two, c)
		if said := two.said(t); !strings.Contains(said, "Uploading cache.zip") {
			t.Error(said)
		}
		restore(t, one, c)
		if said := one.said(t); one.read(t, "vendor/a") != "changed" {
			t.Error(said)
		}
		// What is lost there is uploaded again, though nothing has changed.
		for _, path := range archives(t, s.dir) {
			must(t, os.Truncate(path, 1))
		}
		restore(t, two, c)
		two.said(t)
		save(t, one, c)
		if said := one.said(t); !strings.Contains(said, "Archive is up to date!") || !strings.Contains(said, "Uploading cache.zip") {
			t.Error(said)
		}
		two.clean(t)
		restore(t, two, c)
		if said := two.said(t); two.read(t, "vendor/a") != "changed" {
			t.Error(said)
		}
	}
}

func TestRemoteFallbackAndMissing(t *testing.T) {
	s := newDistributed(t)
	c := s.entry(t)
	j := newVendorJob(t)
	restore(t, j, c)
	j.expect(t, "Checking cache for main-protected...", "WARNING: the cache does not exist", "WARNING: Failed to extract cache",
		"Checking cache for fallback...", "WARNING: the cache does not exist", "WARNING: Failed to extract cache")
	other := c
	other.Objects, other.Remote = []string{"fallback"}, c.Remote[1:]
	save(t, j, other)
	j.said(t)
	j.clean(t)
	restore(t, j, c)
	if said := j.said(t); j.read(t, "vendor/a") != "a" || !strings.Contains(said, "Successfully extracted cache") {
		t.Error(said)
	}
}

// What cannot be uploaded is kept on this machine, as before there was a distributed cache.
func TestRemoteFailureKeepsTheCacheHere(t *testing.T) {
	s := newDistributed(t)
	c := s.entry(t)
	j := newVendorJob(t)
	s.setDown(true)
	save(t, j, c)
	if said := j.said(t); !strings.Contains(said, "Failed to create cache") || strings.Contains(said, "signature=") {
		t.Error(said)
	}
	j.clean(t)
	restore(t, j, c)
	if said := j.said(t); j.read(t, "vendor/a") != "a" || strings.Contains(said, "signature=") {
		t.Error(said)
	}
	s.setDown(false)
	c.Store.MaxUpload = 10
	j.write(t, "vendor/a", "new")
	save(t, j, c)
	if said := j.said(t); !strings.Contains(said, "too big, cache will be stored only locally") || !strings.Contains(said, "Created cache") {
		t.Error(said)
	}
	if got := archives(t, s.dir); len(got) > 0 {
		t.Errorf("uploaded all the same: %q", got)
	}
	j.clean(t)
	restore(t, j, c)
	if said := j.said(t); j.read(t, "vendor/a") != "new" {
		t.Error(said)
	}
	j.leftovers(t)
}

// An archive that arrives as something else is not unpacked in part, and the next save replaces it.
func TestRemoteDamage(t *testing.T) {
	s := newDistributed(t)
	c := s.entry(t)
	j := newVendorJob(t)
	req, err := http.NewRequestWithContext(t.Context(), "PUT", c.Remote[0].Upload.Whole.URL.Reveal(), strings.NewReader(strings.Repeat("rubbish", 100)))
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	_, _ = io.Copy(io.Discard, resp.Body)
	must(t, resp.Body.Close())
	j.clean(t)
	restore(t, j, c)
	if said := j.said(t); !strings.Contains(said, "the archive is damaged") || j.read(t, "vendor/a") != "(none)" {
		t.Error(said)
	}
	j.write(t, "vendor/a", "a")
	j.write(t, "vendor/b", "b")
	save(t, j, c)
	j.clean(t)
	restore(t, j, c)
	if said := j.said(t); j.read(t, "vendor/a") != "a" {
		t.Error(said)
	}
}

// Values that make no sense are warned about.
func TestTransferVariables(t *testing.T) {
	s := newDistributed(t)
	j := newVendorJob(t, "CACHE_CHUNK_SIZE=1", "CACHE_CONCURRENCY=many", "CACHE_REQUEST_TIMEOUT=-1", "CACHE_TRANSFER_BUFFER_SIZE=65536")
	save(t, j, s.entry(t))
	said := j.said(t)
	for _, key := range []string{"CACHE_CHUNK_SIZE", "CACHE_CONCURRENCY", "CACHE_REQUEST_TIMEOUT"} {
		if !strings.Contains(said, key+": expected a whole number") {
			t.Error(said)
		}
	}
	if strings.Contains(said, "BUFFER") || !strings.Contains(said, "Created cache") {
		t.Error(said)
	}
}
