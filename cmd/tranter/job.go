package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/manager"
)

func newJob(s streams) *cobra.Command {
	return group("job", "See the running jobs of this host's manager, and enter one with a terminal",
		`  tranter job ls
  tranter job attach 4711`, newJobList(s), newJobAttach(s))
}

func newJobList(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the jobs that the manager of this host has",
		Example: `  tranter job ls
  tranter job ls --output json`,
		Args: onlyFlags,
	}
	client := addControlFlags(cmd)
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := client()
		if err != nil {
			return err
		}
		status, err := c.status(cmd.Context())
		if err != nil {
			return err
		}
		if *output == "json" {
			return writeJSON(s.out, withMachines(status))
		}
		printJobs(s.out, withMachines(status), time.Now())
		return nil
	}
	return cmd
}

// machineJob is a job in the output of job ls, with its machine or its batch job.
type machineJob struct {
	manager.JobStatus

	Machine string      `json:"machine,omitempty"` // on which it is, if one was made for it
	Batch   *batchPlace `json:"batch,omitempty"`   // in which batch job it is, or for which it waits
}

func withMachines(s statusAnswer) []machineJob {
	jobs := make([]machineJob, 0, len(s.Jobs))
	for _, j := range s.Jobs {
		job := machineJob{JobStatus: j, Machine: s.Leases[j.Key]}
		if p, has := s.Places[j.Key]; has {
			job.Batch = &p
		}
		jobs = append(jobs, job)
	}
	return jobs
}

func batchOf(j machineJob) string {
	if j.Batch == nil {
		return "-"
	}
	return j.Batch.String()
}

// printJobs lists jobs for people.
func printJobs(w io.Writer, jobs []machineJob, now time.Time) {
	if len(jobs) == 0 {
		fmt.Fprintln(w, "No job is running.")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	machines := slices.ContainsFunc(jobs, func(j machineJob) bool { return j.Machine != "" })
	fmt.Fprint(t, "JOB\tNAME\tPROJECT\tRUNNER\tSTAGE\tTERMINAL\tAGE")
	if machines {
		fmt.Fprint(t, "\tMACHINE")
	}
	batch := slices.ContainsFunc(jobs, func(j machineJob) bool { return j.Batch != nil })
	if batch {
		fmt.Fprint(t, "\tBATCH JOB")
	}
	fmt.Fprintln(t)
	for _, j := range jobs {
		attached := "-"
		if j.Terminal {
			attached = "attached"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s", j.ID, printable(j.Name), printable(j.Project), j.Runner, j.Stage, attached, short(now.Sub(j.Taken)))
		if machines {
			fmt.Fprint(t, "\t", printable(cmp.Or(j.Machine, "-")))
		}
		if batch {
			fmt.Fprint(t, "\t", printable(batchOf(j)))
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush()
}

func newJobAttach(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "attach JOB",
		Short: "Open an interactive terminal in the environment of a running job",
		Long: `Open an interactive terminal in the environment of a running job: the job's shell, as
the job's user, in the project directory, with the job's variables. JOB is the job's
number, the first digits of it, or its name; without one the jobs are listed.

It waits until the job's sources are there. Ctrl-] detaches, which ends the shell as
closing a window does; the job goes on. The exit code is the shell's. A job has one
terminal at a time, those opened in GitLab included. Standard input may be a pipe:
the shell ends after it.`,
		Example: `  tranter job attach 4711
  tranter job attach rspec
  echo 'ps -f; df -h .' | tranter job attach 4711`,
		Args: cobra.MaximumNArgs(1),
	}
	client := addControlFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := client()
		if err != nil {
			return err
		}
		status, err := c.status(cmd.Context())
		if err != nil {
			return err
		}
		job, err := findJob(status.Jobs, append(args, "")[0])
		if err != nil {
			if len(status.Jobs) > 0 {
				printJobs(s.err, withMachines(status), time.Now())
			}
			return err
		}
		return attachTo(cmd.Context(), c, job, s)
	}
	return cmd
}

// findJob returns the job that a user names: by its number, the first digits of it, or its name.
func findJob(jobs []manager.JobStatus, name string) (manager.JobStatus, error) {
	var none manager.JobStatus
	switch {
	case len(jobs) == 0:
		return none, errors.New("no job is running")
	case name == "":
		return none, errors.New("which job? Name one of these by its number or its name")
	}
	for _, fits := range []func(manager.JobStatus) bool{
		func(j manager.JobStatus) bool { return j.Key == name },
		func(j manager.JobStatus) bool { return strconv.FormatInt(j.ID, 10) == name },
		func(j manager.JobStatus) bool { return j.Name == name },
		func(j manager.JobStatus) bool { return strings.HasPrefix(strconv.FormatInt(j.ID, 10), name) },
	} {
		var found []manager.JobStatus
		for _, j := range jobs {
			if fits(j) {
				found = append(found, j)
			}
		}
		switch len(found) {
		case 0:
			continue
		case 1:
			return found[0], nil
		}
		keys := make([]string, 0, len(found))
		for _, j := range found {
			keys = append(keys, j.Key)
		}
		return none, fmt.Errorf("%q fits %s: name one by its key, %s", name, plural(len(found), "job"), strings.Join(keys, " or "))
	}
	return none, fmt.Errorf("no job %q is running", name)
}

// attachTo connects the command's streams to a terminal in the job's environment until its shell ends.
func attachTo(ctx context.Context, c *controlClient, job manager.JobStatus, s streams) error {
	patience := time.AfterFunc(time.Second, func() {
		fmt.Fprintf(s.err, "Waiting until the sources of job %d are there (%s)...\n", job.ID, cmp.Or(job.Stage, "starting"))
	})
	t, err := c.attach(ctx, job.Key)
	patience.Stop()
	if err != nil {
		return fmt.Errorf("job %d: %w", job.ID, err)
	}
	defer t.Close() //nolint:errcheck // it has ended
	local := newLocalTerminal(s)
	code, err := local.use(ctx, t)
	switch {
	case errors.Is(err, errDetached):
		fmt.Fprintf(s.err, "Detached; job %d goes on.\n", job.ID)
		return nil
	case err != nil:
		return fmt.Errorf("the terminal of job %d has ended: %w", job.ID, err)
	case code != 0:
		return &exitError{code: code}
	}
	return nil
}
