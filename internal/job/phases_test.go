package job_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job"
	"github.com/tranter-ci/tranter/internal/job/jobtest"
)

// splitBench is a bench for a job whose scripts run in one container and the rest in another.
func splitBench(t *testing.T, phases map[string]jobtest.Work) *bench {
	t.Helper()
	b := newBench(t)
	b.split = true
	for id, w := range phases {
		b.executor.SetPhase(1, id, w)
	}
	return b
}

// begun tells of the phases that were started: their IDs, each with how the job stood, and whether it was over.
func (b *bench) begun() string {
	var all []string
	for _, p := range b.executor.Begun(1) {
		s := p.ID
		if p.Prior.Status != "" {
			s += ":" + string(p.Prior.Status)
		}
		if p.Prior.Over {
			s += "!"
		}
		all = append(all, s)
	}
	return strings.Join(all, " ")
}

var scriptDone = tranter.PhaseResult{Status: tranter.PhaseSucceeded, ScriptReached: true}

// What ends a job, and when, decides which phases are still run, how the job ends, and that the last phase, which removes
// what must not stay, is always run.
func TestWhatRunsOfAJobInContainers(t *testing.T) {
	failure := tranter.PhaseResult{Status: tranter.PhaseFailed, Reason: tranter.ScriptFailure, ExitCode: 3, Message: "exit status 3", ScriptReached: true}
	stop := func(s tranter.Stop) func(*bench, context.CancelCauseFunc) {
		return func(b *bench, _ context.CancelCauseFunc) { b.server.Stop(1, s) }
	}
	interrupt := func(_ *bench, cancel context.CancelCauseFunc) {
		cancel(fmt.Errorf("%w: on Sunday", job.ErrInterrupted))
	}
	for name, tt := range map[string]struct {
		phases map[string]jobtest.Work
		during func(*bench, context.CancelCauseFunc) // after 10 minutes
		begun  string
		reason tranter.FailureReason // empty: success
		code   int
		text   string
		within time.Duration
	}{
		"all goes well": {
			map[string]jobtest.Work{"sources": {Takes: time.Minute}, "script": {Takes: time.Minute, Result: scriptDone}, "finish": {Takes: time.Minute}},
			nil,
			"sources script:succeeded finish:succeeded", "", 0, "Job succeeded", 4 * time.Minute,
		},
		"the script fails": {
			map[string]jobtest.Work{"script": {Result: failure}},
			nil,
			"sources script:succeeded finish:failed", tranter.ScriptFailure, 3, "exit status 3", time.Minute,
		},
		"there are no sources": {
			map[string]jobtest.Work{"sources": {Result: tranter.PhaseResult{Status: tranter.PhaseFailed, Reason: tranter.RunnerSystemFailure, Message: "get_sources: no"}}},
			nil,
			"sources finish:failed", tranter.RunnerSystemFailure, 0, "(system failure): get_sources: no", time.Minute,
		},
		"the sources' agent is lost": {
			map[string]jobtest.Work{"sources": {Lost: true}},
			nil,
			"sources finish:failed!", tranter.RunnerSystemFailure, 0, "(system failure): the agent ended without a result", time.Minute,
		},
		"the script's agent is lost": {
			map[string]jobtest.Work{"script": {Lost: true}},
			nil,
			"sources script:succeeded finish:failed!", tranter.RunnerSystemFailure, 0, "(system failure): the agent ended without a result", time.Minute,
		},
		"the image has no shell": {
			map[string]jobtest.Work{"script": {Start: &tranter.ConfigError{Err: errors.New("there is no shell in the image")}}},
			nil,
			"sources finish:failed!", tranter.RunnerConfigurationError, 0, "start the job's agent: there is no shell in the image", time.Minute,
		},
		"the last agent is lost": {
			map[string]jobtest.Work{"finish": {Lost: true}},
			nil,
			"sources script:succeeded finish:succeeded", tranter.RunnerSystemFailure, 0, "the agent ended without a result", time.Minute,
		},
		"the last agent is lost of a job that has failed": {
			map[string]jobtest.Work{"script": {Result: failure}, "finish": {Lost: true}},
			nil,
			"sources script:succeeded finish:failed", tranter.ScriptFailure, 3, "exit status 3", time.Minute,
		},
		"a cancel while sources are fetched": {
			map[string]jobtest.Work{"sources": {Takes: time.Hour}},
			stop(tranter.StopCancel),
			"sources finish:canceled!", tranter.JobCanceled, 0, "canceled", 12 * time.Minute,
		},
		"a cancel that the end of the sources overtakes": {
			map[string]jobtest.Work{"sources": {Takes: 15 * time.Minute, Deaf: true}},
			stop(tranter.StopCancel),
			"sources finish:canceled!", tranter.JobCanceled, 0, "canceled", 17 * time.Minute,
		},
		"a cancel before the script": {
			map[string]jobtest.Work{"script": {Starts: time.Hour / 2}},
			stop(tranter.StopCancel),
			"sources finish:canceled!", tranter.JobCanceled, 0, "canceled", 12 * time.Minute,
		},
		"an abort before the script": {
			map[string]jobtest.Work{"script": {Starts: time.Hour / 2}},
			stop(tranter.StopAbort),
			"sources finish:canceled!", tranter.JobCanceled, 0, "aborted by the server", 12 * time.Minute,
		},
		"a stop of the runner before the script": {
			map[string]jobtest.Work{"script": {Starts: time.Hour / 2}},
			interrupt,
			"sources finish:aborted!", tranter.RunnerInterrupted, 0, "on Sunday", 12 * time.Minute,
		},
		"a stop of the runner during the script": {
			map[string]jobtest.Work{"script": {Takes: time.Hour / 2}},
			interrupt,
			"sources script:succeeded finish:aborted!", tranter.RunnerInterrupted, 0, "on Sunday", 12 * time.Minute,
		},
		"a cancel during the script": {
			map[string]jobtest.Work{"script": {Takes: time.Hour / 2}},
			stop(tranter.StopCancel),
			"sources script:succeeded finish:canceled", tranter.JobCanceled, 0, "canceled", 12 * time.Minute,
		},
		"a cancel after the script": {
			map[string]jobtest.Work{"script": {Result: scriptDone}, "finish": {Starts: 20 * time.Minute, Takes: time.Minute}},
			stop(tranter.StopCancel),
			"sources script:succeeded finish:succeeded", "", 0, "Job succeeded", 23 * time.Minute,
		},
		"the timeout before the script": {
			map[string]jobtest.Work{"script": {Starts: 2 * time.Hour}},
			nil,
			"sources finish:timed_out!", tranter.JobExecutionTimeout, 0, "execution took longer than the job's timeout", 61 * time.Minute,
		},
		"an agent that hangs past the timeout": {
			map[string]jobtest.Work{"script": {Takes: 2 * time.Hour, Deaf: true}},
			nil,
			"sources script:succeeded finish:timed_out!", tranter.JobExecutionTimeout, 0, "execution took longer than the job's timeout", 62 * time.Minute,
		},
		"cleaning up that hangs": {
			map[string]jobtest.Work{"sources": {Lost: true}, "finish": {Takes: time.Hour, Deaf: true}},
			nil,
			"sources finish:failed!", tranter.RunnerSystemFailure, 0, "the agent ended without a result", 5 * time.Minute,
		},
		"cleaning up that hangs after a cancel": {
			map[string]jobtest.Work{"script": {Starts: time.Hour / 2}, "finish": {Takes: time.Hour, Deaf: true}},
			stop(tranter.StopCancel),
			"sources finish:canceled!", tranter.JobCanceled, 0, "canceled", 12 * time.Minute,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := splitBench(t, tt.phases)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.during != nil {
					timer := time.AfterFunc(10*time.Minute, func() { tt.during(b, cancel) })
					defer timer.Stop()
				}
				began := time.Now()
				result, err := job.Run(ctx, t.Context(), b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()}))
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > tt.within {
					t.Errorf("it took %v", took)
				}
				if got := b.begun(); got != tt.begun {
					t.Errorf("phases: %s, want %s", got, tt.begun)
				}
				if result.Reason != tt.reason || result.ExitCode != tt.code {
					t.Errorf("%+v, want %q with code %d", result, tt.reason, tt.code)
				}
				if opened, closed := b.executor.Sessions(1); opened != 1 || closed == 0 {
					t.Errorf("the environment was opened %d times and closed %d times", opened, closed)
				}
				if log := result.Message + b.server.Log(1); !strings.Contains(log, tt.text) {
					t.Errorf("the log lacks %q:\n%s", tt.text, log)
				}
			})
		})
	}
}

// A manager that leaves while a phase runs is followed by one that goes on with that phase, whatever the configuration says
// about containers by then.
func TestAJobGoesOnInThePhaseThatItWasLeftIn(t *testing.T) {
	work := jobtest.Work{Takes: 10 * time.Minute, Output: []string{"x\n"}}
	for left, at := range map[string]time.Duration{"sources": 5 * time.Minute, "script": 15 * time.Minute, "finish": 25 * time.Minute} {
		for _, helper := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				b := splitBench(t, map[string]jobtest.Work{"sources": work, "script": work, "finish": work})
				b.executor.SetPhase(1, "script", jobtest.Work{Takes: 10 * time.Minute, Result: tranter.PhaseResult{Status: tranter.PhaseFailed, Reason: tranter.ScriptFailure, ExitCode: 7, ScriptReached: true}})
				report, leave := context.WithTimeout(t.Context(), at)
				defer leave()
				if _, err := job.Run(t.Context(), report, b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})); err == nil {
					t.Fatal("the job has ended")
				}
				records, _ := b.records.Jobs(t.Context())
				if len(records) != 1 || records[0].Phase != left {
					t.Fatalf("recorded: %+v, want phase %s", records, left)
				}
				task := b.task(records[0])
				task.Settings.Helper = helper
				result, err := job.Run(t.Context(), t.Context(), task)
				if err != nil || result.Reason != tranter.ScriptFailure || result.ExitCode != 7 {
					t.Errorf("%+v, %v", result, err)
				}
				if got := b.begun(); got != "sources script:succeeded finish:failed" {
					t.Errorf("left in %s: %s", left, got)
				}
			})
		}
	}
}

// A job that was left without a result of its phases, by a version that has other ones, is not begun again.
func TestAPhaseThatIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := splitBench(t, nil)
		rec := tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now(), Session: []byte("1"), PhaseState: tranter.PhaseState{Helper: true, Phase: "warmup"}}
		result, err := job.Run(t.Context(), t.Context(), b.task(rec))
		if err != nil || result.Reason != tranter.RunnerSystemFailure || !strings.Contains(result.Message, "\"warmup\"") || b.begun() != "" {
			t.Errorf("%+v, %v, begun: %s", result, err, b.begun())
		}
	})
}

// The log's limit is for all phases together, and that it was reached is said once.
func TestTheLimitOfTheLogIsForAllPhases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := splitBench(t, map[string]jobtest.Work{"sources": {Output: []string{strings.Repeat("s", 1000)}}, "script": {Output: []string{strings.Repeat("x", 2000)}}})
		task := b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})
		task.Settings.OutputLimit = 2500
		if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
			t.Fatal(err)
		}
		var limits []int64
		var full []bool
		for _, p := range b.executor.Begun(1) {
			limits, full = append(limits, p.Log.LimitBytes), append(full, p.Log.Full)
			if p.Log.LimitWhole != 2500 {
				t.Errorf("%s: %+v", p.ID, p.Log)
			}
		}
		if len(limits) != 3 || limits[0]-limits[1] != 1000 || limits[2] != 1 || !cmp.Equal(full, []bool{false, false, true}) {
			t.Errorf("limits %v, full %v", limits, full)
		}
	})
}

// What a job has put in its agent's place may write without end and say anything of how the job ended.
func TestAnAgentThatIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flood := make([]string, 300)
		for i := range flood {
			flood[i] = strings.Repeat("x", 1<<10)
		}
		b := splitBench(t, map[string]jobtest.Work{"script": {Takes: time.Second, Output: flood, Result: scriptDone}})
		task := b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})
		task.Settings.OutputLimit = 10 << 10
		result, err := job.Run(t.Context(), t.Context(), task)
		if err != nil || result.State != tranter.JobFailed || !strings.Contains(result.Message, "more than the log may have") {
			t.Errorf("%+v, %v", result, err)
		}
		if log := b.server.Log(1); len(log) > 100<<10 {
			t.Errorf("the log has %d bytes", len(log))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := splitBench(t, map[string]jobtest.Work{"script": {Result: tranter.PhaseResult{
			Status: tranter.PhaseFailed, Reason: "no reason\n", Message: strings.Repeat("m\xff", 1<<20), Steps: make([]tranter.StepRecord, 5000), Over: true,
		}}})
		result, err := job.Run(t.Context(), t.Context(), b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()}))
		if err != nil || result.Reason != tranter.RunnerSystemFailure || len(result.Message) > 20<<10 || strings.Contains(result.Message, "\xff") {
			t.Errorf("%s, %d bytes, %v", result.Reason, len(result.Message), err)
		}
		for _, p := range b.executor.Begun(1) {
			if len(p.Prior.Steps) > 1000 || len(p.Prior.Message) > 20<<10 {
				t.Errorf("%s: told of %d steps, %d bytes", p.ID, len(p.Prior.Steps), len(p.Prior.Message))
			}
		}
	})
}

// What an agent tells of what was used is kept as far as it can be true.
func TestNumbersThatNoAgentTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = math.MaxInt64
		now := time.Now()
		b := newRemembered(t)
		samples := tranter.UsageSamples{
			{At: now.Add(time.Hour), CPU: 1, Memory: 5},
			{At: now, CPU: 2},
			{At: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC), CPU: 3},
			{At: time.Time{}, CPU: 4},
			{At: now.Add(2 * time.Hour), CPU: -1, Memory: -5, Disk: most},
		}
		for range 1000 {
			samples = append(samples, tranter.UsageSample{At: now.Add(3 * time.Hour), CPU: 1e300})
		}
		b.executor.Set(1, jobtest.Work{Result: tranter.PhaseResult{
			Status: tranter.PhaseSucceeded, CPUTime: most, MaxMemory: most, MaxDisk: -1, Samples: samples,
			Steps: []tranter.StepRecord{{Name: strings.Repeat("n", 1<<20), Started: most, Ended: -most}},
		}})
		if _, err := job.Run(t.Context(), t.Context(), b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: now})); err != nil {
			t.Fatal(err)
		}
		h := b.kept(t)
		if u := h.Usage; u.CPUTime < 0 || u.MaxMemory < 0 || u.MaxDisk != 0 || len(u.Samples) != 3 || u.Samples[1].CPU != 0 || u.Samples[1].Memory != 0 {
			t.Errorf("usage %+v", u)
		}
		step := h.Stages[slices.IndexFunc(h.Stages, func(s tranter.JobStage) bool { return len(s.Steps) > 0 })].Steps[0]
		if len(step.Name) > 100 || step.Started > now.Add(48*time.Hour).UnixMilli() || step.Ended < step.Started {
			t.Errorf("step %+v", step)
		}
		data, err := json.Marshal(h)
		if err != nil || len(data) > 10<<10 {
			t.Errorf("%d bytes, %v", len(data), err)
		}
	})
}

// Users get into the container in which the scripts run, once they may run.
func TestATerminalIsWhereTheScriptsAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := splitBench(t, map[string]jobtest.Work{"sources": {Takes: 10 * time.Minute}, "script": {Takes: time.Minute}})
		task := b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})
		task.Door = job.NewDoor()
		began := time.Now()
		var owned sync.WaitGroup
		owned.Go(func() {
			term, err := task.Door.Open(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if waited := time.Since(began); waited < 10*time.Minute || waited > 11*time.Minute {
				t.Errorf("opened after %v", waited)
			}
			_ = term.Close()
		})
		if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
			t.Error(err)
		}
		owned.Wait()
		if got := b.executor.Terminals(1); !cmp.Equal(got, []string{"script"}) {
			t.Errorf("terminals: %v", got)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a job that never gets that far
		b := splitBench(t, map[string]jobtest.Work{"sources": {Takes: time.Minute, Result: tranter.PhaseResult{Status: tranter.PhaseFailed}}})
		task := b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})
		task.Door = job.NewDoor()
		var owned sync.WaitGroup
		owned.Go(func() {
			if _, err := task.Door.Open(t.Context()); !errors.Is(err, tranter.ErrJobEnded) {
				t.Error(err)
			}
		})
		if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
			t.Error(err)
		}
		owned.Wait()
	})
}

// What was tried often enough where it failed is not tried again here.
func TestFaultsThatAreNotTriedAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		known  bool
		tries  int
		reason tranter.FailureReason
	}{
		"no image":                            {&tranter.PullError{Err: errors.New("pull the image x: denied")}, true, 1, tranter.ImagePullFailure},
		"no image, to an older server":        {&tranter.PullError{Err: errors.New("pull the image x: denied")}, false, 1, tranter.RunnerSystemFailure},
		"no registry":                         {&tranter.DependencyError{Err: errors.New("the registry does not answer")}, true, 1, tranter.ExternalDependencyFailure},
		"no such user":                        {&tranter.ConfigError{Err: errors.New("no user x")}, true, 1, tranter.RunnerConfigurationError},
		"an engine that has not come up yet":  {errors.New("connection refused"), true, 3, tranter.RunnerSystemFailure},
		"a wrapped one, as executors give it": {fmt.Errorf("make it: %w", &tranter.PullError{Err: errors.New("pull the image x: denied")}), true, 1, tranter.ImagePullFailure},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.executor.Set(1, jobtest.Work{Open: tt.err})
				j := payload(1)
				if tt.known {
					j.Features.FailureReasons = append(j.Features.FailureReasons, tranter.ImagePullFailure, tranter.ExternalDependencyFailure)
				}
				if _, err := job.Run(t.Context(), t.Context(), b.task(tranter.JobRecord{Key: key, Job: j, Taken: time.Now()})); err != nil {
					t.Fatal(err)
				}
				if u := b.final(t); u.Reason != tt.reason {
					t.Errorf("reported %+v", u)
				}
				if tries := b.executor.Tries(1); tries != tt.tries {
					t.Errorf("tried %d times", tries)
				}
				if log := b.server.Log(1); !strings.Contains(log, "prepare the environment: ") || !strings.Contains(log, tt.err.Error()) {
					t.Errorf("log:\n%s", log)
				}
			})
		})
	}
}

// cutOff is an executor whose engine is gone once a phase runs.
type cutOff struct{ *jobtest.Executor }

type cutOffSession struct{ tranter.Session }

func (c cutOff) Open(ctx context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	s, err := c.Executor.Open(ctx, spec)
	return cutOffSession{s}, err
}

func (cutOffSession) Attach(context.Context, string, int64, io.Writer) (tranter.PhaseResult, error) {
	return tranter.PhaseResult{}, fmt.Errorf("the engine has not answered for 5m0s: %w", tranter.ErrAgentLost)
}

// An executor that has waited long enough for its engine ends the job.
func TestAnEngineThatIsGoneForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := splitBench(t, nil)
		task := b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})
		task.Executor = cutOff{b.executor}
		began := time.Now()
		if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
			t.Fatal(err)
		}
		if u := b.final(t); u.Reason != tranter.RunnerSystemFailure || time.Since(began) > time.Minute {
			t.Errorf("reported %+v after %v", u, time.Since(began))
		}
		if log := b.server.Log(1); !strings.Contains(log, "Job failed (system failure): the engine has not answered for 5m0s") {
			t.Errorf("log:\n%s", log)
		}
	})
}
