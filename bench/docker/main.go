//go:build linux

// Command docker measures the runner with the docker executor, as a user's machine would run it: the built binary against
// a real engine on this machine and the local coordinator in this process. It prints time per job, throughput, the
// processor time of the manager, the engine and the containers, memory, what is asked of the engine, and where a job's
// time goes. Run it with: make bench-docker
//
// The job is "echo MARK" after a checkout of a repository of 21 commits and 50 files of 20 KiB, 1 MB in all. Images are
// there before. All that is made is removed at the end, also after Ctrl-C.
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

	"github.com/tranter-ci/tranter"
)

// options are the flags.
type options struct {
	program, host                          string
	image, gitImage, serviceImage, helper  string
	parts, networks                        string
	rounds, jobs, manyJobs, many, traceRun int
}

func main() {
	var o options
	flag.StringVar(&o.program, "program", "bin/tranter", "the built runner")
	flag.StringVar(&o.host, "host", "", "unix:// address of the engine; empty: DOCKER_HOST, else the default socket")
	flag.StringVar(&o.image, "image", "", "image of the jobs; empty: the tests' image busybox, which must be on the engine")
	flag.StringVar(&o.gitImage, "git-image", "", "image of the jobs without a helper container, with git; empty: the tests' image debian")
	flag.StringVar(&o.serviceImage, "service-image", "", "image of the services, which exposes a port; empty: the tests' image ports")
	flag.StringVar(&o.helper, "helper", "", "helper_image; empty: the runner's default, made by make helper-image")
	flag.StringVar(&o.parts, "parts", "one,many,services,variants,trace", "what is measured; trace: where one job's time goes, call by call")
	flag.StringVar(&o.networks, "network", "host,bridge", "networks of the containers for one and many; the first is that of the variants")
	flag.IntVar(&o.rounds, "rounds", 3, "runs of each measurement; the median is printed, with the range")
	flag.IntVar(&o.jobs, "jobs", 20, "jobs of a run, one at a time")
	flag.IntVar(&o.many, "many", 8, "jobs at the same time in the part many")
	flag.IntVar(&o.manyJobs, "many-jobs", 48, "jobs of such a run")
	flag.IntVar(&o.traceRun, "counted", 3, "jobs whose calls to the engine are counted; 0: none are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := measureAll(ctx, o)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// scenario is one kind of job and runner.
type scenario struct {
	name       string
	concurrent int
	jobs       int
	network    string // host, bridge, or empty: none is configured
	image      string // empty: that of the options
	settings   string // more keys of [runners.docker]
	noCache    bool   // no cache volumes
	services   int
	variables  []tranter.Variable // of the job
	traced     bool               // its calls are listed
}

func measureAll(ctx context.Context, o options) error {
	if err := o.check(); err != nil {
		return err
	}
	list := scenarios(o)
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	err = b.all(ctx, list)
	if left := b.close(context.WithoutCancel(ctx)); err == nil {
		err = left
	}
	if ctx.Err() != nil {
		return fmt.Errorf("stopped: %w", context.Cause(ctx))
	}
	return err
}

// all measures, and prints what was found, also if it comes to an end before all was.
func (b *bench) all(ctx context.Context, list []scenario) error {
	b.describe()
	results := make([]result, len(list))
	for i := range list {
		results[i].scenario = list[i]
	}
	err := b.rest(ctx, results)
	results = slices.DeleteFunc(results, func(r result) bool { return len(r.runs) == 0 })
	if len(results) > 0 {
		b.print(results)
	}
	return err
}

func (b *bench) rest(ctx context.Context, results []result) error {
	for round := range b.rounds { // in turns, so that what else the machine does meets all alike
		for i := range results {
			r := &results[i]
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, b.rounds, r.name)
			f, err := b.run(ctx, r.scenario)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			r.runs = append(r.runs, f)
			if round > 0 || b.traceRun == 0 || r.concurrent > 1 {
				continue
			}
			if r.traces, err = b.count(ctx, r.scenario); err != nil {
				return fmt.Errorf("%s, counting calls: %w", r.name, err)
			}
		}
	}
	return nil
}

// check refuses values of flags that mean nothing.
func (o options) check() error {
	for flag, known := range map[string][2]string{
		"-parts": {o.parts, "one,many,services,variants,trace"}, "-network": {o.networks, "host,bridge"},
	} {
		for v := range strings.SplitSeq(known[0], ",") {
			if !slices.Contains(strings.Split(known[1], ","), v) {
				return fmt.Errorf("%s: %q is none of %s", flag, v, known[1])
			}
		}
	}
	if min(o.rounds, o.jobs, o.many, o.manyJobs) < 1 || o.traceRun < 0 {
		return errors.New("-rounds, -jobs, -many and -many-jobs must be at least 1, -counted at least 0")
	}
	return nil
}

// scenarios returns what is to be measured.
func scenarios(o options) []scenario {
	parts, networks := strings.Split(o.parts, ","), strings.Split(o.networks, ",")
	traced := slices.Contains(parts, "trace")
	var list []scenario
	for _, n := range networks {
		if slices.Contains(parts, "one") || traced {
			list = append(list, scenario{name: "1 at a time, " + n, network: n, traced: traced})
		}
		if slices.Contains(parts, "many") {
			list = append(list, scenario{name: fmt.Sprintf("%d at a time, %s", o.many, n), concurrent: o.many, jobs: o.manyJobs, network: n})
		}
	}
	if slices.Contains(parts, "services") {
		if !slices.ContainsFunc(list, func(sc scenario) bool { return sc.network == "bridge" && sc.concurrent == 0 }) {
			list = append(list, scenario{name: "no service, bridge", network: "bridge"})
		}
		list = append(list, // two services of one image can't share the host's ports: they are on the bridge
			scenario{name: "1 service, host", network: "host", services: 1},
			scenario{name: "1 service, bridge", network: "bridge", services: 1, traced: traced},
			scenario{name: "2 services, bridge", network: "bridge", services: 2},
		)
	}
	if slices.Contains(parts, "variants") {
		list = append(list, variants(networks[0])...)
	}
	for i := range list {
		list[i].complete(o)
	}
	return list
}

func (s *scenario) complete(o options) {
	if s.concurrent == 0 {
		s.concurrent = 1
	}
	if s.jobs == 0 {
		s.jobs = o.jobs
	}
}

func variants(network string) []scenario {
	perBuild := []tranter.Variable{{Key: "FF_NETWORK_PER_BUILD", Value: "true", Public: true}}
	return []scenario{
		{name: "GIT_STRATEGY none, " + network, network: network, variables: []tranter.Variable{{Key: "GIT_STRATEGY", Value: "none", Public: true}}},
		{name: "no cache volume, " + network, network: network, noCache: true},
		{name: "image with git, " + network, network: network, image: gitImage},
		{name: "disable_helper, image with git, " + network, network: network, image: gitImage, settings: "disable_helper = true\n"},
		{name: "FF_NETWORK_PER_BUILD", variables: perBuild},
		{name: "FF_NETWORK_PER_BUILD, 1 service", variables: perBuild, services: 1},
	}
}
