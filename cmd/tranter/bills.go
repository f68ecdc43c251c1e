package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/store"
)

// pricesOf returns the prices of a configuration.
func pricesOf(c config.Config) cost.Table {
	t := cost.Table{Currency: c.Cost.Currency, Fallback: map[string]float64{}}
	for _, p := range c.Cost.Prices {
		rate := cost.Rate{PerHour: p.PerHour + 3600*p.PerSecond, Minimum: p.Minimum, Step: p.Step}
		t.Prices = append(t.Prices, cost.Price{Runner: p.Runner, Set: p.Set, Machine: rate, CPUHour: p.CPUHour, GPUHour: p.GPUHour})
	}
	for _, f := range c.Cost.Factors {
		t.Factors = append(t.Factors, cost.Factor{Runner: f.Runner, Visibility: f.Visibility, Factor: f.Factor})
	}
	for _, r := range c.Runners {
		t.Fallback[r.Token.Short()] = r.Machine.PricePerHour
	}
	return t
}

// bills says what things have cost, by the history and the prices of the configuration. It is safe for concurrent use.
type bills struct {
	past   *store.History
	prices func() cost.Table
	// running returns the jobs that have not ended, of which the history knows nothing yet.
	running func(context.Context) []tranter.JobHistory

	mu    sync.Mutex
	known map[cost.Query]knownReport
}

// knownReport is a report as it was at a time.
type knownReport struct {
	at     time.Time
	report cost.Report
}

const (
	reportAge = 20 * time.Second // for which a report is good enough
	maxKnown  = 64
)

// billsOf returns what a web page asks for costs. running may be nil.
func billsOf(past *store.History, prices func() cost.Table, running func(context.Context) []tranter.JobHistory) *bills {
	return &bills{past: past, prices: prices, running: running, known: map[cost.Query]knownReport{}}
}

// Report answers a query; for some seconds the same answer is given again, since many may look at the same page.
func (b *bills) Report(ctx context.Context, q cost.Query) (cost.Report, error) {
	now := time.Now()
	b.mu.Lock()
	known, ok := b.known[q]
	b.mu.Unlock()
	if ok && now.Sub(known.at) < reportAge {
		return known.report, nil
	}
	report, err := b.make(ctx, q, now)
	if err != nil {
		return report, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.known) >= maxKnown {
		clear(b.known)
	}
	b.known[q] = knownReport{now, report}
	return report, nil
}

func (b *bills) make(ctx context.Context, q cost.Query, now time.Time) (cost.Report, error) {
	var of cost.Of
	var err error
	if of.Jobs, err = b.past.Billed(ctx, q.From, q.To); err != nil {
		return cost.Report{}, err
	}
	if of.Lives, err = b.past.Lives(ctx, q.From, q.To); err != nil {
		return cost.Report{}, err
	}
	if b.running != nil {
		of.Jobs = slices.Concat(of.Jobs, b.running(ctx)) // of those that are in both, the first counts
	}
	return cost.Make(q, of, b.prices(), now), nil
}

// Job says what one job has cost, which may still run.
func (b *bills) Job(ctx context.Context, job tranter.JobHistory) (cost.JobCost, error) {
	lives, err := b.past.LivesOf(ctx, job.Key)
	if err != nil {
		return cost.JobCost{}, err
	}
	return cost.Job(&job, lives, b.prices(), time.Now()), nil
}
