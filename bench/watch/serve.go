//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/metrics"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/view"
	"github.com/tranter-ci/tranter/internal/web"
)

// What the measuring program tells the manager, a word a line. The manager answers each with a line.
const (
	sayPublish = "publish" // an event; the answer is when, in nanoseconds
	sayBusy    = "busy"    // jobs end and begin from now on
	sayLook    = "look"    // the answer is how long a snapshot takes, in nanoseconds
)

// serve is the manager that is measured: a process of its own, so that the viewers' processor time is not in its.
func serve(ctx context.Context, o options) error {
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	history, err := store.OpenHistory(ctx, filepath.Join(o.dir, historyFile))
	if err != nil {
		return err
	}
	m := newManager(o)
	m.history = history
	seen := metrics.New(metrics.Options{Source: m, SystemID: "measured", Currency: "EUR"})
	seen.SetRunners(nil)
	kept := &bills{history: history, manager: m, known: map[cost.Query]report{}}
	server := web.New(web.Options{
		Source: m, Past: pricedPast{history}, Bills: kept, Events: &m.hub, Metrics: seen.Handler(), Version: "measured",
		Config: func() web.ConfigView { return web.ConfigView{Path: "/etc/tranter/config.toml"} },
	})
	listener, err := server.Open(ctx, net.JoinHostPort("127.0.0.1", "0"), web.TLS{})
	if err != nil {
		return errors.Join(err, history.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- listener.Serve(ctx) }()
	fmt.Println(listener.URL())
	err = m.obey(ctx)
	stop()
	return errors.Join(err, <-ended, history.Close())
}

// obey does what it is told until there is nobody to tell it.
func (m *manager) obey(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer stop()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		answer := int64(0)
		switch lines.Text() {
		case sayPublish:
			at := time.Now()
			m.hub.Publish(tranter.Event{Time: at, Kind: tranter.JobEnded, Text: "The job has succeeded"})
			answer = at.UnixNano()
		case sayBusy:
			owned.Go(func() { m.work(ctx) })
		case sayLook:
			start := time.Now()
			if _, err := m.Snapshot(ctx); err != nil {
				return err
			}
			answer = int64(time.Since(start))
		}
		fmt.Println(answer)
	}
	return lines.Err()
}

// work lets jobs end and begin.
func (m *manager) work(ctx context.Context) {
	tick := time.NewTicker(time.Second / time.Duration(max(1, m.turnover)))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := m.turn(ctx); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "keep a job:", err)
			return
		}
	}
}

// pricedPast is the past as the manager's page has it.
type pricedPast struct{ *store.History }

// Chart implements web.Past.
func (p pricedPast) Chart(ctx context.Context, q view.ChartQuery) (view.Chart, error) {
	return p.History.Chart(ctx, q, prices())
}

func prices() cost.Table {
	return cost.Table{Currency: "EUR", Fallback: map[string]float64{"cloud0001": 0.1}}
}

// bills are the costs as the manager's page has them: a report serves for 20 s.
type bills struct {
	history *store.History
	manager *manager

	mu    sync.Mutex
	known map[cost.Query]report
}

type report struct {
	at   time.Time
	made cost.Report
}

// Report implements web.Bills.
func (b *bills) Report(ctx context.Context, q cost.Query) (cost.Report, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known, ok := b.known[q]; ok && time.Since(known.at) < 20*time.Second {
		return known.made, nil
	}
	var of cost.Of
	var err error
	if of.Jobs, err = b.history.Billed(ctx, q.From, q.To); err != nil {
		return cost.Report{}, err
	}
	if of.Lives, err = b.history.Lives(ctx, q.From, q.To); err != nil {
		return cost.Report{}, err
	}
	now, err := b.manager.Snapshot(ctx)
	if err != nil {
		return cost.Report{}, err
	}
	for i := range now.Jobs {
		of.Jobs = append(of.Jobs, now.Jobs[i].JobHistory)
	}
	made := cost.Make(q, of, prices(), now.At)
	b.known[q] = report{now.At, made}
	return made, nil
}

// Job implements web.Bills.
func (b *bills) Job(ctx context.Context, j tranter.JobHistory) (cost.JobCost, error) {
	lives, err := b.history.LivesOf(ctx, j.Key)
	if err != nil {
		return cost.JobCost{}, err
	}
	return cost.Job(&j, lives, prices(), time.Now()), nil
}
