package job_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job"
	"github.com/tranter-ci/tranter/internal/job/jobtest"
)

// witness notes how large the log's spool was whenever the job was recorded.
type witness struct {
	*jobtest.Records
	spool string
	saved []moment
}

// moment is a record, and the size of the spool when it was made.
type moment struct {
	record tranter.JobRecord
	size   int
}

func (w *witness) Save(ctx context.Context, rec tranter.JobRecord) error {
	if err := w.Records.Save(ctx, rec); err != nil {
		return err
	}
	kept, err := w.Jobs(ctx)
	if err != nil {
		return err
	}
	data, _ := os.ReadFile(w.spool)
	w.saved = append(w.saved, moment{record: kept[0], size: len(data)})
	return nil
}

// crash lets a job go on from a record, with what is in the spool then and with what of it the server has.
func (b *bench) crash(t *testing.T, rec tranter.JobRecord, spool, arrived string) {
	t.Helper()
	b.server = jobtest.NewCoordinator()
	if _, err := b.server.Append(t.Context(), rec.Job.Ref(), 0, []byte(arrived)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "trace.log"), []byte(spool), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := job.Run(t.Context(), t.Context(), b.task(rec)); err != nil {
		t.Fatal(err)
	}
}

// A crash leaves the last record and any part of the log that was written before the next one, of which any part has
// arrived. Whatever they are, the whole log is what it is without a crash, to the byte.
func TestTheLogIsTheSameWhereverACrashFalls(t *testing.T) {
	failure := jobtest.Work{Output: []string{"one\n"}, Result: tranter.PhaseResult{Status: tranter.PhaseFailed, Reason: tranter.ScriptFailure, ExitCode: 3, Message: "exit status 3"}}
	for name, tt := range map[string]struct {
		all    jobtest.Work
		phases map[string]jobtest.Work // in containers
	}{
		"success": {all: jobtest.Work{Takes: time.Second, Output: []string{"one\n", "two\n", "three without an end"}}},
		"failure": {all: failure},
		"success in containers": {phases: map[string]jobtest.Work{
			"sources": {Takes: time.Second, Output: []string{"got\n"}}, "script": {Takes: time.Second, Output: []string{"one\n"}}, "finish": {Output: []string{"kept\n"}},
		}},
		"failure in containers":      {phases: map[string]jobtest.Work{"sources": {Output: []string{"got\n"}}, "script": failure, "finish": {Output: []string{"kept\n"}}}},
		"no sources in containers":   {phases: map[string]jobtest.Work{"sources": failure, "finish": {Output: []string{"cleaned up\n"}}}},
		"a lost agent in containers": {phases: map[string]jobtest.Work{"script": {Output: []string{"one\n"}, Lost: true}, "finish": {Output: []string{"cleaned up\n"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.split = tt.phases != nil
				b.executor.Set(1, tt.all)
				for id, w := range tt.phases {
					b.executor.SetPhase(1, id, w)
				}
				seen := &witness{Records: b.records, spool: filepath.Join(b.dir, "trace.log")}
				first := tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()}
				first.Job.Variables = append(first.Job.Variables, tranter.Variable{Key: "FF_TIMESTAMPS", Value: "false"})
				if err := seen.Save(t.Context(), first); err != nil {
					t.Fatal(err)
				}
				task := b.task(first)
				task.Records = seen
				if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
					t.Fatal(err)
				}
				want := b.server.Log(1)
				reported, _ := b.server.Final(1)
				begun := len(b.executor.Begun(1))
				if len(seen.saved) < 5 { // received, head, environment, phase, result
					t.Fatalf("recorded only %d times", len(seen.saved))
				}
				for i, m := range seen.saved {
					end := len(want)
					if i+1 < len(seen.saved) {
						end = seen.saved[i+1].size
					}
					for size := m.size; size <= end; size = next(size, end, tt.phases != nil) {
						arrived := size * (size % 3) / 2
						b.crash(t, m.record, want[:size], want[:arrived])
						if got := b.server.Log(1); got != want {
							t.Fatalf("after record %d, with %d bytes of the log, %d of them sent:\n%q\nwant\n%q", i, size, arrived, got, want)
						}
						if got := b.final(t); got != reported {
							t.Fatalf("after record %d: reported %+v, want %+v", i, got, reported)
						}
					}
				}
				if again := len(b.executor.Begun(1)); again != begun {
					t.Errorf("phases were run again: %d, at first %d", again, begun)
				}
			})
		})
	}
}

// next returns the next place for a crash: the one after, or with coarse some further on, but not past the last one.
func next(size, end int, coarse bool) int {
	if coarse && size < end {
		return min(size+7, end)
	}
	return size + 1
}

// Another version, which tells its own name, goes on with a log whose head the one before it has written.
func TestANewVersionDoesNotRewriteTheHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run(t.Context(), t)
		want := b.server.Log(1)
		rec := tranter.JobRecord{Key: key, Job: payload(1)}
		prepared := want[:strings.LastIndex(strings.TrimSuffix(want, "\n"), "\n")+1]
		for size := len(firstLine(want)); size <= len(prepared); size++ {
			task := b.task(rec)
			task.Settings.Program.Version = "a-much-longer-version"
			b.server = jobtest.NewCoordinator()
			task.Reporter = b.server
			if err := os.MkdirAll(b.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(b.dir, "trace.log"), []byte(want[:size]), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
				t.Fatal(err)
			}
			if got := b.server.Log(1); got != want {
				t.Fatalf("with %d bytes there:\n%q\nwant\n%q", size, got, want)
			}
		}
	})
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line + "\n"
}

// What the server has asked for is done also by the next start, whether it says it again or not.
func TestACancelOutlivesACrash(t *testing.T) {
	for name, c := range map[string]struct {
		stop   tranter.Stop
		reason tranter.FailureReason
	}{
		"cancel": {tranter.StopCancel, tranter.JobCanceled},
		"abort":  {tranter.StopAbort, tranter.JobCanceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				rec := tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()}
				b.executor.Set(1, jobtest.Work{Takes: time.Hour, Output: []string{"x\n"}})
				report, leave := context.WithTimeout(t.Context(), 50*time.Second)
				defer leave()
				told := time.AfterFunc(10*time.Second, func() { b.server.Stop(1, c.stop) })
				defer told.Stop()
				b.executor.Forget(true) // what the agent is told gets lost with the crash
				if _, err := job.Run(t.Context(), report, b.task(rec)); err == nil {
					t.Fatal("the job has ended")
				}
				left, _ := b.records.Jobs(t.Context())
				if len(left) != 1 || left[0].Stop != c.stop {
					t.Fatalf("recorded: %+v", left)
				}
				b.server.Stop(1, tranter.StopNone)
				b.executor.Forget(false)
				began := time.Now()
				result, err := job.Run(t.Context(), t.Context(), b.task(left[0]))
				if err != nil || result.Reason != c.reason || time.Since(began) > time.Minute {
					t.Errorf("%+v, %v after %v", result, err, time.Since(began))
				}
			})
		})
	}
}

// A cancel that comes when a start has not yet attached to the job's agent is as graceful as any.
func TestACancelWhileTheJobIsTakenUpIsGraceful(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.executor.Set(1, jobtest.Work{Takes: time.Hour, Output: []string{"x\n"}})
		report, leave := context.WithTimeout(t.Context(), 10*time.Second)
		defer leave()
		if _, err := job.Run(t.Context(), report, b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})); err == nil {
			t.Fatal("the job has ended")
		}
		left, err := b.records.Jobs(t.Context())
		if err != nil || len(left) != 1 {
			t.Fatal(left, err)
		}
		b.server.Stop(1, tranter.StopCancel)
		began := time.Now()
		task := b.task(left[0])
		task.Executor = slowly{b.executor}
		result, err := job.Run(t.Context(), t.Context(), task)
		if err != nil || result.Reason != tranter.JobCanceled || time.Since(began) > time.Minute {
			t.Errorf("%+v, %v, after %v", result, err, time.Since(began))
		}
		if b.executor.Aborted(1) {
			t.Error("the agent was told to end at once: no after_script has run")
		}
	})
}

// slowly is an executor that takes its time to find a session again.
type slowly struct{ *jobtest.Executor }

func (s slowly) Reopen(ctx context.Context, ref json.RawMessage) (tranter.Session, error) {
	select {
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return s.Executor.Reopen(ctx, ref)
}
