package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
)

// lab is a batch system, and what runs in its jobs, in memory.
type lab struct {
	t     *testing.T
	book  *memory
	signs chan cluster.Sign

	mu      sync.Mutex
	jobs    map[string]*tranter.BatchJob // by name
	ids     int
	queue   time.Duration // for which jobs wait
	slow    time.Duration // of submissions
	away    bool          // the controller does not answer
	forget  bool          // ended jobs are not listed
	deaf    bool          // submissions are taken, but the answer is lost
	refuse  error         // of submissions
	submits int
	lists   int
	began   map[string]bool
	lost    map[string]bool
	opened  map[string]string // job to allocation
	ended   map[string]string // allocations that were told to end
	removed []string
	fail    map[string]error // by allocation: why sessions can't be opened
}

func newLab(t *testing.T) *lab {
	t.Helper()
	return &lab{
		t: t, book: &memory{rows: map[string]string{}}, signs: make(chan cluster.Sign, 1000), jobs: map[string]*tranter.BatchJob{},
		began: map[string]bool{}, lost: map[string]bool{}, opened: map[string]string{}, ended: map[string]string{}, fail: map[string]error{},
		queue: 3 * time.Second,
	}
}

// memory is a book that keeps what it is given as the store does: as text.
type memory struct {
	mu   sync.Mutex
	rows map[string]string
	fail bool
	lost bool // what is saved does not last, as after a crash
}

func (m *memory) Load(context.Context, string) ([]allocation.Allocation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []allocation.Allocation
	for _, text := range m.rows {
		var a allocation.Allocation
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func (m *memory) Save(_ context.Context, _ string, changed []allocation.Allocation, gone []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail {
		return errors.New("the disk is full")
	}
	if m.lost {
		return nil
	}
	for _, a := range changed {
		text, err := json.Marshal(a)
		if err != nil {
			return err
		}
		m.rows[a.Name] = string(text)
	}
	for _, name := range gone {
		delete(m.rows, name)
	}
	return nil
}

var errAway = errors.New("unable to contact the controller")

func (l *lab) Submit(ctx context.Context, spec tranter.BatchSpec) (string, error) {
	l.mu.Lock()
	slow := l.slow
	l.mu.Unlock()
	if slow > 0 {
		timer := time.NewTimer(slow)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.away:
		return "", errAway
	case l.refuse != nil:
		return "", l.refuse
	case l.jobs[spec.Name] != nil && !l.jobs[spec.Name].State.Final():
		l.t.Errorf("%s is submitted twice", spec.Name)
	}
	l.ids++
	l.submits++
	id := strconv.Itoa(l.ids)
	l.jobs[spec.Name] = &tranter.BatchJob{ID: id, Name: spec.Name, State: tranter.BatchQueued, Native: "PENDING", Reason: "Resources", Queue: "batch", Submitted: time.Now()}
	if l.deaf {
		return "", errors.New("it took too long")
	}
	return id, nil
}

// turn lets time pass: jobs that have waited long enough begin, and what runs in them says so.
func (l *lab) turn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, j := range l.jobs {
		if j.State == tranter.BatchQueued && time.Since(j.Submitted) >= l.queue {
			j.State, j.Native, j.Reason, j.Nodes, j.Started = tranter.BatchRunning, "RUNNING", "None", "n1", time.Now()
			l.began[name] = true
			l.signs <- cluster.Sign{Name: name, Kind: cluster.Began, At: time.Now(), Until: time.Now().Add(time.Hour), Host: "n1"}
		}
		if j.State == tranter.BatchRunning && !l.lost[name] {
			l.signs <- cluster.Sign{Name: name, Kind: cluster.Alive, At: time.Now(), Until: j.Started.Add(time.Hour)}
		}
	}
}

func (l *lab) List(context.Context, string) ([]tranter.BatchJob, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lists++
	if l.away {
		return nil, errAway
	}
	var out []tranter.BatchJob
	for _, j := range l.jobs {
		if !l.forget || !j.State.Final() {
			out = append(out, *j)
		}
	}
	return out, nil
}

func (l *lab) Final(_ context.Context, ids []string) ([]tranter.BatchJob, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return nil, errAway
	}
	var out []tranter.BatchJob
	for _, j := range l.jobs {
		if slices.Contains(ids, j.ID) {
			out = append(out, *j)
		}
	}
	return out, nil
}

func (l *lab) Cancel(_ context.Context, ids []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return errAway
	}
	for _, j := range l.jobs {
		if slices.Contains(ids, j.ID) && !j.State.Final() {
			j.State, j.Native, j.Ended = tranter.BatchCancelled, "CANCELLED", time.Now()
		}
	}
	return nil
}

func (l *lab) Check(context.Context, tranter.BatchSpec) error { return nil }

// kill ends a batch job from outside.
func (l *lab) kill(name string, state tranter.BatchState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.jobs[name].State, l.jobs[name].Native, l.jobs[name].Ended = state, strings.ToUpper(string(state)), time.Now()
}

func (l *lab) hands() cluster.Hands {
	return cluster.Hands{
		Prepare: func(a allocation.Allocation, _ *tranter.Account) (string, error) {
			return "#!/bin/sh\n# " + a.Name + "\n", nil
		},
		Follow: func(string) {},
		Watch: func(ctx context.Context, found func(cluster.Sign)) error {
			for {
				select {
				case s := <-l.signs:
					found(s)
				case <-ctx.Done():
					return nil
				}
			}
		},
		Executor: func(name string) (tranter.Executor, error) { return &inner{lab: l, name: name}, nil },
		Lost: func(name string, _ error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.lost[name] = true
		},
		End: func(_ context.Context, name, reason string) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.ended[name] = reason
			if j := l.jobs[name]; j != nil && !j.State.Final() {
				j.State, j.Native, j.Ended = tranter.BatchCompleted, "COMPLETED", time.Now()
			}
			return nil
		},
		Remove: func(name string) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.removed = append(l.removed, name)
			return nil
		},
	}
}

func (l *lab) settings(p allocation.Policy) cluster.Settings {
	p.Prefix = "test-abc"
	return cluster.Settings{
		Runner: "lab", System: "lab", Scheduler: l, Policy: p, Hands: l.hands(), List: cluster.NewLists(l, "test-", 2*time.Second).List,
		Size: func(n cluster.Need) (tranter.Shape, []string, error) {
			for _, v := range n.Variables {
				if v.Key == "TOO_MUCH" {
					return tranter.Shape{}, nil, errors.New("TOO_MUCH is too much")
				}
			}
			return tranter.Shape{CPUs: 1, Walltime: time.Hour}, nil, nil
		},
		Output: func(string) string { return "/dev/null" }, Dir: "/", Every: 5 * time.Second,
	}
}

// start starts a cluster over the lab. The returned function ends it and waits for that.
func (l *lab) start(s cluster.Settings) (*cluster.Cluster, func()) {
	l.t.Helper()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("CLUSTER_LOG") != "" {
		log = slog.New(slog.NewTextHandler(l.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c := cluster.New(cluster.Options{Class: "abc", Book: l.book, Log: log}, s)
	ctx, cancel := context.WithCancel(context.Background())
	var owned sync.WaitGroup
	owned.Go(func() {
		if err := c.Run(ctx); err != nil {
			l.t.Error(err)
		}
	})
	owned.Go(func() {
		for ctx.Err() == nil {
			timer := time.NewTimer(500 * time.Millisecond)
			select {
			case <-timer.C:
				l.turn()
			case <-ctx.Done():
			}
		}
	})
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			owned.Wait()
		})
	}
	l.t.Cleanup(stop)
	return c, stop
}

// live counts the batch jobs that wait or run.
func (l *lab) live() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, j := range l.jobs {
		if !j.State.Final() {
			n++
		}
	}
	return n
}

func (l *lab) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.submits
}

// inner is the executor in an allocation.
type inner struct {
	lab  *lab
	name string
}

func (e *inner) Open(ctx context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	e.lab.mu.Lock()
	err := e.lab.fail[e.name]
	if err == nil {
		e.lab.opened[spec.Name] = e.name
	}
	e.lab.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return &innerSession{e: e, job: spec.Name, end: make(chan struct{})}, nil
}

func (e *inner) Reopen(_ context.Context, ref json.RawMessage) (tranter.Session, error) {
	var job string
	if err := json.Unmarshal(ref, &job); err != nil {
		return nil, err
	}
	return &innerSession{e: e, job: job, end: make(chan struct{})}, nil
}

type innerSession struct {
	e   *inner
	job string
	end chan struct{}
}

func (s *innerSession) Start(context.Context, tranter.Phase) error { return nil }

// Attach ends when the allocation is lost, or when the session was told to end.
func (s *innerSession) Attach(ctx context.Context, _ string, _ int64, w io.Writer) (tranter.PhaseResult, error) {
	fmt.Fprintln(w, "output")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		s.e.lab.mu.Lock()
		lost := s.e.lab.lost[s.e.name]
		s.e.lab.mu.Unlock()
		if lost {
			return tranter.PhaseResult{}, tranter.ErrMachineLost
		}
		select {
		case <-tick.C:
		case <-s.end:
			return tranter.PhaseResult{Status: tranter.PhaseSucceeded}, nil
		case <-ctx.Done():
			return tranter.PhaseResult{}, context.Cause(ctx)
		}
	}
}

func (s *innerSession) Cancel(context.Context, string, bool, time.Duration) error { return nil }
func (s *innerSession) Close(context.Context) error                               { return nil }
func (s *innerSession) Ref() json.RawMessage                                      { return json.RawMessage(strconv.Quote(s.job)) }

// spec is what a job's session is opened with.
func spec(id int64, log *lockedBuffer) tranter.SessionSpec {
	return tranter.SessionSpec{
		Name: "job-" + strconv.FormatInt(id, 10), Log: log,
		Job: &tranter.Job{ID: id, Info: tranter.JobInfo{Name: "test", ProjectID: 1}, Variables: []tranter.Variable{{Key: "GITLAB_USER_LOGIN", Value: "alice"}}},
	}
}

func pending(ids ...int64) []cluster.Pending {
	var out []cluster.Pending
	for _, id := range ids {
		out = append(out, cluster.Pending{ID: id, Name: "test", Number: 1, User: cluster.User{Name: "alice"}, Since: time.Now()})
	}
	return out
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
