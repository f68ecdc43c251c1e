package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// jobStory is the output of job why.
type jobStory struct {
	Key string `json:"key,omitempty"` // none: it waits in GitLab
	Why string `json:"why"`
	Job any    `json:"job"`
}

func newJobWhy(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "why JOB",
		Short: "Tell why a job waits, what is done for it, or why it failed",
		Long: `Tell in a sentence, with the numbers: of a job that waits, what for; of one that runs, where
it is; of one that has ended, in which step it failed, with the exit code and the message. JOB
is the job's key, its number or its name. What has ended is known while no manager runs too.`,
		Example: `  tranter job why 4711
  tranter job why rspec --output json`,
		Args: cobra.ExactArgs(1),
	}
	client := addControlFlags(cmd)
	completingJobs(cmd, client, true)
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := client()
		if err != nil {
			return err
		}
		job, err := c.find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		why := job.why(time.Now())
		if *output == "json" {
			return writeJSON(s.out, jobStory{Key: job.key(), Why: why, Job: job.value()})
		}
		fmt.Fprintf(s.out, "Job %s. %s\n", job.label(), why)
		if output.wide() && job.past != nil {
			fmt.Fprintln(s.out, jobFacts(*job.past))
		} else if output.wide() && job.live != nil {
			fmt.Fprintln(s.out, jobFacts(job.live.JobHistory))
		}
		return nil
	}
	return cmd
}

func newJobInspect(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect JOB",
		Short: "Show all that is known of a job, as JSON and without secrets",
		Long: `Show all that is known of a job: its times, stages and steps, where it runs, what it has used
and how it ended. JOB is the job's key, its number or its name.`,
		Example: `  tranter job inspect 4711
  tranter job inspect 4711 | jq .result`,
		Args: cobra.ExactArgs(1),
	}
	client := addControlFlags(cmd)
	completingJobs(cmd, client, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := client()
		if err != nil {
			return err
		}
		job, err := c.find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return writeJSON(s.out, job.value())
	}
	return cmd
}
