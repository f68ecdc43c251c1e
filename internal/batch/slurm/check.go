package slurm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
)

// Check asks sbatch --test-only, and looks at the partition: Slurm accepts jobs that never start, unless a site has told it not
// to (hpc, section 3.6).
func (s *Scheduler) Check(ctx context.Context, spec tranter.BatchSpec) error {
	args, err := arguments(spec)
	if err != nil {
		return fmt.Errorf("check a batch job: %w: %w", tranter.ErrRejected, err)
	}
	_, err = s.submitter.Run(ctx, batch.Call{Name: "sbatch", Args: append([]string{"--test-only"}, args...), Stdin: spec.Script, As: spec.As, Clean: true})
	err = refusal(err)
	doubtful := errors.Is(err, tranter.ErrRejected) && strings.Contains(strings.ToLower(err.Error()), "node configuration is not available")
	if errors.Is(err, tranter.ErrNoCapacity) {
		return nil // not now, but it could
	}
	if err != nil && !doubtful {
		return fmt.Errorf("check a batch job: %w", err)
	}
	p, asked := s.partition(ctx, spec)
	if asked != nil {
		return fmt.Errorf("check a batch job: %w", asked)
	}
	if wrong := p.refuses(spec.Shape); wrong != nil {
		return fmt.Errorf("check a batch job: %w: %w", tranter.ErrRejected, wrong)
	}
	if doubtful && !p.out {
		return fmt.Errorf("check a batch job: %w", err)
	}
	return nil
}

// partition is what matters of a partition. Slurm counts only nodes in service: while some are not, that it has none which
// are large enough may pass.
type partition struct {
	name   string
	limit  time.Duration // 0: none, or not known
	cpus   int           // of the largest node
	memory int64         // of the largest node, bytes
	out    bool          // nodes are out of service
}

// partition asks for the partition that a job names, or the default one.
func (s *Scheduler) partition(ctx context.Context, spec tranter.BatchSpec) (partition, error) {
	which := "--all"
	if spec.Shape.Partition != "" {
		which = "--partition=" + spec.Shape.Partition
	}
	args := []string{which, "--noheader", "--Node", "--format=%P|%l|%c|%m|%T"}
	out, err := s.client.Run(ctx, batch.Call{Name: "sinfo", Args: args, As: spec.As})
	if err != nil {
		return partition{}, err
	}
	return parseNodes(out, spec.Shape.Partition), nil
}

func parseNodes(out, name string) (p partition) {
	for line := range strings.Lines(out) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		if len(fields) != 5 || name == "" && !strings.HasSuffix(fields[0], "*") {
			continue
		}
		limit, ok := span(fields[1])
		if !ok {
			limit = 0
		}
		// Of several partitions that a job names, the most generous one counts.
		if p.name != "" && (limit == 0 || p.limit == 0) {
			limit = 0
		} else {
			limit = max(limit, p.limit)
		}
		p.name, p.limit = strings.TrimSuffix(fields[0], "*"), limit
		p.cpus, p.memory = max(p.cpus, count(fields[2])), max(p.memory, int64(count(strings.TrimRight(fields[3], "+")))<<20)
		switch strings.TrimRight(fields[4], "*$~#!%@^-") {
		case "idle", "mixed", "allocated", "completing":
		default:
			p.out = true
		}
	}
	return p
}

func (p partition) refuses(s tranter.Shape) error {
	switch {
	case p.limit > 0 && s.Walltime > p.limit:
		return fmt.Errorf("a time of %v: jobs of partition %s may take %v", s.Walltime, p.name, p.limit)
	case p.cpus > 0 && s.CPUs > p.cpus:
		return fmt.Errorf("%d processors on a node: the largest node of partition %s has %d", s.CPUs, p.name, p.cpus)
	case p.memory > 0 && s.Memory > p.memory:
		return fmt.Errorf("%d MiB of memory on a node: the largest node of partition %s has %d", s.Memory>>20, p.name, p.memory>>20)
	default:
		return nil
	}
}

// span reads a time as Slurm writes it: DAYS-HOURS:MINUTES:SECONDS, or less of it.
func span(text string) (time.Duration, bool) {
	days, rest, dashed := strings.Cut(text, "-")
	if !dashed {
		days, rest = "0", text
	}
	parts := append([]string{days}, strings.Split(rest, ":")...)
	units := []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second}
	switch len(parts) {
	case 4:
	case 3: // minutes and seconds
		units = []time.Duration{24 * time.Hour, time.Minute, time.Second}
	default:
		return 0, false
	}
	var sum time.Duration
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 20)
		if err != nil {
			return 0, false
		}
		sum += time.Duration(n) * units[i]
	}
	return sum, true
}
