package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every job has files of its own, whatever it is called, and also where case makes no difference.
func TestFileNames(t *testing.T) {
	long := strings.Repeat("x", 255)
	jobs := []string{
		"build", "Build", "a/b", "a b", "a-b-5", "a:b", "日本語 тест ✓", strings.Repeat("ж", 255), long, long + "!", "✓", "..", "-", "../../x", "%s", "\x00\n",
	}
	dir := t.TempDir()
	names := fileNames{}
	seen := map[string]string{}
	for i, job := range jobs {
		name := names.of(job, int64(i+1))
		if other, twice := seen[strings.ToLower(name)]; twice {
			t.Errorf("%q and %q have both the name %q", other, job, name)
		}
		seen[strings.ToLower(name)] = job
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Errorf("%q: %v", job, err)
		}
		if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") {
			t.Errorf("%q: %q is hidden, or looks like a flag", job, name)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != len(jobs) {
		t.Errorf("%d folders, %v, want %d", len(entries), err, len(jobs))
	}
	for _, name := range []string{"unit tests: [poem, words]", "build"} {
		if got, want := (fileNames{}).of(name, 1), strings.TrimSuffix(strings.NewReplacer(": [", "-", ", ", "-", " ", "-").Replace(name), "]"); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
