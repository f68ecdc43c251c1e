// Package pbs has batch jobs run by the PBS family: OpenPBS and PBS Professional, Torque, and Slurm behind its own commands of
// Torque's names. Which one it is tells "qsub --version".
//
// What they don't know of what can be asked for is refused, with two exceptions: nodes can't be excluded, and there are no
// comments. A job is found again by its full name, which is in a variable of the job besides: some have had room for 15
// characters of a name only.
package pbs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/user"
	"slices"
	"strings"
	"sync"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// Options of a scheduler.
type Options struct {
	Client   batch.Client
	AllUsers bool // jobs run as other users than the one as whom the commands run, who has to be an operator then
	Log      *slog.Logger
}

// Scheduler is one of the PBS family. It is a tranter.Scheduler.
type Scheduler struct {
	client batch.Client
	all    bool
	log    *slog.Logger

	mu      sync.Mutex
	dialect dialect // empty: not known yet
	short   bool    // names have room for 15 characters
}

// New returns a scheduler; nothing is asked yet.
func New(o Options) (*Scheduler, error) {
	return &Scheduler{client: o.Client, all: o.AllUsers, log: cmp.Or(o.Log, slog.New(slog.DiscardHandler))}, nil
}

// IDVariable is the environment variable that holds a batch job's id within it.
func IDVariable() string { return "PBS_JOBID" }

// nameVariable is the job's variable that has its full name.
const nameVariable = "TRANTER_ALLOCATION"

// shortest is the room for a name that each of the family has.
const shortest = 15

var (
	jobID   = lazy.Regexp(`^[0-9]{1,18}(\[\d*\])?(\.[A-Za-z0-9][\w.-]{0,200})?$`)
	jobName = lazy.Regexp(`^[A-Za-z][A-Za-z0-9._-]*$`)
)

// Submit hands a batch job in with qsub.
func (s *Scheduler) Submit(ctx context.Context, spec tranter.BatchSpec) (string, error) {
	d, err := s.speaks(ctx)
	if err != nil {
		return "", fmt.Errorf("submit batch job %s: %w", spec.Name, err)
	}
	args, err := d.arguments(spec)
	if err != nil {
		return "", fmt.Errorf("submit batch job %.250q: %w: %w", spec.Name, tranter.ErrRejected, err)
	}
	out, err := s.qsub(ctx, d, args, spec)
	if err != nil {
		return "", fmt.Errorf("submit batch job %s: %w", spec.Name, refusal(err))
	}
	id, ok := submitted(out)
	if !ok {
		return "", fmt.Errorf("submit batch job %s: qsub names no job: %.200q", spec.Name, out)
	}
	return id, nil
}

// qsub runs qsub, with a shorter name if the full one is too long for it.
func (s *Scheduler) qsub(ctx context.Context, d dialect, args []string, spec tranter.BatchSpec) (string, error) {
	call := func(short bool) (string, error) {
		name := spec.Name
		if short {
			name = name[:min(len(name), shortest)]
		}
		c := batch.Call{Name: "qsub", Args: append([]string{"-N", name}, args...), Stdin: d.script(spec), Dir: spec.Dir, As: spec.As}
		client := s.client
		if d == wrapper {
			c.Args = append(c.Args, "/dev/stdin") // it takes no script without a name
			c.Clean = true                        // all of it becomes the job's
			client.Environment = append(slices.Clone(client.Environment), "SBATCH_OPEN_MODE=append")
		}
		return client.Run(ctx, c)
	}
	s.mu.Lock()
	short := s.short
	s.mu.Unlock()
	out, err := call(short)
	if short || !saysOf(err, badName()) || len(spec.Name) <= shortest {
		return out, err
	}
	s.mu.Lock()
	s.short = true
	s.mu.Unlock()
	return call(true)
}

// submitted finds the id in what qsub prints; a site's wrapper may print more.
func submitted(out string) (id string, ok bool) {
	for line := range strings.Lines(out) {
		if text := strings.TrimSpace(line); jobID().MatchString(text) {
			id, ok = text, true
		}
	}
	return id, ok
}

// speaks tells which of the family it is.
func (s *Scheduler) speaks(ctx context.Context) (dialect, error) {
	s.mu.Lock()
	known := s.dialect
	s.mu.Unlock()
	if known != "" {
		return known, nil
	}
	d, err := s.ask(ctx)
	if err != nil {
		return "", fmt.Errorf("find out which PBS this is: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialect = d
	s.log.Debug("the batch system is known", "kind", string(d))
	return d, nil
}

func (s *Scheduler) ask(ctx context.Context) (dialect, error) {
	// Torque writes its version to standard error; what is said there is only told of a failure. So it is recognised by its silence.
	out, err := s.client.Run(ctx, batch.Call{Name: "qsub", Args: []string{"--version"}})
	failed, isFailure := errors.AsType[*batch.CommandError](err)
	switch {
	case err == nil && strings.Contains(out, "pbs_version"):
		return openPBS, nil
	case err == nil:
		return torque, nil
	case isFailure && strings.Contains(failed.Said, "Unknown option"):
		return wrapper, nil
	default:
		return "", err
	}
}

// Cancel ends jobs with qdel.
func (s *Scheduler) Cancel(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	for _, id := range ids {
		if !jobID().MatchString(id) {
			return fmt.Errorf("cancel batch jobs: %.100q is no id of a job", id)
		}
	}
	_, err := s.client.Run(ctx, batch.Call{Name: "qdel", Args: ids})
	if err != nil && !gone(err) {
		return fmt.Errorf("cancel batch jobs: %w", err)
	}
	return nil
}

// Check tells nothing: PBS knows no way to ask without submitting.
func (s *Scheduler) Check(context.Context, tranter.BatchSpec) error { return nil }

// owner is the user whose jobs are listed; empty: all.
func (s *Scheduler) owner() string {
	if s.all || len(s.client.Prefix) > 0 { // who we are at the other end is not known
		return ""
	}
	if s.client.As != nil {
		return s.client.As.Name
	}
	me, err := user.Current()
	if err != nil {
		return ""
	}
	return me.Username
}
