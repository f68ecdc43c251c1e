//go:build linux

// Command pool measures a pool of machines at scale: the real loop, policy and SQLite book, over a provider and machines that
// are simulated and behave.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/scale"
	"github.com/tranter-ci/tranter/internal/store"
)

// options are the flags.
type options struct {
	part           string
	tick, idle     int
	span           time.Duration
	jobs, machines int
	growth         int
	profile        string
}

func main() {
	var o options
	flag.StringVar(&o.part, "part", "", "only this measurement: tick, idle, jobs or growth (default all, each in a process of its own)")
	flag.IntVar(&o.tick, "tick", 10_000, "machines of the tick")
	flag.IntVar(&o.idle, "idle", 1000, "machines that idle")
	flag.DurationVar(&o.span, "span", time.Minute, "how long they do")
	flag.IntVar(&o.jobs, "jobs", 5000, "jobs that come at once")
	flag.IntVar(&o.machines, "machines", 2000, "machines that run them, at most")
	flag.IntVar(&o.growth, "growth", 20_000, "jobs that are run one after the other to see whether the last ones cost more")
	flag.StringVar(&o.profile, "profile", "", "write a profile of the processor time of one part to this file")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-pool:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	parts := map[string]func(context.Context, *bench) error{"tick": ticks, "idle": idles, "jobs": burst, "growth": growth}
	if o.part == "" {
		for _, part := range []string{"tick", "idle", "jobs", "growth"} {
			again := exec.CommandContext(ctx, "/proc/self/exe", append(slices.Clone(os.Args[1:]), "-part", part)...)
			again.Stdout, again.Stderr = os.Stdout, os.Stderr
			if err := again.Run(); err != nil {
				return fmt.Errorf("%s: %w", part, err)
			}
		}
		return nil
	}
	part := parts[o.part]
	if part == nil {
		return fmt.Errorf("there is no part %q", o.part)
	}
	dir, err := os.MkdirTemp("", "bench-pool-")
	if err != nil {
		return err
	}
	b := &bench{options: o, dir: dir, cloud: &cloud{least: time.Second, most: 3 * time.Second}}
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
	return errors.Join(part(ctx, b), os.RemoveAll(dir))
}

// bench is a pool that is measured.
type bench struct {
	options
	dir    string
	cloud  *cloud
	book   *book
	checks atomic.Int64
	pool   *pool.Pool
	names  int
}

// with runs f beside a pool that has so many idle machines to begin with.
func (b *bench) with(ctx context.Context, idle int, policy scale.Policy, f func(x *pool.Executor) error) error {
	s, err := store.Open(ctx, filepath.Join(b.dir, "state.db"))
	if err != nil {
		return err
	}
	b.book = &book{Machines: s.Machines()}
	if err := b.fill(ctx, idle); err != nil {
		return errors.Join(err, s.Close())
	}
	policy.Capacity, policy.Sets = 1, []scale.Set{{}}
	policy.Times = scale.Times{Create: 20 * time.Minute, Boot: 10 * time.Minute}
	b.pool = pool.New(pool.Options{Name: "bench", Book: b.book, Log: slog.New(slog.DiscardHandler)}, pool.Settings{
		Runner: "bench", ProviderName: "bench", Provider: b.cloud, Policy: policy,
		NewName: func() string { b.names++; return fmt.Sprintf("runner-bench-%08d", b.names) },
		Hands: pool.Hands{
			Prepare: func(context.Context, tranter.Machine, json.RawMessage, func(tranter.Timing)) (pool.Host, json.RawMessage, error) {
				return host{&b.checks}, json.RawMessage(`{"key":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF0000000000000000000000000000000000000000000"}`), nil
			},
			Executor: func(tranter.Machine, pool.Host) (tranter.Executor, error) { return work{}, nil },
		},
	})
	life, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- b.pool.Run(life) }()
	err = f(b.pool.Executor())
	end()
	return errors.Join(err, <-ended, s.Close())
}

// fill puts idle machines into the book.
func (b *bench) fill(ctx context.Context, n int) error {
	now := time.Now()
	machines := make([]fleet.Machine, n)
	for i := range machines {
		name := fmt.Sprintf("runner-bench-kept-%06d", i)
		used := now.Add(time.Duration(i*7919%n) * -time.Millisecond)
		machines[i] = fleet.Machine{Name: name, State: fleet.Idle, Since: used, Made: used, Ready: used, Used: used, Seen: machine(name), Kept: json.RawMessage(`{}`)}
	}
	return b.book.Append(ctx, "bench", nil, machines, nil)
}

// job runs one, and returns how long it had to wait for its machine.
func job(ctx context.Context, x *pool.Executor, name string, takes time.Duration) (time.Duration, error) {
	start := time.Now()
	s, err := x.Open(ctx, tranter.SessionSpec{Name: name, Job: &tranter.Job{}, Log: io.Discard})
	if err != nil {
		return 0, err
	}
	waited := time.Since(start)
	_, err = s.Attach(ctx, takes.String(), 0, io.Discard)
	return waited, errors.Join(err, s.Close(ctx))
}

// ticks measures decisions among many machines: each job that comes alone, and its end, are one each.
func ticks(ctx context.Context, b *bench) error {
	return b.with(ctx, b.tick, scale.Policy{Limit: b.tick, MaxAge: 24 * time.Hour, Idle: scale.Idle{Count: b.tick, Time: time.Hour}}, func(x *pool.Executor) error {
		if err := pause(ctx, 5*time.Second); err != nil { // until all are connected to
			return err
		}
		var waits []time.Duration
		used := cpu()
		const jobs = 200
		for i := range jobs {
			waited, err := job(ctx, x, fmt.Sprint("job-", i), 0)
			if err != nil {
				return err
			}
			waits = append(waits, waited)
		}
		slices.Sort(waits)
		fmt.Printf("tick: %d machines: from a job's coming to its machine p50 %s, p95 %s, most %s (target 50ms); %s of processor time for each job; RSS %d MB\n", b.tick,
			round(waits[jobs/2]), round(waits[jobs*95/100]), round(waits[jobs-1]), round((cpu()-used)/jobs), peak())
		return nil
	})
}

// idles measures a pool in which nothing happens.
func idles(ctx context.Context, b *bench) error {
	return b.with(ctx, b.idle, scale.Policy{Limit: b.idle, MaxAge: 24 * time.Hour, Idle: scale.Idle{Count: b.idle, Time: time.Hour}}, func(*pool.Executor) error {
		if err := pause(ctx, 5*time.Second); err != nil {
			return err
		}
		used, checks := cpu(), b.checks.Load()
		if err := pause(ctx, b.span); err != nil {
			return err
		}
		fmt.Printf("idle: %d machines for %s: %.2f %% of a core (target 1), %d checks, RSS %d MB\n", b.idle, b.span,
			100*(cpu()-used).Seconds()/b.span.Seconds(), b.checks.Load()-checks, peak())
		return nil
	})
}

// burst measures many jobs of 1 to 30 s that come at once.
func burst(ctx context.Context, b *bench) error {
	return b.with(ctx, 0, scale.Policy{Limit: b.machines, MaxUses: 100, Idle: scale.Idle{Time: 10 * time.Second}}, func(x *pool.Executor) error {
		used, start := cpu(), time.Now()
		if err := many(b.jobs, b.jobs, func(i int) error {
			_, err := job(ctx, x, fmt.Sprint("job-", i), between(time.Second, 30*time.Second))
			return err
		}); err != nil {
			return err
		}
		took := time.Since(start)
		fmt.Printf("jobs: %d on at most %d machines: %s, %.2f cores on average (target 2), RSS %d MB (target 1024)\n", b.jobs, b.machines,
			round(took), (cpu()-used).Seconds()/took.Seconds(), peak())
		fmt.Printf("jobs: %s of processor time a job; %d machines made; %d transactions of %s with %d events and %d entries; the book has %d MB\n",
			round((cpu()-used)/time.Duration(b.jobs)), b.cloud.made.Load(), b.book.writes.Load(), round(time.Duration(b.book.took.Load()/max(1, b.book.writes.Load()))),
			b.book.events.Load(), b.book.entries.Load(), b.size()>>20)
		return nil
	})
}

// growth measures whether jobs cost more the more there have been.
func growth(ctx context.Context, b *bench) error {
	const steps, atOnce = 5, 16
	return b.with(ctx, 0, scale.Policy{Limit: 50, MaxUses: 20, Idle: scale.Idle{Count: 20, Time: time.Second}}, func(x *pool.Executor) error {
		b.cloud.least, b.cloud.most = 0, 20*time.Millisecond
		each := b.growth / steps
		for step := range steps {
			used, start := cpu(), time.Now()
			if err := many(each, atOnce, func(i int) error {
				_, err := job(ctx, x, fmt.Sprintf("job-%d-%d", step, i), 0)
				return err
			}); err != nil {
				return err
			}
			took, spent := time.Since(start), cpu()-used
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Printf("growth: jobs %d to %d: %s of processor time each, %.0f jobs/s, heap %.1f MB, %d goroutines, the book has %d MB\n", step*each+1, (step+1)*each,
				round(spent/time.Duration(each)), float64(each)/took.Seconds(), float64(m.HeapAlloc)/(1<<20), runtime.NumGoroutine(), b.size()>>20)
		}
		return nil
	})
}

// many calls f n times, so many at once.
func many(n, atOnce int, f func(i int) error) error {
	var mu sync.Mutex
	var errs []error
	var all sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for i := range n {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			if err := f(i); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// cpu returns the processor time of this process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak returns the most memory that this process has had, in MB.
func peak() int {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), "VmHWM:")
	kb := 0
	_, _ = fmt.Sscan(rest, &kb)
	return kb >> 10
}

// size returns the size of the book's files in bytes.
func (b *bench) size() int64 {
	var n int64
	for _, name := range []string{"state.db", "state.db-wal"} {
		if info, err := os.Stat(filepath.Join(b.dir, name)); err == nil {
			n += info.Size()
		}
	}
	return n
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
