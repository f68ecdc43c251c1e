// Package lsf has batch jobs run by IBM Spectrum LSF, from 9.1.3 on: through its commands and their text output.
package lsf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	AllUsers bool         // jobs run as other users than the one as whom the commands run
	Log      *slog.Logger // nothing is said yet
}

// Scheduler is LSF. It is a tranter.Scheduler.
type Scheduler struct {
	client batch.Client
	all    bool
}

// New returns a scheduler; nothing is asked yet.
func New(o Options) (*Scheduler, error) {
	c := o.Client
	// Output goes to its file at once, and not into the user's home until the job ends.
	c.Environment = append(slices.Clone(c.Environment), "LSB_STDOUT_DIRECT=Y")
	return &Scheduler{client: c, all: o.AllUsers}, nil
}

// IDVariable is the environment variable that holds a batch job's id within it.
func IDVariable() string { return "LSB_JOBID" }

var (
	jobID   = lazy.Regexp(`^[1-9][0-9]{0,17}$`)
	jobName = lazy.Regexp(`^[A-Za-z0-9][A-Za-z0-9._-]*$`) // no brackets, which make an array of it
	said    = lazy.Regexp(`(?m)^Job <([0-9]{1,18})> is submitted to `)
	plain   = lazy.Regexp(`^[A-Za-z0-9_./@%:+=-]+$`)
)

// Submit hands a batch job in with bsub.
func (s *Scheduler) Submit(ctx context.Context, spec tranter.BatchSpec) (string, error) {
	args, err := arguments(spec)
	if err != nil {
		return "", fmt.Errorf("submit batch job %.250q: %w: %w", spec.Name, tranter.ErrRejected, err)
	}
	out, err := s.client.Run(ctx, batch.Call{Name: "bsub", Args: args, Stdin: spec.Script, Dir: spec.Dir, As: spec.As, Clean: true})
	if err != nil {
		return "", fmt.Errorf("submit batch job %s: %w", spec.Name, refusal(err))
	}
	m := said().FindAllStringSubmatch(out, -1)
	if len(m) == 0 {
		return "", fmt.Errorf("submit batch job %s: bsub names no job: %.200q", spec.Name, out)
	}
	return m[len(m)-1][1], nil
}

// arguments are those of bsub.
func arguments(spec tranter.BatchSpec) ([]string, error) {
	if err := possible(spec); err != nil {
		return nil, err
	}
	s := spec.Shape
	args := []string{"-J", spec.Name, "-o", spec.Output, "-cwd", spec.Dir, "-rn"}
	for _, o := range [][2]string{
		{"-Jd", spec.Comment}, {"-q", s.Partition}, {"-P", s.Account}, {"-sla", s.QOS}, {"-U", s.Reservation}, {"-W", minutes(s.Walltime)}, {"-n", slots(s)},
	} {
		if o[1] != "" {
			args = append(args, o[0], o[1])
		}
	}
	for _, r := range requirements(spec) {
		args = append(args, "-R", r)
	}
	if s.GPUs > 0 {
		gpus := "num=" + strconv.Itoa(s.GPUs)
		if s.GPUType != "" {
			gpus += ":gmodel=" + s.GPUType
		}
		args = append(args, "-gpu", gpus)
	}
	if s.Exclusive {
		args = append(args, "-x")
	}
	return append(args, s.Options...), nil
}

func possible(spec tranter.BatchSpec) error {
	if !jobName().MatchString(spec.Name) {
		return errors.New("this is no name for a batch job")
	}
	if !strings.HasPrefix(spec.Output, "/") || !strings.HasPrefix(spec.Dir, "/") {
		return fmt.Errorf("output %q and working directory %q have to be absolute paths", spec.Output, spec.Dir)
	}
	if strings.Contains(spec.Output, "%") {
		return fmt.Errorf("output %q: LSF puts something else in the place of percent signs", spec.Output)
	}
	s := spec.Shape
	words := append([]string{s.Partition, s.Account, s.QOS, s.Reservation, s.GPUType}, spec.Exclude...)
	for _, word := range words {
		if word != "" && (!plain().MatchString(word) || word[0] == '-') {
			return fmt.Errorf("%q has signs that LSF does not take", word)
		}
	}
	if strings.Contains(s.GPUType, ":") {
		return fmt.Errorf("the GPU type %q asks for more than a type", s.GPUType)
	}
	if strings.ContainsAny(s.Constraint, "[]\n\r") || strings.HasPrefix(spec.Comment, "-") {
		return fmt.Errorf("the constraint %q is not what may be between the brackets of select[]", s.Constraint)
	}
	return nil
}

// requirements are what bsub's -R says.
func requirements(spec tranter.BatchSpec) (all []string) {
	s := spec.Shape
	if s.Constraint != "" {
		all = append(all, "select["+s.Constraint+"]")
	}
	if len(spec.Exclude) > 0 {
		all = append(all, "select[hname!='"+strings.Join(spec.Exclude, "' && hname!='")+"']")
	}
	switch {
	case s.Nodes > 1:
		all = append(all, "span[ptile="+strconv.Itoa(max(1, s.CPUs))+"]")
	case s.CPUs > 1 || s.Nodes == 1:
		all = append(all, "span[hosts=1]")
	}
	if s.Memory > 0 {
		const mega = 1 << 20
		all = append(all, "rusage[mem="+strconv.FormatInt((s.Memory-1)/mega+1, 10)+"MB/host]")
	}
	return all
}

// slots are the processors of all nodes.
func slots(s tranter.Shape) string {
	if s.CPUs == 0 && s.Nodes <= 1 {
		return ""
	}
	return strconv.Itoa(max(1, s.CPUs) * max(1, s.Nodes))
}

// minutes rounds up.
func minutes(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((d-1)/time.Minute)+1, 10)
}

// Cancel ends jobs with bkill: running ones get SIGINT and SIGTERM, and SIGKILL some seconds later.
func (s *Scheduler) Cancel(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	if i := slices.IndexFunc(ids, func(id string) bool { return !jobID().MatchString(id) }); i >= 0 {
		return fmt.Errorf("cancel batch jobs: %.100q is no id of a job", ids[i])
	}
	_, err := s.client.Run(ctx, batch.Call{Name: "bkill", Args: ids})
	if err != nil && (!saysOf(err, goneWords()) || saysOf(err, deniedWords())) {
		return fmt.Errorf("cancel batch jobs: %w", err)
	}
	return nil
}

// Check tells nothing: LSF knows no way to ask without submitting.
func (s *Scheduler) Check(context.Context, tranter.BatchSpec) error { return nil }

// List asks for the jobs whose names begin with prefix: those that wait and run, and those that have ended within LSF's
// CLEAN_PERIOD, an hour as a rule.
func (s *Scheduler) List(ctx context.Context, prefix string) ([]tranter.BatchJob, error) {
	var args []string
	if prefix != "" {
		args = []string{"-J", prefix + "*"}
	}
	if s.all {
		args = append(args, "-u", "all")
	}
	jobs, err := s.bjobs(ctx, args)
	if err != nil {
		return nil, fmt.Errorf("list batch jobs: %w", err)
	}
	return slices.DeleteFunc(jobs, func(j tranter.BatchJob) bool { return !strings.HasPrefix(j.Name, prefix) }), nil
}

// Final asks for jobs by their ids. LSF names them for no longer than in the list.
func (s *Scheduler) Final(ctx context.Context, ids []string) ([]tranter.BatchJob, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	if i := slices.IndexFunc(ids, func(id string) bool { return !jobID().MatchString(id) }); i >= 0 {
		return nil, fmt.Errorf("ask about batch jobs: %.100q is no id of a job", ids[i])
	}
	jobs, err := s.bjobs(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("ask about batch jobs: %w", err)
	}
	return slices.DeleteFunc(jobs, func(j tranter.BatchJob) bool { return !slices.Contains(ids, j.ID) }), nil
}

// Jobs returns how jobs stand, those that have ended too.
func (s *Scheduler) Jobs(ctx context.Context, ids []string) ([]tranter.BatchJob, error) {
	return s.Final(ctx, ids)
}

// bjobs runs bjobs. That some or all of the jobs are not there is no error.
func (s *Scheduler) bjobs(ctx context.Context, args []string) ([]tranter.BatchJob, error) {
	out, err := s.client.Run(ctx, batch.Call{Name: "bjobs", Args: append([]string{"-a", "-noheader", "-o", format()}, args...)})
	if err != nil && !saysOf(err, goneWords()) {
		return nil, err
	}
	return parse(out, time.Now()), nil
}

// commandMissing and notRunnable are exit codes of shells.
const commandMissing, notRunnable = 127, 126

// What the commands say, in small letters. Of submissions, the first list that has a match decides.
var (
	goneWords   = lazy.Regexp(`is not found|no (unfinished|matching|pending|running|done)? ?job(s)? found|no matching job|job has already finished`)
	deniedWords = lazy.Regexp(`permission denied|not (the )?owner|cannot connect|lsf is down|failed in an lsf library call`)
	awayWords   = lazy.Regexp(`lsf is down|cannot connect|connection (refused|reset|timed out)|communication time ?out|please (wait|retry)|not responding|failed in an lsf library call|lim is down|batch daemon`)
	fullWords   = lazy.Regexp(`job limit|slot limit|limit has been reached|threshold|too many (jobs|processes)|queue (is )?(closed|inactive)|has been closed`)
	wrongWords  = lazy.Regexp(`job not submitted|does not exist|no such|bad |cannot use|not allowed|invalid|illegal|unknown|request aborted|rejected|denied|exceeds|usage|syntax`)
)
