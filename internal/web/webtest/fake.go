package webtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/view"
)

// Fake is a manager with its past: source, past, bills and control of a web server. It is safe for concurrent use.
type Fake struct {
	mu     sync.Mutex
	now    view.Snapshot
	ended  []tranter.JobHistory
	events []tranter.Event
	report cost.Report
	looks  int
	did    []string
	err    error
}

// New makes a Fake that shows a snapshot, with a past around a time.
func New(s view.Snapshot, now time.Time) *Fake {
	f := &Fake{now: s}
	for i := range 120 {
		f.ended = append(f.ended, Ended(now, int64(90000+i)))
	}
	kinds := []tranter.Event{
		{Kind: tranter.JobTaken, Job: "aUt0sCale-99001", Runner: "aUt0sCale", Text: "Job 99001 was taken after 3.0s in the queue"},
		{Kind: "machine_idle", Machine: "tranter-ci-81c2", Runner: "aUt0sCale", Text: "Kept for the next job: 2 idle ones are wanted until 18:00"},
		{Kind: "machine_booting", Machine: "tranter-ci-8394", Runner: "aUt0sCale", Text: "Made because 2 jobs wait and 1 machine is on its way", Took: 41 * time.Second},
		{Kind: tranter.JobEnded, Job: "aUt0sCale-90003", Runner: "aUt0sCale", Level: tranter.EventWarning, Text: "Failed: the script failed (exit status 1)", Took: 3 * time.Minute},
		{Kind: "batch_queued", Batch: "tr-hpc-19", Runner: "hPcGpu001", Text: "Submitted to Slurm as 48240: 1 node, 8 CPUs, 1 GPU for 2h00m"},
		{Kind: tranter.RunnerTrouble, Runner: "br0kenOne", Level: tranter.EventError, Text: "GitLab answers 403 Forbidden: the token may have been revoked"},
		{Kind: tranter.ConfigLoaded, Text: "The configuration was read anew: 4 runners"},
	}
	for i := range 260 {
		e := kinds[i%len(kinds)]
		e.ID, e.Time = int64(1000-i), now.Add(-time.Duration(i*37)*time.Second)
		f.events = append(f.events, e)
	}
	f.report = Report(now)
	return f
}

// Report is what a month has cost.
func Report(now time.Time) cost.Report {
	r := cost.Report{From: now.AddDate(0, 0, -20), To: now, By: cost.ByProject, Currency: "EUR", IdleShare: 0.18, Unpriced: 3}
	for i, name := range []string{"platform/billing", "web/shop", "research/vision", "docs/handbook"} {
		l := cost.Line{Name: name, Jobs: 400 / (i + 1), Time: time.Duration(90/(i+1)) * time.Hour, MachineTime: time.Duration(80/(i+1)) * time.Hour, Minutes: 5400 / float64(i+1), Cost: 131.2 / float64(i+1), Waste: 2.1 * float64(i)}
		if i == 2 {
			l.CPUTime, l.GPUTime = 700*time.Hour, 80*time.Hour
		}
		r.Lines = append(r.Lines, l)
		r.Total.Jobs += l.Jobs
		r.Total.Time += l.Time
		r.Total.MachineTime += l.MachineTime
		r.Total.CPUTime += l.CPUTime
		r.Total.GPUTime += l.GPUTime
		r.Total.Minutes += l.Minutes
		r.Total.Cost += l.Cost
		r.Total.Waste += l.Waste
	}
	r.Idle = cost.Line{Name: "idle", MachineTime: 31 * time.Hour, Cost: 47.9}
	return r
}

// Change changes what is there.
func (f *Fake) Change(do func(*view.Snapshot)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do(&f.now)
}

// Past changes what was.
func (f *Fake) Past(do func(jobs []tranter.JobHistory, events []tranter.Event, report *cost.Report)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do(f.ended, f.events, &f.report)
}

// Fail lets everything fail from now on.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// Looks returns how often somebody has looked.
func (f *Fake) Looks() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looks
}

// Did returns what was done.
func (f *Fake) Did() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.did...)
}

// Snapshot is what is there.
func (f *Fake) Snapshot(context.Context) (view.Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	return f.now, f.err
}

// History is a Fake's past.
type History struct{ *Fake }

// Jobs returns jobs that have ended; of a query the text, state, reason, machine, the page and the limit count.
func (h History) Jobs(_ context.Context, q view.JobQuery) ([]tranter.JobHistory, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if q.Limit == 0 {
		q.Limit = 50
	}
	var found []tranter.JobHistory
	before := q.Before == ""
	for _, j := range h.ended {
		fits := before && strings.Contains(j.Job.Name+j.Job.Project, q.Text) && is(q.State, j.Result.State) &&
			is(q.Reason, j.Result.Reason) && is(q.Machine, j.Place.Machine) && is(q.Batch, j.Place.Batch)
		before = before || j.Key == q.Before
		if fits && len(found) < q.Limit {
			found = append(found, j)
		}
	}
	return found, h.err
}

// Job returns a job that has ended.
func (h History) Job(_ context.Context, key string) (tranter.JobHistory, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, j := range h.ended {
		if j.Key == key {
			return j, h.err
		}
	}
	return tranter.JobHistory{}, fmt.Errorf("job %s: %w", key, tranter.ErrNotFound)
}

// Events returns what has happened.
func (h History) Events(_ context.Context, q view.EventQuery) ([]tranter.Event, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if q.Limit == 0 {
		q.Limit = 100
	}
	var found []tranter.Event
	for _, e := range h.events {
		if fits(e, q) && len(found) < q.Limit {
			found = append(found, e)
		}
	}
	return found, h.err
}

func fits(e tranter.Event, q view.EventQuery) bool {
	return strings.Contains(e.Text, q.Text) && strings.HasPrefix(string(e.Kind), q.Kind) && is(q.Level, e.Level) && is(q.Runner, e.Runner) &&
		is(q.Job, e.Job) && is(q.Machine, e.Machine) && (q.Before == 0 || e.ID < q.Before)
}

// is tells whether a value is the one that is wanted, if one is.
func is[T ~string](want, value T) bool { return want == "" || want == value }

// Lanes returns the lives of the machines that are there.
func (h History) Lanes(_ context.Context, q view.LaneQuery) ([]view.Lane, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []view.Lane
	for _, m := range h.now.Machines {
		if !is(q.Machine, m.Name) {
			continue
		}
		l := view.Lane{Machine: m.Name, Pool: m.Pool, Set: m.Set, Made: m.Made, Spans: []view.Span{
			{State: "wanted", Start: m.Made, End: m.Made.Add(2 * time.Second)},
			{State: "booting", Start: m.Made.Add(2 * time.Second), End: m.Made.Add(time.Minute)},
			{State: "idle", Start: m.Made.Add(time.Minute), End: m.Since},
			{State: m.State, Reason: m.Reason, Start: m.Since},
		}}
		for _, key := range m.Jobs {
			l.Spans = append(l.Spans, view.Span{Job: key, Start: m.Since})
		}
		if all = append(all, l); q.Limit > 0 && len(all) >= q.Limit {
			break
		}
	}
	return all, h.err
}

// Chart returns a chart of two series with a gap.
func (h History) Chart(_ context.Context, q view.ChartQuery) (view.Chart, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	steps := q.Steps
	if steps == 0 {
		steps = 200
	}
	c := view.Chart{From: q.From, Step: q.To.Sub(q.From) / time.Duration(steps), Unit: q.Name, Series: []view.Series{{Name: "idle"}, {Name: "leased"}}}
	for i := range steps {
		for s := range c.Series {
			v := float64((i*(s+3))%17 + s)
			p := &v
			if i == 7 {
				p = nil
			}
			c.Series[s].Values = append(c.Series[s].Values, p)
		}
	}
	return c, h.err
}

// Bills are a Fake's.
type Bills struct{ *Fake }

// Report returns what Report made, by what was asked.
func (b Bills) Report(_ context.Context, q cost.Query) (cost.Report, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.report
	r.By, r.From, r.To = q.By, q.From, q.To
	return r, b.err
}

// Job returns the same for every job.
func (b Bills) Job(context.Context, tranter.JobHistory) (cost.JobCost, error) {
	return cost.JobCost{Cost: 0.04, Priced: true, Held: 4 * time.Minute, Minutes: 4}, nil
}

// Control notes what it is told to do.
type Control struct{ *Fake }

func (c Control) note(format string, args ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.did = append(c.did, fmt.Sprintf(format, args...))
	return c.err
}

// Drain notes it.
func (c Control) Drain(context.Context) error { return c.note("drain") }

// Pause notes it.
func (c Control) Pause(_ context.Context, runner string, paused bool, by string) error {
	return c.note("pause %s %t %s", runner, paused, by)
}

// RemoveMachine notes it.
func (c Control) RemoveMachine(_ context.Context, name string, force bool) error {
	return c.note("remove %s %t", name, force)
}

// DrainMachine notes it.
func (c Control) DrainMachine(_ context.Context, name string) error { return c.note("drain %s", name) }

// CancelJob notes it.
func (c Control) CancelJob(_ context.Context, key, by string) error {
	return c.note("cancel %s %s", key, by)
}
