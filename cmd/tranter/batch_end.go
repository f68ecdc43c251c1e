package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/view"
)

func newBatchEnd(s streams, open batchOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "end NAME|BATCHJOB...",
		Short: "End batch jobs, with all that runs in them",
		Long: `End batch jobs, named as in "tranter batch inspect": one that waits is cancelled, and one
that runs is told to end. CI jobs in it are ended in an orderly way and fail, and a job that
has not begun yet gets another batch job. It needs the running manager, which would make
another one otherwise.`,
		Example: `  tranter batch end 271828
  tranter batch end 271828 271829 --reason "the nodes are needed"`,
		Args: cobra.MinimumNArgs(1),
	}
	reach := addBatchFlags(cmd, open)
	completingBatch(cmd, reach, 0)
	reason := cmd.Flags().String("reason", "asked for by hand", "why, for the jobs' logs and \"tranter batch why\"")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return reach(cmd.Context(), func(c batchClient) error {
			if c.alone {
				return fmt.Errorf("%w with the state directory %s: start it to end batch jobs, or end them with the batch system's own command", errNotRunning, c.dir)
			}
			ctx := cmd.Context()
			a, err := c.answer(ctx, "")
			if err != nil {
				return err
			}
			all := slices.DeleteFunc(a.entries(), func(e batchEntry) bool { return e.State == allocation.Ended })
			var errs []error
			for _, name := range args {
				e, err := findBatch(all, name)
				if err == nil {
					err = c.end(ctx, e.Name, *reason)
				}
				if err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(s.out, "%s  is ended%s\n", view.Printable(e.Name), jobsFate(e.Allocation))
			}
			return errors.Join(errs...)
		})
	}
	return cmd
}

// jobsFate says what an end means for the jobs of a batch job.
func jobsFate(a allocation.Allocation) string {
	switch n := len(a.Leases); {
	case n == 1:
		return ", and with it the job in it"
	case n > 1:
		return fmt.Sprintf(", and with it the %d jobs in it", n)
	}
	return ""
}
