package job_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job"
	"github.com/tranter-ci/tranter/internal/job/jobtest"
)

// A terminal that is attached at the job's end holds the environment, as long as is allowed, and nothing longer.
func TestHowLongATerminalHoldsTheEnvironment(t *testing.T) {
	for name, tt := range map[string]struct {
		takes  time.Duration // the job
		linger time.Duration
		during func(b *bench, term tranter.Terminal, end chan struct{}) // 10 minutes after the job's end
		want   time.Duration
	}{
		"to the limit":             {time.Minute, 30 * time.Minute, nil, 31 * time.Minute},
		"to the job's timeout":     {50 * time.Minute, 30 * time.Minute, nil, time.Hour},
		"not at all":               {time.Minute, 0, nil, time.Minute},
		"until it is closed":       {time.Minute, 30 * time.Minute, func(_ *bench, term tranter.Terminal, _ chan struct{}) { _ = term.Close() }, 11 * time.Minute},
		"until the manager drains": {time.Minute, 30 * time.Minute, func(_ *bench, _ tranter.Terminal, end chan struct{}) { close(end) }, 11 * time.Minute},
		"until it is cancelled":    {time.Minute, 30 * time.Minute, func(b *bench, _ tranter.Terminal, _ chan struct{}) { b.server.Stop(1, tranter.StopCancel) }, 11 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.executor.Set(1, jobtest.Work{Takes: tt.takes, Result: tranter.PhaseResult{Status: tranter.PhaseSucceeded}})
				task := b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})
				end := make(chan struct{})
				task.Door, task.Linger, task.Ending = job.NewDoor(), tt.linger, end
				var stages []string
				task.Stage = func(s string) { stages = append(stages, s) }
				began := time.Now()
				var owned sync.WaitGroup
				var term tranter.Terminal
				owned.Go(func() {
					var err error
					if term, err = task.Door.Open(t.Context()); err != nil {
						t.Error(err)
					}
					if tt.during != nil {
						<-time.After(tt.takes + 10*time.Minute)
						tt.during(b, term, end)
					}
				})
				result, err := job.Run(t.Context(), t.Context(), task)
				took := time.Since(began)
				if err != nil || result.State != tranter.JobSuccess {
					t.Errorf("%+v, %v", result, err)
				}
				if took < tt.want || took > tt.want+2*time.Minute {
					t.Errorf("the environment was held for %v, want %v", took, tt.want)
				}
				if waited := strings.Contains(strings.Join(stages, "\n"), "terminal open, until "); waited != (tt.linger > 0) {
					t.Errorf("stages: %q", stages)
				}
				if shown := strings.Count(b.server.Log(1), "A terminal is attached"); shown != 0 && tt.linger == 0 || shown != 1 && tt.linger > 0 {
					t.Errorf("log:\n%s", b.server.Log(1))
				}
				owned.Wait()
				if _, err := term.Read(make([]byte, 1)); err == nil {
					t.Error("the terminal is still open")
				}
				if _, err := task.Door.Open(t.Context()); !errors.Is(err, tranter.ErrJobEnded) {
					t.Errorf("after the job: %v", err)
				}
				b.final(t)
			})
		})
	}
}

func TestOneTerminalAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.executor.Set(1, jobtest.Work{Takes: time.Hour / 2, Result: tranter.PhaseResult{Status: tranter.PhaseSucceeded}})
		task := b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})
		task.Door = job.NewDoor()
		brief, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if _, err := task.Door.Open(brief); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before there is an environment: %v", err)
		}
		var owned sync.WaitGroup
		var early tranter.Terminal
		owned.Go(func() { // it waits
			var err error
			if early, err = task.Door.Open(t.Context()); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if _, err := task.Door.Open(t.Context()); !errors.Is(err, tranter.ErrTerminalBusy) {
			t.Errorf("while another one is on its way: %v", err)
		}
		var done sync.WaitGroup
		done.Go(func() {
			if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
				t.Error(err)
			}
		})
		owned.Wait()
		if _, err := task.Door.Open(t.Context()); !errors.Is(err, tranter.ErrTerminalBusy) || !task.Door.Attached() {
			t.Errorf("while another one is open: %v", err)
		}
		_ = early.Close()
		_ = early.Close()
		if task.Door.Attached() {
			t.Error("still attached")
		}
		if _, err := task.Door.Open(t.Context()); err != nil { // left open: the job's end closes it
			t.Error(err)
		}
		done.Wait()
	})
}

// plain has sessions without terminals.
type plain struct{ tranter.Executor }

type plainSession struct{ tranter.Session }

func (p plain) Open(ctx context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	s, err := p.Executor.Open(ctx, spec)
	return plainSession{s}, err
}

func (p plain) Reopen(ctx context.Context, ref json.RawMessage) (tranter.Session, error) {
	s, err := p.Executor.Reopen(ctx, ref)
	return plainSession{s}, err
}

func TestWhoWaitsForATerminalInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.executor.Set(1, jobtest.Work{Takes: time.Minute, Result: tranter.PhaseResult{Status: tranter.PhaseSucceeded}})
		task := b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})
		task.Executor, task.Door = plain{b.executor}, job.NewDoor()
		var owned sync.WaitGroup
		owned.Go(func() {
			if _, err := task.Door.Open(t.Context()); !errors.Is(err, tranter.ErrNoTerminal) {
				t.Errorf("an executor without terminals: %v", err)
			}
		})
		if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
			t.Error(err)
		}
		owned.Wait()
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.executor.Set(1, jobtest.Work{Open: &tranter.ConfigError{Err: errors.New("no environment")}})
		task := b.task(tranter.JobRecord{Key: key, Job: payload(1), Taken: time.Now()})
		task.Door = job.NewDoor()
		var owned sync.WaitGroup
		owned.Go(func() {
			if _, err := task.Door.Open(t.Context()); !errors.Is(err, tranter.ErrJobEnded) {
				t.Errorf("a job that gets no environment: %v", err)
			}
		})
		if _, err := job.Run(t.Context(), t.Context(), task); err != nil {
			t.Error(err)
		}
		owned.Wait()
	})
}
