package job_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job"
	"github.com/tranter-ci/tranter/internal/job/jobtest"
)

// remembered is a bench whose jobs' pasts and logs are kept.
type remembered struct {
	*bench
	past *jobtest.Past
	logs *jobtest.Logs
}

func newRemembered(t *testing.T) remembered {
	return remembered{newBench(t), &jobtest.Past{}, &jobtest.Logs{}}
}

func (r remembered) task(rec tranter.JobRecord) job.Task {
	task := r.bench.task(rec)
	task.Ties = job.Ties{Past: r.past, Logs: r.logs}
	return task
}

// kept returns the history of the job, after checking that it is whole.
func (r remembered) kept(t *testing.T) tranter.JobHistory {
	t.Helper()
	all, _ := r.past.All()
	h, ok := all[key]
	if !ok || len(all) != 1 {
		t.Fatalf("%d histories are kept", len(all))
	}
	if h.Result.State == tranter.JobRunning || h.Times.Ended.IsZero() || h.Times.Ended.Before(h.Times.Taken) {
		t.Errorf("%+v at %+v", h.Result, h.Times)
	}
	for i, s := range h.Stages {
		if s.End.Before(s.Start) || i > 0 && s.Start.Before(h.Stages[i-1].End) {
			t.Errorf("stage %d is %+v, after %+v", i, s, h.Stages[max(0, i-1)])
		}
	}
	if log := r.logs.All()[key]; log != r.server.Log(1) || int64(len(log)) != h.LogBytes {
		t.Errorf("a log of %d bytes is kept, the history says %d, the server has %d", len(log), h.LogBytes, len(r.server.Log(1)))
	}
	return h
}

func stagesOf(h tranter.JobHistory) (names []string) {
	for _, s := range h.Stages {
		names = append(names, s.Name)
	}
	return names
}

// results lets the phases of job 1, one after the other, take a minute each and tell what they have used.
func results(b *bench) {
	b.split = true
	began := time.Now()
	var steps []tranter.StepRecord
	for i, id := range []string{"sources", "script", "finish"} {
		at := began.Add(time.Duration(i) * time.Minute)
		steps = append(slices.Clone(steps), tranter.StepRecord{Name: "step_" + id, Started: at.Add(time.Second).UnixMilli(), Ended: at.Add(time.Minute).UnixMilli()})
		if id == "sources" {
			steps[0].Name = "get_sources"
		}
		b.executor.SetPhase(1, id, jobtest.Work{Takes: time.Minute, Output: []string{id + "\n"}, Result: tranter.PhaseResult{
			Status: tranter.PhaseSucceeded, ScriptReached: i > 0, Steps: steps, CPUTime: time.Duration(i+1) * time.Second, MaxMemory: int64(i+1) << 20, MaxDisk: 9 << 20,
			Samples: tranter.UsageSamples{{At: at}, {At: at.Add(time.Minute), CPU: 0.5, Memory: 1 << 20, Disk: int64(i) << 20}},
		}})
	}
}

func TestTheHistoryTellsOfAllThatAJobWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRemembered(t)
		results(b.bench)
		b.executor.Place(1)
		j := payload(1)
		j.Info.Stage, j.Info.PipelineID, j.Info.TimeInQueueSeconds, j.Info.ProjectFullPath, j.Git.Ref = "test", 77, 1.5, "group/project", "main"
		j.Variables = append(j.Variables, tranter.Variable{Key: "GITLAB_USER_LOGIN", Value: "jane"}, tranter.Variable{Key: "CI_RUNNER_TAGS", Value: `["a b", "c"]`},
			tranter.Variable{Key: "CI_PROJECT_VISIBILITY", Value: "internal"})
		began := time.Now()
		placed := 0
		task := b.task(tranter.JobRecord{Key: key, Runner: "short", Job: j, Taken: began})
		task.Placed = func() { placed++ }
		if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
			t.Fatal(err)
		}
		h := b.kept(t)
		want := tranter.JobLabel{
			ID: 1, Name: "test", Stage: "test", URL: "https://gitlab.example.com/group/project/-/jobs/1", Pipeline: 77, ProjectID: 1, Project: "group/project", Ref: "main",
			SHA: "0123456789abcdef", User: "jane", Tags: []string{"a b", "c"}, Public: "internal",
		}
		if fmt.Sprintf("%+v", h.Job) != fmt.Sprintf("%+v", want) || h.Runner != "short" || h.Name != "runner" || h.Executor != "memory" {
			t.Errorf("%+v", h)
		}
		if want := (tranter.JobPlace{Machine: "machine-0", Set: "large"}); h.Place != want || placed != 1 {
			t.Errorf("placed at %+v, told %d times", h.Place, placed)
		}
		if got := stagesOf(h); !slices.Equal(got, []string{"accepting", "prepare_executor", "sources", "script", "finish", "cleanup", "reporting"}) {
			t.Errorf("stages %q", got)
		}
		for i, step := range []string{"get_sources", "step_script", "step_finish"} {
			if s := h.Stages[i+2]; len(s.Steps) != 1 || s.Steps[0].Name != step || s.End.Sub(s.Start) != time.Minute {
				t.Errorf("stage %+v", s)
			}
		}
		if h.Times.Queued != 1500*time.Millisecond || !h.Times.Placed.Equal(began) || !h.Times.Started.Equal(began.Add(61*time.Second)) || !h.Times.Ended.Equal(began.Add(3*time.Minute)) {
			t.Errorf("times %+v from %v on", h.Times, began)
		}
		if u := h.Usage; u.CPUTime != 6*time.Second || u.MaxMemory != 3<<20 || u.MaxDisk != 9<<20 || len(u.Samples) != 4 {
			t.Errorf("usage %+v", u)
		}
	})
}

// What is kept of a job is the same wherever a crash falls, but for the stages after its end; it is kept once, or once more.
func TestTheHistoryIsTheSameWhereverACrashFalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRemembered(t)
		results(b.bench)
		seen := &witness{Records: b.records, spool: filepath.Join(b.dir, "trace.log")}
		first := tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()}
		if err := seen.Save(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		task := b.task(first)
		task.Records = seen
		if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
			t.Fatal(err)
		}
		want, log := b.kept(t), b.server.Log(1)
		for i, m := range seen.saved {
			b.past, b.logs, b.server = &jobtest.Past{}, &jobtest.Logs{}, jobtest.NewCoordinator()
			if err := os.MkdirAll(b.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(b.dir, "trace.log"), []byte(log[:m.size]), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := job.Run(t.Context(), t.Context(), b.task(m.record)); err != nil {
				t.Fatal(err)
			}
			got := b.kept(t)
			if !slices.Equal(stagesOf(got), stagesOf(want)) {
				t.Errorf("after record %d: stages %q, want %q", i, stagesOf(got), stagesOf(want))
			}
			for k, s := range got.Stages {
				if len(s.Steps) != len(want.Stages[k].Steps) {
					t.Errorf("after record %d: %+v, want %+v", i, s, want.Stages[k])
				}
			}
			if got.Usage.CPUTime != want.Usage.CPUTime || len(got.Usage.Samples) != len(want.Usage.Samples) || got.Result != want.Result || !got.Times.Taken.Equal(want.Times.Taken) {
				t.Errorf("after record %d: %+v, want %+v", i, got, want)
			}
			if _, times := b.past.All(); times != 1 {
				t.Errorf("after record %d: kept %d times", i, times)
			}
		}
	})
}

// A crash after the history and the log were handed over, before the record was removed, changes neither.
func TestWhatWasHandedOverIsNotReplacedByWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRemembered(t)
		b.executor.Set(1, jobtest.Work{Takes: time.Second, Output: []string{"one\n"}})
		seen := &witness{Records: b.records, spool: filepath.Join(b.dir, "trace.log")}
		task := b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})
		task.Records = seen
		if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
			t.Fatal(err)
		}
		want, log := b.kept(t), b.logs.All()[key]
		last := seen.saved[len(seen.saved)-1]
		b.server = jobtest.NewCoordinator()
		b.server.Stop(1, tranter.StopAbort) // it does not want a job any more that has ended
		if _, err := job.Run(t.Context(), t.Context(), b.task(last.record)); err != nil {
			t.Fatal(err)
		}
		all, times := b.past.All()
		got := all[key]
		if b.logs.All()[key] != log || times != 2 || len(all) != 1 {
			t.Errorf("the log is %q now, kept %d times", b.logs.All()[key], times)
		}
		if got.Result != want.Result || !got.Times.Ended.Equal(want.Times.Ended) || got.LogBytes < last.record.ResultAt || len(got.Stages) < len(want.Stages)-2 {
			t.Errorf("%+v, want %+v", got, want)
		}
		if left, _ := b.records.Jobs(t.Context()); len(left) > 0 {
			t.Error("it is still recorded")
		}
	})
}

func TestAPastThatCantBeKeptKeepsNoJob(t *testing.T) {
	for name, c := range map[string]struct {
		past *jobtest.Past
		logs *jobtest.Logs
	}{
		"it fails":      {past: &jobtest.Past{Fail: errors.New("disk full")}, logs: &jobtest.Logs{}},
		"it hangs":      {past: &jobtest.Past{Hang: true}, logs: &jobtest.Logs{}},
		"the log fails": {past: &jobtest.Past{}, logs: &jobtest.Logs{Fail: errors.New("disk full")}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newRemembered(t)
				b.past, b.logs = c.past, c.logs
				began := time.Now()
				if _, err := job.Run(t.Context(), t.Context(), b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})); err != nil {
					t.Fatal(err)
				}
				if u := b.final(t); u.State != tranter.JobSuccess || time.Since(began) > 6*time.Second {
					t.Errorf("%+v after %v", u, time.Since(began))
				}
			})
		})
	}
}

func TestAJobThatIsRefusedIsKeptToo(t *testing.T) {
	b := newRemembered(t)
	if err := os.WriteFile(b.dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := job.Run(t.Context(), t.Context(), b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})); err != nil {
		t.Fatal(err)
	}
	all, _ := b.past.All()
	if h := all[key]; h.Result.Reason != tranter.RunnerSystemFailure || h.Times.Ended.IsZero() {
		t.Errorf("%+v", h)
	}
}

func TestAPersonCancelsAJob(t *testing.T) {
	for name, c := range map[string]struct {
		after  time.Duration
		server bool // has canceled it before
		want   string
	}{
		"in its script":          {after: 90 * time.Second, want: "canceled by jane doe"},
		"while it is accepted":   {after: 0, want: "canceled by jane doe"},
		"after the server":       {after: 90 * time.Second, server: true, want: "canceled"},
		"in a restart before it": {after: 90 * time.Second, want: "canceled by jane doe"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newRemembered(t)
				b.split = true
				for _, id := range []string{"sources", "script", "finish"} {
					b.executor.SetPhase(1, id, jobtest.Work{Takes: time.Minute, Output: []string{id + "\n"}})
				}
				rec := tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()}
				task := b.task(rec)
				task.History = job.NewHistory(rec, "runner", "memory")
				if c.server {
					b.server.Stop(1, tranter.StopCancel)
				}
				timer := time.AfterFunc(c.after, func() {
					for range 3 { // to repeat it is harmless
						if err := task.History.Cancel("jane\ndoe"); err != nil {
							t.Error(err)
						}
					}
				})
				defer timer.Stop()
				ctx := t.Context()
				if strings.Contains(name, "restart") {
					b.executor.Forget(true)
					var leave context.CancelFunc
					ctx, leave = context.WithTimeout(ctx, 100*time.Second)
					defer leave()
				}
				result, err := job.Run(t.Context(), ctx, task)
				if err != nil {
					b.executor.Forget(false)
					left, _ := b.records.Jobs(t.Context())
					result, err = job.Run(t.Context(), t.Context(), b.task(left[0]))
				}
				if err != nil || result.Reason != tranter.JobCanceled || result.Message != c.want {
					t.Errorf("%+v, %v", result, err)
				}
				if u := b.final(t); u.Reason != tranter.JobCanceled || !strings.Contains(b.server.Log(1), "ERROR: Job failed: "+c.want) {
					t.Errorf("%+v\n%s", u, b.server.Log(1))
				}
				if h := b.kept(t); h.Result != result {
					t.Errorf("%+v", h.Result)
				}
				if err := task.History.Cancel("late"); !strings.Contains(name, "restart") && !errors.Is(err, tranter.ErrJobEnded) {
					t.Errorf("a job that has ended: %v", err)
				}
				if b.executor.Aborted(1) {
					t.Error("it was not graceful")
				}
			})
		})
	}
}

func TestANewMachineIsWhereAJobIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, j := lossy(t, 1, "script", "true")
		b.executor.Place(1)
		r := remembered{b, &jobtest.Past{}, &jobtest.Logs{}}
		if _, err := job.Run(t.Context(), t.Context(), r.task(tranter.JobRecord{Key: key, Job: j, Taken: time.Now()})); err != nil {
			t.Fatal(err)
		}
		h := r.kept(t)
		if h.Place.Machine != "machine-1" || h.Restarts != 1 {
			t.Errorf("%+v after %d restarts", h.Place, h.Restarts)
		}
		if got := strings.Join(stagesOf(h), " "); !strings.Contains(got, "sources script cleanup prepare_executor sources script finish") {
			t.Error(got)
		}
	})
}

func TestTheLagIsWhatTheServerHasNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newRemembered(t)
		b.executor.Set(1, jobtest.Work{Takes: time.Minute, Output: []string{"one\n", strings.Repeat("x", 1000) + "\n", "two\n"}})
		rec := tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()}
		task := b.task(rec)
		task.History = job.NewHistory(rec, "runner", "memory")
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = job.Run(t.Context(), t.Context(), task)
		}()
		time.Sleep(90 * time.Second)
		if lag := task.History.Lag(); lag != 0 {
			t.Errorf("%d bytes", lag)
		}
		b.server.Fail(errors.New("away"))
		time.Sleep(45 * time.Second)
		if lag := task.History.Lag(); lag < 1000 || lag > 1200 {
			t.Errorf("%d bytes", lag)
		}
		if h := task.History.Now(); h.Result.State != tranter.JobRunning || h.LogBytes < 1000 || len(h.Stages) == 0 || !h.Stages[len(h.Stages)-1].End.IsZero() {
			t.Errorf("%+v", h)
		}
		b.server.Fail(nil)
		<-done
		if lag := task.History.Lag(); lag != 0 {
			t.Errorf("%d bytes at the end", lag)
		}
	})
}
