package manager_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job/jobtest"
)

// sweeper is an executor that notes when it is to sweep, and which of some jobs are wanted then.
type sweeper struct {
	*jobtest.Executor
	ask  []string // keys
	hang bool     // until the context ends

	mu   sync.Mutex
	err  error
	at   []time.Time
	live []string // of ask, for each time
}

func (s *sweeper) Sweep(ctx context.Context, live func(string) bool) error {
	s.mu.Lock()
	s.at = append(s.at, time.Now())
	s.mu.Unlock()
	if s.hang {
		<-ctx.Done()
	}
	var wanted []string
	for _, key := range s.ask {
		if live(key) {
			wanted = append(wanted, key)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = append(s.live, strings.Join(wanted, " "))
	if s.hang {
		return context.Cause(ctx)
	}
	return s.err
}

func (s *sweeper) fail(err error) {
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
}

func (s *sweeper) seen() ([]time.Time, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.at...), append([]string(nil), s.live...)
}

// sweeping makes the executor of a runner one that sweeps.
func (s *site) sweeping(i int, ask ...string) *sweeper {
	w := &sweeper{Executor: s.executor, ask: ask}
	s.settings.Runners[i].Executor = w
	return w
}

// old records a job as one from before a restart.
func (s *site) old(key, runner string, id int64, takes time.Duration) {
	s.t.Helper()
	rec := tranter.JobRecord{
		Key: key, Runner: tranter.Secret("token-" + runner).Short(), URL: "https://" + runner + ".example.com", Job: s.job(id, takes), Taken: time.Now(),
	}
	if err := s.records.Save(s.t.Context(), rec); err != nil {
		s.t.Fatal(err)
	}
}

// What jobs have left behind is removed at once, and again at each interval; what belongs to a job that is recorded is
// not, whether it could be taken up or not.
func TestWhatJobsLeaveBehindIsSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3, "a", "b")
		s.options.SweepEvery = 5 * time.Minute
		w := s.sweeping(0, "taken-up", "orphan", "gone")
		s.old("taken-up", "a", 1, 7*time.Minute)
		s.old("orphan", "removed", 2, time.Minute)
		began := time.Now()
		s.start()
		time.Sleep(14 * time.Minute)
		at, live := w.seen()
		if len(at) != 3 || at[0] != began || at[1].Sub(at[0]) != 5*time.Minute || at[2].Sub(at[1]) != 5*time.Minute {
			t.Errorf("swept at %v, began at %v", at, began)
		}
		if got := strings.Join(live, ", "); got != "taken-up orphan, taken-up orphan, orphan" {
			t.Errorf("wanted: %s", got)
		}
		s.end()
		time.Sleep(time.Hour)
		if again, _ := w.seen(); len(again) != 3 {
			t.Error("swept after the end of the manager")
		}
	})
}

// A job is wanted from before its environment is made until it is reported.
func TestNewJobsAreNotSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3, "a")
		s.options.SweepEvery = time.Minute
		w := s.sweeping(0)
		s.servers["a"].Enqueue(s.job(1, 150*time.Second))
		s.start()
		time.Sleep(time.Second)
		records, _ := s.records.Jobs(t.Context())
		if len(records) != 1 {
			t.Fatalf("recorded: %v", records)
		}
		w.mu.Lock()
		w.ask = []string{records[0].Key}
		w.mu.Unlock()
		time.Sleep(4 * time.Minute)
		_, live := w.seen()
		if len(live) != 5 || live[1] == "" || live[2] == "" || live[3] != "" || live[4] != "" {
			t.Errorf("wanted: %q", live)
		}
		s.end()
	})
}

// A sweep that is under way when the manager leaves must not take what runs on without it.
func TestJobsThatAreLeftAreNotSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3, "a")
		w := s.sweeping(0, "left")
		w.hang = true
		s.old("left", "a", 1, time.Hour)
		s.start()
		time.Sleep(time.Minute)
		s.m.Leave()
		if err := <-s.done; err != nil {
			t.Error(err)
		}
		if _, live := w.seen(); len(live) != 1 || live[0] != "left" {
			t.Errorf("wanted: %q", live)
		}
		s.executor.Close()
	})
}

// An executor that can't sweep holds nobody up for long, and the same fault is logged once.
func TestFaultsOfSweeping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3, "a", "b")
		var log bytes.Buffer
		s.options.Log = slog.New(slog.NewTextHandler(&log, nil))
		hanging, broken := s.sweeping(0), s.sweeping(1)
		hanging.hang = true
		broken.fail(errors.New("the engine is not there"))
		s.start()
		time.Sleep(30 * time.Minute)
		broken.fail(errors.New("the engine speaks another language"))
		time.Sleep(30 * time.Minute)
		broken.fail(nil)
		time.Sleep(30 * time.Minute)
		broken.fail(errors.New("the engine is not there"))
		time.Sleep(30 * time.Minute)
		s.end()
		if at, _ := broken.seen(); len(at) < 15 {
			t.Errorf("swept %d times", len(at))
		}
		for text, n := range map[string]int{"deadline exceeded": 1, "the engine is not there": 2, "the engine speaks another language": 1} {
			if got := strings.Count(log.String(), text); got != n {
				t.Errorf("%q is logged %d times, want %d:\n%s", text, got, n, log.String())
			}
		}
	})
}

// The executor of a runner that is not in the configuration any more is left alone.
func TestARemovedRunnerIsNotSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3, "a", "b")
		s.options.SweepEvery = 5 * time.Minute
		kept, removed := s.sweeping(0), s.sweeping(1)
		s.start()
		time.Sleep(time.Minute)
		less := s.settings
		less.Runners = less.Runners[:1]
		s.m.Reload(less)
		time.Sleep(time.Hour)
		s.end()
		if at, _ := removed.seen(); len(at) != 1 {
			t.Errorf("the removed runner's executor was swept %d times", len(at))
		}
		if at, _ := kept.seen(); len(at) != 13 {
			t.Errorf("the other one's %d times", len(at))
		}
	})
}
