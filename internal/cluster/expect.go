package cluster

import (
	"maps"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/allocation"
)

// expected are jobs that were taken from GitLab and have not asked for their places yet. Until they do, they are thought to
// need one each of those that are free: no more jobs are taken than there are places.
type expected struct {
	mu   sync.Mutex
	jobs map[int64]time.Time // when each was taken
}

// expectFor is how long a job is expected. One that has ended before it asked for a place never comes.
const expectFor = 30 * time.Second

func (e *expected) add(job int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.jobs == nil {
		e.jobs = map[int64]time.Time{}
	}
	e.jobs[job] = time.Now()
}

func (e *expected) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.jobs, func(_ int64, at time.Time) bool { return time.Since(at) > expectFor })
	return len(e.jobs)
}

// come says how many jobs are expected that have asked for their places.
func (e *expected) come(asked map[int64]time.Time) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for job := range e.jobs {
		if _, ok := asked[job]; ok {
			n++
		}
	}
	return n
}

// forget takes out those that have asked for their places.
func (e *expected) forget(asked map[int64]time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.jobs, func(job int64, _ time.Time) bool {
		_, ok := asked[job]
		return ok
	})
}

// Expect returns what is to be told of each job that was taken, before Ready is asked again; nil: jobs may be taken before
// there are places for them.
func (x *Executor) Expect() func(job int64) {
	if x.cluster.settings.Load().Policy.Order != allocation.AllocateFirst {
		return nil
	}
	return x.cluster.expected.add
}
