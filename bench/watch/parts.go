//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/bench/measure"
)

// stale is longer than the page's look at what is there serves.
const stale = 900 * time.Millisecond

// pages measures each page and each answer for programs: the first time; rendered anew, with a part of the address that nobody has
// asked for; and again, as one of many who look at the same.
func pages(ctx context.Context, m *watched, t *table) error {
	var looks []time.Duration
	for range m.rounds {
		took, err := m.tell(sayLook)
		if err != nil {
			return err
		}
		looks = append(looks, time.Duration(took))
	}
	t.add("", "all that is there put together (p50 / p95), which serves all for 0.8 s", "%s", measure.Quantiles(looks))
	p := past{m.options, time.Now()}
	ended := p.job(m.jobs - 1)
	for _, path := range []string{
		"/", "/jobs?", "/jobs?state=failed&project=" + url.QueryEscape(ended.Job.Project), "/jobs?q=rspec", "/jobs/" + ended.Key + "?", "/machines?", "/machines?range=day",
		"/machines/tranter-here-00001?", "/machines/" + ended.Place.Machine + "?", "/runners?", "/charts?", "/events?", "/events?q=machine", "/cost?",
		"/api/snapshot?", "/api/overview?", "/api/machines?", "/api/jobs?", "/api/events?", "/api/cost?",
		"/api/chart?name=machines&range=month", "/api/chart?name=waits&range=month", "/api/chart?name=jobs&range=month", "/api/chart?name=cost&range=month",
	} {
		if path == "/" {
			path = "/?"
		}
		if err := m.page(ctx, path, t); err != nil {
			return err
		}
	}
	return nil
}

func (m *watched) page(ctx context.Context, path string, t *table) error {
	if err := measure.Pause(ctx, stale); err != nil {
		return err
	}
	first, err := m.get(ctx, path, "")
	if err != nil {
		return err
	}
	var anew, again []time.Duration
	for i := range m.rounds {
		one, err := m.get(ctx, fmt.Sprintf("%s&n=%d", path, i), "")
		if err != nil {
			return err
		}
		same, err := m.get(ctx, fmt.Sprintf("%s&n=%d", path, i), "")
		if err != nil {
			return err
		}
		anew, again = append(anew, one.took), append(again, same.took)
	}
	t.add("200 ms", fmt.Sprintf("`%s`: first, anew (p50 / p95), again (p50); KB packed", trim(path)), "%s; %s; %s; %.1f",
		measure.Millis(first.took), measure.Quantiles(anew), measure.Millis(measure.Percentile(again, 0.5)), float64(first.packed)/1000)
	return nil
}

func trim(path string) string {
	if last := len(path) - 1; path[last] == '?' {
		return path[:last]
	}
	return path
}

// scrapes measures /metrics, and what a scrape costs the manager.
func scrapes(ctx context.Context, m *watched, t *table) error {
	var took []time.Duration
	bytes, used := 0, m.busy()
	for range m.rounds {
		one, err := m.get(ctx, "/metrics", "")
		if err != nil {
			return err
		}
		took, bytes = append(took, one.took), one.packed
	}
	t.add("100 ms", "`/metrics` (p50 / p95); processor time of a scrape; KB packed", "%s; %s; %.1f", measure.Quantiles(took),
		measure.Millis((m.busy()-used)/time.Duration(m.rounds)), float64(bytes)/1000)
	return nil
}

// pushes measures how long an event takes to those who look on.
func pushes(ctx context.Context, m *watched, t *table) error {
	for _, n := range []int{1, m.viewers} {
		took, err := m.pushed(ctx, n)
		if err != nil {
			return err
		}
		t.add("1 s", fmt.Sprintf("an event to its viewer, %d of them (p50 / p95, most)", n), "%s, %s", measure.Quantiles(took), measure.Millis(slices.Max(took)))
	}
	return nil
}

// pushed publishes events, with nothing else going on, and returns how long each has taken to each of so many viewers.
func (m *watched) pushed(ctx context.Context, viewers int) ([]time.Duration, error) {
	ctx, stop := context.WithCancel(ctx)
	told := make(chan time.Time, 4*viewers)
	done := m.look(ctx, viewers, func(int) func(string) {
		return func(topic string) {
			if topic == "events" { // only what was published changes those
				told <- time.Now()
			}
		}
	})
	defer done()
	defer stop()
	var took []time.Duration
	for range m.pushes {
		// An event is told twice, the second time for those who read the history; and it may come at any time between two looks.
		if err := measure.Pause(ctx, 3*time.Second+rand.N(stale)); err != nil {
			return nil, err
		}
		for len(told) > 0 {
			<-told
		}
		at, err := m.tell(sayPublish)
		if err != nil {
			return nil, err
		}
		late := time.After(10 * time.Second)
		for range viewers {
			select {
			case got := <-told:
				took = append(took, got.Sub(time.Unix(0, at)))
			case <-late:
				return nil, fmt.Errorf("an event did not come to all of %d viewers", viewers)
			}
		}
	}
	return took, nil
}

// look lets so many follow the live stream, each told of topics by what of returns for it. The function returned waits for their end.
func (m *watched) look(ctx context.Context, viewers int, of func(i int) func(topic string)) (done func()) {
	var all sync.WaitGroup
	for i := range viewers {
		all.Go(func() {
			if err := m.follow(ctx, of(i)); err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "a viewer:", err)
			}
		})
	}
	return all.Wait
}

// viewers measures what pages that are open cost a manager in which jobs end and begin. Each follows its topics and loads itself anew when
// they change, as the script of the page does.
func viewers(ctx context.Context, m *watched, t *table) error {
	if _, err := m.tell(sayBusy); err != nil {
		return err
	}
	for _, n := range []int{0, 1, m.viewers} {
		used, loads, err := m.watchedBy(ctx, n)
		if err != nil {
			return err
		}
		t.add("", fmt.Sprintf("a second of a manager in which %d jobs end, %d pages open: processor time; pages loaded", m.turnover, n), "%s; %.1f",
			measure.Millis(time.Duration(float64(used)/m.span.Seconds())), float64(loads)/m.span.Seconds())
	}
	return nil
}

// watchedBy lets so many pages be open for a while, and returns the manager's processor time and how many pages were loaded.
func (m *watched) watchedBy(ctx context.Context, n int) (used time.Duration, loads int64, err error) {
	ctx, stop := context.WithCancel(ctx)
	open := make([]*page, n)
	var loading sync.WaitGroup
	for i := range open {
		open[i] = &page{of: m, kind: kinds()[i%len(kinds())], wake: make(chan struct{}, 1)}
		loading.Go(func() { open[i].run(ctx) })
	}
	done := m.look(ctx, n, func(i int) func(string) { return open[i].told })
	defer done()
	defer loading.Wait()
	defer stop()
	if err := measure.Pause(ctx, 3*time.Second); err != nil {
		return 0, 0, err
	}
	count := func() (all int64) {
		for _, p := range open {
			all += p.loads.Load()
		}
		return all
	}
	before, began := m.busy(), count()
	if err := measure.Pause(ctx, m.span); err != nil {
		return 0, 0, err
	}
	return m.busy() - before, count() - began, nil
}
