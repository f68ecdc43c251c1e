package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
)

func shell(script string) *exec.Cmd { return exec.Command("sh", "-ec", script) }

const (
	onlyLocal  = "No URL provided, cache will not be uploaded to shared cache server. Cache will be stored only locally."
	fromLocal  = "No URL provided, cache will not be downloaded from shared cache server. Instead a local version of cache will be extracted."
	foundThree = "vendor: found 3 matching artifact files and directories"
)

func vendor(objects ...string) tranter.CacheEntry {
	return tranter.CacheEntry{Key: "main-protected", Objects: append([]string{"main-protected"}, objects...), Paths: []string{"$DIR"}}
}

func save(t testing.TB, j *job, c ...tranter.CacheEntry) {
	t.Helper()
	must(t, transfer.ArchiveCaches(t.Context(), j.Env, &tranter.ArchiveStep{Caches: c}))
}

func restore(t testing.TB, j *job, c ...tranter.CacheEntry) {
	t.Helper()
	must(t, transfer.RestoreCaches(t.Context(), j.Env, &tranter.RestoreStep{Caches: c}))
}

func newVendorJob(t testing.TB, environ ...string) *job {
	t.Helper()
	j := newJob(t, append(environ, "DIR=vendor")...)
	j.write(t, "vendor/a", "a")
	j.write(t, "vendor/b", "b")
	return j
}

// A job that follows at once and changes a file of the cache leaves the file's size and whole second as they were.
func TestACacheThatChangesWithinASecond(t *testing.T) {
	j := newVendorJob(t)
	for _, content := range []string{"1", "2", "3"} {
		must(t, os.WriteFile(filepath.Join(j.Dirs().Project, "vendor/a"), []byte(content), 0o644))
		save(t, j, vendor())
		j.clean(t)
		restore(t, j, vendor())
		if got := j.read(t, "vendor/a"); got != content {
			t.Errorf("restored %q, saved was %q", got, content)
		}
	}
}

func TestLocalCache(t *testing.T) {
	for _, format := range []string{"", "ZipZstd", "tarzstd"} {
		j := newVendorJob(t, "CACHE_COMPRESSION_FORMAT="+format, "CACHE_COMPRESSION_LEVEL=fast")
		restore(t, j, vendor())
		j.expect(t, "Checking cache for main-protected...", fromLocal, "WARNING: the cache does not exist", "WARNING: Failed to extract cache")
		save(t, j, vendor())
		j.expect(t, "Creating cache main-protected...", foundThree, onlyLocal, "Created cache")
		j.clean(t)
		restore(t, j, vendor())
		j.expect(t, "Checking cache for main-protected...", fromLocal, "Successfully extracted cache")
		if j.read(t, "vendor/a") != "a" || j.read(t, "vendor/b") != "b" {
			t.Error("the files are missing")
		}
		// What was restored and left alone need not be packed again.
		save(t, j, vendor())
		j.expect(t, "Creating cache main-protected...", foundThree, "Archive is up to date!", onlyLocal, "Created cache")
		// A file that is gone counts as a change.
		must(t, os.Remove(filepath.Join(j.Dirs().Project, "vendor/a")))
		save(t, j, vendor())
		j.expect(t, "Creating cache main-protected...", "vendor: found 2 matching artifact files and directories", onlyLocal, "Created cache")
		j.clean(t)
		restore(t, j, vendor())
		if j.read(t, "vendor/a") != "(none)" || j.read(t, "vendor/b") != "b" {
			t.Error("an older cache was restored")
		}
	}
}

func TestCacheMessages(t *testing.T) {
	j := newVendorJob(t, "CACHE_COMPRESSION_FORMAT=rar", "CACHE_COMPRESSION_LEVEL=11")
	restore(t, j,
		tranter.CacheEntry{Key: "no paths", Objects: []string{"x"}},
		tranter.CacheEntry{Key: "k", Objects: []string{"k"}, Paths: []string{"a"}, Skip: "Not downloading cache k due to policy", Warnings: []string{`cache key "K" sanitized to "k"`}},
		tranter.CacheEntry{Key: "", Paths: []string{"a"}})
	j.expect(t, `WARNING: cache key "K" sanitized to "k"`, "Not downloading cache k due to policy")
	save(t, j, tranter.CacheEntry{Key: "k", Objects: []string{"k"}, Paths: []string{"nothing"}})
	j.expect(t, "Creating cache k...",
		"WARNING: nothing: no matching files. Ensure that the artifact path is relative to the working directory (BASE/builds/g/p)", "No files to cache.")
	save(t, j, vendor())
	j.expect(t, "Creating cache main-protected...", foundThree,
		`WARNING: CACHE_COMPRESSION_FORMAT: unknown format "rar", using zip (known: zip, tarzstd, zipzstd)`,
		`WARNING: CACHE_COMPRESSION_LEVEL: unknown level "11", using "default" (known: fastest, fast, default, slow, slowest)`,
		onlyLocal, "Created cache")
}

func TestFallbackKeys(t *testing.T) {
	j := newVendorJob(t)
	save(t, j, vendor())
	j.clean(t)
	j.said(t)
	c := vendor("main-protected")
	c.Key, c.Objects[0] = "feature", "feature-non_protected"
	restore(t, j, c, vendor())
	j.expect(t, "Checking cache for feature...", fromLocal, "WARNING: the cache does not exist", "WARNING: Failed to extract cache",
		"Checking cache for main-protected...", fromLocal, "Successfully extracted cache",
		"Checking cache for main-protected...", fromLocal, "Successfully extracted cache")
}

func TestHashedKeysAreShownAsTheyWereWritten(t *testing.T) {
	j := newVendorJob(t)
	restore(t, j, tranter.CacheEntry{Key: "a/b", Objects: []string{"45d0", "17ae"}, Names: []string{"a/b", "main"}, Paths: []string{"vendor"}})
	if said := j.said(t); !strings.Contains(said, "Checking cache for a/b...") || !strings.Contains(said, "Checking cache for main...") {
		t.Error(said)
	}
}

func TestSharedDirectory(t *testing.T) {
	dir := t.TempDir()
	c := vendor()
	c.Store = tranter.CacheStore{Type: "directory", Directory: dir, Prefix: "runner/abc/project/42"}
	place := dir + "/runner/abc/project/42/main-protected"
	one, two := newVendorJob(t), newVendorJob(t)
	save(t, one, c)
	one.expect(t, "Creating cache main-protected...", foundThree, "Uploading cache.zip to "+place, "Created cache")
	save(t, one, c)
	one.expect(t, "Creating cache main-protected...", foundThree, "Archive is up to date!", "Primary cache already exists remotely, skipping upload", "Created cache")

	two.clean(t)
	restore(t, two, c)
	two.expect(t, "Checking cache for main-protected...", "Downloading cache from "+place, "Successfully extracted cache")
	restore(t, two, c)
	two.expect(t, "Checking cache for main-protected...", "cache.zip is up to date", "Successfully extracted cache")
	save(t, two, c)
	two.expect(t, "Creating cache main-protected...", foundThree, "Archive is up to date!", "Primary cache already exists remotely, skipping upload", "Created cache")

	// The shared archive was lost: the one at hand takes its place.
	must(t, os.RemoveAll(dir))
	save(t, two, c)
	two.expect(t, "Creating cache main-protected...", foundThree, "Archive is up to date!", "Uploading cache.zip to "+place, "Created cache")

	c.Store.MaxUpload = 10
	two.write(t, "vendor/c", "c")
	save(t, two, c)
	if said := two.said(t); !strings.Contains(said, "is too big, cache will be stored only locally") || !strings.Contains(said, "Created cache") {
		t.Error(said)
	}
}

// A job may set a limit of its own where the configuration sets none.
func TestSizeLimitOfTheJob(t *testing.T) {
	for limit, want := range map[string]string{"10": "too big, cache will be stored only locally", "many": "expected a number of bytes", "1000000": "Created cache"} {
		c := vendor()
		c.Store = tranter.CacheStore{Type: "directory", Directory: t.TempDir()}
		j := newVendorJob(t, "CACHE_MAX_UPLOADED_ARCHIVE_SIZE="+limit)
		save(t, j, c)
		if said := j.said(t); !strings.Contains(said, want) || strings.Contains(said, "too big") != (limit == "10") {
			t.Errorf("%s: %s", limit, said)
		}
		c.Store.MaxUpload = 1 << 20
		save(t, j, c)
		if said := j.said(t); strings.Contains(said, "too big") {
			t.Errorf("%s: the configuration's limit does not hold: %s", limit, said)
		}
	}
}

func TestDamagedCaches(t *testing.T) {
	dir := t.TempDir()
	c := vendor()
	c.Store = tranter.CacheStore{Type: "directory", Directory: dir, Prefix: "project/42"}
	j := newVendorJob(t)
	save(t, j, c)
	j.said(t)
	local, shared := filepath.Join(j.Dirs().Cache, "main-protected/cache.zip"), filepath.Join(dir, "project/42/main-protected/cache.zip")
	cut := func(path string) {
		t.Helper()
		b, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, bytes.Repeat([]byte{0}, len(b)/2), 0o600))
		must(t, os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)))
	}
	exists := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	// Cut in the middle: nothing of it stays in the project.
	whole, err := os.ReadFile(local)
	must(t, err)
	must(t, os.WriteFile(local, whole[:len(whole)-30], 0o600))
	must(t, os.Rename(shared, shared+".away"))
	j.clean(t)
	restore(t, j, c)
	if said := j.said(t); !strings.Contains(said, "Failed to extract cache") || exists(local) || j.read(t, "vendor/a") != "(none)" {
		t.Error(said)
	}
	must(t, os.Rename(shared+".away", shared))
	must(t, os.WriteFile(local, whole, 0o600))
	// Here only: the shared one helps.
	cut(local)
	j.clean(t)
	restore(t, j, c)
	if said := j.said(t); !strings.Contains(said, "WARNING: the archive is damaged") || !strings.Contains(said, "Successfully extracted cache") || j.read(t, "vendor/a") != "a" {
		t.Error(said)
	}
	// Both: they go, so that the next job makes a new one.
	cut(local)
	cut(shared)
	restore(t, j, c)
	if said := j.said(t); !strings.Contains(said, "Failed to extract cache") || exists(local) || exists(shared) {
		t.Errorf("%s %v %v", said, exists(local), exists(shared))
	}
	save(t, j, c)
	// The shared one only, and newer.
	cut(shared)
	restore(t, j, c)
	if exists(shared) {
		t.Error("the damaged shared archive is still there")
	}
}

// No fault of a cache is an error, but the end of the context is.
func TestCacheFaults(t *testing.T) {
	j := newVendorJob(t)
	must(t, os.MkdirAll(filepath.Dir(j.Dirs().Cache), 0o755))
	must(t, os.WriteFile(j.Dirs().Cache, []byte("in the way"), 0o600))
	c := vendor("../outside", "/abs")
	restore(t, j, c)
	save(t, j, c)
	if said := j.said(t); strings.Count(said, "Failed to extract cache") != 3 || !strings.Contains(said, "Failed to create cache") {
		t.Error(said)
	}
	must(t, os.Remove(j.Dirs().Cache))
	save(t, j, c)
	why := errors.New("the job was canceled")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := transfer.RestoreCaches(ctx, j.Env, &tranter.RestoreStep{Caches: []tranter.CacheEntry{c}}); !errors.Is(err, why) {
		t.Error(err)
	}
	if err := transfer.ArchiveCaches(ctx, j.Env, &tranter.ArchiveStep{Caches: []tranter.CacheEntry{c}}); !errors.Is(err, why) {
		t.Error(err)
	}
}
