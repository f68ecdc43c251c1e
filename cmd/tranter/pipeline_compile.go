package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/pipeline"
	"github.com/tranter-ci/tranter/internal/view"
)

// pipelineRequest is what the user asks for: which pipeline, and with what.
type pipelineRequest struct {
	dir       string
	file      string
	variables []string // KEY=VALUE
	jobs      []string
}

// addRequestFlags defines the flags that say which pipeline is meant.
func addRequestFlags(flags *pflag.FlagSet, r *pipelineRequest) {
	flags.StringVar(&r.file, "file", "", "the pipeline's file in the project (default "+defaultPipelineFile+")")
	flags.StringArrayVar(&r.variables, "variable", nil, "variable of the pipeline, as KEY=VALUE; may be repeated")
}

var variableName = lazy.Regexp(`^[A-Za-z0-9_]+$`)

// given returns the variables of the command line.
func (r *pipelineRequest) given() ([]tranter.Variable, error) {
	var out []tranter.Variable
	for _, kv := range r.variables {
		key, value, ok := strings.Cut(kv, "=")
		if !ok || !variableName().MatchString(key) {
			return nil, fmt.Errorf("--variable %s: write it as KEY=VALUE, with letters, digits and _ in KEY", kv)
		}
		out = append(out, tranter.Variable{Key: key, Value: value, Public: true})
	}
	return out, nil
}

// compiled is a pipeline with what it was made from.
type compiled struct {
	pipeline   *pipeline.Pipeline // nil after a mistake
	problems   []pipeline.Problem
	leftOut    []pipeline.Job
	predefined []tranter.Variable
	given      []tranter.Variable
	file, ref  string
}

// commitOf is the commit of a tree as it is when no snapshot is made: its base.
func (t *tree) commitOf() coordinator.Commit {
	c := coordinator.Commit{Ref: t.branch, SHA: t.head.sha, Head: t.head.sha}
	if c.Ref == "" {
		c.Ref = "main"
	}
	if c.SHA == "" {
		c.SHA = strings.Repeat("0", 40)
	}
	return c
}

// compile makes the pipeline of the tree for the commit, under the server's URL, with variables that are given for it.
func (t *tree) compile(ctx context.Context, commit coordinator.Commit, url string, given []tranter.Variable) (*compiled, error) {
	c := &compiled{given: given, file: t.file, ref: commit.Ref}
	c.predefined = pipeline.Predefined(pipeline.Facts{
		Project: pipeline.ProjectFacts{Path: t.project(), DefaultBranch: t.fallback, ConfigPath: t.file},
		Commit: pipeline.CommitFacts{
			SHA: commit.SHA, BeforeSHA: t.before(commit), Ref: commit.Ref, Message: t.head.message, Author: t.head.author, Time: t.head.time,
		},
		Server: pipeline.ServerFacts{URL: url, Version: coordinator.ServerVersion},
		User:   t.user,
	})
	content, err := t.read(t.file)
	if err != nil {
		return nil, fmt.Errorf("read the pipeline: %w", err)
	}
	c.pipeline, c.problems = pipeline.Compile(pipeline.Input{
		File: t.file, Content: content, Read: t.read,
		List:       func() []string { return t.list(ctx) },
		Changed:    func(compareTo string) ([]string, bool) { return t.changed(ctx, compareTo) },
		Blob:       t.blob,
		LastCommit: func(path string) (string, bool) { return t.lastCommit(ctx, path) },
		LeftOut:    func(j pipeline.Job) { c.leftOut = append(c.leftOut, j) },
		Variables:  c.predefined, PipelineVariables: given, Source: "push", Ref: commit.Ref,
	})
	return c, ctx.Err()
}

// before is the commit before the one that the pipeline is for.
func (t *tree) before(commit coordinator.Commit) string {
	if commit.SHA == t.head.sha {
		return t.head.parent
	}
	return t.head.sha
}

// choose keeps the named jobs and what they need. It returns the names that no job has.
func (c *compiled) choose(names []string) (jobs []pipeline.Job, unknown []string) {
	if len(names) == 0 {
		return c.pipeline.Jobs, nil
	}
	wanted := map[string]bool{}
	var want func(name string) bool
	want = func(name string) bool {
		found := false
		for _, j := range c.pipeline.Jobs {
			if j.Name != name && j.Group != name {
				continue
			}
			found = true
			if wanted[j.Name] {
				continue
			}
			wanted[j.Name] = true
			for _, n := range j.Needs {
				want(n.Job)
			}
			for _, d := range j.Dependencies {
				want(d)
			}
		}
		return found
	}
	for _, name := range names {
		if !want(name) {
			unknown = append(unknown, name)
		}
	}
	for _, j := range c.pipeline.Jobs {
		if wanted[j.Name] {
			jobs = append(jobs, j)
		}
	}
	return jobs, unknown
}

// named returns the names of the jobs that are meant: a name in the file stands for all jobs of a parallel one.
func (c *compiled) named(names []string) map[string]bool {
	out := map[string]bool{}
	for _, j := range c.pipeline.Jobs {
		if slices.Contains(names, j.Name) || slices.Contains(names, j.Group) {
			out[j.Name] = true
		}
	}
	return out
}

// unknownJob says that a name is that of no job, and which there are.
func (c *compiled) unknownJob(name string) error {
	for _, j := range c.leftOut {
		if j.Name == name || j.Group == name {
			return fmt.Errorf("the job %q is not in this pipeline: its rules leave it out (%s:%d)", name, j.File, j.Line)
		}
	}
	var have []string
	for _, j := range c.pipeline.Jobs {
		if !slices.Contains(have, j.Group) {
			have = append(have, j.Group)
		}
	}
	return fmt.Errorf("no job is called %q; there are: %s", name, strings.Join(have, ", "))
}

// printPipelineProblems writes the problems, one a line.
func printPipelineProblems(w io.Writer, problems []pipeline.Problem) {
	for _, p := range problems {
		fmt.Fprintln(w, p.String())
	}
}

// listing is what --list shows.
type listing struct {
	Name    string      `json:"name,omitempty"`
	Ref     string      `json:"ref"`
	Stages  []string    `json:"stages"`
	Jobs    []listedJob `json:"jobs"`
	LeftOut []leftOut   `json:"left_out"`

	Error    string        `json:"error,omitempty"`    // why there is no list
	Problems []problemJSON `json:"problems,omitempty"` // of a pipeline that could not be made
}

type listedJob struct {
	Name         string   `json:"name"`
	Stage        string   `json:"stage"`
	When         string   `json:"when"`
	AllowFailure bool     `json:"allow_failure"`
	Needs        []string `json:"needs"` // null: all jobs of the stages before
	File         string   `json:"file"`
	Line         int      `json:"line"`
}

type leftOut struct {
	Name  string `json:"name"`
	Stage string `json:"stage"`
	File  string `json:"file"`
	Line  int    `json:"line"`
}

// listing describes the given jobs of the pipeline and those that are not in it.
func (c *compiled) listing(jobs []pipeline.Job) listing {
	l := listing{Name: c.pipeline.Name, Ref: c.ref, Jobs: []listedJob{}, LeftOut: []leftOut{}}
	for _, stage := range c.pipeline.Stages {
		if slices.ContainsFunc(jobs, func(j pipeline.Job) bool { return j.Stage == stage }) {
			l.Stages = append(l.Stages, stage)
		}
	}
	for _, j := range jobs {
		row := listedJob{Name: j.Name, Stage: j.Stage, When: string(j.When), AllowFailure: j.AllowFailure, File: j.File, Line: j.Line}
		if j.HasNeeds {
			row.Needs = []string{}
		}
		for _, n := range j.Needs {
			row.Needs = append(row.Needs, n.Job)
		}
		l.Jobs = append(l.Jobs, row)
	}
	for _, j := range c.leftOut {
		l.LeftOut = append(l.LeftOut, leftOut{Name: j.Name, Stage: j.Stage, File: j.File, Line: j.Line})
	}
	return l
}

func (l listing) print(w io.Writer) {
	fmt.Fprintf(w, "%s · %s in %s\n\n", orName(l.Name), view.Count(len(l.Jobs), "job"), view.Count(len(l.Stages), "stage"))
	name, stage := 0, 0
	for _, j := range l.Jobs {
		name, stage = max(name, len([]rune(j.Name))), max(stage, len([]rune(j.Stage)))
	}
	last := ""
	for _, j := range l.Jobs {
		shown := j.Stage
		if shown == last {
			shown = ""
		}
		last = j.Stage
		line := fmt.Sprintf("  %s  %s  %s", pad(shown, stage), pad(j.Name, name), j.note())
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	if len(l.LeftOut) > 0 {
		fmt.Fprintln(w, "\nLeft out by rules, only or except:")
	}
	for _, j := range l.LeftOut {
		fmt.Fprintf(w, "  %s  %s:%d\n", j.Name, j.File, j.Line)
	}
}

// printWide lists the jobs with all that is known of them.
func (l listing) printWide(w io.Writer) {
	t := newTable(w, true, "STAGE", "NAME", "WHEN", "MAY FAIL", "NEEDS", "PLACE")
	for _, j := range l.Jobs {
		needs, mayFail := strings.Join(j.Needs, ", "), "no"
		if j.Needs == nil {
			needs = "all before"
		}
		if j.AllowFailure {
			mayFail = "yes"
		}
		t.row(j.Stage, j.Name, strings.ReplaceAll(j.When, "_", " "), mayFail, needs, fmt.Sprintf("%s:%d", j.File, j.Line))
	}
	for _, j := range l.LeftOut {
		t.row(j.Stage, j.Name, "left out", "-", "-", fmt.Sprintf("%s:%d", j.File, j.Line))
	}
	t.end()
}

func (j listedJob) note() string {
	var parts []string
	switch {
	case j.Needs == nil:
	case len(j.Needs) == 0:
		parts = append(parts, "needs nothing")
	case len(j.Needs) > 4:
		parts = append(parts, fmt.Sprintf("needs %d jobs", len(j.Needs)))
	default:
		parts = append(parts, "needs "+strings.Join(j.Needs, ", "))
	}
	if j.When != string(pipeline.OnSuccess) {
		parts = append(parts, strings.ReplaceAll(j.When, "_", " "))
	}
	if j.AllowFailure && j.When != string(pipeline.Manual) {
		parts = append(parts, "may fail")
	}
	return strings.Join(parts, "; ")
}

func orName(name string) string {
	if name == "" {
		return "Pipeline"
	}
	return name
}

// unused names what the jobs ask for and a shell on this host does not give; "" when there is nothing.
func unused(jobs []pipeline.Job) string {
	var images, services []string
	add := func(list []string, name string) []string {
		if name == "" || slices.Contains(list, name) {
			return list
		}
		return append(list, name)
	}
	for _, j := range jobs {
		images = add(images, j.Image.Name)
		for _, s := range j.Services {
			services = add(services, s.Name)
		}
	}
	var parts []string
	for _, k := range []struct {
		word string
		list []string
	}{{"image", images}, {"service", services}} {
		if n := len(k.list); n > 3 {
			k.list = append(k.list[:3], fmt.Sprintf("%d more", n-3))
		}
		if len(k.list) > 0 {
			parts = append(parts, k.word+" "+strings.Join(k.list, ", "))
		}
	}
	return strings.Join(parts, " and ")
}

// alone names the chosen jobs that take artifacts from earlier stages whose jobs are not run.
func (c *compiled) alone(names []string, jobs []pipeline.Job) []string {
	var out []string
	if len(jobs) == len(c.pipeline.Jobs) {
		return nil
	}
	order := func(stage string) int { return slices.Index(c.pipeline.Stages, stage) }
	for _, j := range jobs {
		if j.HasNeeds || j.HasDepends || !slices.ContainsFunc(names, func(n string) bool { return n == j.Name || n == j.Group }) {
			continue
		}
		if slices.ContainsFunc(c.pipeline.Jobs, func(o pipeline.Job) bool {
			return order(o.Stage) < order(j.Stage) && len(o.Artifacts) > 0 && !slices.ContainsFunc(jobs, func(x pipeline.Job) bool { return x.Name == o.Name })
		}) {
			out = append(out, j.Name)
		}
	}
	return out
}

// problemJSON is a problem for programs.
type problemJSON struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Job      string `json:"job,omitempty"`
	Severity string `json:"severity"` // error or warning
	Kind     string `json:"kind,omitempty"`
	Text     string `json:"text"`
}

func problemsJSON(problems []pipeline.Problem) []problemJSON {
	out := []problemJSON{}
	for _, p := range problems {
		severity := "error"
		if p.Warning {
			severity = "warning"
		}
		out = append(out, problemJSON{File: p.File, Line: p.Line, Column: p.Column, Job: p.Job, Severity: severity, Kind: string(p.Kind), Text: p.Text})
	}
	return out
}
