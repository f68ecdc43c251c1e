package manager

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

const (
	sweepEvery = time.Minute
	sweepLimit = 2 * time.Minute // of one executor
)

// sweepWhile has executors remove what is left of jobs that are none of the manager's any more, at once and from then on
// again and again, until the returned function is called, which waits for the end of it. The jobs from before a restart
// must have been taken up.
func sweepWhile(m *Manager) (end func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	s := sweeping{m: m, said: map[runnerKey]string{}}
	var owned sync.WaitGroup
	owned.Go(func() {
		for {
			s.all(ctx)
			if !wait(ctx, cmp.Or(max(0, m.options.SweepEvery), sweepEvery)) {
				return
			}
		}
	})
	return func() {
		cancel(errLeft)
		owned.Wait()
	}
}

// sweeping is what is known from one time to the next.
type sweeping struct {
	m    *Manager
	said map[runnerKey]string // the errors of the last time, which are not said again
}

// all goes once through the executors of all runners that the settings have now.
func (s *sweeping) all(ctx context.Context) {
	s.m.mu.Lock()
	runners := slices.Clone(s.m.settings.Runners)
	s.m.mu.Unlock()
	now := map[runnerKey]string{}
	for i := range runners {
		x, ok := runners[i].Executor.(tranter.Sweeper)
		if !ok {
			continue
		}
		err := s.one(ctx, x)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			continue
		}
		k := runners[i].key()
		now[k] = err.Error()
		if now[k] != s.said[k] {
			s.m.options.Log.Warn("What jobs have left behind could not be removed; it will be tried again", "runner", k.short, "error", err)
		}
	}
	s.said = now
}

func (s *sweeping) one(ctx context.Context, x tranter.Sweeper) error {
	ctx, stop := context.WithTimeout(ctx, sweepLimit)
	defer stop()
	return x.Sweep(ctx, s.live)
}

// live says whether a job, by its record's key, is still the manager's or that of its next start: one that runs, is being
// prepared, is not reported yet, or stays recorded because it could not be taken up or was let go.
func (s *sweeping) live(key string) bool {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return s.m.running[key] != nil || s.m.left[key]
}

// leave keeps in mind that a job stays recorded for the next start.
func leave(m *Manager, key string) {
	m.mu.Lock()
	m.left[key] = true
	m.mu.Unlock()
}
