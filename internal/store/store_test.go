package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
)

func TestRecordsSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?#%.db")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	want := tranter.JobRecord{
		Key: "k-1", Job: &tranter.Job{ID: 1, Token: "secret"}, Local: map[string]string{"tls_ca": "pem"}, PhaseState: tranter.PhaseState{PhaseStart: 7},
		Result: &tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 3},
	}
	for _, r := range []tranter.JobRecord{{Key: "k-1"}, {Key: "k-2"}, want} {
		if err := s.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(t.Context(), "k-2"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the database: %v, %v", info.Mode(), err)
	}
	if s, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Jobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]tranter.JobRecord{want}, got); d != "" {
		t.Error(d)
	}
}

func TestANewerDatabaseIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if _, err := Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "newer tranter") {
		t.Errorf("error %v", err)
	}
}

func TestASecondProcessIsRefusedUntilTheFirstIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	first, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); !errors.Is(err, ErrInUse) {
		t.Errorf("second opening: error %v, want ErrInUse", err)
	}
	if err := first.Save(t.Context(), tranter.JobRecord{Key: "k"}); err != nil {
		t.Errorf("the first one was disturbed: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), path)
	if err != nil {
		t.Fatalf("after the first one is gone: %v", err)
	}
	_ = again.Close()
}

func BenchmarkSave(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "x.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	r := tranter.JobRecord{Key: "k", Job: &tranter.Job{ID: 1, Variables: make([]tranter.Variable, 100)}}
	for b.Loop() {
		if err := s.Save(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
