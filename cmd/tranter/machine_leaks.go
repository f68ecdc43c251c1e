package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/view"
)

func newMachineLeaks(s streams, open machineOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leaks",
		Short: "List machines that could not be removed, or may have been left behind; exit code 1 if there are any",
		Long: `List machines that cost money and that nobody uses: those whose removal has failed several
times, which is still tried, and those of which something may be left at the provider that
could not be named. For the latter a person has to look there; "tranter machine prune"
forgets them afterwards. The exit code is 1 if there are any, so that it serves as a check.`,
		Example: `  tranter machine leaks
  tranter machine leaks --output json
  tranter machine leaks || mail -s 'machines have leaked' ops@example.com`,
		Args: onlyFlags,
	}
	reach := addMachineFlags(cmd, s, open)
	poolName := addPoolFlag(cmd)
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return reach(cmd.Context(), fromBook, func(c *machineClient) error {
			found, err := c.leaks(cmd.Context(), *poolName)
			if err != nil {
				return err
			}
			if *output == "json" {
				err = writeJSON(s.out, found)
			} else {
				c.tellWhetherAlone(s.err)
				printLeaks(s.out, found, output.wide(), time.Now())
			}
			if err == nil && len(found) > 0 {
				return &exitError{code: 1}
			}
			return err
		})
	}
	return cmd
}

// leak is a machine in the output of machine leaks.
type leak struct {
	pool.MachineStatus

	Provider string `json:"provider"`
}

// leaks returns the machines that are leaks or may be.
func (c *machineClient) leaks(ctx context.Context, poolName string) ([]leak, error) {
	pools, err := c.pools(ctx, poolName)
	if err != nil {
		return nil, err
	}
	found := []leak{}
	for _, p := range pools {
		for _, m := range p.Machines {
			if m.Leak != "" {
				found = append(found, leak{MachineStatus: m, Provider: p.Provider})
			}
		}
	}
	return found, nil
}

func printLeaks(w io.Writer, found []leak, wide bool, now time.Time) {
	if len(found) == 0 {
		fmt.Fprintln(w, "There is no leak.")
		return
	}
	t := newTable(w, wide, "NAME", "POOL", "PROVIDER", "ID", "ADDRESS", "AGE", "TRIES", "+SET", "+USES", "+COST", "WHY")
	for _, m := range found {
		t.row(m.Name, m.Pool, m.Provider, m.ID, m.Address, view.Short(now.Sub(m.Made)), m.Tries, m.Set, m.Uses, view.Money(m.Cost, ""), m.Leak)
	}
	t.end()
	fmt.Fprintln(w, "Look at the provider for what has these names. \"tranter machine prune\" forgets what may be left, and tries again to remove the rest.")
}

// machinePruneFlags are those of machine prune.
type machinePruneFlags struct {
	pool        *string
	yes, dryRun *bool
	output      *outputFormat
}

func newMachinePrune(s streams, open machineOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Forget machines of which something may be left, and try again to remove those that could not be removed",
		Long: `Forget the machines of which something may be left at the provider, once you have looked
there, and try at once to remove those whose removal has failed: those that "tranter machine
leaks" lists. It asks before it does that.`,
		Example: `  tranter machine prune --dry-run
  tranter machine prune --yes`,
		Args: onlyFlags,
	}
	reach := addMachineFlags(cmd, s, open)
	f := machinePruneFlags{
		pool:   addPoolFlag(cmd),
		yes:    cmd.Flags().BoolP("yes", "y", false, "do not ask"),
		dryRun: cmd.Flags().Bool("dry-run", false, "only show which machines are meant"),
		output: addOutputFlag(cmd.Flags()),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *f.output == "json" && !*f.yes && !*f.dryRun {
			return errors.New("--output json asks nothing: give --yes or --dry-run too")
		}
		return reach(cmd.Context(), inPlace, func(c *machineClient) error { return f.prune(cmd.Context(), c, s) })
	}
	return cmd
}

// prunedMachines is the output of machine prune for programs.
type prunedMachines struct {
	DryRun   bool     `json:"dry_run"`
	Machines []string `json:"machines"`
}

func (f machinePruneFlags) prune(ctx context.Context, c *machineClient, s streams) error {
	names, err := c.prune(ctx, *f.pool, true)
	if err != nil {
		return err
	}
	text := *f.output == "text"
	if text && len(names) > 0 {
		if err := f.show(ctx, c, s.out, names); err != nil {
			return err
		}
	}
	if len(names) > 0 && !*f.dryRun {
		if names, err = f.really(ctx, c, s, len(names)); err != nil {
			return err
		}
	}
	switch {
	case !text:
		return writeJSON(s.out, prunedMachines{DryRun: *f.dryRun, Machines: names})
	case len(names) == 0:
		fmt.Fprintln(s.out, "There is nothing to prune.")
	case !*f.dryRun:
		fmt.Fprintf(s.out, "Pruned %s.\n", view.Count(len(names), "machine"))
	}
	return nil
}

// really prunes, once that is agreed on.
func (f machinePruneFlags) really(ctx context.Context, c *machineClient, s streams, n int) ([]string, error) {
	if !*f.yes {
		if err := agreed(s, fmt.Sprintf("Prune %s? Have you looked at the provider? (yes/no)", view.Count(n, "machine"))); err != nil {
			return nil, err
		}
	}
	return c.prune(ctx, *f.pool, false)
}

// show lists the leaks with these names.
func (f machinePruneFlags) show(ctx context.Context, c *machineClient, w io.Writer, names []string) error {
	found, err := c.leaks(ctx, *f.pool)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(l leak) bool { return !slices.Contains(names, l.Name) })
	printLeaks(w, found, false, time.Now())
	return nil
}

var errNotAgreed = errors.New("nothing was done")

// agreed asks a question that has to be answered with yes.
func agreed(s streams, text string) error {
	answer, err := newAsker(s).ask(question{text: text, preset: "no"})
	if err != nil {
		return fmt.Errorf("%w: nobody has answered; --yes goes on without a question", errNotAgreed)
	}
	if a := strings.ToLower(answer); a != "yes" && a != "y" {
		return errNotAgreed
	}
	return nil
}
