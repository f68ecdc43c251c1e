package job_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job"
	"github.com/tranter-ci/tranter/internal/job/jobtest"
	"github.com/tranter-ci/tranter/internal/plan"
)

// bench is a job and what it runs on.
type bench struct {
	server   *jobtest.Coordinator
	executor *jobtest.Executor
	records  *jobtest.Records
	dir      string
	split    bool // jobs run in containers, with a helper
}

func newBench(t testing.TB) *bench {
	b := &bench{server: jobtest.NewCoordinator(), executor: jobtest.NewExecutor(), records: jobtest.NewRecords(), dir: filepath.Join(t.TempDir(), "job")}
	t.Cleanup(b.executor.Close)
	return b
}

const key = "key"

func payload(id int64) *tranter.Job {
	return &tranter.Job{
		ID: id, Token: "job-token", Info: tranter.JobInfo{Name: "test", ProjectID: 1}, Runner: tranter.RunnerInfo{Timeout: 3600},
		Git:       tranter.GitInfo{RepoURL: "https://gitlab.example.com/group/project.git", SHA: "0123456789abcdef"},
		Variables: []tranter.Variable{{Key: "GIT_STRATEGY", Value: "none"}},
		Steps:     []tranter.JobStep{{Name: "script", Script: []string{"true"}}},
		Features:  tranter.JobFeatures{FailureReasons: []tranter.FailureReason{tranter.JobCanceled, tranter.RunnerInterrupted, tranter.RunnerConfigurationError}},
	}
}

func (b *bench) task(rec tranter.JobRecord) job.Task {
	return job.Task{
		Record: rec, Executor: b.executor, Reporter: b.server, Records: b.records, Dir: b.dir, Log: slog.New(slog.DiscardHandler),
		Settings: plan.Settings{Containers: plan.Containers{Container: b.split, Helper: b.split}, Name: "runner", Executor: "memory", Shell: "bash", OutputLimit: 1 << 20, Dirs: plan.DirSettings{Builds: "/builds", Cache: "/cache"}},
	}
}

func (b *bench) run(ctx context.Context, t *testing.T) tranter.Result {
	t.Helper()
	result, err := job.Run(ctx, t.Context(), b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()}))
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// final returns what the server was told, after checking that nothing is left of the job here.
func (b *bench) final(t *testing.T) tranter.Update {
	t.Helper()
	u, ok := b.server.Final(1)
	if !ok {
		t.Fatal("the server was not told how the job ended")
	}
	if left, _ := b.records.Jobs(t.Context()); len(left) > 0 {
		t.Errorf("still recorded: %v", left)
	}
	if m, _ := filepath.Glob(filepath.Join(b.dir, "*")); len(m) > 0 {
		t.Errorf("left behind: %v", m)
	}
	if opened, closed := b.executor.Sessions(1); closed == 0 && opened > 0 {
		t.Errorf("the environment was opened %d times and not closed", opened)
	}
	return u
}

func TestAJobIsAcceptedRunAndReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.executor.Set(1, jobtest.Work{Takes: 10 * time.Second, Output: []string{"one\n", "two\n"}})
		b.run(t.Context(), t)
		if u := b.final(t); u.State != tranter.JobSuccess || !b.server.Accepted(1) {
			t.Errorf("final update %+v, accepted %v", u, b.server.Accepted(1))
		}
		log := b.server.Log(1)
		for _, want := range []string{"Running with tranter", "Using the executor in memory", "one\ntwo\n", "Job succeeded"} {
			if !strings.Contains(log, want) {
				t.Errorf("the log lacks %q:\n%s", want, log)
			}
		}
	})
}

func TestAFailedScriptIsReportedWithItsExitCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.executor.Set(1, jobtest.Work{Result: tranter.PhaseResult{Status: tranter.PhaseFailed, Reason: tranter.ScriptFailure, ExitCode: 3, Message: "exit status 3"}})
		b.run(t.Context(), t)
		if u := b.final(t); u.State != tranter.JobFailed || u.Reason != tranter.ScriptFailure || u.ExitCode != 3 {
			t.Errorf("final update %+v", u)
		}
		if log := b.server.Log(1); !strings.Contains(log, "ERROR: Job failed: exit status 3") {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestCancelIsGracefulAndAbortDropsTheJob(t *testing.T) {
	for stop, reason := range map[tranter.Stop]tranter.FailureReason{tranter.StopCancel: tranter.JobCanceled, tranter.StopAbort: ""} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.executor.Set(1, jobtest.Work{Takes: time.Hour, Output: []string{"x\n"}})
			timer := time.AfterFunc(time.Minute, func() { b.server.Stop(1, stop) })
			defer timer.Stop()
			started := time.Now()
			result := b.run(t.Context(), t)
			if result.Reason != tranter.JobCanceled {
				t.Errorf("result %+v", result)
			}
			if took := time.Since(started); took > 2*time.Minute {
				t.Errorf("it took %v to end", took)
			}
			u, told := b.server.Final(1)
			if told != (reason != "") || u.Reason != reason {
				t.Errorf("the server was told %+v, %v", u, told)
			}
			if _, closed := b.executor.Sessions(1); closed != 1 {
				t.Errorf("closed %d times", closed)
			}
		})
	}
}

func TestAJobThatTheServerDoesNotWantAnyMoreIsNotRun(t *testing.T) {
	for _, stop := range []tranter.Stop{tranter.StopCancel, tranter.StopAbort} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.server.Stop(1, stop)
			b.run(t.Context(), t)
			if opened, _ := b.executor.Sessions(1); opened != 0 {
				t.Error("an environment was made for it")
			}
		})
	}
}

func TestAnAcceptanceThatDoesNotGetThroughIsRepeatedThenTheJobIsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.server.Fail(errors.New("connection refused"))
		timer := time.AfterFunc(20*time.Minute, func() { b.server.Fail(nil) })
		defer timer.Stop()
		b.executor.Set(1, jobtest.Work{Takes: time.Second, Output: []string{"done\n"}})
		if r := b.run(t.Context(), t); r.State != tranter.JobSuccess {
			t.Errorf("result %+v", r)
		}
		if u := b.final(t); u.State != tranter.JobSuccess {
			t.Errorf("final update %+v", u)
		}
	})
}

func TestInterruptReportsTheJobAsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.executor.Set(1, jobtest.Work{Takes: time.Hour, Output: []string{"x\n"}})
		ctx, stop := context.WithCancelCause(t.Context())
		timer := time.AfterFunc(time.Minute, func() { stop(job.ErrInterrupted) })
		defer timer.Stop()
		b.run(ctx, t)
		if u := b.final(t); u.Reason != tranter.RunnerInterrupted {
			t.Errorf("final update %+v", u)
		}
	})
}

// A job that takes longer to end than the manager may is reported by the next one.
func TestAnInterruptIsStillKnownAfterARestart(t *testing.T) {
	for status, want := range map[tranter.PhaseStatus]tranter.FailureReason{tranter.PhaseAborted: tranter.RunnerInterrupted, tranter.PhaseSucceeded: ""} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.executor.Set(1, jobtest.Work{Takes: time.Minute, Deaf: true, Result: tranter.PhaseResult{Status: status, Reason: tranter.JobCanceled}})
			ctx, interrupt := context.WithCancelCause(t.Context())
			timer := time.AfterFunc(10*time.Second, func() { interrupt(job.ErrInterrupted) })
			defer timer.Stop()
			report, leave := context.WithTimeout(t.Context(), 13*time.Second)
			defer leave()
			if _, err := job.Run(ctx, report, b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})); err == nil {
				t.Fatal("the job ended within three seconds")
			}
			left, err := b.records.Jobs(t.Context())
			if err != nil || len(left) != 1 {
				t.Fatalf("recorded: %v, %v", left, err)
			}
			if _, err := job.Run(t.Context(), t.Context(), b.task(left[0])); err != nil {
				t.Fatal(err)
			}
			if u := b.final(t); u.Reason != want {
				t.Errorf("%s: final update %+v", status, u)
			}
		})
	}
}

func TestPreparationIsTriedAgainUnlessTheConfigurationIsAtFault(t *testing.T) {
	for err, tries := range map[error]int{errors.New("no room"): 3, error(&tranter.ConfigError{Err: errors.New("no such user")}): 1} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.executor.Set(1, jobtest.Work{Open: err})
			b.run(t.Context(), t)
			if tried := b.executor.Tries(1); tried != tries {
				t.Errorf("%v: %d tries, want %d", err, tried, tries)
			}
			if u := b.final(t); u.State != tranter.JobFailed || !strings.Contains(b.server.Log(1), err.Error()) {
				t.Errorf("final update %+v, log\n%s", u, b.server.Log(1))
			}
		})
	}
}

func TestALostAgentIsASystemFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.executor.Set(1, jobtest.Work{Output: []string{"half a li"}, Lost: true})
		b.run(t.Context(), t)
		if u := b.final(t); u.Reason != tranter.RunnerSystemFailure {
			t.Errorf("final update %+v", u)
		}
		if log := b.server.Log(1); !strings.Contains(log, "half a li") {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestTheServerMayAskAgainAndDemandTheLogAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.server.Verdicts(1, tranter.NotYet, tranter.Resend, tranter.NotYet)
		b.executor.Set(1, jobtest.Work{Output: []string{"text\n"}})
		b.run(t.Context(), t)
		b.final(t)
	})
}

func TestAJobThatCantBePlannedFailsWithAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		j := payload(1)
		j.Run = `[{"name":"x"}]`
		result, err := job.Run(t.Context(), t.Context(), b.task(tranter.JobRecord{Key: key, Job: j}))
		if err != nil || result.Reason != tranter.RunnerSystemFailure {
			t.Errorf("result %+v, %v", result, err)
		}
		if log := b.server.Log(1); !strings.Contains(log, "run: steps") {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestAJobOfWhichNothingCanBeKeptIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		if err := os.WriteFile(b.dir, nil, 0o600); err != nil { // in the place of the directory
			t.Fatal(err)
		}
		b.server.Fail(errors.New("connection refused"))
		timer := time.AfterFunc(time.Minute, func() { b.server.Fail(nil) })
		defer timer.Stop()
		if r := b.run(t.Context(), t); r.Reason != tranter.RunnerSystemFailure {
			t.Errorf("result %+v", r)
		}
		if u := b.final(t); u.State != tranter.JobFailed || u.Reason != tranter.RunnerSystemFailure {
			t.Errorf("final update %+v", u)
		}
		if opened, _ := b.executor.Sessions(1); opened != 0 {
			t.Error("it was run")
		}
	})
}

// A manager may end at any moment while the job's agent works on. Whoever goes on from the record brings the same log
// and the same end to the server as if nothing had happened.
func TestTheJobGoesOnWhereItsRecordLeavesOff(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		pieces := rapid.IntRange(1, 6).Draw(rt, "pieces")
		ends := rapid.SliceOfN(rapid.IntRange(0, 40), 0, 4).Draw(rt, "ends")
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			var output []string
			for i := range pieces {
				output = append(output, fmt.Sprintf("line %d\n", i))
			}
			b.executor.Set(1, jobtest.Work{Takes: 5 * time.Second, Output: output})
			rec := tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()}
			for _, after := range ends {
				// The end of report is how a manager leaves a job that goes on by itself.
				report, leave := context.WithTimeout(t.Context(), time.Duration(after)*time.Second+time.Millisecond)
				_, err := job.Run(t.Context(), report, b.task(rec))
				leave()
				if err == nil {
					break
				}
				left, _ := b.records.Jobs(t.Context())
				rec = left[0]
			}
			if _, done := b.server.Final(1); !done {
				if _, err := job.Run(t.Context(), t.Context(), b.task(rec)); err != nil {
					t.Fatal(err)
				}
			}
			b.executor.Close()
			log := b.server.Log(1)
			if want := strings.Join(output, ""); strings.Count(log, want) != 1 || strings.Count(log, "line") != pieces {
				t.Errorf("the log has not each line once:\n%s", log)
			}
			if strings.Count(log, "Running with tranter") != 1 || strings.Count(log, "Job succeeded") != 1 {
				t.Errorf("head or end are not there once:\n%s", log)
			}
		})
	})
}
