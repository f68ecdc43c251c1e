package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
)

// crawler is a scheduler whose submissions take long.
type crawler struct {
	*lab
	mu   sync.Mutex
	now  int
	most int
}

func (c *crawler) Submit(ctx context.Context, spec tranter.BatchSpec) (string, error) {
	c.mu.Lock()
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.now--
		c.mu.Unlock()
	}()
	timer := time.NewTimer(50 * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
		return c.lab.Submit(ctx, spec)
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func TestASlowSchedulerIsAskedForAFewBatchJobsAtATimeAndForEachOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.queue = time.Hour
		s := l.settings(allocateFirst())
		slow := &crawler{lab: l}
		s.Scheduler = slow
		c, _ := l.start(s)
		var ids []int64
		for id := range int64(40) {
			ids = append(ids, id+1)
		}
		for range 90 {
			if err := c.Demand(t.Context(), pending(ids...)); err != nil {
				t.Fatal(err)
			}
			pass(5 * time.Second)
		}
		if l.count() != 40 || slow.most > 8 {
			t.Errorf("%d batch jobs were submitted for 40 jobs, up to %d at a time", l.count(), slow.most)
		}
	})
}

// A share of the nodes' files that hangs must not have a batch job submitted twice, nor the loop spin.
func TestAPreparationThatHangsIsNotBegunAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		s := l.settings(allocateFirst())
		prepared, hang := 0, make(chan struct{})
		s.Hands.Prepare = func(allocation.Allocation, *tranter.Account) (string, error) {
			prepared++
			<-hang
			return "#!/bin/sh\n", nil
		}
		c, stop := l.start(s)
		for range 120 {
			if err := c.Demand(t.Context(), pending(1)); err != nil {
				t.Fatal(err)
			}
			pass(5 * time.Second)
		}
		begun := time.Now()
		stop()
		if took := time.Since(begun); took > time.Minute {
			t.Errorf("the end took %s", took)
		}
		close(hang)
		if prepared != 1 || l.count() > 1 {
			t.Errorf("it was prepared %d times, and %d batch jobs were submitted", prepared, l.count())
		}
	})
}

// An answer may come so late that the same was asked for again: of two batch jobs of one name one is for nobody.
func TestABatchJobThatIsThereTwiceIsEndedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.queue = time.Hour
		c, _ := l.start(l.settings(allocateFirst()))
		if err := c.Demand(t.Context(), pending(1)); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		name := l.any()
		twin := *l.jobs[name]
		twin.ID = "twin"
		l.mu.Lock()
		l.jobs["other"] = &twin
		l.mu.Unlock()
		pass(30 * time.Second)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.jobs[name].State != tranter.BatchQueued || l.jobs["other"].State != tranter.BatchCancelled {
			t.Errorf("the one is %s, its twin %s", l.jobs[name].State, l.jobs["other"].State)
		}
	})
}

// any names a batch job that has not ended.
func (l *lab) any() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, j := range l.jobs {
		if !j.State.Final() {
			return name
		}
	}
	return ""
}

func TestAfterAChangeOfTheDirectoryJobsGoOnWhereTheyAre(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		s := l.settings(takeFirst())
		s.Hands.Place = "old"
		c, _ := l.start(s)
		pass(time.Second)
		var log lockedBuffer
		first, err := c.Executor().Open(t.Context(), spec(1, &log))
		if err != nil {
			t.Fatal(err)
		}
		other := s
		other.Hands.Place = "new"
		var ended, removed []string
		watched := 0
		other.Hands.Watch = func(ctx context.Context, found func(cluster.Sign)) error {
			watched++
			if watched == 1 {
				return errors.New("the directory is not there yet")
			}
			return s.Hands.Watch(ctx, found)
		}
		other.Hands.End = func(ctx context.Context, name, reason string) error {
			ended = append(ended, name)
			return s.Hands.End(ctx, name, reason)
		}
		other.Hands.Remove = func(name string) error {
			removed = append(removed, name)
			return nil
		}
		if err := c.Change(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		second, err := c.Executor().Open(t.Context(), spec(2, &log))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []tranter.Session{first, second} {
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		pass(3 * time.Minute)
		if watched != 2 {
			t.Errorf("signs were looked for %d times", watched)
		}
		if len(ended) != 1 || len(removed) != 1 || len(l.removed) != 1 || l.removed[0] == removed[0] {
			t.Errorf("%v were ended at the new place, %v removed there, and %v at the old one", ended, removed, l.removed)
		}
	})
}

func TestAClusterThatIsRetiredLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.refuse = fmt.Errorf("%w: no such partition", tranter.ErrRejected)
		c, stop := l.start(l.settings(allocateFirst()))
		if err := c.Demand(t.Context(), pending(1)); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		if len(l.book.rows) == 0 {
			t.Fatal("the refusal is not remembered")
		}
		if err := c.Retire(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if err := c.Change(t.Context(), l.settings(allocateFirst())); !errors.Is(err, cluster.ErrEnded) {
			t.Errorf("the change of a cluster that has ended says %v", err)
		}
		stop()
		if len(l.book.rows) != 0 || len(l.removed) != 1 {
			t.Errorf("%v is left in the book, and %v was removed", l.book.rows, l.removed)
		}
	})
}

func TestARefusalIsNotAskedForAgainAndAgain(t *testing.T) {
	t.Parallel()
	for _, refusal := range []error{tranter.ErrRejected, tranter.ErrNoCapacity} {
		t.Run(refusal.Error(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.refuse = fmt.Errorf("%w: no", refusal)
				asked := &crawled{lab: l}
				s := l.settings(allocateFirst())
				s.Scheduler = asked
				c, _ := l.start(s)
				for range 360 { // half an hour
					if err := c.Demand(t.Context(), pending(1, 2, 3)); err != nil {
						t.Fatal(err)
					}
					pass(5 * time.Second)
				}
				if n := asked.times.Load(); n > 20 {
					t.Errorf("it was asked for %d times in half an hour", n)
				}
				l.mu.Lock()
				l.refuse = nil
				l.mu.Unlock()
				for range 700 {
					if err := c.Demand(t.Context(), pending(1, 2, 3)); err != nil {
						t.Fatal(err)
					}
					pass(5 * time.Second)
				}
				if l.count() < 3 {
					t.Errorf("an hour after the refusals %d batch jobs were submitted for 3 jobs", l.count())
				}
			})
		})
	}
}

// crawled counts submissions.
type crawled struct {
	*lab
	times atomic.Int64
}

func (c *crawled) Submit(ctx context.Context, spec tranter.BatchSpec) (string, error) {
	c.times.Add(1)
	return c.lab.Submit(ctx, spec)
}

// BenchmarkStep is what one event costs with a thousand batch jobs in the queue and a thousand jobs that wait for them.
func BenchmarkStep(b *testing.B) {
	for _, order := range []allocation.Order{allocation.AllocateFirst, allocation.TakeFirst} {
		b.Run(string(order), func(b *testing.B) {
			l := newLab(&testing.T{})
			l.queue = time.Hour
			p := allocateFirst()
			p.Order = order
			s := l.settings(p)
			c := cluster.New(cluster.Options{Class: "abc", Book: l.book, Log: discard()}, s)
			ctx, cancel := context.WithCancel(b.Context())
			var owned sync.WaitGroup
			owned.Go(func() { _ = c.Run(ctx) })
			var ids []int64
			for id := range int64(1000) {
				ids = append(ids, id+1)
			}
			list := pending(ids...)
			if order == allocation.AllocateFirst {
				if err := c.Demand(ctx, list); err != nil {
					b.Fatal(err)
				}
			} else {
				for _, id := range ids {
					var log lockedBuffer
					one := spec(id, &log)
					owned.Go(func() { _, _ = c.Executor().Open(ctx, one) })
				}
			}
			for l.count() < 1000 {
				timer := time.NewTimer(10 * time.Millisecond)
				<-timer.C
			}
			for i := 0; b.Loop(); i++ {
				_ = c.End(ctx, "none-"+strconv.Itoa(i), "") // a call
				if order == allocation.AllocateFirst {
					_ = c.Demand(ctx, list)
				} else {
					_ = c.Demand(ctx, nil)
				}
			}
			cancel()
			owned.Wait()
		})
	}
}

func TestWhileUsersCanNotBeMappedThoseKnownKeepTheirBatchJobs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.queue = time.Hour
		s := l.settings(allocateFirst())
		asked, broken := 0, false
		s.Account = func(name string) (*tranter.Account, error) { return &tranter.Account{Name: name}, nil }
		s.Accounts = func(_ context.Context, u cluster.User) (*tranter.Account, error) {
			asked++
			if broken {
				return nil, errors.New("the directory service does not answer")
			}
			return &tranter.Account{Name: "u-" + u.Name}, nil
		}
		c, _ := l.start(s)
		var ids []int64
		for id := range int64(20) {
			ids = append(ids, id+1)
		}
		for round := range 10 {
			broken = round > 2
			if err := c.Demand(t.Context(), pending(ids...)); err != nil {
				t.Fatal(err)
			}
			pass(5 * time.Second)
		}
		if l.live() != 20 || l.count() != 20 || asked != 10 {
			t.Errorf("%d batch jobs of %d are left for 20 jobs; the account of one user was asked for %d times in 10 lists", l.live(), l.count(), asked)
		}
	})
}
