//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

func labelOf(short string) string { return spec.LabelRunner + "=" + short }

// figures are those of one run.
type figures struct {
	p50, p95 time.Duration
	rate     float64 // jobs per second
	spent    sample  // per job
	peak     float64 // of the manager's resident memory, MiB
	other    float64 // cores that other work took
}

// result is what was found about a scenario.
type result struct {
	scenario
	runs   []figures
	traces []trace
}

// run measures jobs of a scenario, all queued at once.
func (b *bench) run(ctx context.Context, sc scenario) (f figures, err error) {
	s, err := b.open(ctx, sc, nil)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	// Twice as many before as work at a time, so that caches and working trees are there, as in a runner's daily life.
	for range 2 {
		if _, err := s.work(ctx, sc.concurrent); err != nil {
			return f, err
		}
	}
	pid := s.runner.Process.Pid
	before, began := b.meter.read(pid), time.Now()
	times, err := s.work(ctx, sc.jobs)
	if err != nil {
		return f, err
	}
	spent, took := b.meter.read(pid).sub(before), time.Since(began)
	var walls []time.Duration
	last := began
	for _, t := range times {
		walls = append(walls, t.Finished.Sub(t.Started))
		if t.Finished.After(last) {
			last = t.Finished
		}
	}
	f = figures{
		p50: percentile(walls, 0.5), p95: percentile(walls, 0.95), rate: float64(sc.jobs) / last.Sub(began).Seconds(),
		spent: spent.per(sc.jobs), peak: peakMemory(pid), other: s.idle,
	}
	if b.meter.exact() {
		f.other = spent.other().Seconds() / took.Seconds()
	}
	return f, nil
}

func percentile(times []time.Duration, p float64) time.Duration {
	slices.Sort(times)
	return times[min(len(times)-1, int(float64(len(times))*p))]
}

// print writes the table, what each service adds, the traces, and the calls.
func (b *bench) print(results []result) {
	fmt.Println("\n| run | job wall p50 s | p95 s | jobs/s | manager CPU ms | engine CPU s | in containers s | together s | manager peak RSS MB | API calls | containers made / started | other work, cores |")
	fmt.Println(strings.Repeat("|---", 12) + "|")
	for _, r := range results {
		cells := []string{
			fmt.Sprintf("%s, %d jobs", r.name, r.jobs),
			spread(r.runs, "%.3f", func(f figures) float64 { return f.p50.Seconds() }),
			spread(r.runs, "%.3f", func(f figures) float64 { return f.p95.Seconds() }),
			spread(r.runs, "%.2f", func(f figures) float64 { return f.rate }),
			spread(r.runs, "%.0f", func(f figures) float64 { return 1000 * f.spent.manager.Seconds() }),
			spread(r.runs, "%.2f", func(f figures) float64 { return f.spent.engine.Seconds() }),
			spread(r.runs, "%.2f", func(f figures) float64 { return f.spent.containers.Seconds() }),
			spread(r.runs, "%.2f", func(f figures) float64 { return (f.spent.engine + f.spent.containers).Seconds() }),
			spread(r.runs, "%.0f", func(f figures) float64 { return f.peak }),
		}
		cells = append(append(cells, countCells(r.traces)...), spread(r.runs, "%.2f", func(f figures) float64 { return f.other }))
		fmt.Println("| " + strings.Join(cells, " | ") + " |")
	}
	printAdded(results)
	fmt.Printf("\nSeen in the engine's long-lived processes and their ended children (dockerd, containerd; without shims and runc), of %s: %s s per job\n",
		results[0].name, spread(results[0].runs, "%.2f", func(f figures) float64 { return f.spent.daemons.Seconds() }))
	for _, r := range results {
		if n := len(r.traces); n > 0 && r.traced {
			fmt.Printf("\n%s, one job; ms since it was assigned, and until the answer:\n", r.name)
			r.traces[n-1].print()
		}
	}
	fmt.Println("\nCalls to the engine per job:")
	for _, r := range results {
		if n := len(r.traces); n > 0 {
			fmt.Printf("%s: %s\n", r.name, r.traces[n-1].patterns())
		}
	}
}

// printAdded says what each service adds to a job's time.
func printAdded(results []result) {
	base := map[string]float64{}
	for _, r := range results {
		wall := middle(r.runs, func(f figures) float64 { return f.p50.Seconds() })
		kind := fmt.Sprint(r.network, r.image, r.settings, r.noCache, r.variables, r.concurrent)
		if r.services == 0 {
			base[kind] = wall // the last one is the nearest in time
		} else if without, known := base[kind]; known {
			fmt.Printf("\n%s: %+.3f s for each service\n", r.name, (wall-without)/float64(r.services))
		}
	}
}

// spread says the one in the middle and, of several runs, the range.
func spread(runs []figures, format string, of func(figures) float64) string {
	text := fmt.Sprintf(format, middle(runs, of))
	if len(runs) == 1 {
		return text
	}
	values := valuesOf(runs, of)
	return fmt.Sprintf("%s ["+format+".."+format+"]", text, values[0], values[len(values)-1])
}

func middle(runs []figures, of func(figures) float64) float64 { return valuesOf(runs, of)[len(runs)/2] }

func valuesOf(runs []figures, of func(figures) float64) []float64 {
	var values []float64
	for _, f := range runs {
		values = append(values, of(f))
	}
	slices.Sort(values)
	return values
}
