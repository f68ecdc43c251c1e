package pipeline

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Kind tells apart the problems on which a caller acts.
type Kind string

// The kinds of problems. A mistake in the configuration has none of the others.
const (
	Mistake        Kind = ""
	FilteredOut    Kind = "workflow"  // workflow:rules say that there is no pipeline: not a mistake
	NoJobs         Kind = "no_jobs"   // the rules of the jobs leave none of them
	OnlyEdgeStages Kind = "only_edge" // only jobs in .pre and .post are left
	Elsewhere      Kind = "elsewhere" // all jobs are in includes that cannot be had here
)

// Problem is a mistake in a .gitlab-ci.yml, or a warning about it.
type Problem struct {
	File    string
	Line    int // from 1; 0: the file as a whole
	Column  int
	Job     string // "" when it concerns no job
	Text    string
	Warning bool
	Kind    Kind
}

// String gives the problem as FILE:LINE:COLUMN: text, with the job's name unless the text has it already.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
	}
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", p.Line, max(p.Column, 1))
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if p.Warning {
		b.WriteString("warning: ")
	}
	if p.Job != "" && !strings.Contains(p.Text, p.Job) {
		b.WriteString("job " + p.Job + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Failed reports whether one of the problems is more than a warning.
func Failed(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return !p.Warning })
}

// position is a place in a file. Line and column count from 1.
type position struct {
	file         string
	line, column int
}

// report collects problems. Equal ones count once: a default section is read for every job that inherits it.
type report struct {
	problems []Problem
	seen     map[Problem]bool
}

func (r *report) add(p Problem) {
	if r.seen == nil {
		r.seen = map[Problem]bool{}
	}
	if !r.seen[p] {
		r.seen[p] = true
		r.problems = append(r.problems, p)
	}
}

func (r *report) errorf(at position, job, format string, args ...any) {
	r.add(Problem{File: at.file, Line: at.line, Column: at.column, Job: job, Text: fmt.Sprintf(format, args...)})
}

func (r *report) warnf(at position, format string, args ...any) {
	r.add(Problem{File: at.file, Line: at.line, Column: at.column, Text: fmt.Sprintf(format, args...), Warning: true})
}

// failed reports whether there is more than warnings.
func (r *report) failed() bool { return Failed(r.problems) }

// sorted returns the problems by file and place; those of the root file come first.
func (r *report) sorted(root string) []Problem {
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		if (a.File == root) != (b.File == root) {
			if a.File == root {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return r.problems
}
