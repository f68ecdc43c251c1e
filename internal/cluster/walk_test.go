package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
)

// walk is a day in the life of a cluster: jobs come, are cancelled or taken by others, batch jobs die, the scheduler and the
// disk fail, and the manager is restarted, all at random.
type walk struct {
	*lab
	t      *testing.T
	random *rand.Rand
	owned  sync.WaitGroup

	mu      sync.Mutex
	manager *life             // of now; nil: there is none
	back    chan struct{}     // closed when there is a manager again
	waiting []int64           // in GitLab
	next    int64             // job
	begun   map[string]string // job to the allocation in which a phase of it was started
	inside  map[string]string // job to the allocation in which its session is
	fates   map[string]string // of jobs that were taken
	cancels map[int64]context.CancelFunc
}

// life is a manager from one start to the next.
type life struct {
	cluster *cluster.Cluster
	leaving chan struct{}
	stop    func()
	jobs    sync.WaitGroup
}

func newWalk(t *testing.T, seed uint64) *walk {
	w := &walk{
		lab: newLab(t), t: t, random: rand.New(rand.NewPCG(seed, 1)), back: make(chan struct{}), begun: map[string]string{}, inside: map[string]string{},
		fates: map[string]string{}, cancels: map[int64]context.CancelFunc{},
	}
	w.queue = time.Duration(w.random.IntN(60)) * time.Second
	return w
}

// policy is one of all that there can be.
func (w *walk) policy() allocation.Policy {
	p := allocateFirst()
	if w.random.IntN(2) == 0 {
		p = takeFirst()
	}
	if w.random.IntN(2) == 0 {
		p.Places, p.PackWindow = 2+w.random.IntN(3), time.Duration(w.random.IntN(10))*time.Second
	}
	if w.random.IntN(2) == 0 {
		p.Linger = time.Minute
	}
	p.MaxUses = w.random.IntN(3)
	p.Limits.Total = []int{0, 3, 10}[w.random.IntN(3)]
	p.Limits.Rate, p.Limits.Burst = 2, 5
	return p
}

func (w *walk) begin(s cluster.Settings) {
	l := &life{leaving: make(chan struct{})}
	l.cluster, l.stop = w.start(s)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.manager = l
	close(w.back)
}

// finish ends the manager: what waits or runs goes on under the next one.
func (w *walk) finish() {
	w.mu.Lock()
	l := w.manager
	w.manager, w.back = nil, make(chan struct{})
	w.mu.Unlock()
	close(l.leaving)
	l.jobs.Wait()
	l.stop()
}

// at returns the manager, when there is one.
func (w *walk) at() *life {
	for {
		w.mu.Lock()
		l, back := w.manager, w.back
		if l != nil {
			l.jobs.Add(1)
		}
		w.mu.Unlock()
		if l != nil {
			return l
		}
		<-back
	}
}

// poll takes jobs as a manager does, and looks at those that wait.
func (w *walk) poll(seconds int) {
	w.mu.Lock()
	l := w.manager
	list := slices.Clone(w.waiting)
	w.mu.Unlock()
	if l == nil {
		return
	}
	if seconds%5 == 0 {
		jobs := pending(list...)
		for i := range jobs {
			jobs[i].Since = time.Unix(946684800+10*jobs[i].ID, 0)
		}
		if err := l.cluster.Demand(context.Background(), jobs); err != nil {
			w.t.Error(err)
		}
	}
	if seconds%60 == 0 {
		if err := l.cluster.Executor().Sweep(context.Background(), w.lives); err != nil {
			w.t.Error(err)
		}
	}
	for len(list) > 0 && l.cluster.Ready() == nil {
		id := list[0]
		list = list[1:]
		w.mu.Lock()
		w.waiting = slices.DeleteFunc(w.waiting, func(other int64) bool { return other == id })
		w.mu.Unlock()
		w.take(id)
		synctest.Wait()
	}
}

// lives says whether a job that was taken has not ended.
func (w *walk) lives(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fates[name] == ""
}

// take runs a job, over restarts.
func (w *walk) take(id int64) {
	ctx, cancel := context.WithCancel(context.Background())
	w.mu.Lock()
	w.cancels[id] = cancel
	long := time.Duration(w.random.IntN(90)) * time.Second
	w.mu.Unlock()
	w.owned.Go(func() {
		defer cancel()
		fate := w.run(ctx, id, long)
		w.mu.Lock()
		defer w.mu.Unlock()
		key := "job-" + strconv.FormatInt(id, 10)
		if w.fates[key] != "" {
			w.t.Errorf("job %d has two ends: %s and %s", id, w.fates[key], fate)
		}
		w.fates[key] = fate
		delete(w.cancels, id)
	})
}

func (w *walk) run(ctx context.Context, id int64, long time.Duration) string {
	var ref json.RawMessage
	for {
		l := w.at()
		fate, again := w.stage(ctx, l, id, long, &ref)
		l.jobs.Done()
		if !again {
			return fate
		}
		select { // as a restart takes a while
		case <-l.leaving:
		default:
			w.t.Errorf("job %d is told that the manager leaves, and it does not: %s", id, fate)
			return fate
		}
	}
}

// stage is a job's time with one manager.
func (w *walk) stage(ctx context.Context, l *life, id int64, long time.Duration, ref *json.RawMessage) (fate string, again bool) {
	var log lockedBuffer
	var s tranter.Session
	var err error
	if *ref == nil {
		one := spec(id, &log)
		one.Leaving = l.leaving
		s, err = l.cluster.Executor().Open(ctx, one)
	} else {
		s, err = l.cluster.Executor().Reopen(ctx, *ref)
	}
	switch {
	case errors.Is(err, cluster.ErrEnded):
		return "ended", true
	case err != nil:
		return "failed: " + err.Error(), false
	}
	*ref = s.Ref()
	on, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(ctx, func() { stop(ctx.Err()) })()
	go func() {
		select {
		case <-l.leaving:
			stop(cluster.ErrEnded)
		case <-on.Done():
		}
	}()
	err = s.Start(on, tranter.Phase{ID: long.String()})
	if err == nil {
		_, err = s.Attach(on, long.String(), 0, &log)
	}
	if errors.Is(context.Cause(on), cluster.ErrEnded) {
		return "left", true
	}
	if e := s.Close(context.Background()); e != nil {
		w.t.Error(e)
	}
	if err != nil {
		return "failed: " + err.Error(), false
	}
	return "ran", false
}

// chance does one thing at random.
func (w *walk) chance(s cluster.Settings) {
	switch w.random.IntN(60) {
	case 0, 1, 2, 3:
		w.mu.Lock()
		for range 1 + w.random.IntN(3) {
			w.next++
			w.waiting = append(w.waiting, w.next)
		}
		w.mu.Unlock()
	case 6, 7:
		w.mu.Lock()
		if len(w.waiting) > 0 { // cancelled, or taken by another runner
			i := w.random.IntN(len(w.waiting))
			w.waiting = slices.Delete(w.waiting, i, i+1)
		}
		w.mu.Unlock()
	case 8:
		w.mu.Lock()
		for _, cancel := range w.cancels {
			cancel()
			break
		}
		w.mu.Unlock()
	case 9, 10:
		if name := w.any(); name != "" {
			w.kill(name, []tranter.BatchState{tranter.BatchNodeLost, tranter.BatchPreempted, tranter.BatchCancelled, tranter.BatchFailed}[w.random.IntN(4)])
		}
	case 11:
		if name := w.any(); name != "" { // its worker is never heard of again
			w.lab.mu.Lock()
			w.lost[name] = true
			w.lab.mu.Unlock()
		}
	case 12, 13:
		crash := w.random.IntN(2) == 0 // without a moment to save anything
		w.keeps(func(m *memory) { m.lost = crash })
		w.finish()
		w.keeps(func(m *memory) { m.lost = false })
		pass(time.Duration(w.random.IntN(20)) * time.Second)
		w.begin(s)
	case 14:
		w.weather(func(l *lab) { l.away = !l.away })
	case 15:
		w.weather(func(l *lab) { l.deaf = !l.deaf })
	case 16:
		w.weather(func(l *lab) {
			l.refuse = map[bool]error{true: fmt.Errorf("%w: too many jobs", tranter.ErrNoCapacity)}[l.refuse == nil]
		})
	case 17:
		w.weather(func(l *lab) { l.forget = !l.forget })
	case 18:
		w.keeps(func(m *memory) { m.fail = !m.fail })
	case 19:
		w.weather(func(l *lab) { l.slow = map[bool]time.Duration{true: 50 * time.Second}[l.slow == 0] })
	default:
	}
}

func (w *walk) weather(f func(*lab)) {
	w.lab.mu.Lock()
	defer w.lab.mu.Unlock()
	f(w.lab)
}

func (w *walk) keeps(f func(*memory)) {
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	f(w.book)
}

// any names a batch job that waits or runs.
func (w *walk) any() string {
	w.lab.mu.Lock()
	defer w.lab.mu.Unlock()
	var names []string
	for name, j := range w.jobs {
		if !j.State.Final() {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return names[w.random.IntN(len(names))]
}

// place is the executor in an allocation of a walk.
type place struct {
	w    *walk
	name string
}

func (p *place) alive() bool {
	p.w.lab.mu.Lock()
	defer p.w.lab.mu.Unlock()
	j := p.w.jobs[p.name]
	return j != nil && j.State == tranter.BatchRunning && !p.w.lost[p.name]
}

func (p *place) Open(ctx context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	if !p.alive() {
		return nil, tranter.ErrMachineLost
	}
	p.w.mu.Lock()
	other := p.w.inside[spec.Name]
	p.w.inside[spec.Name] = p.name
	p.w.mu.Unlock()
	if other != "" && other != p.name && (&place{p.w, other}).alive() {
		p.w.t.Errorf("%s is opened in %s, and is in %s", spec.Name, p.name, other)
	}
	timer := time.NewTimer(2 * time.Second) // a long preparation
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if !p.alive() {
		return nil, tranter.ErrMachineLost
	}
	return &seat{p, spec.Name}, nil
}

func (p *place) Reopen(_ context.Context, ref json.RawMessage) (tranter.Session, error) {
	var job string
	if err := json.Unmarshal(ref, &job); err != nil {
		return nil, err
	}
	if !p.alive() {
		return nil, tranter.ErrMachineLost
	}
	return &seat{p, job}, nil
}

type seat struct {
	*place
	job string
}

func (s *seat) Start(context.Context, tranter.Phase) error {
	if !s.alive() {
		return tranter.ErrMachineLost
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if before := s.w.begun[s.job]; s.w.inside[s.job] != s.name || before != "" && before != s.name {
		s.w.t.Errorf("%s is begun in %s, is in %s, and was begun in %q", s.job, s.name, s.w.inside[s.job], before)
	}
	s.w.begun[s.job] = s.name
	return nil
}

func (s *seat) Attach(ctx context.Context, phase string, _ int64, _ io.Writer) (tranter.PhaseResult, error) {
	long, err := time.ParseDuration(phase)
	if err != nil {
		return tranter.PhaseResult{}, err
	}
	end := time.Now().Add(long)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for time.Now().Before(end) {
		if !s.alive() {
			return tranter.PhaseResult{}, tranter.ErrMachineLost
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return tranter.PhaseResult{}, context.Cause(ctx)
		}
	}
	return tranter.PhaseResult{Status: tranter.PhaseSucceeded}, nil
}

func (s *seat) Cancel(context.Context, string, bool, time.Duration) error { return nil }

func (s *seat) Close(context.Context) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	delete(s.w.inside, s.job)
	return nil
}

func (s *seat) Ref() json.RawMessage { return json.RawMessage(strconv.Quote(s.job)) }

// stroll is a walk of 15 minutes, after which all is well again.
func (w *walk) stroll() {
	s := w.settings(w.policy())
	s.Hands.Executor = func(name string) (tranter.Executor, error) { return &place{w, name}, nil }
	w.begin(s)
	for second := range 15 * 60 {
		pass(time.Second)
		w.poll(second)
		w.chance(s)
	}
	w.weather(func(l *lab) { l.away, l.deaf, l.refuse, l.slow = false, false, nil, 0 })
	w.keeps(func(m *memory) { m.fail = false })
	second := 0
	for ; second < 4*60*60; second++ { // what was learned of the scheduler's limits wears off slowly
		pass(time.Second)
		w.poll(second)
		w.mu.Lock()
		left := len(w.waiting) + len(w.cancels)
		w.mu.Unlock()
		if left == 0 && w.live() == 0 {
			break
		}
	}
	w.mu.Lock()
	if len(w.waiting)+len(w.cancels) > 0 {
		w.t.Errorf("jobs %v wait for ever, %d do not end", w.waiting, len(w.cancels))
	}
	for job, fate := range w.fates {
		if fate == "ran" && w.begun[job] == "" {
			w.t.Errorf("%s has ended well, and was not begun", job)
		}
	}
	kinds := map[string]int{}
	for _, fate := range w.fates {
		kinds[fate]++
	}
	w.t.Logf("%d jobs, %d batch jobs: %v", w.next, w.count(), kinds)
	w.mu.Unlock()
	if n := w.live(); n > 0 {
		w.lab.mu.Lock()
		for _, j := range w.jobs {
			if !j.State.Final() {
				w.t.Errorf("batch job %+v is left", *j)
			}
		}
		w.lab.mu.Unlock()
	}
	if w.t.Failed() {
		if st, err := w.manager.cluster.Status(context.Background()); err == nil {
			for _, a := range st.Allocations {
				w.t.Logf("%s is %s: %s", a.Name, a.State, a.Reason)
			}
			st.Allocations = nil
			w.t.Logf("at %v: %+v", time.Now(), st)
		}
	}
	if most := 6*int(w.next) + 20; w.count() > most {
		w.t.Errorf("%d batch jobs were submitted for %d jobs", w.count(), w.next)
	}
	w.finish()
	w.owned.Wait()
}

func TestWhateverHappensEachJobHasOneEndAndNothingIsLeft(t *testing.T) {
	t.Parallel()
	seeds := uint64(2)
	if more, err := strconv.ParseUint(os.Getenv("CLUSTER_SEEDS"), 10, 64); err == nil {
		seeds = more
	}
	for seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { newWalk(t, seed).stroll() })
		})
	}
}
