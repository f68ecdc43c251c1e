// Package flux has batch jobs run by Flux, from 0.48 on: through its commands and their text output. Flux schedules no memory:
// what is asked for of it is passed over.
package flux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
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

// Scheduler is Flux. It is a tranter.Scheduler. Its ids are in Flux's base 58, with an f in front.
type Scheduler struct {
	client batch.Client
	all    bool
}

// New returns a scheduler; nothing is asked yet.
func New(o Options) (*Scheduler, error) {
	return &Scheduler{client: o.Client, all: o.AllUsers}, nil
}

// IDVariable is the environment variable that holds a batch job's id within it: to the script, the job is the instance of Flux
// that it is in.
func IDVariable() string { return "FLUX_ENCLOSING_ID" }

var (
	jobName = lazy.Regexp(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	plain   = lazy.Regexp(`^[A-Za-z0-9_./@%:+=-]+$`)
	wanted  = lazy.Regexp(`^[A-Za-z0-9_./@:+=,&|()^ -]+$`)
)

// Submit hands a batch job in with flux batch.
func (s *Scheduler) Submit(ctx context.Context, spec tranter.BatchSpec) (string, error) {
	args, err := arguments(spec)
	if err != nil {
		return "", fmt.Errorf("submit batch job %.250q: %w: %w", spec.Name, tranter.ErrRejected, err)
	}
	out, err := s.client.Run(ctx, batch.Call{Name: "flux", Args: args, Stdin: spec.Script, Dir: spec.Dir, As: spec.As, Clean: true})
	if err != nil {
		return "", fmt.Errorf("submit batch job %s: %w", spec.Name, refusal(err))
	}
	lines := strings.Fields(out)
	if len(lines) == 0 {
		return "", fmt.Errorf("submit batch job %s: flux names no job", spec.Name)
	}
	id, ok := parseID(lines[len(lines)-1])
	if !ok {
		return "", fmt.Errorf("submit batch job %s: flux names no job: %.200q", spec.Name, out)
	}
	return id.String(), nil
}

// arguments are those of flux. Each is one word with its value, so that no value is taken for an option.
func arguments(spec tranter.BatchSpec) ([]string, error) {
	if err := possible(spec); err != nil {
		return nil, err
	}
	s := spec.Shape
	args := []string{"batch", "--job-name=" + spec.Name, "--output=" + spec.Output, "--cwd=" + spec.Dir, "--nslots=" + strconv.Itoa(max(1, s.Nodes))}
	for _, o := range [][2]string{
		{"queue", s.Partition},
		{"bank", s.Account},
		{"nodes", positive(s.Nodes)},
		{"cores-per-slot", positive(s.CPUs)},
		{"gpus-per-slot", positive(s.GPUs)},
		{"time-limit", minutes(s.Walltime)},
		{"requires", requires(spec)},
	} {
		if o[1] != "" {
			args = append(args, "--"+o[0]+"="+o[1])
		}
	}
	if s.Exclusive {
		args = append(args, "--exclusive")
	}
	return append(args, s.Options...), nil
}

func possible(spec tranter.BatchSpec) error {
	s := spec.Shape
	switch {
	case !jobName().MatchString(spec.Name):
		return errors.New("this is no name for a batch job")
	case !strings.HasPrefix(spec.Output, "/") || !strings.HasPrefix(spec.Dir, "/") || strings.Contains(spec.Output, "{{"):
		return fmt.Errorf("output %q and working directory %q have to be absolute paths without {{", spec.Output, spec.Dir)
	case s.QOS != "":
		return errors.New("flux knows no qos")
	case s.Reservation != "":
		return errors.New("flux knows no reservations")
	case s.Constraint != "" && !wanted().MatchString(s.Constraint):
		return fmt.Errorf("the constraint %q has signs that Flux does not take", s.Constraint)
	}
	for _, word := range append([]string{s.GPUType}, spec.Exclude...) {
		if word != "" && !plain().MatchString(word) {
			return fmt.Errorf("%q has signs that Flux does not take", word)
		}
	}
	return nil
}

// requires is Flux's expression for which nodes will do.
func requires(spec tranter.BatchSpec) string {
	var all []string
	if spec.Shape.Constraint != "" {
		all = append(all, "("+spec.Shape.Constraint+")")
	}
	if spec.Shape.GPUType != "" {
		all = append(all, spec.Shape.GPUType)
	}
	if len(spec.Exclude) > 0 {
		all = append(all, "-host:"+strings.Join(spec.Exclude, ","))
	}
	return strings.Join(all, " and ")
}

func positive(n int) string {
	if n <= 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// minutes rounds up.
func minutes(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((d-1)/time.Minute)+1, 10) + "m"
}

// Cancel ends jobs with flux cancel: running ones get SIGTERM, and SIGKILL when Flux's kill-timeout is over, five seconds as a
// rule.
func (s *Scheduler) Cancel(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	if err := known(ids); err != nil {
		return fmt.Errorf("cancel batch jobs: %w", err)
	}
	_, err := s.client.Run(ctx, batch.Call{Name: "flux", Args: append([]string{"cancel"}, ids...)})
	if err != nil && (!saysOf(err, goneWords()) || saysOf(err, deniedWords())) {
		return fmt.Errorf("cancel batch jobs: %w", err)
	}
	return nil
}

// Check tells nothing: Flux knows no way to ask without submitting.
func (s *Scheduler) Check(context.Context, tranter.BatchSpec) error { return nil }

// most is how many jobs a list may name: Flux's own limit would be 1000.
const most = "100000"

// List asks for the jobs that wait or run: of those that have ended, which Flux keeps for long, Final tells.
func (s *Scheduler) List(ctx context.Context, prefix string) ([]tranter.BatchJob, error) {
	args := []string{"jobs", "-n", "--count=" + most, "--format=" + format()}
	if s.all {
		args = append(args, "-A")
	}
	out, err := s.client.Run(ctx, batch.Call{Name: "flux", Args: args})
	if err != nil {
		return nil, fmt.Errorf("list batch jobs: %w", err)
	}
	return slices.DeleteFunc(parse(out), func(j tranter.BatchJob) bool { return !strings.HasPrefix(j.Name, prefix) }), nil
}

// Final asks for jobs by their ids.
func (s *Scheduler) Final(ctx context.Context, ids []string) ([]tranter.BatchJob, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	if err := known(ids); err != nil {
		return nil, fmt.Errorf("ask about batch jobs: %w", err)
	}
	out, err := s.client.Run(ctx, batch.Call{Name: "flux", Args: append([]string{"jobs", "-n", "--format=" + format()}, ids...)})
	if err != nil && !saysOf(err, goneWords()) {
		return nil, fmt.Errorf("ask about batch jobs: %w", err)
	}
	asked := map[jobID]string{} // an id may be written in more ways than one
	for _, id := range ids {
		n, _ := parseID(id)
		asked[n] = id
	}
	var found []tranter.BatchJob
	for _, j := range parse(out) {
		n, _ := parseID(j.ID)
		if id, ok := asked[n]; ok {
			j.ID = id
			found = append(found, j)
		}
	}
	return found, nil
}

// Jobs returns how jobs stand, those that have ended too.
func (s *Scheduler) Jobs(ctx context.Context, ids []string) ([]tranter.BatchJob, error) {
	return s.Final(ctx, ids)
}

func known(ids []string) error {
	for _, id := range ids {
		if _, ok := parseID(id); !ok {
			return fmt.Errorf("%.100q is no id of a job", id)
		}
	}
	return nil
}

// commandMissing and notRunnable are exit codes of shells.
const commandMissing, notRunnable = 127, 126

// What flux says, in small letters. Of submissions, the first list that has a match decides.
var (
	goneWords   = lazy.Regexp(`unknown|inactive|no such|not found`)
	deniedWords = lazy.Regexp(`not permitted|permission denied|only the instance owner|unable to connect|connection refused`)
	awayWords   = lazy.Regexp(`unable to connect|connection (refused|reset|timed out)|timed? ?out|no route|host is unreachable|function not implemented|broken pipe|no such file.*local|submission is disabled|not running`)
	fullWords   = lazy.Regexp(`max(imum)? (number of )?(active|running|pending )?.*jobs|jobs limit|resource temporarily unavailable|queue is (stopped|disabled)|is currently disabled`)
	wrongWords  = lazy.Regexp(`unsatisfiable|invalid|unknown|unrecognized|not (valid|allowed|permitted|supported)|exceeds|cannot|must|denied|no such|usage:|bank|rejected`)
)

// saysOf says whether a command has failed with words that match.
func saysOf(err error, words *regexp.Regexp) bool {
	failed, ok := errors.AsType[*batch.CommandError](err)
	const ssh = 255
	if !ok || failed.ExitCode <= 0 || failed.ExitCode == commandMissing || failed.ExitCode == notRunnable || failed.ExitCode == ssh {
		return false
	}
	return words.MatchString(strings.ToLower(failed.Said))
}

// refusal tells why a job was not accepted. Whoever does not answer has not refused: then the error is as it was.
func refusal(err error) error {
	switch {
	case saysOf(err, awayWords()):
		return err
	case saysOf(err, fullWords()):
		return fmt.Errorf("%w: %w", tranter.ErrNoCapacity, err)
	case saysOf(err, wrongWords()):
		return fmt.Errorf("%w: %w", tranter.ErrRejected, err)
	default:
		return err
	}
}
