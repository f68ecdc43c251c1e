package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
)

func opened(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.machines.sincePrune.Store(-1_000_000) // the samples are old
	return s
}

func instant(second int) time.Time { return time.Date(2026, 1, 2, 3, 4, second, 0, time.UTC) }

func sample(name string) fleet.Machine {
	return fleet.Machine{
		Name: name, Set: "spot", State: fleet.Leased, Since: instant(5), Deadline: instant(9), Reason: "a job waits", Made: instant(1), Ready: instant(4), Used: instant(4), Uses: 3,
		Leases: []fleet.Lease{{Job: "gitlab.example.com-1", Since: instant(5)}},
		Seen:   tranter.Machine{Name: name, ID: "i-1", Power: tranter.PowerOn, Login: tranter.Login{Host: "10.0.0.5", User: "ci"}, Ref: json.RawMessage(`{"password":"hunter2"}`)},
		Kept:   json.RawMessage(`{"key":"ssh-ed25519 AAAA"}`), Boot: []tranter.Timing{{Step: "login", Took: time.Second}}, Tries: 1, Retry: instant(8), Problem: "quota", Missed: 1, ByHand: true,
	}
}

func TestMachinesSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	s, ctx := opened(t, path), t.Context()
	m := s.Machines()
	events := []fleet.Event{
		{At: instant(1), Kind: fleet.MachineWanted, Machine: "a", Set: "spot", Reason: "a job waits"},
		{At: instant(2), Kind: fleet.JobQueued, Job: "j"},
		{At: instant(3), Kind: fleet.MachineCreated, Machine: "a", Seen: &tranter.Machine{Ref: json.RawMessage(`{"password":"hunter2"}`)}},
		{At: instant(4), Kind: fleet.MachineReady, Machine: "b", Boot: []tranter.Timing{{Step: "login", Took: 7}}},
	}
	a, b := sample("a"), sample("b")
	if err := m.Append(ctx, "p1", events, []fleet.Machine{a, b}, nil); err != nil {
		t.Fatal(err)
	}
	if err := m.Append(ctx, "p2", nil, []fleet.Machine{sample("a")}, nil); err != nil {
		t.Fatal(err)
	}
	a.State, a.Leases = fleet.Removing, nil
	last := fleet.Event{At: instant(6), Kind: fleet.MachineRemoving, Machine: "a", Reason: "too old"}
	if err := m.Append(ctx, "p1", []fleet.Event{last}, []fleet.Machine{a}, []string{"b", "nobody"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	m = opened(t, path).Machines()
	got, err := m.Load(ctx, "p1")
	if d := cmp.Diff([]fleet.Machine{a}, got); err != nil || d != "" {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	if none, err := m.Load(ctx, "p3"); err != nil || len(none) != 0 {
		t.Errorf("an unknown pool: %v, %v", none, err)
	}
	if pools, err := m.Pools(ctx); err != nil || !cmp.Equal(pools, []string{"p1", "p2"}) {
		t.Errorf("pools %v, %v", pools, err)
	}
	events[2].Seen = nil // secrets are not in the history
	history, err := m.History(ctx, "a", 10)
	if d := cmp.Diff([]fleet.Event{events[0], events[2], last}, history); err != nil || d != "" {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	if history, err := m.History(ctx, "a", 2); err != nil || len(history) != 2 || history[1].Kind != fleet.MachineRemoving {
		t.Errorf("the last two: %v, %v", history, err)
	}
	if history, err := m.History(ctx, "b", 10); err != nil || len(history) != 1 {
		t.Errorf("of one that is gone: %v, %v", history, err)
	}
	if history, err := m.History(ctx, "", 10); err != nil || len(history) != 0 {
		t.Errorf("of no machine: %v, %v", history, err)
	}
}

func TestADamagedMachineDoesNotHideTheOthers(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "x.db"))
	m, ctx := s.Machines(), t.Context()
	if err := m.Append(ctx, "p", []fleet.Event{{At: instant(1), Kind: fleet.MachineWanted, Machine: "c"}}, []fleet.Machine{sample("a"), sample("b"), sample("c")}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.ExecContext(ctx, "UPDATE machines SET machine = '{\"state\": 7' WHERE name = 'b'; INSERT INTO machine_events (at, pool, machine, event) VALUES (1, 'p', 'c', 'hunter2')"); err != nil {
		t.Fatal(err)
	}
	got, err := m.Load(ctx, "p")
	if len(got) != 3 || got[0].State == fleet.Removing || got[1].Name != "b" || got[1].State != fleet.Removing || err == nil || !strings.Contains(err.Error(), "machine b of pool p") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%d machines, %v", len(got), err)
	}
	if history, err := m.History(ctx, "c", 10); len(history) != 1 || err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("history %v, %v", history, err)
	}
}

func TestAppendIsAllOrNothing(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "x.db"))
	m, ctx := s.Machines(), t.Context()
	bad := sample("b")
	bad.Kept = json.RawMessage("{") // no JSON: can't be written
	if err := m.Append(ctx, "p", []fleet.Event{{At: instant(1), Kind: fleet.MachineWanted, Machine: "a"}}, []fleet.Machine{sample("a"), bad}, nil); err == nil || !strings.Contains(err.Error(), "machine b") {
		t.Errorf("error %v", err)
	}
	if got, err := m.Load(ctx, "p"); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if history, err := m.History(ctx, "a", 1); err != nil || len(history) != 0 {
		t.Errorf("%v, %v", history, err)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := m.Append(stopped, "p", nil, []fleet.Machine{sample("a")}, nil); err == nil {
		t.Error("no error although it was to stop")
	}
}

func TestAnOlderDatabaseGetsMachines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(migrations()[0] + "; INSERT INTO jobs VALUES ('k', '{\"key\": \"k\"}'); PRAGMA user_version = 1"); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	s := opened(t, path)
	if err := s.Machines().Append(t.Context(), "p", nil, []fleet.Machine{sample("a")}, nil); err != nil {
		t.Error(err)
	}
	if jobs, err := s.Jobs(t.Context()); err != nil || len(jobs) != 1 {
		t.Errorf("jobs %v, %v", jobs, err)
	}
}

func TestOldHistoryGoes(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "x.db"))
	m, ctx := s.Machines(), t.Context()
	var events []fleet.Event
	for i := range 40 {
		events = append(events, fleet.Event{At: instant(i), Kind: fleet.MachineSeen, Machine: fmt.Sprint("m", i)})
	}
	if err := m.Append(ctx, "p", events, nil, nil); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name   string
		before time.Time
		rows   int
		want   string
	}{
		{"nothing is old", instant(0), 100, "1-40"},
		{"by age", instant(10), 100, "11-40"},
		{"by number", instant(0), 20, "21-40"},
		{"again", instant(0), 20, "21-40"},
		{"all are old", instant(59), 100, ""},
		{"there are none", instant(59), 100, ""},
	} {
		tx, err := s.db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := prune(ctx, tx, step.before, step.rows); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := s.db.QueryRowContext(ctx, "SELECT coalesce(min(id) || '-' || max(id), '') FROM machine_events").Scan(&got); err != nil || got != step.want {
			t.Errorf("%s: %q is left, want %q, %v", step.name, got, step.want, err)
		}
	}
	m.sincePrune.Store(pruneEvery)
	if err := m.Append(ctx, "p", []fleet.Event{{At: time.Now().Add(-historyAge - time.Hour), Kind: fleet.MachineGone, Machine: "old"}, {At: time.Now(), Kind: fleet.MachineGone, Machine: "new"}}, nil, nil); err != nil {
		t.Fatal(err)
	}
	old, _ := m.History(ctx, "old", 1)
	recent, _ := m.History(ctx, "new", 1)
	if len(old) != 0 || len(recent) != 1 || m.sincePrune.Load() != 0 {
		t.Errorf("%v, %v, %d events since", old, recent, m.sincePrune.Load())
	}
}

// One change of a machine: an event and the machine, which is what a pool keeps before it acts.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := opened(b, filepath.Join(b.TempDir(), "x.db")).Machines()
			events, changed := make([]fleet.Event, n), make([]fleet.Machine, n)
			for i := range n {
				changed[i] = sample(fmt.Sprint("runner-abcdefghi-ci-", i))
				changed[i].Seen.Ref = json.RawMessage(`{"config": "` + strings.Repeat("x", 2000) + `"}`)
				events[i] = fleet.Event{At: time.Now(), Kind: fleet.LeaseGranted, Machine: changed[i].Name, Job: "gitlab.example.com-1", Reason: "it was idle"}
			}
			for b.Loop() {
				if err := m.Append(b.Context(), "p", events, changed, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
