package cluster_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
)

func allocateFirst() allocation.Policy {
	return allocation.Policy{Order: allocation.AllocateFirst, Walltime: time.Hour, Margin: 5 * time.Minute, TakeTimeout: 2 * time.Minute, Limits: allocation.Limits{}}
}

func takeFirst() allocation.Policy {
	p := allocateFirst()
	p.Order = allocation.TakeFirst
	return p
}

func pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
	synctest.Wait()
}

func TestAsManyBatchJobsAsJobsWaitAreMadeAndAJobIsTakenWhenOneRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		c, stop := l.start(l.settings(allocateFirst()))
		pass(time.Second)
		if err := c.Demand(t.Context(), pending(1, 2, 3)); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if l.count() != 3 {
			t.Errorf("%d batch jobs for 3 jobs that wait", l.count())
		}
		if err := c.Ready(); !errors.Is(err, tranter.ErrBusy) {
			t.Errorf("a job may be taken before a batch job runs: %v", err)
		}
		pass(5 * time.Second)
		if err := c.Ready(); err != nil {
			t.Errorf("no job may be taken although batch jobs run: %v", err)
		}
		var log lockedBuffer
		s, err := c.Executor().Open(t.Context(), spec(2, &log))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(log.String(), "Using batch job ") || !strings.Contains(log.String(), "n1 (partition batch)") {
			t.Errorf("the job's log says %q", log.String())
		}
		// Jobs 1 and 3 were cancelled in GitLab: their batch jobs run and wait for nothing, and end by themselves.
		for range 3 {
			if err := c.Demand(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			pass(10 * time.Second)
		}
		pass(3 * time.Minute)
		if n := l.live(); n != 1 {
			t.Errorf("%d batch jobs are left for one job", n)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if n := l.live(); n != 0 || l.count() != 3 {
			t.Errorf("%d batch jobs are left, %d were submitted", n, l.count())
		}
		pass(time.Minute)
		stop()
		if len(l.book.rows) != 0 {
			t.Errorf("the book still has %v", l.book.rows)
		}
	})
}

// GitLab is asked now and then only: a job that has ended since is in what it said last.
func TestAJobThatHasEndedGetsNoSecondBatchJobBeforeGitLabIsAskedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		c, _ := l.start(l.settings(allocateFirst()))
		pass(time.Second)
		if err := c.Demand(t.Context(), pending(1)); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		var log lockedBuffer
		s, err := c.Executor().Open(t.Context(), spec(1, &log))
		if err == nil {
			err = s.Close(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		if err := c.Demand(t.Context(), pending(1)); err != nil { // the list was made a moment before
			t.Fatal(err)
		}
		pass(time.Minute)
		if l.count() != 1 {
			t.Errorf("%d batch jobs were submitted for one job", l.count())
		}
	})
}

func TestACancelledJobsBatchJobIsCancelledInTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.queue = time.Hour
		c, _ := l.start(l.settings(allocateFirst()))
		pass(time.Second)
		for _, ids := range [][]int64{{1, 2, 3}, {1, 3}, {1, 3}, {1, 3}} {
			if err := c.Demand(t.Context(), pending(ids...)); err != nil {
				t.Fatal(err)
			}
			pass(10 * time.Second)
		}
		if l.live() != 2 || l.count() != 3 {
			t.Errorf("%d batch jobs are left for 2 jobs, %d were submitted", l.live(), l.count())
		}
	})
}

func TestAJobThatWasTakenGetsABatchJob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.queue = 12 * time.Second
		c, _ := l.start(l.settings(takeFirst()))
		pass(time.Second)
		if err := c.Ready(); err != nil {
			t.Fatalf("no job may be taken: %v", err)
		}
		var log lockedBuffer
		s, err := c.Executor().Open(t.Context(), spec(7, &log))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Waiting for a batch job", "Waiting for batch job 1 in partition batch: Resources", "Using batch job 1 on n1 (partition batch), after a wait of"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%q is not in the log:\n%s", want, log.String())
			}
		}
		pass(10 * time.Second)
		bill := s.(tranter.Accounted).Account(t.Context())
		if bill == nil || bill.BatchJob != "1" || bill.Nodes != "n1" || bill.CPUs != 1 || bill.Waited < 11*time.Second || bill.Ran < 9*time.Second {
			t.Errorf("the bill is %v", bill)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if l.live() != 0 || l.count() != 1 {
			t.Errorf("%d batch jobs are left, %d were submitted", l.live(), l.count())
		}
	})
}

func TestAnAnswerThatIsLostIsFoundInTheList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.deaf = true
		c, _ := l.start(l.settings(takeFirst()))
		pass(time.Second)
		var log lockedBuffer
		s, err := c.Executor().Open(t.Context(), spec(7, &log))
		if err != nil {
			t.Fatal(err)
		}
		if l.count() != 1 {
			t.Errorf("%d submissions", l.count())
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestARestartSubmitsNothingTwiceAndKeepsPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		settings := l.settings(takeFirst())
		c, stop := l.start(settings)
		pass(time.Second)
		var log lockedBuffer
		s, err := c.Executor().Open(t.Context(), spec(1, &log))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context(), tranter.Phase{ID: "1"}); err != nil {
			t.Fatal(err)
		}
		waiting, leave := context.WithCancel(t.Context())
		leaving := make(chan struct{})
		second := spec(2, &log)
		second.Leaving = leaving
		gone := make(chan error, 1)
		go func() {
			_, err := c.Executor().Open(waiting, second)
			gone <- err
		}()
		pass(time.Second)
		close(leaving)
		if err := <-gone; err == nil {
			t.Error("a job that leaves got a session")
		}
		leave()
		stop()

		c, _ = l.start(settings)
		again, err := c.Executor().Reopen(t.Context(), s.Ref())
		if err != nil {
			t.Fatal(err)
		}
		if was, is := s.(tranter.Placed).Place(), again.(tranter.Placed).Place(); was.Batch == "" || was != is {
			t.Errorf("the job was in %+v, and is in %+v now", was, is)
		}
		second.Leaving = nil
		other, err := c.Executor().Open(t.Context(), second)
		if err != nil {
			t.Fatal(err)
		}
		if l.count() != 2 {
			t.Errorf("%d submissions for 2 jobs over a restart", l.count())
		}
		for _, s := range []tranter.Session{again, other} {
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		pass(time.Minute)
		if l.live() != 0 {
			t.Errorf("%d batch jobs are left", l.live())
		}
	})
}

func TestWhatTheEndOfABatchJobMeansForItsJob(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state  tranter.BatchState
		reason tranter.FailureReason // of the phase's result; empty: it is an error
		text   string
	}{
		{tranter.BatchNodeLost, "", "node"},
		{tranter.BatchPreempted, "", "preempt"},
		{tranter.BatchCancelled, "", "cancel"},
		{tranter.BatchOutOfMemory, tranter.ScriptFailure, "memory"},
		{tranter.BatchTimedOut, tranter.JobExecutionTimeout, "time"},
	} {
		t.Run(string(c.state), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				k, _ := l.start(l.settings(takeFirst()))
				pass(time.Second)
				var log lockedBuffer
				s, err := k.Executor().Open(t.Context(), spec(1, &log))
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Start(t.Context(), tranter.Phase{ID: "1"}); err != nil {
					t.Fatal(err)
				}
				l.kill(l.opened["job-1"], c.state)
				result, err := s.Attach(t.Context(), "1", 0, &log)
				switch {
				case c.reason != "" && (err != nil || result.Reason != c.reason || !strings.Contains(result.Message, c.text)):
					t.Errorf("the result is %+v, %v", result, err)
				case c.reason == "" && (!errors.Is(err, tranter.ErrMachineLost) || !strings.Contains(err.Error(), c.text)):
					t.Errorf("the error is %v", err)
				}
				if err := s.Close(t.Context()); err != nil {
					t.Error(err)
				}
				pass(time.Minute)
				if l.count() != 1 {
					t.Errorf("%d submissions: a job that had begun is not begun anew", l.count())
				}
			})
		})
	}
}

func TestABatchJobThatDiesBeforeItsJobBeganIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.queue = 30 * time.Second
		k, _ := l.start(l.settings(takeFirst()))
		pass(time.Second)
		go func() {
			pass(10 * time.Second)
			l.kill(l.any(), tranter.BatchNodeLost)
		}()
		var log lockedBuffer
		s, err := k.Executor().Open(t.Context(), spec(1, &log))
		if err != nil {
			t.Fatal(err)
		}
		if l.count() != 2 {
			t.Errorf("%d submissions, expected a second one", l.count())
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAJobThatAsksForTooMuchIsToldSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		k, _ := l.start(l.settings(takeFirst()))
		var log lockedBuffer
		s := spec(1, &log)
		s.Variables = []tranter.Variable{{Key: "TOO_MUCH", Value: "1"}}
		var mistake *tranter.ConfigError
		if _, err := k.Executor().Open(t.Context(), s); !errors.As(err, &mistake) {
			t.Errorf("the error is %v", err)
		}
		l.mu.Lock()
		l.refuse = tranter.ErrRejected
		l.mu.Unlock()
		if _, err := k.Executor().Open(t.Context(), spec(2, &log)); !errors.As(err, &mistake) {
			t.Errorf("the error of a job that the scheduler refuses is %v", err)
		}
	})
}

func TestASchedulerThatIsAwayLosesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		k, _ := l.start(l.settings(takeFirst()))
		pass(time.Second)
		var log lockedBuffer
		s, err := k.Executor().Open(t.Context(), spec(1, &log))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context(), tranter.Phase{ID: "1"}); err != nil {
			t.Fatal(err)
		}
		l.mu.Lock()
		l.away = true
		l.mu.Unlock()
		pass(10 * time.Minute)
		l.mu.Lock()
		lists := l.lists
		l.away = false
		l.mu.Unlock()
		if lists > 40 {
			t.Errorf("a scheduler that is away was asked %d times in ten minutes", lists)
		}
		if err := s.Start(t.Context(), tranter.Phase{ID: "2"}); err != nil {
			t.Errorf("the job is lost: %v", err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		pass(3 * time.Minute)
		if l.live() != 0 || l.count() != 1 {
			t.Errorf("%d batch jobs are left, %d were submitted", l.live(), l.count())
		}
	})
}

func TestNothingIsSubmittedThatCanNotBeRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.book.fail = true
		k, _ := l.start(l.settings(allocateFirst()))
		if err := k.Demand(t.Context(), pending(1)); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if l.count() != 0 {
			t.Error("a batch job was submitted that no restart would know of")
		}
		l.book.mu.Lock()
		l.book.fail = false
		l.book.mu.Unlock()
		pass(time.Minute)
		if l.count() != 1 {
			t.Errorf("%d batch jobs were submitted once the book could be kept", l.count())
		}
	})
}
