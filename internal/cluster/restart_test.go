package cluster_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cluster"
)

// only is the name of the lab's one batch job.
func (l *lab) only() (name string) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.jobs) != 1 {
		l.t.Fatalf("there are %d batch jobs", len(l.jobs))
	}
	for name = range l.jobs {
		continue
	}
	return name
}

func TestAfterARestartNothingNewIsMadeForAJobThatIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		c, stop := l.start(l.settings(allocateFirst()))
		pass(time.Second)
		if err := c.Demand(t.Context(), pending(1)); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		stop()
		c, _ = l.start(l.settings(allocateFirst()))
		look := func(times int) { // the job was cancelled meanwhile
			for range times {
				if err := c.Demand(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				pass(3 * time.Second)
			}
		}
		look(3)
		l.signs <- cluster.Sign{Name: l.only(), Kind: cluster.Over, At: time.Now(), Reason: "it got no job within 2m"}
		l.kill(l.only(), tranter.BatchCompleted)
		look(10)
		if n := l.count(); n != 1 {
			t.Errorf("%d batch jobs were made for a job that was cancelled", n)
		}
	})
}

func TestASubmissionOfWhichNothingIsKnownIsRepeatedOnceItCannotComeTrueAnyMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.away = true
		p := allocateFirst()
		p.SubmitWithin = 20 * time.Second
		c, stop := l.start(l.settings(p))
		pass(time.Second)
		if err := c.Demand(t.Context(), pending(1)); err != nil {
			t.Fatal(err)
		}
		pass(30 * time.Second)
		stop()
		before := l.count()
		l.mu.Lock()
		l.away = false
		l.mu.Unlock()
		c, _ = l.start(l.settings(p))
		if err := c.Demand(t.Context(), pending(1)); err != nil {
			t.Fatal(err)
		}
		pass(15 * time.Second) // the command of the manager that was killed may still be at it
		if n := l.live(); n != 0 {
			t.Errorf("after 15 s there are %d batch jobs", n)
		}
		pass(25 * time.Second)
		if n := l.live(); n != 1 || l.count() != before+1 {
			t.Errorf("after 40 s there are %d batch jobs, of %d submissions", n, l.count()-before)
		}
	})
}

func TestAnAllocationIsInTheStoreUntilWhatWasMadeForItIsRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		settings := l.settings(takeFirst())
		remove, known := settings.Hands.Remove, 0
		settings.Hands.Remove = func(name string) error {
			l.book.mu.Lock()
			if l.book.rows[name] != "" {
				known++
			}
			l.book.mu.Unlock()
			return remove(name)
		}
		c, _ := l.start(settings)
		pass(time.Second)
		var log lockedBuffer
		s, err := c.Executor().Open(t.Context(), spec(1, &log))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Minute)
		if known != 1 || len(l.removed) != 1 || len(l.book.rows) != 0 {
			t.Errorf("%d of %v were in the store when they were removed, and %v are left in it", known, l.removed, l.book.rows)
		}
	})
}
