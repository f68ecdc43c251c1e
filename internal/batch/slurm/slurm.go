// Package slurm has batch jobs run by Slurm, from 22.05 on: through its commands and their text output, which has stayed the
// same where JSON and REST have not (hpc, section 3.9).
package slurm

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// Options of a scheduler.
type Options struct {
	Client   batch.Client
	AllUsers bool // jobs run as other users than the one as whom the commands run
	Log      *slog.Logger
}

// Scheduler is Slurm. It is a tranter.Scheduler.
type Scheduler struct {
	submitter batch.Client // what is in its environment gets into the jobs'
	client    batch.Client
	all       bool
	log       *slog.Logger
}

// New returns a scheduler; nothing is asked yet.
func New(o Options) (*Scheduler, error) {
	c := o.Client
	// Seconds since 1970 have no time zone. Where the variable does not arrive, times are taken for local ones.
	c.Environment = append(slices.Clone(c.Environment), "SLURM_TIME_FORMAT=%s")
	return &Scheduler{submitter: o.Client, client: c, all: o.AllUsers, log: cmp.Or(o.Log, slog.New(slog.DiscardHandler))}, nil
}

// IDVariable is the environment variable that holds a batch job's id within it.
func IDVariable() string { return "SLURM_JOB_ID" }

// Submit hands a batch job in with sbatch (hpc, section 5.5).
func (s *Scheduler) Submit(ctx context.Context, spec tranter.BatchSpec) (string, error) {
	args, err := arguments(spec)
	if err != nil {
		return "", fmt.Errorf("submit batch job %q: %w: %w", spec.Name, tranter.ErrRejected, err)
	}
	out, err := s.submitter.Run(ctx, batch.Call{
		Name: "sbatch", Args: append([]string{"--parsable"}, args...), Stdin: spec.Script, As: spec.As, Clean: true,
	})
	if err != nil {
		return "", fmt.Errorf("submit batch job %s: %w", spec.Name, refusal(err))
	}
	id, ok := submitted(out)
	if !ok {
		return "", fmt.Errorf("submit batch job %s: sbatch names no job id: %q", spec.Name, out[:min(len(out), 200)])
	}
	return id, nil
}

// submitted finds the id in what sbatch --parsable prints, ID or ID;CLUSTER; a site's wrapper may print more.
func submitted(out string) (id string, ok bool) {
	for line := range strings.Lines(out) {
		number, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		if isID(number) {
			id, ok = number, true
		}
	}
	return id, ok
}

// isID says whether text is the id of a batch job.
func isID(text string) bool { return jobID().MatchString(text) }

var (
	jobID   = lazy.Regexp(`^[1-9][0-9]{0,18}$`)
	jobName = lazy.Regexp(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
)

// arguments are those of sbatch. Each is one word with its value, so that no value is taken for an option.
//
// The environment is passed on with --export=ALL, from an sbatch that has a clean one: with NONE, or names of variables,
// Slurm makes a login environment for the user first, which took 0.2 to 1.2 seconds more until the script began.
func arguments(spec tranter.BatchSpec) ([]string, error) {
	switch {
	case !jobName().MatchString(spec.Name):
		return nil, fmt.Errorf("the name %q is none for a batch job", spec.Name)
	case !filepath.IsAbs(spec.Output) || !filepath.IsAbs(spec.Dir):
		return nil, fmt.Errorf("output %q and working directory %q have to be absolute paths", spec.Output, spec.Dir)
	}
	args := []string{
		"--no-requeue", "--export=ALL", "--job-name=" + spec.Name,
		"--output=" + strings.ReplaceAll(spec.Output, "%", "%%"), "--open-mode=append", "--chdir=" + spec.Dir,
	}
	if spec.Comment != "" {
		args = append(args, "--comment="+spec.Comment)
	}
	args = append(args, shape(spec.Shape)...)
	if len(spec.Exclude) > 0 {
		args = append(args, "--exclude="+strings.Join(spec.Exclude, ","))
	}
	return append(args, spec.Shape.Options...), nil
}

// shape is what a shape is in sbatch's words. Several nodes get one task each, which has all processors there.
func shape(s tranter.Shape) (args []string) {
	for _, o := range []struct {
		name, value string
	}{
		{"partition", s.Partition},
		{"account", s.Account},
		{"qos", s.QOS},
		{"constraint", s.Constraint},
		{"reservation", s.Reservation},
		{"nodes", positive(int64(s.Nodes))},
		{"cpus-per-task", positive(int64(s.CPUs))},
		{"mem", megabytes(s.Memory)},
		{"gres", gpus(s)},
		{"time", minutes(s.Walltime)},
	} {
		if o.value != "" {
			args = append(args, "--"+o.name+"="+o.value)
		}
	}
	if s.Nodes > 1 {
		args = append(args, "--ntasks-per-node=1")
	}
	if s.Exclusive {
		args = append(args, "--exclusive")
	}
	return args
}

func positive(n int64) string {
	if n <= 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func megabytes(n int64) string {
	const mega = 1 << 20
	if n <= 0 {
		return ""
	}
	return strconv.FormatInt((n-1)/mega+1, 10) + "M"
}

func gpus(s tranter.Shape) string {
	switch {
	case s.GPUs <= 0:
		return ""
	case s.GPUType != "":
		return fmt.Sprintf("gpu:%s:%d", s.GPUType, s.GPUs)
	default:
		return fmt.Sprintf("gpu:%d", s.GPUs)
	}
}

// minutes rounds up: Slurm counts in minutes, and 0 is no limit to it.
func minutes(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((d-1)/time.Minute)+1, 10)
}

// Cancel ends jobs with scancel: waiting ones are gone; all processes of running ones get SIGTERM, and SIGKILL when Slurm's
// KillWait is over, half a minute as a rule (hpc, section 3.5). Unless jobs run as other users, only those of our own are ended,
// also if we are root: an id may come from what somebody's command has printed.
func (s *Scheduler) Cancel(ctx context.Context, ids []string) error {
	if i := slices.IndexFunc(ids, func(id string) bool { return !isID(id) }); i >= 0 {
		return fmt.Errorf("cancel batch jobs: %q is no id of a job", ids[i])
	}
	var whose []string
	if !s.all {
		whose = []string{"--me"}
	}
	const most = 2000 // ids in one command: 40 kB
	for some := range slices.Chunk(ids, most) {
		if _, err := s.client.Run(ctx, batch.Call{Name: "scancel", Args: slices.Concat(whose, some)}); err != nil && !onlyGone(err) {
			return fmt.Errorf("cancel batch jobs: %w", err)
		}
	}
	return nil
}
