// Package jobtest has a coordinator and an executor in memory, for tests of the engines that run jobs: they behave as
// the real ones do, keep to their contracts and take the time that a test gives them. Only tests call it.
package jobtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
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

// Work is what an agent does with a phase: its output, piece by piece, and how it ends.
type Work struct {
	Takes  time.Duration // to its end, or to the next Output
	Output []string      // written one after the other, each after Takes
	Result tranter.PhaseResult
	Open   error // of Executor.Open
	Lost   bool  // the agent dies after its output
	Deaf   bool  // it does not mind being cancelled
}

// Executor runs Work in goroutines that stand for agents: they outlive sessions and engines. Close it at the end.
type Executor struct {
	mu     sync.Mutex
	work   map[int64]Work // by the job's id
	agents map[string]*agent
	tried  map[int64]int
	opened map[int64]int
	closed map[int64]int
	most   int // agents at the same time
	forget bool
	abort  map[int64]bool
	owned  sync.WaitGroup
}

type agent struct {
	mu      sync.Mutex
	journal []byte
	result  *tranter.PhaseResult
	ended   bool
	changed chan struct{}
	cancel  chan tranter.PhaseStatus
}

// NewExecutor returns one whose jobs succeed at once, unless told otherwise.
func NewExecutor() *Executor {
	return &Executor{work: map[int64]Work{}, agents: map[string]*agent{}, tried: map[int64]int{}, opened: map[int64]int{}, closed: map[int64]int{}, abort: map[int64]bool{}}
}

// Set says what the agent of a job does.
func (e *Executor) Set(id int64, w Work) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.work[id] = w
}

// Forget lets what agents are told get lost, as when the engine dies on the way.
func (e *Executor) Forget(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forget = on
}

// Aborted says whether a job's agent was told to end at once.
func (e *Executor) Aborted(id int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.abort[id]
}

// Most returns how many agents were at work at the same time at most.
func (e *Executor) Most() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.most
}

// Sessions returns how often a job's environment was opened and closed.
func (e *Executor) Sessions(id int64) (opened, closed int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.opened[id], e.closed[id]
}

// Tries returns how often somebody tried to open a job's environment.
func (e *Executor) Tries(id int64) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tried[id]
}

// Close waits for the agents.
func (e *Executor) Close() { e.owned.Wait() }

// Open implements tranter.Executor.
func (e *Executor) Open(_ context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tried[spec.Job.ID]++
	if err := e.work[spec.Job.ID].Open; err != nil {
		return nil, err
	}
	e.opened[spec.Job.ID]++
	_, _ = io.WriteString(spec.Log, "Using the executor in memory...\n")
	return &session{e: e, job: spec.Job.ID}, nil
}

// Reopen implements tranter.Executor.
func (e *Executor) Reopen(_ context.Context, ref json.RawMessage) (tranter.Session, error) {
	var id int64
	if err := json.Unmarshal(ref, &id); err != nil {
		return nil, err
	}
	return &session{e: e, job: id}, nil
}

type session struct {
	e   *Executor
	job int64
}

func (s *session) name(phase string) string { return fmt.Sprint(s.job, "/", phase) }

func (s *session) find(phase string) *agent {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	return s.e.agents[s.name(phase)]
}

// Start implements tranter.Session.
func (s *session) Start(_ context.Context, p tranter.Phase) error {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	if s.e.agents[s.name(p.ID)] != nil {
		return nil
	}
	a := &agent{changed: make(chan struct{}), cancel: make(chan tranter.PhaseStatus, 8)}
	s.e.agents[s.name(p.ID)] = a
	w := s.e.work[s.job]
	running := 0
	for _, other := range s.e.agents {
		other.mu.Lock()
		if !other.ended {
			running++
		}
		other.mu.Unlock()
	}
	s.e.most = max(s.e.most, running)
	s.e.owned.Go(func() { a.run(w) })
	return nil
}

// run does the work, in the time that it takes, or until it is cancelled.
func (a *agent) run(w Work) {
	result := w.Result
	if result.Status == "" {
		result.Status = tranter.PhaseSucceeded
	}
	for i := 0; i < max(1, len(w.Output)); i++ {
		timer := time.NewTimer(w.Takes)
		select {
		case <-timer.C:
		case status := <-a.cancel:
			if w.Deaf {
				<-timer.C
				break
			}
			timer.Stop()
			a.end(&tranter.PhaseResult{Status: status, Message: string(status)}, "cancelled\n")
			return
		}
		if i < len(w.Output) {
			a.write(w.Output[i])
		}
	}
	if w.Lost {
		a.end(nil, "")
		return
	}
	a.end(&result, "")
}

func (a *agent) write(s string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.journal = append(a.journal, s...)
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *agent) end(r *tranter.PhaseResult, last string) {
	a.write(last)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.result, a.ended = r, true
	close(a.changed)
	a.changed = make(chan struct{})
}

// Attach implements tranter.Session.
func (s *session) Attach(ctx context.Context, phase string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	a := s.find(phase)
	if a == nil {
		return tranter.PhaseResult{}, tranter.ErrAgentLost
	}
	for {
		a.mu.Lock()
		piece := strings.Clone(string(a.journal[min(offset, int64(len(a.journal))):]))
		ended, result, changed := a.ended, a.result, a.changed
		a.mu.Unlock()
		n, err := io.WriteString(w, piece)
		if err != nil {
			return tranter.PhaseResult{}, err
		}
		offset += int64(n)
		switch {
		case ended && result == nil:
			return tranter.PhaseResult{}, tranter.ErrAgentLost
		case ended:
			return *result, nil
		}
		select {
		case <-ctx.Done():
			return tranter.PhaseResult{}, context.Cause(ctx)
		case <-changed:
		}
	}
}

// Cancel implements tranter.Session.
func (s *session) Cancel(_ context.Context, phase string, abort bool, _ time.Duration) error {
	s.e.mu.Lock()
	forget := s.e.forget
	s.e.abort[s.job] = s.e.abort[s.job] || abort
	s.e.mu.Unlock()
	if forget {
		return nil
	}
	status := tranter.PhaseCanceled
	if abort {
		status = tranter.PhaseAborted
	}
	if a := s.find(phase); a != nil {
		select {
		case a.cancel <- status:
		default:
		}
	}
	return nil
}

// Close implements tranter.Session.
func (s *session) Close(context.Context) error {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.e.closed[s.job]++
	return nil
}

// Ref implements tranter.Session.
func (s *session) Ref() json.RawMessage {
	data, _ := json.Marshal(s.job)
	return data
}
