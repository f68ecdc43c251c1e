//go:build linux

// Command batch measures jobs in batch jobs as a user has them: the built binary with [runners.batch] against the local
// coordinator in this process, and a real Slurm with virtual nodes on this machine, which tools/hpc starts in a temporary
// directory. Run it with: make bench-batch
//
// All that is made is removed at the end, also after Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	program, hpc        string
	parts               string
	nodes               int
	submits, side, jobs int
	queued, few         int
	window              time.Duration
	starts              int
	logs                bool
}

const allParts = "submit,pipeline,poll,latency,container"

func main() {
	var o options
	flag.StringVar(&o.program, "program", "bin/tranter", "the built runner")
	flag.StringVar(&o.hpc, "hpc", "tools/hpc", "what starts the cluster")
	flag.StringVar(&o.parts, "parts", allParts, "what is measured")
	flag.IntVar(&o.nodes, "nodes", 4, "virtual nodes of the cluster, of 4 processors each")
	flag.IntVar(&o.submits, "submits", 200, "batch jobs of each row of submit")
	flag.IntVar(&o.side, "side", 8, "submissions side by side")
	flag.IntVar(&o.jobs, "jobs", 200, "jobs of each row of pipeline")
	flag.IntVar(&o.queued, "queued", 1000, "jobs that wait in poll")
	flag.IntVar(&o.few, "few", 10, "jobs that wait in the rows of poll to compare with")
	flag.DurationVar(&o.window, "window", time.Minute, "time over which poll counts")
	flag.IntVar(&o.starts, "starts", 30, "jobs of each row of latency and container")
	flag.BoolVar(&o.logs, "logs", false, "print what the manager has logged")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := measureAll(ctx, o)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// part is one kind of measurement. It prints nothing; rows go to the table.
type part struct {
	name    string
	measure func(context.Context) error
}

func measureAll(ctx context.Context, o options) error {
	for name := range strings.SplitSeq(o.parts, ",") {
		if !slices.Contains(strings.Split(allParts, ","), name) {
			return fmt.Errorf("-parts: %q is none of %s", name, allParts)
		}
	}
	if min(o.nodes, o.submits, o.side, o.jobs, o.queued, o.few, o.starts, int(o.window/time.Second)) < 1 {
		return errors.New("numbers must be at least 1, and -window a second")
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	b.describe(ctx)
	for _, p := range []part{{"submit", b.submit}, {"pipeline", b.pipelines}, {"poll", b.polls}, {"latency", b.latencies}, {"container", b.containers}} {
		if err != nil || !slices.Contains(strings.Split(o.parts, ","), p.name) {
			continue
		}
		if failed := p.measure(ctx); failed != nil {
			err = fmt.Errorf("%s: %w", p.name, failed)
		}
	}
	b.print()
	if left := b.close(context.WithoutCancel(ctx)); err == nil {
		err = left
	}
	if ctx.Err() != nil {
		return fmt.Errorf("stopped: %w", context.Cause(ctx))
	}
	return err
}
