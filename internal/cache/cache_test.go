package cache_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cache"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
}

func read(t testing.TB, d *cache.Directory, object string) (string, cache.Info) {
	t.Helper()
	a, err := d.Open(object)
	must(t, err)
	defer a.Close()
	b, err := io.ReadAll(a.File)
	must(t, err)
	return string(b), a.Info
}

// files lists what is below dir.
func files(t testing.TB, dir string) string {
	t.Helper()
	var out []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			out = append(out, filepath.ToSlash(rel))
		}
		return err
	}))
	return strings.Join(out, " ")
}

func TestSaveAndOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	d := cache.New(dir, 0)
	if _, err := d.Open("main"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	saved, err := d.Save(t.Context(), "a b/main-protected", cache.Info{Key: "a b/main", Content: "f1", ModTime: old}, text("one"))
	must(t, err)
	if got, info := read(t, d, "a b/main-protected"); got != "one" || info != saved || info.Content != "f1" || info.Key != "a b/main" || !info.ModTime.Equal(old) || info.Size != 3 {
		t.Errorf("%q %+v, saved %+v", got, info, saved)
	}
	if _, err := d.Open("other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no object: %v", err)
	}
	_, err = d.Save(t.Context(), "a b", cache.Info{}, text("a parent of another name"))
	must(t, err)
	if got, want := files(t, dir), "a b/cache.zip a b/main-protected/cache.zip a b/main-protected/metadata.json a b/metadata.json"; got != want {
		t.Errorf("%s", got)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "a b/main-protected/metadata.json"))
	must(t, err)
	var strs map[string]string // what GitLab Runner reads it into
	if err := json.Unmarshal(raw, &strs); err != nil || strs["cachekey"] != "a b/main" {
		t.Errorf("%s: %v", raw, err)
	}
	stat, err := os.Stat(filepath.Join(dir, "a b/cache.zip"))
	must(t, err)
	if stat.Mode().Perm() != 0o600 {
		t.Error(stat.Mode())
	}
}

func TestFailedSaveKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	d := cache.New(dir, 10)
	_, err := d.Save(t.Context(), "k", cache.Info{Content: "old"}, text("old"))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	boom := errors.New("boom")
	for _, tt := range []struct { // in this order: from "canceled" on the context has ended
		name  string
		write func(io.Writer) error
		want  error
	}{
		{"fault", func(w io.Writer) error { _ = text("ne")(w); return boom }, boom},
		{"too large", text("more than ten"), tranter.ErrTooLarge},
		{"large, file", func(w io.Writer) error { _, err := io.Copy(w, strings.NewReader(strings.Repeat("x", 11))); return err }, tranter.ErrTooLarge},
		{"canceled", func(w io.Writer) error { cancel(); return text("new")(w) }, context.Canceled},
		{"after that", func(io.Writer) error { return nil }, context.Canceled},
	} {
		if _, err := d.Save(ctx, "k", cache.Info{Content: "new"}, tt.write); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if got, info := read(t, d, "k"); got != "old" || info.Content != "old" {
		t.Errorf("%q %+v", got, info)
	}
	if got := files(t, dir); got != "k/cache.zip k/metadata.json" {
		t.Errorf("left behind: %s", got)
	}
}

func TestNamesStayInside(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "store")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.Symlink(base, filepath.Join(dir, "out")))
	d := cache.New(dir, 0)
	for _, object := range []string{"", ".", "..", "../x", "/abs", "a/../../x", "out/x", "a//b", "zero\x00"} {
		if _, err := d.Save(t.Context(), object, cache.Info{}, text("x")); err == nil {
			t.Errorf("saved %q", object)
		}
		if _, err := d.Open(object); err == nil {
			t.Errorf("opened %q", object)
		}
	}
	if got := files(t, base); got != "store/out" {
		t.Error(got)
	}
}

func TestCopyAndDiscard(t *testing.T) {
	local, shared := cache.New(t.TempDir(), 0), cache.New(t.TempDir(), 100)
	saved, err := local.Save(t.Context(), "k", cache.Info{Key: "K", Content: "f", ModTime: time.Unix(1_500_000_000, 0)}, text("bytes"))
	must(t, err)
	a, err := local.Open("k")
	must(t, err)
	defer a.Close()
	for range 2 { // it starts at the beginning each time
		if info, err := shared.Copy(t.Context(), "project/42/k", a); err != nil || info != saved {
			t.Fatalf("%+v, %v", info, err)
		}
	}
	if got, info := read(t, shared, "project/42/k"); got != "bytes" || info != saved {
		t.Errorf("%q %+v", got, info)
	}
	must(t, local.Discard(a))
	if _, err := local.Stat("k"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	must(t, local.Discard(a))
	_, err = local.Save(t.Context(), "k", cache.Info{}, text(strings.Repeat("x", 101)))
	must(t, err)
	must(t, local.Discard(a)) // is another one now
	big, err := local.Open("k")
	must(t, err)
	defer big.Close()
	if _, err := shared.Copy(t.Context(), "project/42/k", big); !errors.Is(err, tranter.ErrTooLarge) {
		t.Error(err)
	}
}

// What stands in the directory may come from anybody.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	d := cache.New(dir, 0)
	put := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	put("stock/cache.zip", "by GitLab Runner")
	put("stock/metadata.json", `{"cachekey": "stock"}`)
	if got, info := read(t, d, "stock"); got != "by GitLab Runner" || info.Key != "stock" || info.Content != "" {
		t.Errorf("%q %+v", got, info)
	}
	put("bad/cache.zip", "x")
	put("bad/metadata.json", `{{{`)
	if _, info := read(t, d, "bad"); info.Key != "" {
		t.Errorf("%+v", info)
	}
	_, err := d.Save(t.Context(), "mixed", cache.Info{Content: "f"}, text("one"))
	must(t, err)
	put("mixed/cache.zip", "another archive than the metadata is about")
	if _, info := read(t, d, "mixed"); info.Content != "" {
		t.Errorf("%+v", info)
	}
	must(t, os.MkdirAll(filepath.Join(dir, "dir/cache.zip"), 0o700))
	if _, err := d.Open("dir"); err == nil {
		t.Error("opened a directory")
	}
	if out, err := exec.Command("mkfifo", filepath.Join(dir, "bad/pipe")).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	must(t, os.Rename(filepath.Join(dir, "bad/pipe"), filepath.Join(dir, "bad/cache.zip")))
	if _, err := d.Open("bad"); err == nil {
		t.Error("opened a pipe")
	}
	stale, fresh := put("stale/.tranter-dead", "half"), put("stale/.tranter-alive", "half")
	must(t, os.Chtimes(stale, time.Time{}, time.Now().Add(-25*time.Hour)))
	_, err = d.Save(t.Context(), "stale", cache.Info{}, text("x"))
	must(t, err)
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a stale file is left")
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Error("a writer at work lost its file")
	}
}

// child makes this test binary a writer in a process of its own.
const child = "CACHE_TEST_DIRECTORY"

func TestMain(m *testing.M) {
	dir := os.Getenv(child)
	if dir == "" {
		os.Exit(m.Run())
	}
	d := cache.New(dir, 0)
	for i := range 30 {
		line := fmt.Sprintf("%d-%d\n", os.Getpid(), i)
		_, err := d.Save(context.Background(), "k", cache.Info{Content: line}, func(w io.Writer) error {
			for range 2000 {
				if _, err := io.WriteString(w, line); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(0)
}

// Whoever reads while processes write gets one writer's archive, whole.
func TestProcessesAtOnce(t *testing.T) {
	dir := t.TempDir()
	done := make(chan error, 3)
	for range cap(done) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), child+"="+dir)
		cmd.Stderr = os.Stderr
		must(t, cmd.Start())
		go func() { done <- cmd.Wait() }()
	}
	d, reads := cache.New(dir, 0), 0
	for left := cap(done); left > 0; {
		select {
		case err := <-done:
			must(t, err)
			left--
		default:
			a, err := d.Open("k")
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			must(t, err)
			b, err := io.ReadAll(a.File)
			must(t, err)
			a.Close()
			line, _, _ := bytes.Cut(b, []byte("\n"))
			if want := bytes.Repeat(append(line, '\n'), 2000); !bytes.Equal(b, want) {
				t.Fatalf("a mixed or cut archive of %d bytes", len(b))
			}
			reads++
		}
	}
	if reads == 0 {
		t.Error("nothing was read meanwhile")
	}
	if got := files(t, dir); got != "k/cache.zip k/metadata.json" {
		t.Error(got)
	}
}
