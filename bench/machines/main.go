//go:build linux

// Command machines measures machines on demand as a user has them: the built binary with the executor docker+machine against
// the local coordinator in this process, with real machines: containers that have an SSH server and an engine of their own.
// Run it with: make bench-machines
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
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	program, driver, host        string
	image, helper                string
	parts                        string
	rounds, jobs, starts, reacts int
	delay                        time.Duration
	logs                         bool
	idle, uses                   numbers
}

const allParts = "claim,cold,six,reaction,burst"

func main() {
	var o options
	flag.StringVar(&o.program, "program", "bin/tranter", "the built runner")
	flag.StringVar(&o.driver, "driver", "bin/docker-machine-driver-lab", "the driver of the tests")
	flag.StringVar(&o.host, "host", "", "unix:// address of the engine; empty: DOCKER_HOST, else the default socket")
	flag.StringVar(&o.image, "image", "", "image of the jobs; empty: the tests' image busybox, which must be on the engine")
	flag.StringVar(&o.helper, "helper", "", "helper image; empty: the tests' image helper, which must be on the engine")
	flag.StringVar(&o.parts, "parts", allParts, "what is measured")
	flag.IntVar(&o.rounds, "rounds", 3, "runs of six and burst")
	flag.IntVar(&o.jobs, "jobs", 30, "jobs of claim")
	flag.IntVar(&o.starts, "starts", 5, "machines of each row of cold")
	flag.IntVar(&o.reacts, "reactions", 10, "jobs of reaction")
	flag.DurationVar(&o.delay, "delay", 60*time.Millisecond, "round trip between manager and machine in the rows of cold that have one")
	o.idle, o.uses = numbers{0, 2}, numbers{0, 1}
	flag.Var(&o.idle, "idle", "values of IdleCount in burst")
	flag.Var(&o.uses, "uses", "values of MaxBuilds in burst")
	flag.BoolVar(&o.logs, "logs", false, "print what the manager has logged")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := measureAll(ctx, o)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// numbers are a flag's, with commas between them.
type numbers []int

func (n *numbers) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(*n), " ", ","), "[]")
}

// Set implements flag.Value.
func (n *numbers) Set(text string) error {
	*n = nil
	for one := range strings.SplitSeq(text, ",") {
		value, err := strconv.Atoi(one)
		if err != nil {
			return err
		}
		*n = append(*n, value)
	}
	return nil
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
	if min(o.rounds, o.jobs, o.starts, o.reacts) < 1 {
		return errors.New("-rounds, -jobs, -starts and -reactions must be at least 1")
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	b.describe()
	for _, p := range []part{{"claim", b.claims}, {"cold", b.colds}, {"six", b.six}, {"reaction", b.reaction}, {"burst", b.bursts}} {
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
