//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter/bench/measure"
	"github.com/tranter-ci/tranter/internal/batch"
)

// bench is what all measurements share.
type bench struct {
	options
	dir     string // where everything is made; it is removed at the end
	cluster string // its directory
	conf    string // value of SLURM_CONF
	rows    [][]string
}

// newBench starts the cluster.
func newBench(ctx context.Context, o options) (b *bench, err error) {
	b = &bench{options: o}
	for _, path := range []*string{&b.program, &b.hpc} {
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(b.program); err != nil {
		return nil, fmt.Errorf("the runner is not built (make build): %w", err)
	}
	if b.dir, err = os.MkdirTemp("", "bench-batch-"); err != nil {
		return nil, err
	}
	b.cluster = filepath.Join(b.dir, "slurm")
	b.conf = filepath.Join(b.cluster, "slurm.conf")
	if _, err := b.run(ctx, b.hpc, "start", b.cluster, strconv.Itoa(b.nodes)); err != nil {
		return nil, errors.Join(fmt.Errorf("start a cluster: %w", err), b.close(context.WithoutCancel(ctx)))
	}
	return b, nil
}

// environment is what the commands of Slurm need.
func (b *bench) environment() []string { return []string{"SLURM_CONF=" + b.conf} }

// client runs Slurm's commands as the runner does.
func (b *bench) client() batch.Client { return batch.Client{Environment: b.environment()} }

// run runs a command and returns what it prints. Ctrl-C is for this process, which sees to what is started.
func (b *bench) run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), b.environment()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(program), err, strings.TrimSpace(errs.String()))
	}
	return string(out), nil
}

// empty ends all batch jobs, and waits until none is left.
func (b *bench) empty(ctx context.Context) error {
	const limit = time.Minute
	ctx, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the cluster still has batch jobs after %v", limit))
	defer stop()
	for {
		left, err := b.run(ctx, "squeue", "--noheader", "--format=%A")
		if err != nil {
			return err
		}
		ids := strings.Fields(left)
		if len(ids) == 0 {
			return nil
		}
		if _, err := b.run(ctx, "scancel", ids...); err != nil {
			return err
		}
		if err := measure.Pause(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
}

// controller is the process of slurmctld; 0: not known.
func (b *bench) controller() int {
	data, _ := os.ReadFile(filepath.Join(b.cluster, "slurmctld.pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// setting is one of slurm.conf.
func (b *bench) setting(name string) string {
	data, _ := os.ReadFile(b.conf)
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return strings.TrimSpace(value)
		}
	}
	return "the default"
}

// load is how busy the machine is.
func load() string {
	data, _ := os.ReadFile("/proc/loadavg")
	return strings.Join(strings.Fields(string(data))[:3], " ")
}

// describe prints where it is measured.
func (b *bench) describe(ctx context.Context) {
	version, err := b.run(ctx, "sinfo", "--version")
	if err != nil {
		version = "slurm"
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	fmt.Printf("%s, %d processors, kernel %s, load %s.\n", measure.Processor(), runtime.NumCPU(), strings.TrimSpace(string(release)), load())
	fmt.Printf("%s with %d virtual nodes of 4 processors on this machine, SchedulerParameters=%s: Slurm's defaults hold a batch job back for 3 s more.\n",
		strings.TrimSpace(version), b.nodes, b.setting("SchedulerParameters"))
}

// row adds one to the table.
func (b *bench) row(what, asked, measured, how string) {
	cells := []string{what, asked, measured, how, load()}
	b.rows = append(b.rows, cells)
	fmt.Fprintln(os.Stderr, strings.Join(cells, " | "))
}

func (b *bench) print() {
	fmt.Println("\n| what | asked | measured | how | load |")
	fmt.Println(strings.Repeat("|---", 5) + "|")
	for _, r := range b.rows {
		fmt.Println("| " + strings.Join(r, " | ") + " |")
	}
}

// close ends the cluster and removes what is on the disk.
func (b *bench) close(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	_, err := b.run(ctx, b.hpc, "stop", b.cluster)
	return errors.Join(err, os.RemoveAll(b.dir))
}
