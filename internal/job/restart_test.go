package job_test

import (
	"context"
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

// lossy is a bench of a job whose first machines are lost in a phase; it says itself whether it starts again.
func lossy(t *testing.T, machines int, phase, says string) (*bench, *tranter.Job) {
	t.Helper()
	b := newBench(t)
	b.split = true
	b.lose(machines, phase)
	j := payload(1)
	if says != "" {
		j.Variables = append(j.Variables, tranter.Variable{Key: "TRANTER_RESTART_LOST", Value: says})
	}
	return b, j
}

func (b *bench) lose(machines int, phase string) {
	for _, id := range []string{"sources", "script", "finish"} {
		w := jobtest.Work{Takes: time.Minute, Output: []string{"in " + id + "\n", "cut off"}}
		if id == phase {
			w.MachineLost = machines
		}
		b.executor.SetPhase(1, id, w)
	}
}

// end runs a job and returns how it was reported, and its log.
func (b *bench) end(t *testing.T, task job.Task) (tranter.Update, string) {
	t.Helper()
	if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
		t.Fatal(err)
	}
	return b.final(t), b.server.Log(1)
}

func TestAJobWhoseMachineWasLostStartsAgainIfItSaysSo(t *testing.T) {
	for _, phase := range []string{"sources", "script", "finish"} {
		synctest.Test(t, func(t *testing.T) {
			b, j := lossy(t, 2, phase, "true")
			u, log := b.end(t, b.task(tranter.JobRecord{Key: key, Job: j, Taken: time.Now()}))
			if u.State != tranter.JobSuccess {
				t.Errorf("%s: %+v\n%s", phase, u, log)
			}
			if opened, closed := b.executor.Sessions(1); opened != 3 || closed < 1 {
				t.Errorf("%s: opened %d environments, closed %d", phase, opened, closed)
			}
			for _, want := range []string{
				"The machine was lost; the job starts again on another one (attempt 2 of 3)",
				"The machine was lost; the job starts again on another one (attempt 3 of 3)", "Job succeeded",
			} {
				if strings.Count(log, want) != 1 {
					t.Errorf("%s: not once %q:\n%s", phase, want, log)
				}
			}
			if n := strings.Count(log, "in sources\n"); n != 3 {
				t.Errorf("%s: the sources were got %d times", phase, n)
			}
		})
	}
}

func TestWhoStartsAgainAndWhoDoesNot(t *testing.T) {
	for name, c := range map[string]struct {
		says     string
		runner   bool // the configuration
		machines int
		output   string // of the phase before
		want     string // in the message of a failure; empty: the job succeeds
		opened   int
	}{
		"nobody has asked for it":        {machines: 1, opened: 1, want: "the machine was lost"},
		"the runner's wish":              {machines: 1, runner: true, opened: 2},
		"the job's word counts":          {machines: 1, runner: true, says: "false", opened: 1, want: "TRANTER_RESTART_LOST"},
		"three machines are enough":      {machines: 3, says: "true", opened: 3, want: "attempt 3 of 3"},
		"artifacts can't be sent twice":  {machines: 1, says: "1", output: "Uploading artifacts for successful job\n", opened: 1, want: "artifacts"},
		"a script that says such things": {machines: 1, says: "1", output: "Uploading is fun\n", opened: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, j := lossy(t, c.machines, "script", c.says)
				if c.output != "" {
					b.executor.SetPhase(1, "sources", jobtest.Work{Output: []string{c.output}})
				}
				task := b.task(tranter.JobRecord{Key: key, Job: j, Taken: time.Now()})
				task.Settings.RestartLost = c.runner
				u, log := b.end(t, task)
				if opened, _ := b.executor.Sessions(1); opened != c.opened {
					t.Errorf("%d environments, want %d", opened, c.opened)
				}
				if c.want == "" {
					if u.State != tranter.JobSuccess {
						t.Errorf("%+v\n%s", u, log)
					}
					return
				}
				if u.Reason != tranter.RunnerSystemFailure || !strings.Contains(log, c.want) || !strings.Contains(log, "the machine was lost") {
					t.Errorf("%+v, want %q in\n%s", u, c.want, log)
				}
			})
		})
	}
}

func TestAJobThatIsToEndDoesNotStartAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, j := lossy(t, 1, "script", "true")
		w := jobtest.Work{Takes: time.Minute, Output: []string{"a\n", "b\n"}, MachineLost: 1, Deaf: true}
		b.executor.SetPhase(1, "script", w)
		timer := time.AfterFunc(150*time.Second, func() { b.server.Stop(1, tranter.StopCancel) })
		defer timer.Stop()
		if u, log := b.end(t, b.task(tranter.JobRecord{Key: key, Job: j, Taken: time.Now()})); u.Reason != tranter.JobCanceled {
			t.Errorf("%+v\n%s", u, log)
		}
		if opened, _ := b.executor.Sessions(1); opened != 1 {
			t.Errorf("%d environments", opened)
		}
	})
}

// The time that was lost with a machine is the job's: its timeout is for the whole.
func TestTheTimeoutOfAJobThatStartsAgainGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, j := lossy(t, 1, "script", "true")
		j.Runner.Timeout = 600
		b.executor.SetPhase(1, "script", jobtest.Work{Takes: 8 * time.Minute, Output: []string{"a\n"}, MachineLost: 1})
		began := time.Now()
		u, log := b.end(t, b.task(tranter.JobRecord{Key: key, Job: j, Taken: time.Now()}))
		if u.Reason != tranter.JobExecutionTimeout {
			t.Errorf("%+v\n%s", u, log)
		}
		if took := time.Since(began); took > 12*time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

func TestWhatALostMachineLeavesOpenInTheLogIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, j := lossy(t, 1, "script", "true")
		j.Features.TraceSections = true
		b.executor.SetPhase(1, "script", jobtest.Work{MachineLost: 1, Output: []string{
			"section_start:1:outer\r\x1b[0Kx\nsection_start:1:done\r\x1b[0Ksection_end:2:done\r\x1b[0K", "section_start:3:inner[collapsed=true]\r\x1b[0Kin the middle",
		}})
		_, log := b.end(t, b.task(tranter.JobRecord{Key: key, Job: j, Taken: time.Now()}))
		before, _, lost := strings.Cut(log, "The machine was lost")
		inner, outer := strings.LastIndex(before, ":inner\r"), strings.LastIndex(before, ":outer\r")
		if !lost || inner < 0 || outer < inner || strings.Count(before, "section_end:2:done") != 1 || !strings.Contains(before, "in the middle\n") {
			t.Errorf("%q", log)
		}
	})
}

// Wherever a crash falls, the job comes to the same end with the same log, and no environment is forgotten.
func TestTheLogOfAJobThatStartsAgainIsTheSameWhereverACrashFalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, j := lossy(t, 1, "script", "true")
		j.Variables = append(j.Variables, tranter.Variable{Key: "FF_TIMESTAMPS", Value: "false"})
		j.Runner.Timeout = 1 << 22 // the clock goes on from crash to crash
		seen := &witness{Records: b.records, spool: filepath.Join(b.dir, "trace.log")}
		first := tranter.JobRecord{Key: key, Job: j, Taken: time.Now()}
		if err := seen.Save(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		task := b.task(first)
		task.Records = seen
		reported, want := b.end(t, task)
		lost := 0
		for i, m := range seen.saved {
			if len(m.record.Lost) > 0 {
				lost++
			}
			end := len(want)
			if i+1 < len(seen.saved) {
				end = seen.saved[i+1].size
			}
			for size := m.size; size <= end; size = next(size, end, true) {
				b.executor = jobtest.NewExecutor()
				b.executor.Lose(1, m.record.Restarts)
				b.lose(1, "script")
				b.crash(t, m.record, want[:size], want[:size/2])
				b.executor.Close()
				if got := b.server.Log(1); got != want {
					t.Fatalf("after record %d, with %d bytes of the log:\n%q\nwant\n%q", i, size, got, want)
				}
				if got := b.final(t); got != reported {
					t.Fatalf("after record %d: reported %+v, want %+v", i, got, reported)
				}
			}
		}
		if lost != 1 {
			t.Errorf("%d records of a lost environment", lost)
		}
	})
}

func TestAMachineThatWasLostWhileTheManagerWasAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, j := lossy(t, 0, "", "true")
		report, leave := context.WithTimeout(t.Context(), 90*time.Second)
		defer leave()
		if _, err := job.Run(t.Context(), report, b.task(tranter.JobRecord{Key: key, Job: j, Taken: time.Now()})); err == nil {
			t.Fatal("the job has ended")
		}
		left, err := b.records.Jobs(t.Context())
		if err != nil || len(left) != 1 {
			t.Fatal(left, err)
		}
		b.executor.Lose(1, 1)
		if _, err := os.Stat(b.dir); err != nil {
			t.Fatal(err)
		}
		if u, log := b.end(t, b.task(left[0])); u.State != tranter.JobSuccess || strings.Count(log, "(attempt 2 of 3)") != 1 {
			t.Errorf("%+v\n%s", u, log)
		}
	})
}

// A machine that is lost before the job has it is an ordinary failure of the preparation, which is tried again.
func TestAMachineThatIsLostInPreparationIsNoRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, j := lossy(t, 0, "", "true")
		b.executor.Set(1, jobtest.Work{Open: tranter.ErrMachineLost})
		u, log := b.end(t, b.task(tranter.JobRecord{Key: key, Job: j, Taken: time.Now()}))
		if u.Reason != tranter.RunnerSystemFailure || b.executor.Tries(1) != 3 || strings.Contains(log, "attempt") {
			t.Errorf("%+v after %d tries\n%s", u, b.executor.Tries(1), log)
		}
	})
}
