package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func newJobCancel(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cancel JOB...",
		Short: "End jobs as a cancel in GitLab does: after_script still runs",
		Long: `End jobs that the manager of this host has, as a cancel in GitLab does: the script is ended,
after_script runs, and the job is reported as failed. JOB is a job's key, its number or its
name. A job that waits in GitLab can only be canceled there.`,
		Example: `  tranter job cancel 4711
  tranter job cancel 4711 4712`,
		Args: cobra.MinimumNArgs(1),
	}
	client := addControlFlags(cmd)
	completingJobs(cmd, client, false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := client()
		if err != nil {
			return err
		}
		var errs []error
		for _, name := range args {
			job, err := c.find(cmd.Context(), name)
			switch {
			case err != nil:
			case job.past != nil:
				err = fmt.Errorf("job %s has ended already", job.label())
			case job.live == nil:
				err = fmt.Errorf("job %s waits in GitLab, and can only be canceled there", job.label())
			default:
				if err = c.cancelJob(cmd.Context(), job.key()); err == nil {
					fmt.Fprintf(s.out, "Job %s is being canceled.\n", job.label())
				}
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	return cmd
}
