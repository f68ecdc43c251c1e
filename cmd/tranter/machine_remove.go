package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/view"
)

func newMachineRemove(s streams, open machineOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"remove"},
		Short:   "Remove machines; one with jobs goes when they have ended",
		Long: `Remove machines and wait until the provider says that they are gone. A machine that has jobs
takes no more, and is removed when those have ended: --wait waits for that, --force removes
it at once, which its jobs do not survive. Names have to be whole.

It works without a running manager too.`,
		Example: `  tranter machine rm runner-t1-auto-1790000000-1a2b3c4d
  tranter machine rm --force runner-t1-auto-1790000000-1a2b3c4d`,
		Args: cobra.MinimumNArgs(1),
	}
	reach := addMachineFlags(cmd, s, open)
	completing(cmd, reach, 0)
	force := cmd.Flags().BoolP("force", "f", false, "remove machines that have jobs at once; those jobs fail")
	await := cmd.Flags().Bool("wait", false, "also wait for machines that have jobs")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return reach(cmd.Context(), inPlace, func(c *machineClient) error {
			ctx, began := cmd.Context(), time.Now()
			var errs []error
			var asked []string
			for _, name := range slices.Compact(slices.Sorted(slices.Values(args))) {
				if err := c.remove(ctx, name, *force); err != nil {
					errs = append(errs, fmt.Errorf("remove %s: %w", name, err))
					continue
				}
				asked = append(asked, name)
			}
			w := &machineWatch{client: c, out: s.out}
			return errors.Join(append(errs, w.removed(ctx, asked, began, *await))...)
		})
	}
	return cmd
}

// removed waits until machines are gone that were there when it began; for those with jobs only if patient is set.
func (w *machineWatch) removed(ctx context.Context, names []string, began time.Time, patient bool) error {
	if len(names) == 0 {
		return nil
	}
	err := w.until(ctx, names, func(name string, m *pool.MachineStatus) (bool, error) {
		if isAnother(m, began) {
			fmt.Fprintf(w.out, "%s  removed after %s\n", view.Printable(name), view.Short(time.Since(began)))
			return true, nil
		}
		before := w.shown[name]
		w.shown[name] = shownMachine{state: m.State}
		switch {
		case m.Leak != "", m.State == fleet.Removing && m.Tries > 0:
			w.fail(name, reasonOf(*m))
			return true, nil
		case len(m.Jobs) > 0 && m.State == fleet.Draining && before.state != m.State:
			fmt.Fprintf(w.out, "%s  takes no more jobs; it is removed when %s ended\n", view.Printable(name), haveEnded(len(m.Jobs)))
		}
		return m.State == fleet.Draining && len(m.Jobs) > 0 && !patient, nil
	})
	if err == nil && w.failed > 0 {
		err = fmt.Errorf("%s could not be removed; it is tried again while a manager runs, and \"tranter machine leaks\" lists what stays", view.Count(w.failed, "machine"))
	}
	return err
}

// isAnother says whether a machine is not there any more: a host of a list is made ready anew, under its name.
func isAnother(m *pool.MachineStatus, since time.Time) bool { return m == nil || m.Made.After(since) }

func haveEnded(jobs int) string {
	if jobs == 1 {
		return "its job has"
	}
	return fmt.Sprintf("its %d jobs have", jobs)
}

func newMachineDrain(s streams, open machineOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain NAME...",
		Short: "Let machines take no more jobs; they are removed when those that they have are done",
		Example: `  tranter machine drain runner-t1-auto-1790000000-1a2b3c4d
  tranter machine drain runner-t1-auto-1790000000-1a2b3c4d --reason "its disk is slow"`,
		Args: cobra.MinimumNArgs(1),
	}
	reach := addMachineFlags(cmd, s, open)
	completing(cmd, reach, 0)
	reason := cmd.Flags().String("reason", "asked for by hand", "why, for \"tranter machine why\"")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return reach(cmd.Context(), inPlace, func(c *machineClient) error {
			var errs []error
			for _, name := range args {
				if err := c.drain(cmd.Context(), name, *reason); err != nil {
					errs = append(errs, fmt.Errorf("drain %s: %w", name, err))
					continue
				}
				fmt.Fprintf(s.out, "%s  takes no more jobs\n", view.Printable(name))
			}
			return errors.Join(errs...)
		})
	}
	return cmd
}
