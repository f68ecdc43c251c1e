package main

import (
	"os"
	"path/filepath"
	"testing"
)

// Jobs run elsewhere, so that a relative path would be another directory there.
func TestWorkingDirectoryIsAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Mkdir("work", 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := workingDirectory("work")
	if err != nil || got != filepath.Join(dir, "work") {
		t.Errorf("got %q, %v", got, err)
	}
}
