package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
)

// Executor runs jobs in the allocations of a cluster: it is a tranter.Executor that gets each job a place, and leaves the rest
// to the executor there.
type Executor struct{ cluster *Cluster }

// Executor returns the executor of the cluster's allocations.
func (c *Cluster) Executor() *Executor { return &Executor{cluster: c} }

// tries is in how many allocations a job is prepared, one after the other, when they die meanwhile.
const tries = 5

// reference is what Ref of a session gives.
type reference struct {
	Cluster    string          `json:"cluster"`
	Allocation string          `json:"allocation"`
	Job        string          `json:"job"`
	Session    json.RawMessage `json:"session"` // of the executor in the allocation
}

// Refers says whether a reference is one of this executor, and of which class.
func Refers(ref json.RawMessage) (class string, ok bool) {
	var r reference
	err := json.Unmarshal(ref, &r)
	return r.Cluster, err == nil && r.Allocation != "" && len(r.Session) > 0
}

// Open implements tranter.Executor. An allocation that dies while the job is prepared is replaced by another one.
func (x *Executor) Open(ctx context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	var avoid []string
	for {
		since := time.Now()
		h, err := x.cluster.acquire(ctx, spec, avoid)
		if err != nil {
			return nil, fmt.Errorf("get a place in a batch job: %w", err)
		}
		inner, err := h.open(ctx, spec, time.Since(since))
		if err == nil {
			return &session{lease: h, inner: inner, log: spec.Log}, nil
		}
		left := ended(spec.Leaving)
		if !left {
			h.release("the job could not be prepared")
		}
		if ctx.Err() != nil || left || !errors.Is(err, tranter.ErrMachineLost) || len(avoid) == tries {
			return nil, err
		}
		avoid = append(avoid, h.tender.name)
		fmt.Fprintf(spec.Log, "%v\nThe job goes on in another batch job\n", err)
	}
}

func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// open prepares the job in the place that it got.
func (h *lease) open(ctx context.Context, spec tranter.SessionSpec, waited time.Duration) (tranter.Session, error) {
	on, stop := h.while(ctx)
	defer stop()
	text := ""
	if waited >= time.Second {
		text = ", after a wait of " + waited.Round(time.Second).String()
	}
	fmt.Fprintf(spec.Log, "Using batch job %s%s%s\n", h.batch.BatchID, nodesText(h.batch.Batch), text)
	if err := h.settle(&spec); err != nil {
		return nil, err
	}
	inner, err := h.tender.executor.Open(on, spec)
	if err != nil {
		return nil, h.tender.fault(err)
	}
	return inner, nil
}

// settle plans the job for where its account works.
func (h *lease) settle(spec *tranter.SessionSpec) error {
	s := h.cluster.settings.Load()
	if h.batch.User == "" || s.Home == nil || spec.Settle == nil {
		return nil
	}
	as, err := s.Account(h.batch.User)
	if err != nil {
		return err
	}
	home := s.Home(as)
	if home == (tranter.Surroundings{}) {
		return nil
	}
	spec.Dirs, spec.Variables, err = spec.Settle(home)
	return err
}

func nodesText(j tranter.BatchJob) string {
	switch {
	case j.Nodes != "" && j.Queue != "":
		return fmt.Sprintf(" on %s (partition %s)", j.Nodes, j.Queue)
	case j.Nodes != "":
		return " on " + j.Nodes
	}
	return ""
}

// Reopen implements tranter.Executor.
func (x *Executor) Reopen(ctx context.Context, ref json.RawMessage) (tranter.Session, error) {
	var r reference
	if _, ok := Refers(ref); !ok || json.Unmarshal(ref, &r) != nil {
		return nil, fmt.Errorf("reopen a session: malformed reference %q", ref)
	}
	h := &lease{cluster: x.cluster, job: r.Job}
	var gone error
	if err := x.cluster.do(ctx, func(l *loop) {
		a := l.book.Find(r.Job)
		if a == nil || a.Name != r.Allocation {
			gone = fmt.Errorf("%w: %s does not hold the job any more", tranter.ErrMachineLost, r.Allocation)
			return
		}
		h.batch, h.tender = *a, l.tend(a.Name)
	}); err != nil {
		return nil, err
	}
	switch {
	case gone != nil:
		return nil, gone
	case h.tender == nil:
		return nil, fmt.Errorf("what runs in batch job %s can't be reached", h.batch.BatchID)
	}
	on, stop := h.while(ctx)
	defer stop()
	inner, err := h.tender.executor.Reopen(on, r.Session)
	if err != nil {
		return nil, h.tender.fault(err)
	}
	return &session{lease: h, inner: inner, began: true}, nil
}

// Ready returns why no job can be taken now.
func (x *Executor) Ready() error { return x.cluster.Ready() }

// Changed returns a channel that is closed when Ready may say something else.
func (x *Executor) Changed() <-chan struct{} { return x.cluster.Changed() }

// Sweep implements tranter.Sweeper: it takes places back from jobs that are not there any more.
func (x *Executor) Sweep(ctx context.Context, live func(name string) bool) error {
	var held []string
	if err := x.cluster.do(ctx, func(l *loop) {
		for _, a := range l.book.All() {
			for _, lease := range a.Leases {
				if l.waiters[lease.Job] == nil {
					held = append(held, lease.Job)
				}
			}
		}
	}); err != nil {
		return err
	}
	for _, job := range held {
		if !live(job) {
			x.cluster.options.Log.Warn("A place in a batch job was held by a job that is not there any more", "job", job)
			(&lease{cluster: x.cluster, job: job}).release("its job is not there any more")
		}
	}
	return nil
}

// session is a job's session in a place of an allocation.
type session struct {
	lease *lease
	inner tranter.Session
	log   io.Writer

	mu    sync.Mutex
	began bool
}

// Start implements tranter.Session. That something of the job was begun is recorded before it is.
func (s *session) Start(ctx context.Context, p tranter.Phase) error {
	on, stop := s.lease.while(ctx)
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.began {
		if err := s.lease.begun(on); err != nil {
			return err
		}
		s.began = true
	}
	if err := s.inner.Start(on, p); err != nil {
		return s.lease.tender.fault(err)
	}
	return nil
}

// Attach implements tranter.Session. What the end of the batch job means for the job is in what it returns.
func (s *session) Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	// Not ended with the allocation: what is left of the journal is worth reading.
	result, err := s.inner.Attach(ctx, phaseID, offset, w)
	if !cutOff(result, err) {
		return result, err
	}
	s.awaitFate(ctx)
	return s.lease.tender.judge(result, err)
}

// cutOff says whether a phase has ended with its allocation, or because that is about to end.
func cutOff(result tranter.PhaseResult, err error) bool {
	return errors.Is(err, tranter.ErrMachineLost) || (err == nil && result.Reason == tranter.RunnerInterrupted)
}

// fateLimit is how long the scheduler's word on the end of a batch job is waited for.
const fateLimit = 20 * time.Second

// awaitFate waits until it is known how the allocation has ended, or for long enough.
func (s *session) awaitFate(ctx context.Context) {
	s.lease.cluster.post(func(l *loop) { l.looks.soon(time.Now()) })
	timer := time.NewTimer(fateLimit)
	defer timer.Stop()
	select {
	case <-s.lease.tender.lives.Done():
	case <-timer.C:
	case <-ctx.Done():
	}
}

// judge says what the end of a phase means that was cut off.
func (t *tender) judge(result tranter.PhaseResult, err error) (tranter.PhaseResult, error) {
	t.mu.Lock()
	fate := t.fate
	t.mu.Unlock()
	if fate == nil && err == nil {
		fate = leaving(allocation.Allocation{}, result.Message)
	}
	if fate == nil {
		return result, err
	}
	if fate.Kind == tranter.JobExecutionTimeout {
		return over(result, tranter.PhaseTimedOut, fate.Kind, fate.Text), nil
	}
	if fate.Kind == tranter.ScriptFailure {
		return over(result, tranter.PhaseFailed, fate.Kind, fate.Text), nil
	}
	if err != nil && strings.Contains(err.Error(), fate.Text) {
		return result, err
	}
	return result, fmt.Errorf("%w: %s", tranter.ErrMachineLost, fate.Text)
}

func over(r tranter.PhaseResult, status tranter.PhaseStatus, reason tranter.FailureReason, text string) tranter.PhaseResult {
	r.Status, r.Reason, r.Message, r.Over = status, reason, text, true
	return r
}

// Cancel implements tranter.Session.
func (s *session) Cancel(ctx context.Context, phaseID string, abort bool, grace time.Duration) error {
	on, stop := s.lease.while(ctx)
	defer stop()
	return s.inner.Cancel(on, phaseID, abort, grace)
}

// lostClose is how long the executor of an allocation that is lost gets to close a session.
const lostClose = 5 * time.Second

// Close implements tranter.Session. An allocation in which something is left takes no other job.
func (s *session) Close(ctx context.Context) error {
	if s.lease.tender.lost() {
		closing, stop := context.WithTimeout(ctx, lostClose)
		defer stop()
		_ = s.inner.Close(closing) // what is in the allocation has gone with it
		s.lease.release("the batch job has ended")
		return nil
	}
	on, stop := s.lease.while(ctx)
	err := s.inner.Close(on)
	stop()
	if err != nil {
		name, text := s.lease.tender.name, "what a job left could not be removed: "+err.Error()
		s.lease.cluster.post(func(l *loop) {
			if a := l.book.Get(name); a != nil && a.State != allocation.Ended {
				l.record(allocation.Event{Kind: allocation.Drain, Allocation: name, Reason: text})
			}
		})
	}
	s.lease.release("the job has ended")
	return nil
}

// Used is what the session of an allocation's executor may be besides: one that knows what its job has used.
type Used interface {
	// Used returns the CPU time of the job's processes, and the memory of the largest one in bytes.
	Used(ctx context.Context) (cpu time.Duration, memory int64, err error)
}

// Account implements tranter.Accounted.
func (s *session) Account(ctx context.Context) *tranter.Bill {
	var b *tranter.Bill
	if err := s.lease.cluster.do(ctx, func(l *loop) {
		if a := l.book.Get(s.lease.tender.name); a != nil { // also when the job has lost its place with it
			b = billOf(*a, s.lease, time.Now())
		}
	}); err != nil {
		return nil
	}
	if b == nil {
		b = billOf(s.lease.batch, s.lease, time.Now())
	}
	if u, ok := s.inner.(Used); ok && !s.lease.tender.lost() {
		if cpu, memory, err := u.Used(ctx); err == nil {
			b.CPUTime, b.MaxMemory = cpu, memory
		}
	}
	return b
}

// billOf is what a job has used of an allocation.
func billOf(a allocation.Allocation, h *lease, now time.Time) *tranter.Bill {
	b := &tranter.Bill{
		BatchJob: a.BatchID, Nodes: cmp.Or(a.Batch.Nodes, h.batch.Batch.Nodes), Queue: cmp.Or(a.Batch.Queue, a.Shape.Partition),
		CPUs: a.Shape.CPUs / max(1, a.Places), GPUs: a.Shape.GPUs / max(1, a.Places),
	}
	if !a.Times.Started.IsZero() && !a.Times.Queued.IsZero() {
		b.Waited = max(0, a.Times.Started.Sub(a.Times.Queued))
	}
	if ended := a.Times.Ended; !ended.IsZero() && ended.Before(now) {
		now = ended
	}
	for _, lease := range h.batch.Leases {
		if lease.Job == h.job {
			b.Ran = max(0, now.Sub(lease.Since))
		}
	}
	return b
}

// Place implements tranter.Placed.
func (s *session) Place() tranter.JobPlace { return tranter.JobPlace{Batch: s.lease.tender.name} }

// Ref implements tranter.Session.
func (s *session) Ref() json.RawMessage {
	ref, err := json.Marshal(reference{Cluster: s.lease.cluster.options.Class, Allocation: s.lease.tender.name, Job: s.lease.job, Session: s.inner.Ref()})
	if err != nil {
		return nil
	}
	return ref
}
