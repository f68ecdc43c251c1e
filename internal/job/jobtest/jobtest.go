// Package jobtest has a coordinator and an executor in memory, for tests of the engines that run jobs: they behave as
// the real ones do, keep to their contracts and take the time that a test gives them. Only tests call it.
package jobtest

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// Coordinator is a queue of jobs, with what was reported about them. Its methods are safe for concurrent use.
type Coordinator struct {
	Hold  time.Duration // how long a request waits for a job
	Delay time.Duration // of every answer

	mu       sync.Mutex
	fault    error
	queue    []*tranter.Job
	changed  chan struct{}
	at       []time.Time
	log      map[int64][]byte
	updates  map[int64][]tranter.Update
	stop     map[int64]tranter.Stop
	verdicts map[int64][]tranter.Verdict // of the next final updates
}

// NewCoordinator returns one without jobs.
func NewCoordinator() *Coordinator {
	return &Coordinator{
		changed: make(chan struct{}), log: map[int64][]byte{}, updates: map[int64][]tranter.Update{}, stop: map[int64]tranter.Stop{},
		verdicts: map[int64][]tranter.Verdict{},
	}
}

// Enqueue offers jobs.
func (c *Coordinator) Enqueue(jobs ...*tranter.Job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, jobs...)
	close(c.changed)
	c.changed = make(chan struct{})
}

// Fail lets every call end with err until it is nil.
func (c *Coordinator) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = err
}

// Stop answers calls about a job with s.
func (c *Coordinator) Stop(id int64, s tranter.Stop) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop[id] = s
}

// Verdicts answers the next final updates of a job with v, then accepts.
func (c *Coordinator) Verdicts(id int64, v ...tranter.Verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verdicts[id] = v
}

// Asked returns when requests for a job came in.
func (c *Coordinator) Asked() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.at)
}

// Log returns what has arrived of a job's log.
func (c *Coordinator) Log(id int64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.log[id])
}

// Final returns the accepted final update of a job, if there is one.
func (c *Coordinator) Final(id int64) (tranter.Update, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range slices.Backward(c.updates[id]) {
		if u.State != tranter.JobRunning {
			return u, true
		}
	}
	return tranter.Update{}, false
}

// Accepted says whether a job was confirmed.
func (c *Coordinator) Accepted(id int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.updates[id]) > 0 && c.updates[id][0].State == tranter.JobRunning
}

// Request implements tranter.Coordinator. A job that is on its way when ctx ends goes to r.Unclaimed.
func (c *Coordinator) Request(ctx context.Context, r tranter.Request) (*tranter.Job, error) {
	c.mu.Lock()
	c.at = append(c.at, time.Now())
	c.mu.Unlock()
	limit := time.Now().Add(c.Hold)
	for {
		job, changed, fault := c.next()
		if job != nil || fault != nil {
			pause(context.WithoutCancel(ctx), c.Delay)
			if job != nil && ctx.Err() != nil {
				r.Unclaimed(job)
				return nil, context.Cause(ctx)
			}
			return job, fault
		}
		left := time.Until(limit)
		if r.NoHold || left <= 0 {
			return nil, nil
		}
		timer := time.NewTimer(left)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// next takes the first job off the queue.
func (c *Coordinator) next() (job *tranter.Job, changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault != nil || len(c.queue) == 0 {
		return nil, c.changed, c.fault
	}
	job = c.queue[0]
	c.queue = c.queue[1:]
	return job, c.changed, nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// Append implements tranter.Coordinator.
func (c *Coordinator) Append(_ context.Context, job tranter.JobRef, offset int64, log []byte) (tranter.Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault != nil {
		return tranter.Answer{}, c.fault
	}
	have := c.log[job.ID]
	if offset <= int64(len(have)) && offset+int64(len(log)) > int64(len(have)) {
		have = append(have[:offset:offset], log...)
		c.log[job.ID] = have
	}
	return tranter.Answer{Next: int64(len(have)), Stop: c.stop[job.ID]}, nil
}

// Update implements tranter.Coordinator. A final one whose checksum is wrong is answered with Resend.
func (c *Coordinator) Update(_ context.Context, job tranter.JobRef, u tranter.Update) (tranter.Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault != nil {
		return tranter.Answer{}, c.fault
	}
	answer := tranter.Answer{Stop: c.stop[job.ID]}
	if answer.Stop == tranter.StopAbort {
		answer.Verdict = tranter.Gone
		return answer, nil
	}
	if u.State != tranter.JobRunning {
		if v := c.verdicts[job.ID]; len(v) > 0 {
			c.verdicts[job.ID] = v[1:]
			answer.Verdict = v[0]
			return answer, nil
		}
		if got := fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE(c.log[job.ID])); u.Checksum != "" && got != u.Checksum {
			answer.Verdict = tranter.Resend
			return answer, nil
		}
	}
	c.updates[job.ID] = append(c.updates[job.ID], u)
	return answer, nil
}

// Upload implements tranter.Coordinator: the agents of Executor upload nothing.
func (c *Coordinator) Upload(context.Context, tranter.JobRef, tranter.ArtifactUpload) error {
	return errors.New("no artifacts here")
}

// Download implements tranter.Coordinator.
func (c *Coordinator) Download(context.Context, tranter.JobRef) (io.ReadCloser, error) {
	return nil, tranter.ErrNotFound
}
