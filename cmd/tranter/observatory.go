package main

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/events"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/view"
	"github.com/tranter-ci/tranter/internal/web"
)

const (
	keepEvery   = 200 * time.Millisecond // what happens is kept together, so often
	keepRoom    = 20_000                 // happenings that may wait for that; more are lost
	sampleEvery = time.Minute
	priceEvery  = 30 * time.Second // how often what today and this month have cost is worked out anew
	priceRest   = 200              // or more seldom: after so many times as long as that takes
	keepLimit   = 10 * time.Second // for one writing
)

// observatory is where what happens in a manager is told, and kept. Whatever fails here is logged, and stops no job.
type observatory struct {
	hub     events.Hub
	history *store.History // nil: nothing is kept
	log     *slog.Logger
	prices  atomic.Pointer[priced]
	rates   machineRates
	work    chan happening
	lost    atomic.Int64          // happenings that could not be kept
	failed  atomic.Int64          // writings that have failed
	also    []func(tranter.Event) // told of each event as it happens; they wait for nobody

	end   context.CancelFunc
	owned sync.WaitGroup

	mu        sync.Mutex
	decisions map[string]decided    // of pools
	queues    map[string]view.Queue // that GitLab has told of, by the runner's short token
	bill      view.Recent           // with what was worked out last of costs
	told      time.Time             // when a failure was logged last
}

// priced is what a configuration says of prices.
type priced struct {
	table   cost.Table
	runners map[string]config.Runner // by their short tokens
}

// decided is the last decision about a pool.
type decided struct {
	text string
	at   time.Time
}

// happening is an event, or a change of a pool's machines, that is to be kept.
type happening struct {
	event   tranter.Event
	pool    string // of the machines; empty: it is an event
	changed []fleet.Machine
	gone    []string
	at      time.Time
}

// newObservatory returns one that keeps what happens in a history; nil: it only tells.
func newObservatory(history *store.History, log *slog.Logger) *observatory {
	return &observatory{history: history, log: log, work: make(chan happening, keepRoom), decisions: map[string]decided{}, queues: map[string]view.Queue{}}
}

// publish tells of an event, and has it kept. It waits for nobody.
func (o *observatory) publish(e tranter.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if e.Kind == tranter.JobTaken && e.Past != nil && (e.Past.Job.Queue.Size > 0 || e.Past.Job.Queue.Depth > 0) {
		o.mu.Lock()
		o.queues[e.Past.Runner] = view.Queue{Jobs: max(0, e.Past.Job.Queue.Size-1), At: e.Time} // it was counted with the others
		o.mu.Unlock()
	}
	for _, tell := range o.also {
		tell(e)
	}
	o.hub.Publish(e)
	o.keep(happening{event: e})
}

func (o *observatory) keep(h happening) {
	if o.history == nil {
		return
	}
	select {
	case o.work <- h:
	default:
		o.lost.Add(1)
	}
}

// open begins to keep what happens.
func (o *observatory) open(ctx context.Context) {
	ctx, o.end = context.WithCancel(context.WithoutCancel(ctx))
	if o.history != nil {
		o.owned.Go(func() { o.run(ctx) })
	}
}

// close keeps what is left, and closes the history.
func (o *observatory) close() error {
	if o == nil {
		return nil
	}
	if o.end != nil { // it was opened
		o.end()
	}
	o.owned.Wait()
	if o.history == nil {
		return nil
	}
	return o.history.Close()
}

// run keeps what happens until ctx ends, and then what is left.
func (o *observatory) run(ctx context.Context) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			o.write(context.WithoutCancel(ctx))
			return
		case <-tick.C:
			o.write(ctx)
		}
	}
}

// write keeps all that waits to be kept.
func (o *observatory) write(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, keepLimit)
	defer stop()
	var told []tranter.Event
	for n := len(o.work); n > 0; n-- {
		h := <-o.work
		if h.pool == "" {
			told = append(told, h.event)
			continue
		}
		o.complain(o.history.Machines(ctx, o.poolOf(h.pool), h.changed, h.gone, h.at))
	}
	if len(told) > 0 {
		o.complain(o.history.Record(ctx, told))
	}
	if n := o.lost.Swap(0); n > 0 {
		o.log.Warn("Events were lost: they came faster than they could be kept", "events", n)
	}
}

// complain logs a failure to keep the past, once in a minute.
func (o *observatory) complain(err error) {
	if err == nil {
		return
	}
	o.failed.Add(1)
	o.mu.Lock()
	quiet := time.Since(o.told) < time.Minute
	if !quiet {
		o.told = time.Now()
	}
	o.mu.Unlock()
	if !quiet {
		o.log.Error("What happens can't be kept: the history has a gap", "error", err)
	}
}

// poolOf returns whose a pool's machines are, and what they cost.
func (o *observatory) poolOf(token string) store.Pool {
	p := o.prices.Load()
	if p == nil {
		return store.Pool{Token: token, Rate: func(string) cost.Rate { return cost.Rate{} }}
	}
	r := p.runners[token]
	return store.Pool{Token: token, Name: r.Name, Rate: func(set string) cost.Rate {
		return p.table.Machine(r.Name, token, set, machinePrice(r.Machine, set))
	}}
}

// settle takes the prices of a configuration.
func (o *observatory) settle(c config.Config) {
	runners := map[string]config.Runner{}
	for _, r := range c.Runners {
		runners[r.Token.Short()] = r
	}
	o.prices.Store(&priced{table: pricesOf(c), runners: runners})
}

// decided keeps the last decision about a pool, for people.
func (o *observatory) decided(pool, text string, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.decisions[pool] = decided{text, at}
}

// recallDecision finds the last decision about a pool of which an earlier manager has told.
func (o *observatory) recallDecision(ctx context.Context, pool string) error {
	const far = 100 // events back
	events, err := o.history.Events(ctx, view.EventQuery{Runner: pool, Kind: "machine_", Limit: far})
	for i := range events {
		if e := &events[i]; decides(fleet.Kind(e.Kind)) {
			o.decided(pool, e.Text, e.Time)
			break
		}
	}
	return err
}

func (o *observatory) decision(pool string) (string, time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.decisions[pool]
	return d.text, d.at
}

// emptied takes in that GitLab had no job for a runner.
func (o *observatory) emptied(runner string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, told := o.queues[runner]; told {
		o.queues[runner] = view.Queue{At: time.Now()}
	}
}

// queue returns what GitLab has told last of the jobs that wait for a runner; nil: nothing.
func (o *observatory) queue(runner string) *view.Queue {
	o.mu.Lock()
	defer o.mu.Unlock()
	if q, told := o.queues[runner]; told {
		return &q
	}
	return nil
}

// lately returns what the last hours were like, with what today and this month have cost as it was worked out last.
func (o *observatory) lately(ctx context.Context, now time.Time) view.Recent {
	if o.history == nil {
		return view.Recent{Failed: map[string]int{}}
	}
	r, err := o.history.Recent(ctx, now)
	if err != nil {
		return view.Recent{Failed: map[string]int{}}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	r.Today, r.Month, r.Currency, r.Priced = o.bill.Today, o.bill.Month, o.bill.Currency, o.bill.Priced
	return r
}

// reckon works out what today and this month have cost, now and then, until ctx ends.
func (o *observatory) reckon(ctx context.Context, bills web.Bills) {
	if o.history == nil {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		o.addUp(ctx, bills, began)
		// A month of many jobs takes long: it must not keep a processor busy.
		timer.Reset(max(priceEvery, priceRest*time.Since(began)))
	}
}

func (o *observatory) addUp(ctx context.Context, bills web.Bills, now time.Time) {
	day := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, now.Location())
	today, err := bills.Report(ctx, cost.Query{By: cost.ByRunner, From: day, To: now})
	if err != nil {
		return
	}
	all, err := bills.Report(ctx, cost.Query{By: cost.ByRunner, From: month, To: now})
	if err != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bill.Today, o.bill.Month, o.bill.Currency = today.Total.Cost, all.Total.Cost, all.Currency // idle machines are in the total
	o.bill.Priced = o.bill.Month > 0
}

// sample keeps how much there is of everything, once in a minute, and removes what is too old, until ctx ends.
func (o *observatory) sample(ctx context.Context, source *watched, keep config.History) {
	if o.history == nil {
		return
	}
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		if s, err := source.Snapshot(ctx); err == nil {
			o.complain(o.history.Sample(ctx, s.At, samplesOf(s)))
		}
		if ctx.Err() == nil {
			o.complain(o.history.Prune(ctx, time.Now(), keep.KeepJobs, keep.KeepEvents))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// samplesOf counts what a snapshot has.
func samplesOf(s view.Snapshot) map[string]float64 {
	queued, _ := s.Queued()
	out := map[string]float64{"jobs.running": 0, "jobs.waiting": float64(queued)}
	for _, j := range s.Jobs {
		if j.Times.Placed.IsZero() {
			out["jobs.waiting"]++
		} else {
			out["jobs.running"]++
		}
	}
	for _, m := range s.Machines {
		out["machines."+m.State]++
	}
	for _, b := range s.Batches {
		out["batch."+b.State]++
	}
	return out
}

// table is the table of prices that holds now.
func (o *observatory) table() cost.Table {
	if p := o.prices.Load(); p != nil {
		return p.table
	}
	return cost.Table{}
}
