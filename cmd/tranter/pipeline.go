package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/pipeline"
	"github.com/tranter-ci/tranter/internal/view"
)

func newPipeline(s streams) *cobra.Command {
	return group("pipeline", "Run, list or check the pipeline of a working tree",
		`  tranter pipeline run
  tranter pipeline run --job "unit tests"
  tranter pipeline list
  tranter pipeline lint`,
		newPipelineRun(s), newPipelineList(s), newPipelineLint(s))
}

func newPipelineList(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [DIR]",
		Short: "Show which jobs would run, and which ones rules leave out",
		Example: `  tranter pipeline list
  tranter pipeline list --variable DEPLOY=yes --output json`,
		Args: cobra.MaximumNArgs(1),
	}
	var r pipelineRequest
	addRequestFlags(cmd.Flags(), &r)
	addJobFlag(cmd.Flags(), &r)
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.dir = directoryOf(args)
		return listPipeline(cmd, s, &r, *output)
	}
	return cmd
}

func directoryOf(args []string) string {
	if len(args) == 0 {
		return "."
	}
	return args[0]
}

// compile makes the pipeline to look at it: nothing is run or written.
func (r *pipelineRequest) compile(ctx context.Context) (*compiled, error) {
	leaveHook()
	given, err := r.given()
	if err != nil {
		return nil, err
	}
	t, err := openTree(ctx, r.dir, r.file)
	if err != nil {
		return nil, err
	}
	return t.compile(ctx, t.commitOf(), "http://127.0.0.1", given)
}

// listPipeline compiles the pipeline and shows its jobs.
func listPipeline(cmd *cobra.Command, s streams, r *pipelineRequest, output outputFormat) error {
	l, err := r.list(cmd.Context(), s.err)
	if output == "json" {
		if err != nil {
			l.Error = err.Error()
		}
		return errors.Join(err, writeJSON(s.out, l))
	}
	switch {
	case err != nil:
	case output.wide():
		l.printWide(s.out)
	default:
		l.print(s.out)
	}
	return err
}

// list compiles the pipeline and describes its jobs. Its problems go to w.
func (r *pipelineRequest) list(ctx context.Context, w io.Writer) (listing, error) {
	none := listing{Stages: []string{}, Jobs: []listedJob{}, LeftOut: []leftOut{}}
	c, err := r.compile(ctx)
	if err != nil {
		return none, err
	}
	printPipelineProblems(w, c.problems)
	if c.pipeline == nil {
		none.Ref, none.Problems = c.ref, problemsJSON(c.problems)
		return none, c.impossible()
	}
	jobs, unknown := c.choose(r.jobs)
	if len(unknown) > 0 {
		return none, c.unknownJob(unknown[0])
	}
	return c.listing(jobs), nil
}

// impossible is the error for a pipeline that could not be made; its problems have been printed.
func (c *compiled) impossible() error {
	if slices.ContainsFunc(c.problems, isMistake) {
		return &exitError{code: 1, err: fmt.Errorf("the pipeline can't be made: %s above", view.Count(mistakes(c.problems), "mistake"))}
	}
	return &exitError{code: 1, err: fmt.Errorf("there is no pipeline for a push to %s: see above; --variable sets what rules ask for", c.ref)}
}

func isMistake(p pipeline.Problem) bool {
	return !p.Warning && (p.Kind == pipeline.Mistake || p.Kind == pipeline.Elsewhere)
}

func mistakes(problems []pipeline.Problem) int {
	n := 0
	for _, p := range problems {
		if isMistake(p) {
			n++
		}
	}
	return n
}

func newPipelineLint(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lint [DIR]",
		Short: "Print the mistakes of a pipeline with file, line and column; exit code 1 when there is one",
		Example: `  tranter pipeline lint
  tranter pipeline lint --file ci/nightly.yml
  tranter pipeline lint --output json ../other-project`,
		Args: cobra.MaximumNArgs(1),
	}
	var r pipelineRequest
	addRequestFlags(cmd.Flags(), &r)
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.dir = directoryOf(args)
		c, err := r.compile(cmd.Context())
		if err != nil && *output == "json" {
			err = errors.Join(err, writeJSON(s.out, lintJSON{File: r.file, Problems: []problemJSON{}, Error: err.Error()}))
		}
		if err != nil {
			return err
		}
		return c.lint(s, *output == "json")
	}
	return cmd
}

// lintJSON is what lint tells programs.
type lintJSON struct {
	File     string        `json:"file"`
	Valid    bool          `json:"valid"`
	Jobs     int           `json:"jobs"`
	Stages   int           `json:"stages"`
	Problems []problemJSON `json:"problems"`
	Error    string        `json:"error,omitempty"` // why there is nothing to check
}

// lint prints the problems, or that there is none.
func (c *compiled) lint(s streams, asJSON bool) error {
	file := c.file
	wrong := mistakes(c.problems)
	result := lintJSON{File: file, Valid: wrong == 0, Problems: problemsJSON(c.problems)}
	if c.pipeline != nil {
		l := c.listing(c.pipeline.Jobs)
		result.Jobs, result.Stages = len(l.Jobs), len(l.Stages)
	}
	switch {
	case asJSON:
		if err := writeJSON(s.out, result); err != nil {
			return err
		}
	case wrong > 0:
		printPipelineProblems(s.err, c.problems)
	case c.pipeline == nil:
		printPipelineProblems(s.err, c.problems)
		fmt.Fprintf(s.out, "%s: no mistakes; its rules make no pipeline for a push to %s\n", file, c.ref)
	default:
		printPipelineProblems(s.err, c.problems)
		fmt.Fprintf(s.out, "%s: no mistakes: %s in %s for a push to %s%s\n", file, view.Count(result.Jobs, "job"), view.Count(result.Stages, "stage"), c.ref, c.more())
	}
	if wrong > 0 {
		return &exitError{code: 1}
	}
	return nil
}

// more tells of jobs that are not in the pipeline.
func (c *compiled) more() string {
	if len(c.leftOut) == 0 {
		return ""
	}
	return fmt.Sprintf("; %s left out by rules", view.Count(len(c.leftOut), "job"))
}
