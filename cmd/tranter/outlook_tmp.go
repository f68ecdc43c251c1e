package main

import (
	"context"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/web"
)

func tableForNow(c config.Config) cost.Table {
	t := cost.Table{Currency: c.Cost.Currency, Fallback: map[string]float64{}}
	for _, p := range c.Cost.Prices {
		t.Prices = append(t.Prices, cost.Price{Runner: p.Runner, Set: p.Set, Machine: cost.Rate{PerHour: p.PerHour + 3600*p.PerSecond, Minimum: p.Minimum, Step: p.Step}, CPUHour: p.CPUHour, GPUHour: p.GPUHour})
	}
	for _, r := range c.Runners {
		t.Fallback[r.Token.Short()] = r.Machine.PricePerHour
	}
	return t
}

type billsForNow struct {
	h     *store.History
	table func() cost.Table
}

func (b billsForNow) Report(ctx context.Context, q cost.Query) (cost.Report, error) {
	jobs, err := b.h.Billed(ctx, q.From, q.To)
	if err != nil {
		return cost.Report{}, err
	}
	lives, err := b.h.Lives(ctx, q.From, q.To)
	if err != nil {
		return cost.Report{}, err
	}
	return cost.Make(q, cost.Of{Jobs: jobs, Lives: lives}, b.table(), time.Now()), nil
}

func (b billsForNow) Job(ctx context.Context, j tranter.JobHistory) (cost.JobCost, error) {
	return cost.Job(&j, nil, b.table(), time.Now()), nil
}

var _ web.Bills = billsForNow{}
