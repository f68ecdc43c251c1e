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
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/view"
)

func newJob(s streams) *cobra.Command {
	return group("job", "See the jobs of this host's manager: what they do and why, their logs, and end them or enter one",
		`  tranter job ls
  tranter job why 4711
  tranter job log 4711 --follow
  tranter job attach 4711`, newJobList(s), newJobWhy(s), newJobLog(s), newJobCancel(s), newJobInspect(s), newJobAttach(s))
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
func printJobs(w io.Writer, jobs []machineJob, wide bool, now time.Time) {
	if len(jobs) == 0 {
		fmt.Fprintln(w, "No job is running.")
		return
	}
	machine, batch := "+MACHINE", "+BATCH JOB"
	if slices.ContainsFunc(jobs, func(j machineJob) bool { return j.Machine != "" }) {
		machine = "MACHINE"
	}
	if slices.ContainsFunc(jobs, func(j machineJob) bool { return j.Batch != nil }) {
		batch = "BATCH JOB"
	}
	t := newTable(w, wide, "JOB", "NAME", "PROJECT", "RUNNER", "STAGE", "TERMINAL", "AGE", machine, batch, "+KEY", "+PAGE")
	for _, j := range jobs {
		attached := "-"
		if j.Terminal {
			attached = "attached"
		}
		t.row(j.ID, j.Name, j.Project, j.Runner, j.Stage, attached, view.Short(now.Sub(j.Taken)), j.Machine, batchOf(j), j.Key, j.URL)
	}
	t.end()
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
				printJobs(s.err, withMachines(status), false, time.Now())
			}
			return err
		}
		return attachTo(cmd.Context(), c, job, s)
	}
	return cmd
}

// jobName is by what a job can be named.
type jobName struct {
	key  string
	id   int64
	name string
}

// findJob returns the job that a user names: by its key, its number, the first digits of it, or its name.
func findJob(jobs []manager.JobStatus, name string) (manager.JobStatus, error) {
	names := make([]jobName, 0, len(jobs))
	for _, j := range jobs {
		names = append(names, jobName{j.Key, j.ID, j.Name})
	}
	i, err := pickJob(names, name)
	if err != nil {
		return manager.JobStatus{}, err
	}
	return jobs[i], nil
}

// pickJob returns which of some jobs a user names.
func pickJob(jobs []jobName, name string) (int, error) {
	switch {
	case len(jobs) == 0:
		return 0, errors.New("no job is running")
	case name == "":
		return 0, errors.New("which job? Name one of these by its number or its name")
	}
	for _, fits := range []func(jobName) bool{
		func(j jobName) bool { return j.key == name },
		func(j jobName) bool { return strconv.FormatInt(j.id, 10) == name },
		func(j jobName) bool { return j.name == name },
		func(j jobName) bool { return strings.HasPrefix(strconv.FormatInt(j.id, 10), name) },
	} {
		var found []int
		for i, j := range jobs {
			if fits(j) {
				found = append(found, i)
			}
		}
		switch len(found) {
		case 0:
			continue
		case 1:
			return found[0], nil
		}
		keys := make([]string, 0, len(found))
		for _, i := range found {
			keys = append(keys, jobs[i].key)
		}
		return 0, fmt.Errorf("%q fits %s: name one by its key, %s", name, view.Count(len(found), "job"), strings.Join(keys, " or "))
	}
	return 0, missing("no job %q is running", name)
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
