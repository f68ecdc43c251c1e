//go:build linux

// Command watch measures what it costs to look at a large manager, and to keep its past: the real history, web page and metrics, with a
// month of jobs in the history and thousands of jobs and machines there. Run it with: make bench-watch
//
// What is there comes from the measuring program: neither jobs nor machines run. All that is made is removed at the end, also after
// Ctrl-C, unless -dir keeps the history.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter/bench/measure"
)

// options are the flags.
type options struct {
	jobs, lives, events int
	machines, running   int
	dir                 string
	rounds, pushes      int
	viewers             int
	turnover            int
	span                time.Duration
	profile             string
	serve               bool
}

func main() {
	var o options
	flag.IntVar(&o.jobs, "jobs", 100_000, "jobs of the last 30 days in the history")
	flag.IntVar(&o.lives, "lives", 20_000, "machines of that time that are gone")
	flag.IntVar(&o.events, "events", 200_000, "events of that time")
	flag.IntVar(&o.machines, "machines", 2000, "machines that are there")
	flag.IntVar(&o.running, "running", 5000, "jobs that are there")
	flag.StringVar(&o.dir, "dir", "", "directory to keep the history in, which is filled if there is none (default: a temporary one)")
	flag.IntVar(&o.rounds, "rounds", 30, "requests of each row")
	flag.IntVar(&o.pushes, "pushes", 20, "events that are followed to their viewers")
	flag.IntVar(&o.viewers, "viewers", 100, "pages that are open at once")
	flag.IntVar(&o.turnover, "turnover", 10, "jobs that end in a second, and as many that begin, while pages are open")
	flag.DurationVar(&o.span, "span", 30*time.Second, "time over which processor time is taken")
	flag.StringVar(&o.profile, "profile", "", "write a profile of the manager's processor time to this file")
	flag.BoolVar(&o.serve, "serve", false, "be the manager that is measured (the program starts itself so)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	run := measureAll
	if o.serve {
		run = serve
	}
	err := run(ctx, o)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func measureAll(ctx context.Context, o options) (err error) {
	if min(o.jobs, o.lives, o.events, o.machines, o.running, o.rounds, o.pushes, o.viewers, int(o.span/time.Second)) < 1 {
		return errors.New("numbers must be at least 1, and -span a second")
	}
	t := &table{}
	fmt.Printf("%s, load average %s; history: %d jobs, %d machines and %d events of 30 days; there: %d machines, %d jobs\n\n",
		measure.Processor(), load(), o.jobs, o.lives, o.events, o.machines, o.running)
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "bench-watch-")
		if err != nil {
			return err
		}
		o.dir = dir
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(o.dir, historyFile)); err != nil {
		if err := fill(ctx, o, t); err != nil {
			return fmt.Errorf("fill the history: %w", err)
		}
	}
	err = watchAll(ctx, o, t)
	t.print()
	fmt.Printf("\nload average at the end %s\n", load())
	return err
}

func watchAll(ctx context.Context, o options, t *table) error {
	m, err := begin(ctx, o)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		of   func(context.Context, *watched, *table) error
	}{{"pages", pages}, {"metrics", scrapes}, {"pushes", pushes}, {"viewers", viewers}} {
		if err = part.of(ctx, m, t); err != nil {
			err = fmt.Errorf("%s: %w", part.name, err)
			break
		}
	}
	return errors.Join(err, m.end())
}

// load is how busy the machine is.
func load() string {
	data, _ := os.ReadFile("/proc/loadavg")
	if len(data) < 4 {
		return "unknown"
	}
	return string(data[:4])
}

// table is what was measured.
type table struct{ rows [][3]string }

func (t *table) add(asked, what, format string, args ...any) {
	t.rows = append(t.rows, [3]string{what, asked, fmt.Sprintf(format, args...)})
}

// print prints the table as Markdown.
func (t *table) print() {
	fmt.Println("| what | asked | measured |\n|---|---|---|")
	for _, r := range t.rows {
		fmt.Printf("| %s | %s | %s |\n", r[0], r[1], r[2])
	}
}
