package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/view"
)

var sizeNow = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// openHistory opens a history in a directory of the test.
func openHistory(t testing.TB, path string) *store.History {
	t.Helper()
	h, err := store.OpenHistory(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// rawDB opens the file of a history beside it.
func rawDB(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(path)+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// someJob is the i-th of many jobs, which ended at a time.
func someJob(i int, ended time.Time) tranter.JobHistory {
	r := rand.New(rand.NewPCG(1, uint64(i)))
	ran := time.Duration(30+r.IntN(600)) * time.Second
	placed := ended.Add(-ran)
	job := tranter.JobHistory{
		Key: fmt.Sprintf("%d-%012x", i, i), Runner: fmt.Sprintf("runner-%d", r.IntN(5)), Executor: "docker+machine",
		Job: tranter.JobLabel{
			ID: int64(i), Name: []string{"build", "unit tests", "lint", "deploy to staging"}[r.IntN(4)], Stage: "test", URL: fmt.Sprintf("https://gitlab.example.com/jobs/%d", i),
			ProjectID: int64(r.IntN(50)), Project: fmt.Sprintf("group/project-%d", r.IntN(50)), Ref: fmt.Sprintf("feature-%d", r.IntN(500)), User: fmt.Sprintf("user%d", r.IntN(30)), Tags: []string{"docker", "linux"},
		},
		Place:  tranter.JobPlace{Machine: fmt.Sprintf("m%d", i/20)},
		Times:  tranter.JobTimes{Queued: time.Duration(r.IntN(60_000)) * time.Millisecond, Taken: placed.Add(-20 * time.Second), Placed: placed, Started: placed.Add(time.Second), Ended: ended},
		Result: tranter.Result{State: tranter.JobSuccess},
	}
	job.Name = "name of " + job.Runner
	if r.IntN(10) == 0 {
		job.Result = tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 1, Message: "exit status 1"}
	}
	for k := range 40 {
		job.Usage.Samples = append(job.Usage.Samples, tranter.UsageSample{At: placed.Add(time.Duration(k) * ran / 40), CPU: float64(r.IntN(400)) / 100, Memory: int64(r.IntN(1 << 32)), Disk: int64(r.IntN(1 << 30))})
	}
	return job
}

func BenchmarkHistory(b *testing.B) {
	for _, size := range []struct{ jobs, lives, events int }{{5_000, 2_000, 20_000}, {200_000, 100_000, 200_000}} {
		b.Run(fmt.Sprint(size.jobs), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "history.db")
			h := openHistory(b, path)
			began := time.Now()
			fillHistory(b, h, path, size.jobs, size.lives, size.events)
			b.Logf("filled in %v", time.Since(began))
			for name, ask := range questions(h) {
				b.Run(name, func(b *testing.B) {
					for b.Loop() {
						if err := ask(b.Context()); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		})
	}
}

func questions(h *store.History) map[string]func(context.Context) error {
	jobs := func(q view.JobQuery) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := h.Jobs(ctx, q)
			return err
		}
	}
	month := view.ChartQuery{From: sizeNow.Add(-30 * 24 * time.Hour), To: sizeNow}
	chart := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			q := month
			q.Name = name
			_, err := h.Chart(ctx, q, cost.Table{Fallback: map[string]float64{"pool": 0.1}})
			return err
		}
	}
	return map[string]func(context.Context) error{
		"jobs":         jobs(view.JobQuery{}),
		"jobs/text":    jobs(view.JobQuery{Text: "staging"}),
		"jobs/nothing": jobs(view.JobQuery{Text: "nothing at all"}),
		"jobs/two":     jobs(view.JobQuery{Text: "zz"}),
		"jobs/number":  jobs(view.JobQuery{Text: "1234"}),
		"jobs/failed":  jobs(view.JobQuery{State: tranter.JobFailed, Project: "group/project-7"}),
		"jobs/runner":  jobs(view.JobQuery{Runner: "runner-3", From: sizeNow.Add(-24 * time.Hour)}),
		"recent":       func(ctx context.Context) error { _, err := h.Recent(ctx, sizeNow); return err },
		"machines":     chart("machines"), "waits": chart("waits"), "hourly": chart("jobs"), "load": chart("load"), "cost": chart("cost"),
		"lanes": func(ctx context.Context) error {
			_, err := h.Lanes(ctx, view.LaneQuery{From: sizeNow.Add(-24 * time.Hour), To: sizeNow, Limit: 2000})
			return err
		},
		"lanes/old": func(ctx context.Context) error {
			_, err := h.Lanes(ctx, view.LaneQuery{From: sizeNow.Add(-300 * 24 * time.Hour), To: sizeNow.Add(-299 * 24 * time.Hour)})
			return err
		},
		"events":         func(ctx context.Context) error { _, err := h.Events(ctx, view.EventQuery{}); return err },
		"events/kind":    func(ctx context.Context) error { _, err := h.Events(ctx, view.EventQuery{Kind: "job_"}); return err },
		"events/nothing": func(ctx context.Context) error { _, err := h.Events(ctx, view.EventQuery{Text: "nothing"}); return err },
		"billed": func(ctx context.Context) error {
			_, err := h.Billed(ctx, month.From, month.To)
			return err
		},
		"lives": func(ctx context.Context) error { _, err := h.Lives(ctx, month.From, month.To); return err },
	}
}

// fillHistory keeps a year of jobs and machines; through the API some, the rest is copied in the database for speed.
func fillHistory(t testing.TB, h *store.History, path string, jobs, lives, events int) {
	t.Helper()
	db := rawDB(t, path)
	const seed = 500
	for i := range seed {
		if err := h.Keep(t.Context(), someJob(i, sizeNow.Add(-time.Duration(i+1)*time.Second))); err != nil {
			t.Fatal(err)
		}
	}
	exec := func(text string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
			t.Fatal(err)
		}
	}
	year := int64(400 * 24 * 3600 * 1000)
	now := sizeNow.UnixMilli()
	exec("PRAGMA synchronous=OFF")
	exec("CREATE TEMP TABLE seed AS SELECT j.*, r.record, r.samples FROM jobs j JOIN records r ON r.id = j.id")
	exec(`INSERT INTO jobs SELECT (?1 - n * (?2 / ?3)) * 1048576 + 500, 'k' || n, runner, runner_name, executor, job + n, name, project, project_id, ref, user, tags, visibility, 'm' || (n / 10), set_name, batch,
 queued, taken - ?1 + ?1 - n * (?2 / ?3), placed - n * (?2 / ?3), started - n * (?2 / ?3), ?1 - n * (?2 / ?3), state, reason, exit_code, bill, name || char(10) || project || char(10) || ref || char(10) || (job + n)
 FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?3) SELECT n FROM c) JOIN (SELECT rowid AS r, * FROM seed) s ON s.r = n % 500 + 1`, now, year, jobs)
	exec("INSERT INTO records SELECT j.id, s.record, s.samples FROM jobs j JOIN (SELECT rowid AS r, record, samples FROM seed) s ON s.r = j.job % 500 + 1 WHERE j.key LIKE 'k%'")
	exec("INSERT INTO job_search (rowid, text) SELECT id, search FROM jobs WHERE key LIKE 'k%'")
	exec("INSERT INTO waits SELECT key, placed, queued + placed - taken, runner FROM jobs WHERE key LIKE 'k%' ON CONFLICT DO NOTHING")
	// Machines live an hour; 2,000 of them were there in the last day. Each had ten jobs.
	exec(`INSERT INTO lives (pool, runner, machine, set_name, per_hour, minimum, step, made, gone)
 SELECT 'pool', 'name', 'm' || n, '', 0.1, 0, 0, at, at + 3600000 FROM (
 SELECT n, ?1 - iif(n <= 2000, n * 43000, 86400000 + n * (?2 / ?3)) AS at FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?3) SELECT n FROM c))`, now, year, lives)
	exec(`INSERT INTO spans SELECT l.id, '', l.made + k * 300000, iif(k % 2, 'idle', 'leased'), 'a reason of this state', l.made + (k + 1) * 300000 FROM lives l,
 (WITH RECURSIVE c(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM c WHERE k < 11) SELECT k FROM c)`)
	exec(`INSERT INTO spans SELECT life, 'job-' || life || '-' || start, start, '', '', stop FROM spans WHERE state = 'leased'`)
	exec(`INSERT INTO past_spans SELECT id,
 (SELECT group_concat(start || char(31) || stop || char(31) || state || char(31) || reason, char(30)) FROM spans s WHERE s.life = l.id AND job = ''),
 (SELECT group_concat(start || char(31) || stop || char(31) || job || char(31), char(30)) FROM spans s WHERE s.life = l.id AND job > '') FROM lives l`)
	exec(`INSERT INTO events (time, kind, family, level, runner, job, machine, batch, text, took)
 SELECT ?1 - (?3 - n) * 10000, iif(n % 3, 'machine_ready', 'job_ended'), iif(n % 3, 'machine_', 'job_'), '', 'runner-1', 'k' || n, 'm' || (n / 10), '', 'The machine was made ready in some seconds, number ' || n, 0
 FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?3) SELECT n FROM c)`, now, year, events)
	exec("INSERT INTO event_search (rowid, text) SELECT id, lower(text || ' ' || machine || ' ' || job || ' ' || batch || ' ' || kind) FROM events")
	for i, name := range []string{"machines.idle", "machines.leased", "machines.booting", "machines.removing", "jobs.running", "jobs.waiting"} {
		exec("INSERT INTO series VALUES (?, ?)", i+1, name)
		exec("INSERT INTO hours SELECT ?1, (?2 / 3600000 - n) * 3600000, 60, 60 * n, n FROM (WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < 9600) SELECT n FROM c)", i+1, now)
	}
}
