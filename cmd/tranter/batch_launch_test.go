package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestTheCommandsOfABatchSystemAreBesideTheLaunchCommandOrInThePath(t *testing.T) {
	whole, wrapper := t.TempDir(), t.TempDir()
	for _, path := range []string{filepath.Join(whole, "sbatch"), filepath.Join(whole, "squeue"), filepath.Join(wrapper, "sbatch")} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	for executable, want := range map[string]string{
		"sbatch":                         "",
		"./sbatch":                       "",
		filepath.Join(whole, "sbatch"):   whole,
		filepath.Join(wrapper, "sbatch"): "",
	} {
		if got := binOf(executable, "squeue"); got != want {
			t.Errorf("%s: %q, not %q", executable, got, want)
		}
	}
}

func TestWhatCanNotBeListedFromHereIsNotFollowed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, executable := range []string{"sbatch", "qsub", "bsub", "flux", "bash"} {
		if got := trackers(slog.New(slog.DiscardHandler))(executable); got != nil {
			t.Errorf("%s is followed by %T", executable, got)
		}
	}
}
