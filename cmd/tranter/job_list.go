package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// jobListFlags are those of job ls.
type jobListFlags struct {
	ended, failed            bool
	project, runner, machine string
	text                     string
	since                    time.Duration
	limit                    int
	output                   *outputFormat
}

func newJobList(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the jobs that the manager of this host has, or those that have ended",
		Long: `List the jobs that the manager of this host has. With --ended, list those that have ended, the
latest first, also while no manager runs; with --failed, only those that failed.`,
		Example: `  tranter job ls
  tranter job ls --failed --since 24h
  tranter job ls --ended --project group/app --output json`,
		Args: onlyFlags,
	}
	client := addControlFlags(cmd)
	flags := cmd.Flags()
	f := &jobListFlags{}
	flags.BoolVar(&f.ended, "ended", false, "jobs that have ended")
	flags.BoolVar(&f.failed, "failed", false, "jobs that have failed")
	flags.StringVar(&f.project, "project", "", "only jobs of this project, by its full path")
	flags.StringVar(&f.runner, "runner", "", "only jobs of this runner, by its name or its short token")
	flags.StringVar(&f.machine, "machine", "", "only jobs that ended on this machine")
	flags.StringVar(&f.text, "search", "", "only jobs with this in the name, the project, the ref or the number")
	flags.DurationVar(&f.since, "since", 0, "only jobs that have ended within this time, such as 24h")
	flags.IntVar(&f.limit, "limit", 50, "how many that have ended to list at most")
	f.output = addOutputFlag(flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.limit < 1 {
			return fmt.Errorf("--limit: %d is less than 1", f.limit)
		}
		if f.since < 0 {
			return fmt.Errorf("--since: %v is in the future", f.since)
		}
		c, err := client()
		if err != nil {
			return err
		}
		if f.ended || f.failed || f.since > 0 || f.machine != "" {
			return f.past(cmd.Context(), s.out, c.dir)
		}
		return f.now(cmd.Context(), s.out, c)
	}
	completeFlag(cmd, "runner", func(ctx context.Context) []string { return runnerNames(ctx, client) })
	return cmd
}

// now lists the jobs that the manager has.
func (f *jobListFlags) now(ctx context.Context, w io.Writer, c *controlClient) error {
	status, err := c.status(ctx)
	if err != nil {
		return err
	}
	name := f.runner
	for _, r := range status.Runners {
		if r.Name == f.runner {
			name = r.Runner
		}
	}
	jobs := slices.DeleteFunc(withMachines(status), func(j machineJob) bool {
		return f.project != "" && j.Project != f.project || f.runner != "" && j.Runner != name ||
			!strings.Contains(strings.ToLower(fmt.Sprint(j.ID, " ", j.Name, " ", j.Project)), strings.ToLower(f.text))
	})
	if *f.output == "json" {
		return writeJSON(w, jobs)
	}
	printJobs(w, jobs, f.output.wide(), time.Now())
	return nil
}

// past lists jobs that have ended.
func (f *jobListFlags) past(ctx context.Context, w io.Writer, dir string) error {
	history, err := openPast(ctx, dir)
	if err != nil {
		return err
	}
	defer history.Close() //nolint:errcheck // it was only read
	now := time.Now()
	q := view.JobQuery{Text: f.text, Runner: f.runner, Project: f.project, Machine: f.machine, Limit: f.limit}
	if f.failed {
		q.State = tranter.JobFailed
	}
	if f.since > 0 {
		q.From = now.Add(-f.since)
	}
	jobs, err := history.Jobs(ctx, q)
	if err != nil {
		return err
	}
	if *f.output == "json" {
		return writeJSON(w, append([]tranter.JobHistory{}, jobs...))
	}
	printEndedJobs(w, jobs, f.output.wide(), now)
	return nil
}

// printEndedJobs lists jobs that have ended for people.
func printEndedJobs(w io.Writer, jobs []tranter.JobHistory, wide bool, now time.Time) {
	if len(jobs) == 0 {
		fmt.Fprintln(w, "No job is known that has ended.")
		return
	}
	t := newTable(w, wide, "JOB", "NAME", "PROJECT", "RUNNER", "RESULT", "ENDED", "TOOK", "+WAITED", "+REF", "+USER", "+PLACE", "+CPU TIME", "+MEMORY", "+LOG", "+KEY", "REASON")
	for i := range jobs {
		j := &jobs[i]
		memory, log, cpu := "-", "-", "-"
		if j.Usage.MaxMemory > 0 {
			memory = view.Bytes(j.Usage.MaxMemory)
		}
		if j.Usage.CPUTime > 0 {
			cpu = view.Short(j.Usage.CPUTime)
		}
		if j.LogBytes > 0 {
			log = view.Bytes(j.LogBytes)
		}
		t.row(j.Job.ID, j.Job.Name, j.Job.Project, cmp.Or(j.Name, j.Runner), j.Result.State, view.Ago(j.Times.Ended, now), view.Short(j.Times.Ended.Sub(j.Times.Taken)),
			view.Short(j.Times.Wait(now)), j.Job.Ref, j.Job.User, cmp.Or(j.Place.Machine, j.Place.Batch), cpu, memory, log, j.Key, reasonOfJob(j))
	}
	t.end()
}

// reasonOfJob is why a job failed, in few words.
func reasonOfJob(j *tranter.JobHistory) string {
	switch {
	case j.Result.State == tranter.JobSuccess:
		return "-"
	case j.Result.Reason == tranter.ScriptFailure && j.Result.ExitCode != 0:
		return fmt.Sprintf("%s, exit code %d", view.ReasonWord(string(j.Result.Reason)), j.Result.ExitCode)
	}
	return view.ReasonWord(string(j.Result.Reason))
}
