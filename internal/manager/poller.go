package manager

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// poller asks one runner's coordinator for jobs.
type poller struct {
	m    *Manager
	life               // ends with the manager's polling, or before
	wake chan struct{} // has one element after a change

	mu       sync.Mutex
	runner   Runner
	pace     pace
	requests int // under way
	jobs     int // running
	contact  time.Time
	problem  string // of the last request
	unready  string // the fault for which no job can be taken; empty: there is none
	busy     string // why no job can be taken without a fault
	told     told
	held     string // a person has paused the runner: by whom and since when
	rounds   life   // of requests; it ends with the poller, or when the runner is paused
}

func newPoller(m *Manager, r Runner, interval time.Duration) *poller {
	p := &poller{m: m, runner: r, pace: pace{interval: interval, limits: r.Limits}, wake: make(chan struct{}, 1)}
	p.Context, p.end = context.WithCancelCause(m.polling)
	p.rounds = below(p)
	p.hold(m.held[r.Token.Short()])
	for _, job := range m.running {
		if job.runner == r.key() {
			p.jobs++
		}
	}
	return p
}

// change replaces the runner's settings. A pause for refused requests stays: a reload does not make a token valid.
func (p *poller) change(r Runner, interval time.Duration) {
	p.mu.Lock()
	p.runner = r
	p.pace.interval, p.pace.limits = interval, r.Limits
	p.mu.Unlock()
	p.nudge()
}

func (p *poller) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run starts requests, each in a goroutine of its own, as the pace and the limits allow, and waits for them.
func (p *poller) run() {
	var requests sync.WaitGroup
	defer requests.Wait()
	for p.Err() == nil {
		ready, until := p.ready(time.Now())
		if !ready {
			p.sleep(until, nil)
			continue
		}
		if ok, changed := p.canRun(); !ok {
			p.sleep(time.Now().Add(p.interval()), changed)
			continue
		}
		if ok, all := p.m.mayAsk(); !ok {
			if all {
				p.m.Drain()
			}
			p.sleep(time.Now().Add(p.interval()), nil)
			continue
		}
		if !p.takePlace() {
			continue
		}
		p.mu.Lock()
		p.requests++
		// Until this request has told more, there is no other one.
		p.pace.next = time.Now().Add(p.pace.interval)
		p.mu.Unlock()
		requests.Go(p.request)
	}
}

// stale is how long what Ready has said holds while the runner waits for a place.
const stale = 100 * time.Millisecond

// takePlace waits for a place. It is false if none is needed any more: the poller is to end, or no job can be taken now.
func (p *poller) takePlace() bool {
	asked := time.Now()
	if p.m.places.acquire(p) != nil {
		p.m.asked(false)
		return false
	}
	if time.Since(asked) < stale {
		return true
	}
	if ok, _ := p.canRun(); ok {
		return true
	}
	p.m.places.release()
	p.m.asked(false)
	return false
}

// ready says whether a request may be started, or when to look again; the zero time: after a change.
func (p *poller) ready(now time.Time) (bool, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != "" || p.requests >= p.pace.requests() || (p.runner.Expect != nil && p.requests > 0) {
		return false, time.Time{}
	}
	if limit := p.runner.Limits.Jobs; limit > 0 && p.jobs+p.requests >= limit {
		return false, time.Time{}
	}
	return !now.Before(p.pace.next), p.pace.next
}

// asks says whether a request is under way.
func (p *poller) asks() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests > 0
}

// canRun says whether a job could be run now, and tells why not when that changes. The channel, if there is one, is closed
// when it may be otherwise.
func (p *poller) canRun() (ok bool, changed <-chan struct{}) {
	p.mu.Lock()
	r, before := p.runner, p.unready
	p.mu.Unlock()
	if r.Changed != nil {
		changed = r.Changed() // before Ready: what changes meanwhile is seen
	}
	var err error
	if r.Ready != nil {
		err = r.Ready()
	}
	ok = err == nil
	fault, busy := "", ""
	switch {
	case errors.Is(err, tranter.ErrBusy):
		err, busy = nil, err.Error()
	case err != nil:
		fault = err.Error()
	}
	p.mu.Lock()
	p.unready, p.busy = fault, busy
	news := p.newsLocked(time.Now())
	p.mu.Unlock()
	news.pass(p.m)
	switch log := p.m.options.Log.With("runner", r.Token.Short(), "name", r.Name); {
	case err != nil && before == "":
		log.Error("The runner takes no jobs for now", "error", err)
	case err == nil && before != "":
		log.Info("The runner takes jobs again")
	}
	return ok, changed
}

func (p *poller) interval() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pace.interval
}

// sleep waits for the time, for a change of the runner or for the channel to be closed. The zero time and no channel are
// not waited for.
func (p *poller) sleep(until time.Time, changed <-chan struct{}) {
	var alarm <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-p.Done():
	case <-p.wake:
	case <-changed:
	case <-alarm:
	}
}

// request asks once, and starts the job that it gets.
func (p *poller) request() {
	p.mu.Lock()
	r, round := p.runner, p.rounds
	p.mu.Unlock()
	ask := r.Request
	ask.NoHold = noHold(p.m) || r.Expect != nil
	offer(p.m, &ask)
	var late *tranter.Job
	ask.Unclaimed = func(j *tranter.Job) { late = j }
	start := time.Now()
	var got *tranter.Job
	err := context.Cause(round) // it may have been paused since it was found ready
	if err == nil {
		got, err = r.Coordinator.Request(round, ask)
	}
	if late != nil {
		got, err = late, nil
	}
	o, later := judge(round, got, err)
	if got != nil && r.Expect != nil {
		r.Expect(got.ID)
	}
	p.mu.Lock()
	p.requests--
	p.pace = p.pace.after(o, start, time.Now(), later)
	p.note(o, err)
	if got != nil {
		p.jobs++
	}
	r = p.runner // a job starts with the settings of now, not with those of the request
	paused := p.pace.paused
	news := p.newsLocked(time.Now())
	p.mu.Unlock()
	news.pass(p.m)
	if paused && o == refused {
		p.m.options.Log.Error("The runner pauses because its requests are refused", "runner", r.Token.Short(), "name", r.Name, "for", r.Limits.pause())
	}
	p.m.asked(got != nil)
	if got == nil {
		p.m.places.release()
	} else {
		p.m.accept(r, got, ask.Access)
	}
	p.nudge()
}

// judge sorts the answer to a request.
func judge(round context.Context, got *tranter.Job, err error) (outcome, time.Duration) {
	var busy *tranter.UnavailableError
	switch {
	case got != nil:
		return gotJob, 0
	case round.Err() != nil:
		return notAsked, 0
	case err == nil:
		return noJob, 0
	case errors.Is(err, tranter.ErrForbidden):
		return refused, 0
	case errors.As(err, &busy):
		return unwell, busy.RetryAfter
	default:
		return unwell, 0
	}
}

// note keeps what Status shows of a request, and logs when it changes.
func (p *poller) note(o outcome, err error) {
	if o == notAsked {
		return
	}
	before := p.problem
	p.problem = ""
	if err != nil {
		p.problem = err.Error()
	}
	if o == gotJob || o == noJob {
		p.contact = time.Now()
	}
	log := p.m.options.Log.With("runner", p.runner.Token.Short(), "name", p.runner.Name)
	switch {
	case err != nil && p.problem != before:
		log.Warn("Checking for jobs... failed", "error", err)
	case err == nil && before != "":
		log.Info("Checking for jobs works again")
	}
}

func below(ctx context.Context) life {
	inner, end := context.WithCancelCause(ctx)
	return life{inner, end}
}

// hold pauses the runner for a person, or with "" resumes it.
func (p *poller) hold(by string) {
	p.mu.Lock()
	before := p.held
	p.held = by
	switch {
	case by != "":
		p.rounds.end(errHeld)
	case before != "":
		p.rounds = below(p)
	}
	p.mu.Unlock()
	p.nudge()
}

// freed tells that a job of this runner has given its place back.
func (p *poller) freed() {
	p.mu.Lock()
	p.jobs--
	p.mu.Unlock()
	p.nudge()
}
