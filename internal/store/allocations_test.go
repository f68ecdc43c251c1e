package store

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
)

func sampleAllocation(name string) allocation.Allocation {
	return allocation.Allocation{
		Name: name, Class: "gpu", Order: allocation.TakeFirst, User: "alice", Domain: "p1", Places: 2, State: allocation.Started, BatchID: "17", Attempt: 2,
		Shape: tranter.Shape{CPUs: 4, Memory: 1 << 32, Walltime: time.Hour, Options: []string{"--hint=nomultithread"}}, For: []int64{3, 4}, Uses: 1,
		Leases: []allocation.Lease{{Job: "gitlab.example.com-1", ID: 1, Since: instant(5), Began: true, Domain: "p1", Shape: tranter.Shape{CPUs: 2}}},
		Times:  allocation.Times{Planned: instant(1), Asked: instant(2), Queued: instant(3), Started: instant(4), Until: instant(59), LastSeen: instant(6)},
		Reason: "a job needs it", Absent: 1, Batch: tranter.BatchJob{ID: "17", Name: name, State: tranter.BatchRunning, Nodes: "n[1-2]", Started: instant(4)},
		Past: allocation.Past{Avoid: []string{"n3"}, Refusals: 1},
	}
}

func TestAllocationsSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	s, ctx := opened(t, path), t.Context()
	as := s.Allocations()
	a, b, c := sampleAllocation("a"), sampleAllocation("b"), sampleAllocation("c")
	if err := as.Save(ctx, "gpu", []allocation.Allocation{a, b, c}, nil); err != nil {
		t.Fatal(err)
	}
	if err := as.Save(ctx, "cpu", []allocation.Allocation{a}, nil); err != nil {
		t.Fatal(err)
	}
	a.State, a.Leases = allocation.Ending, nil
	c.State = allocation.Ended
	if err := as.Save(ctx, "gpu", []allocation.Allocation{a, c}, []string{"b"}); err != nil {
		t.Fatal(err)
	}
	if err := as.Save(ctx, "gpu", nil, []string{"c", "nobody"}); err != nil {
		t.Fatal(err)
	}
	if err := as.Save(ctx, "gpu", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	as = opened(t, path).Allocations()
	got, err := as.Load(ctx, "gpu")
	if d := cmp.Diff([]allocation.Allocation{a}, got); err != nil || d != "" {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	if none, err := as.Load(ctx, "tpu"); err != nil || len(none) != 0 {
		t.Errorf("an unknown class: %v, %v", none, err)
	}
	past, err := as.History(ctx, "gpu", 10)
	if d := cmp.Diff([]allocation.Allocation{c, b}, past); err != nil || d != "" {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	if past, err := as.History(ctx, "gpu", 1); err != nil || len(past) != 1 || past[0].Name != "c" {
		t.Errorf("the last one: %v, %v", past, err)
	}
	if err := as.Save(ctx, "was", []allocation.Allocation{a}, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if classes, err := as.Classes(ctx); err != nil || !slices.Equal(classes, []string{"cpu", "gpu", "was"}) {
		t.Errorf("classes: %v, %v", classes, err)
	}
	if past, err := as.History(ctx, "cpu", 10); err != nil || len(past) != 0 {
		t.Errorf("of a class of which none has ended: %v, %v", past, err)
	}
}

func TestADamagedAllocationIsEndedAndDoesNotHideTheOthers(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "x.db"))
	as, ctx := s.Allocations(), t.Context()
	if err := as.Save(ctx, "gpu", []allocation.Allocation{sampleAllocation("a"), sampleAllocation("b"), sampleAllocation("c")}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.ExecContext(ctx, "UPDATE allocations SET allocation = '{\"state\": 7' WHERE name = 'b'; INSERT INTO past_allocations (at, class, allocation) VALUES (32503680000000, 'gpu', 'x')"); err != nil {
		t.Fatal(err)
	}
	got, err := as.Load(ctx, "gpu")
	if len(got) != 3 || got[1].Name != "b" || got[1].State != allocation.Ending || got[2].State != allocation.Started || err == nil || !strings.Contains(err.Error(), "batch job b of gpu") {
		t.Errorf("%+v, %v", got, err)
	}
	if err := as.Save(ctx, "gpu", nil, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if past, err := as.History(ctx, "gpu", 10); len(past) != 1 || past[0].Name != "a" || err == nil {
		t.Errorf("history %v, %v", past, err)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := as.Save(stopped, "gpu", got, nil); err == nil || !strings.Contains(err.Error(), "gpu") {
		t.Errorf("although it was to stop: %v", err)
	}
}

func TestAnOlderDatabaseGetsAllocations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(migrations()[0] + ";" + migrations()[1] + "; INSERT INTO jobs VALUES ('k', '{\"key\": \"k\"}'); PRAGMA user_version = 2"); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	s := opened(t, path)
	if err := s.Allocations().Save(t.Context(), "gpu", []allocation.Allocation{sampleAllocation("a")}, nil); err != nil {
		t.Error(err)
	}
	if jobs, err := s.Jobs(t.Context()); err != nil || len(jobs) != 1 {
		t.Errorf("jobs %v, %v", jobs, err)
	}
}

func TestOldAllocationsAreForgotten(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "x.db"))
	as, ctx := s.Allocations(), t.Context()
	var all []allocation.Allocation
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("a%02d", i))
		all = append(all, sampleAllocation(names[i]))
	}
	as.sincePrune.Store(0)
	if err := as.Save(ctx, "gpu", all, names); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name   string
		before time.Time
		rows   int
		want   string
	}{
		{"nothing is old", instant(0), 100, "1-40"},
		{"by number", instant(0), 20, "21-40"},
		{"again", instant(0), 20, "21-40"},
		{"all are old", time.Now().Add(time.Hour), 100, ""},
		{"there are none", time.Now().Add(time.Hour), 100, ""},
	} {
		tx, err := s.db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := as.prune(ctx, tx, step.before, step.rows); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := s.db.QueryRowContext(ctx, "SELECT coalesce(min(id) || '-' || max(id), '') FROM past_allocations").Scan(&got); err != nil || got != step.want {
			t.Errorf("%s: %q is left, want %q, %v", step.name, got, step.want, err)
		}
	}
	as.sincePrune.Store(pruneEvery)
	if err := as.Save(ctx, "gpu", all[:1], names[:1]); err != nil || as.sincePrune.Load() != 0 {
		t.Errorf("%v, %d since", err, as.sincePrune.Load())
	}
}
