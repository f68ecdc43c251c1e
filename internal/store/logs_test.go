package store_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/store"
)

func openLogs(t *testing.T, keep time.Duration, most int64) (logs *store.Logs, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "logs")
	logs, err := store.OpenLogs(dir, keep, most)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = logs.Close() })
	return logs, dir
}

// spool writes a log as a job leaves it.
func spool(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestALogIsTakenOverAndReadAgain(t *testing.T) {
	logs, dir := openLogs(t, time.Hour, 1<<20)
	path := spool(t, "hello")
	if err := logs.Keep("12-abcdef", path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the spool is still there: %v", err)
	}
	f, err := logs.Open("12-abcdef")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data, err := io.ReadAll(f); err != nil || string(data) != "hello" {
		t.Errorf("%q %v", data, err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "12-abcdef.log"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
}

func TestNoKeyLeadsOutOfTheDirectoryOfLogs(t *testing.T) {
	logs, dir := openLogs(t, time.Hour, 1<<20)
	secret := filepath.Join(filepath.Dir(dir), "secret.log")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "link.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "..", "../secret", "a/b", `a\b`, "link", "dir", ".hidden", "nul\x00", "a.log", "-rf", strings.Repeat("a", 200), secret} {
		if f, err := logs.Open(key); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v %v", key, f, err)
		}
		if key == "link" || key == "dir" {
			continue
		}
		path := spool(t, "x")
		if err := logs.Keep(key, path); err == nil {
			t.Errorf("%q was kept", key)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%q: what was not kept is gone: %v", key, err)
		}
	}
	if err := logs.Keep("other", filepath.Join(dir, "link.log")); err == nil {
		t.Error("a link was taken over")
	}
	if data, _ := os.ReadFile(secret); string(data) != "secret" {
		t.Errorf("%q", data)
	}
}

func TestLogsGoByAgeAndThenTheOldestForRoom(t *testing.T) {
	logs, dir := openLogs(t, time.Hour, 250)
	now := time.Now()
	for i, key := range []string{"a", "b", "c", "d"} {
		if err := logs.Keep(key, spool(t, strings.Repeat("x", 60))); err != nil {
			t.Fatal(err)
		}
		at := now.Add(time.Duration(i-4) * 10 * time.Minute)
		if key == "a" {
			at = now.Add(-2 * time.Hour)
		}
		if err := os.Chtimes(filepath.Join(dir, key+".log"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("of a person"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := logs.Prune(now); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "b.log c.log d.log notes.txt" {
		t.Errorf("after an hour: %s", got)
	}
	if err := logs.Keep("e", spool(t, strings.Repeat("x", 100))); err != nil { // 280 bytes: too much
		t.Fatal(err)
	}
	if got := names(t, dir); got != "c.log d.log e.log notes.txt" {
		t.Errorf("without room: %s", got)
	}
}

// TestAFullDirectoryOfLogsIsNotLookedThroughForEachJob would take a second for each job when there are many logs.
func TestAFullDirectoryOfLogsIsNotLookedThroughForEachJob(t *testing.T) {
	logs, dir := openLogs(t, time.Hour, 3200)
	keep := func(key string, size int) int {
		t.Helper()
		if err := logs.Keep(key, spool(t, strings.Repeat("x", size))); err != nil {
			t.Fatal(err)
		}
		return len(strings.Fields(names(t, dir)))
	}
	for i := range 32 {
		keep(fmt.Sprintf("a%02d", i), 100)
	}
	for i, want := range []int{30, 31, 32, 30} {
		if got := keep(fmt.Sprintf("b%d", i), 100); got != want {
			t.Errorf("after %d more there are %d, want %d", i+1, got, want)
		}
	}
	if got := keep("c", 3200); got != 1 {
		t.Errorf("one that takes all the room: there are %d", got)
	}
}

// TestLogsOfEndedJobsMakeRoomForThoseThatRun holds long before there are as many as may be.
func TestLogsOfEndedJobsMakeRoomForThoseThatRun(t *testing.T) {
	logs, dir := openLogs(t, time.Hour, 1000)
	var lack int64
	logs.Yield(func() int64 { return lack })
	for _, key := range []string{"a", "b", "c", "d"} {
		if err := logs.Keep(key, spool(t, strings.Repeat("x", 10))); err != nil {
			t.Fatal(err)
		}
	}
	lack = 15
	if err := logs.Prune(time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "c.log d.log" {
		t.Errorf("15 bytes are missing: %s", got)
	}
	lack = 1 << 40
	if err := logs.Keep("e", spool(t, "x")); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "" {
		t.Errorf("there is no room at all: %s", got)
	}
}

func TestWithoutRoomOrTimeNoLogIsKept(t *testing.T) {
	for _, limits := range []struct {
		keep time.Duration
		most int64
	}{{0, 100}, {time.Hour, 0}} {
		logs, dir := openLogs(t, limits.keep, limits.most)
		path := spool(t, "x")
		if err := logs.Keep("a", path); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) || names(t, dir) != "" {
			t.Errorf("%+v: %v %s", limits, err, names(t, dir))
		}
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}
