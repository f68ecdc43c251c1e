// Package sizing says what a batch job has to have for a CI job: from the configuration, from the job's tags, and from what
// the job asks for by variables, as far as the configuration allows that (hpc, section 5.5). It is pure.
package sizing

import (
	"fmt"
	"slices"
	"time"

	"github.com/tranter-ci/tranter"
)

// Rules are what a configuration says.
type Rules struct {
	Scheduler string        // slurm, pbs, lsf or flux: how SCHEDULER_PARAMETERS is written; empty: slurm
	Base      tranter.Shape // of every job; Walltime: if nothing else says one
	Tags      []TagRule     // each that a job has, in this order
	Allow     Allow         // what variables may ask for
	Margin    time.Duration // besides a job's timeout
	Max       time.Duration // longest batch job; 0: no bound. A tag's Walltime takes its place
}

// TagRule says what jobs with a tag have: what is not zero or empty.
type TagRule struct {
	Tag   string
	Shape tranter.Shape
}

// Allow is what jobs may ask for. What is zero or empty they can't.
type Allow struct {
	Nodes, CPUs, GPUs Range
	Memory            Range    // bytes, on each node
	Walltime          Range    // nanoseconds, as in time.Duration
	GPUTypes          []string // * stands for any text, here and below
	Partitions        []string
	Accounts          []string
	QOS               []string
	Constraints       []string
	Reservations      []string
	Exclusive         bool
	Options           []string
}

// Job is what is known of a CI job. Of variables with the same name the last one counts.
type Job struct {
	Tags      []string
	Variables []tranter.Variable
	Timeout   time.Duration // 0: unknown
}

// Error is a user's mistake: what was asked for can't be had.
type Error struct {
	Variable string // that asks for it
	Problem  string // what is wrong, and what is allowed
}

// Error implements error.
func (e *Error) Error() string { return e.Variable + ": " + e.Problem }

// Shape returns what the batch job of a CI job is to have, and what the job's user should know of that. Later wins: the
// configuration, tags, CI_SLURM_*, SCHEDULER_PARAMETERS, TRANTER_BATCH_*. An error is an *Error.
func Shape(r Rules, j Job) (tranter.Shape, []string, error) {
	s := &sizer{rules: r, shape: r.Base, most: r.Max}
	s.shape.Options = slices.Clone(r.Base.Options)
	s.shape.Walltime = 0
	for _, t := range r.Tags {
		if slices.Contains(j.Tags, t.Tag) {
			s.tag(t.Shape)
		}
	}
	for _, read := range [...]func(map[string]string) error{s.foreign, s.parameters, s.own} {
		if err := read(last(j.Variables)); err != nil {
			return tranter.Shape{}, s.notes, err
		}
	}
	s.time(j.Timeout)
	return s.shape, s.notes, nil
}

// last returns the variables by name. Those that are files hold no settings.
func last(vs []tranter.Variable) map[string]string {
	m := make(map[string]string, len(vs))
	for _, v := range vs {
		if !v.File {
			m[v.Key] = v.Value
		}
	}
	return m
}

// sizer is a shape as it comes about.
type sizer struct {
	rules Rules
	shape tranter.Shape // Walltime: what was asked for; 0: nothing was
	most  time.Duration
	notes []string
}

func (s *sizer) note(form string, args ...any) { s.notes = append(s.notes, fmt.Sprintf(form, args...)) }

func keep[T comparable](to *T, from T) {
	if from != *new(T) {
		*to = from
	}
}

// tag takes over what a tag brings.
func (s *sizer) tag(t tranter.Shape) {
	keep(&s.shape.Nodes, t.Nodes)
	keep(&s.shape.CPUs, t.CPUs)
	keep(&s.shape.Memory, t.Memory)
	keep(&s.shape.GPUs, t.GPUs)
	keep(&s.shape.GPUType, t.GPUType)
	keep(&s.shape.Partition, t.Partition)
	keep(&s.shape.Account, t.Account)
	keep(&s.shape.QOS, t.QOS)
	keep(&s.shape.Constraint, t.Constraint)
	keep(&s.shape.Reservation, t.Reservation)
	keep(&s.shape.Exclusive, t.Exclusive)
	keep(&s.most, t.Walltime)
	s.shape.Options = append(s.shape.Options, t.Options...)
}

// time decides how long the batch job may run: what was asked for, else what the job's timeout needs, at most what the site
// allows; in whole minutes.
func (s *sizer) time(timeout time.Duration) {
	needs := time.Duration(0)
	if timeout > 0 {
		needs = timeout + s.rules.Margin
	}
	asked := s.shape.Walltime
	for _, w := range [...]time.Duration{asked, needs, s.rules.Base.Walltime, s.most} {
		if s.shape.Walltime = w; w > 0 {
			break
		}
	}
	if s.most > 0 && s.shape.Walltime > s.most {
		s.shape.Walltime = s.most
	}
	if rest := s.shape.Walltime % time.Minute; rest > 0 {
		s.shape.Walltime += time.Minute - rest
	}
	if timeout > 0 && s.shape.Walltime > 0 && s.shape.Walltime < timeout {
		why := "batch jobs here have at most that"
		if asked > 0 {
			why = "as it was asked for"
		}
		s.note("The job may take %s, but its batch job ends after %s: %s", timeout, s.shape.Walltime, why)
	}
}
