// Package manager takes jobs from coordinators for many runners and has them run: it polls within the limits, keeps the
// places, starts each job in a goroutine of its own, takes up what ran before a restart, reloads, drains and stops.
//
// It does not know how a job is run (package job), what GitLab's wire looks like (package gitlab) or where a
// configuration comes from: package main makes its Settings.
package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job"
	"github.com/tranter-ci/tranter/internal/plan"
)

// Records keeps the jobs that are not reported yet.
type Records interface {
	job.Records
	Jobs(ctx context.Context) ([]tranter.JobRecord, error)
}

// Options are what a manager is made with and keeps. Dir, Records and Log are needed.
type Options struct {
	Dir     string // under which each job gets a directory; absolute
	Records Records
	Log     *slog.Logger
	// Secrets opens a hold on external secrets for a job; nil: jobs that need some fail.
	Secrets func() tranter.SecretReader
	// Adopt makes a runner for a job from before a restart whose runner is not in the settings any more.
	Adopt   func(tranter.JobRecord) (Runner, error)
	MaxJobs int           // end after so many jobs; 0: no limit
	MaxIdle time.Duration // end when there has been no job for so long; 0: no limit
	// Terminals is where coordinators reach the interactive terminals of jobs; nil: they can't.
	Terminals Terminals
	Linger    time.Duration // how long an environment stays after its job's end for a terminal that is attached
	// SweepEvery is how often executors are asked to remove what jobs have left behind; 0: every minute.
	SweepEvery time.Duration
	Events     func(tranter.Event) // told what happens, at once and in order; it must not wait for anything; nil: nobody is
	Past       job.Past            // keeps what jobs were like; nil: nobody does
	Logs       job.Logs            // keeps the logs of jobs that have ended; nil: they are removed
	// Paused are the runners that were paused before this start, by their short tokens, each with by whom and since when.
	Paused map[string]string
}

// Settings are what a configuration says. They may be replaced while the manager runs.
type Settings struct {
	Concurrent      int           // jobs at the same time, over all runners
	CheckInterval   time.Duration // between two requests of a runner that has no job
	ShutdownTimeout time.Duration // for running jobs to end and to be reported once the manager is stopped
	Runners         []Runner
}

// Runner is one section of the configuration, made ready.
type Runner struct {
	Name        string
	URL         string // of the coordinator
	Token       tranter.Secret
	Coordinator tranter.Coordinator
	Executor    tranter.Executor
	Caches      job.CacheSigner // of the distributed cache; nil: there is none
	Measure     job.Measure     // of environments while jobs run; nil: nothing is
	// Ready returns why no job can be taken now, such as a full disk; nil: one always can. An error that is tranter.ErrBusy is
	// no fault.
	Ready func() error
	// Changed returns a channel that is closed when Ready may say something else than at the time of the call, so that a
	// runner with room asks at once; nil: Ready is asked now and then.
	Changed func() <-chan struct{}
	// Expect is told of each job that was taken, before Ready is asked again. A runner that has it takes no more jobs than Ready
	// knows places for: it makes one request at a time, which the coordinator does not hold until there is none any more. nil:
	// what Ready says is good enough.
	Expect  func(job int64)
	Request tranter.Request
	Plan    plan.Settings
	Limits  Limits
}

// Limits bound what one runner does.
type Limits struct {
	Jobs     int           // at the same time; 0: only Concurrent
	Requests int           // for a job at the same time; 0: 1
	Strict   bool          // wait for the check interval even after a job
	Faults   int           // refused requests in a row after which the runner pauses; 0: 3
	Pause    time.Duration // length of that pause; 0: an hour
	Prepare  time.Duration // for the environment of a job; 0: the job's timeout
	Tries    int           // of a job's final report that follow each other quickly; 0: 10
	// Report is how often each job reports, whether it has something to tell or not, until the coordinator names another
	// interval; 0: as often as the stock runner. A coordinator next door can tell a job sooner that it is to end.
	Report time.Duration
}

// key identifies a runner over reloads and restarts.
func (r *Runner) key() runnerKey { return runnerKey{url: r.URL, short: r.Token.Short()} }

type runnerKey struct{ url, short string }

// Why contexts of the manager end.
var (
	errDraining = errors.New("the manager takes no more jobs")
	errRemoved  = errors.New("the runner was removed from the configuration")
	errLeft     = errors.New("the time to shut down is over")
	errHeld     = errors.New("the runner was paused")
	errAway     = errors.New("the manager makes way for another one")
)

// life is how long something goes on. There are three, which end one after the other.
type life struct {
	context.Context //nolint:containedctx // a stage of the manager's own life, not of a call
	end             context.CancelCauseFunc
}

func newLife() life {
	ctx, end := context.WithCancelCause(context.Background())
	return life{ctx, end}
}

// Manager takes jobs and has them run. It is safe for concurrent use.
type Manager struct {
	options Options
	places  *places
	started time.Time
	owned   sync.WaitGroup // pollers and jobs
	polls   sync.WaitGroup // pollers
	polling life           // of requests for jobs
	jobs    life           // of jobs that are not to be interrupted
	reports life           // of everything that may still be told to a coordinator; it ends last

	mu       sync.Mutex
	settings Settings
	state    State
	pollers  map[runnerKey]*poller
	running  map[string]*running // by the record's key
	left     map[string]bool     // jobs, by the record's key, that stay for the next start
	count    count
	held     map[string]string // runners that a person has paused, by their short tokens
	lastJob  time.Time         // when one was received or ended
	problem  string            // with the configuration as it was read last
	away     bool              // jobs are left to the next start
	polled   bool              // no request for a job is under way any more, nor will one be
}

// count is of jobs, for MaxJobs.
type count struct {
	asking int // requests under way that may bring one
	taken  int // received
}

// New returns a manager that does nothing before Run.
func New(o Options, s Settings) *Manager {
	return &Manager{
		options: o, places: newPlaces(s.Concurrent), started: time.Now(), settings: s, state: Starting,
		polling: newLife(), jobs: newLife(), reports: newLife(),
		pollers: map[runnerKey]*poller{}, running: map[string]*running{}, left: map[string]bool{}, lastJob: time.Now(),
		held: heldBefore(o.Paused),
	}
}

// Run takes up the jobs from before a restart, then takes jobs until the manager is drained or stopped, or ctx ends,
// which stops it. It returns when everything that it has started has ended. What is not reported by then stays
// recorded for the next start.
func (m *Manager) Run(ctx context.Context) error {
	release := context.AfterFunc(ctx, func() { m.Stop(context.Cause(ctx)) }) //nolint:contextcheck // its end is why
	defer release()
	defer m.reports.end(nil)
	if err := m.recover(ctx); err != nil {
		m.Stop(err) //nolint:contextcheck // it ends the manager's own lives
		m.owned.Wait()
		return err
	}
	defer sweepWhile(m)() //nolint:contextcheck // it ends with the manager, which Stop ends when ctx does
	m.mu.Lock()
	before := len(m.running)
	m.mu.Unlock()
	tell(m, tranter.Event{Kind: tranter.ManagerStarted, Text: fmt.Sprintf("Tranter takes jobs; %d from before run or are to be reported", before)})
	defer tell(m, tranter.Event{Kind: tranter.ManagerEnded, Text: "Tranter has ended"})
	m.mu.Lock()
	if m.state == Starting {
		m.state = Running
	}
	m.syncPollersLocked() //nolint:contextcheck // pollers end with the manager's polling, which Stop ends when ctx does
	m.mu.Unlock()
	var idle sync.WaitGroup
	if m.options.MaxIdle > 0 {
		idle.Go(func() { watchIdle(m) }) //nolint:contextcheck // it ends with the manager's polling, which Stop ends when ctx does
	}
	<-m.polling.Done()
	idle.Wait()
	awaitPolls(m)
	m.owned.Wait()
	return nil
}

// Drain takes no more jobs; Run returns when those that run have ended.
func (m *Manager) Drain() { drain(m, "Taking no new jobs; running jobs finish") }

// drain takes no more jobs, for which text says why.
func drain(m *Manager, text string) {
	m.mu.Lock()
	first := m.state < Draining
	if first {
		m.state = Draining
	}
	m.mu.Unlock()
	if first {
		tell(m, tranter.Event{Kind: tranter.ManagerDraining, Text: text})
	}
	m.polling.end(errDraining)
}

// Leave takes no more jobs and lets Run return soon without an end of those that run: they stay recorded, go on by
// themselves, and the next start takes them up. Requests for jobs that are under way are waited for.
func (m *Manager) Leave() {
	m.mu.Lock()
	m.away = true
	polled := m.polled
	m.mu.Unlock()
	drain(m, "Making way for the next start; running jobs go on by themselves")
	if polled {
		m.reports.end(errAway)
	}
}

// awaitPolls waits for the requests that are under way, then lets the jobs go if the manager is to leave.
func awaitPolls(m *Manager) {
	m.polls.Wait()
	m.mu.Lock()
	m.polled = true
	away := m.away
	m.mu.Unlock()
	if away {
		m.reports.end(errAway)
	}
}

// Stop ends all jobs as interrupted, for the given cause, and lets Run return within the settings' ShutdownTimeout.
func (m *Manager) Stop(cause error) {
	m.mu.Lock()
	first := m.state < Stopping
	m.state = Stopping
	limit := m.settings.ShutdownTimeout
	m.mu.Unlock()
	if first {
		tell(m, tranter.Event{Kind: tranter.ManagerStopping, Text: fmt.Sprintf("Stopping: %v", cause)})
	}
	m.polling.end(errDraining)
	if !first {
		return
	}
	m.jobs.end(fmt.Errorf("%w: %w", job.ErrInterrupted, cause))
	timer := time.AfterFunc(limit, func() { m.reports.end(errLeft) })
	context.AfterFunc(m.reports, func() { timer.Stop() })
}

// Reload replaces the settings. Jobs that run keep those that they were started with; a runner that is in the old and
// the new settings goes on without a gap.
func (m *Manager) Reload(s Settings) {
	m.mu.Lock()
	m.settings = s
	m.problem = ""
	m.places.resize(s.Concurrent)
	if m.state == Running {
		m.syncPollersLocked()
	}
	m.mu.Unlock()
}

// Refuse keeps the settings as they are and shows why the configuration that was read last is not used.
func (m *Manager) Refuse(err error) {
	m.mu.Lock()
	m.problem = err.Error()
	m.mu.Unlock()
}

// syncPollersLocked starts, changes and ends pollers so that there is one for each runner.
func (m *Manager) syncPollersLocked() {
	wanted := map[runnerKey]bool{}
	for i := range m.settings.Runners {
		r := m.settings.Runners[i]
		k := r.key()
		if wanted[k] {
			continue // two sections with one token are one runner to the server
		}
		wanted[k] = true
		if p := m.pollers[k]; p != nil {
			p.change(r, m.settings.CheckInterval)
			continue
		}
		p := newPoller(m, r, m.settings.CheckInterval)
		m.pollers[k] = p
		m.polls.Add(1)
		m.owned.Go(func() {
			defer m.polls.Done()
			p.run()
		})
	}
	for k, p := range m.pollers {
		if !wanted[k] {
			p.end(errRemoved)
			delete(m.pollers, k)
		}
	}
}

// watchIdle drains the manager when there has been no job for MaxIdle.
func watchIdle(m *Manager) {
	for {
		m.mu.Lock()
		left := m.options.MaxIdle - time.Since(m.lastJob)
		busy := len(m.running) > 0
		m.mu.Unlock()
		if !busy && left <= 0 {
			m.options.Log.Info("No job for the given time", "time", m.options.MaxIdle)
			drain(m, fmt.Sprintf("No job for %v", m.options.MaxIdle))
			return
		}
		if !wait(m.polling, max(left, time.Second)) {
			return
		}
	}
}

// mayAsk counts a request that may bring a job against MaxJobs. When it is false, all says whether the jobs that were
// received are all that are wanted.
func (m *Manager) mayAsk() (ok, all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if limit := m.options.MaxJobs; limit > 0 && m.count.taken+m.count.asking >= limit {
		return false, m.count.taken >= limit
	}
	m.count.asking++
	return true, false
}

// asked takes back what mayAsk counted, and counts the job if there is one.
func (m *Manager) asked(job bool) {
	m.mu.Lock()
	m.count.asking--
	if job {
		m.count.taken++
	}
	m.mu.Unlock()
}

// noHold says whether a held request would keep others from asking: a runner must be able to ask while the requests of
// others are held. Those that have a request under way have a place for it already; one more is for whoever gets a job,
// which keeps that place, and asks again.
func noHold(m *Manager) bool {
	m.mu.Lock()
	spare := 0
	for _, p := range m.pollers {
		if !p.asks() {
			spare++
		}
	}
	if len(m.pollers) > 1 {
		spare++
	}
	m.mu.Unlock()
	return m.places.contended(spare)
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// recover takes up the jobs that are recorded.
func (m *Manager) recover(ctx context.Context) error {
	records, err := m.options.Records.Jobs(ctx)
	if err != nil {
		return fmt.Errorf("take up the jobs from before the restart: %w", err)
	}
	for _, rec := range records {
		rec.Job.Local, rec.Job.SecretVariables = rec.Local, rec.SecretVariables
		r, err := m.runnerOf(rec)
		if err != nil {
			m.options.Log.Error("A job from before the restart can't be taken up; it stays recorded", "job", rec.Job.ID, "error", err)
			leave(m, rec.Key)
			continue
		}
		m.places.force()
		m.options.Log.Info("Taking up a job from before the restart", "job", rec.Job.ID, "runner", rec.Runner, "ended", rec.Result != nil)
		past := enter(m, r, rec).history.Now()
		tellOf(m, tranter.JobResumed, past, "Taking up a job from before the restart: "+about(past.Job))
		m.launch(r, rec) //nolint:contextcheck // a job lives longer than this call
	}
	return nil
}

// runnerOf finds the runner that took a job.
func (m *Manager) runnerOf(rec tranter.JobRecord) (Runner, error) {
	for _, r := range m.settings.Runners {
		if (r.key() == runnerKey{url: rec.URL, short: rec.Runner}) {
			return r, nil
		}
	}
	if m.options.Adopt == nil {
		return Runner{}, fmt.Errorf("runner %s is not in the configuration any more", rec.Runner)
	}
	return m.options.Adopt(rec)
}

// defaults of Limits.
func (l Limits) requests() int        { return max(1, l.Requests) }
func (l Limits) faults() int          { return cmp.Or(max(0, l.Faults), 3) }
func (l Limits) pause() time.Duration { return cmp.Or(max(0, l.Pause), time.Hour) }
