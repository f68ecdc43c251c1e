package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/view"
)

func newRunner(s streams) *cobra.Command {
	return group("runner", "See the runners of this host's manager, and have one pause", `  tranter runner ls
  tranter runner pause builders
  tranter runner resume builders`,
		newRunnerList(s), newRunnerPause(s, true), newRunnerPause(s, false))
}

func newRunnerList(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the runners of the manager of this host: jobs, last answer of the server, trouble",
		Long: `List the runners of the running manager and how they stand. "tranter list" lists those of a
configuration.`,
		Example: `  tranter runner ls
  tranter runner ls --output wide`,
		Args: onlyFlags,
	}
	client := addControlFlags(cmd)
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := client()
		if err != nil {
			return err
		}
		snapshot, err := c.snapshot(cmd.Context())
		if err != nil {
			return err
		}
		if *output == "json" {
			return writeJSON(s.out, append([]view.Runner{}, snapshot.Runners...))
		}
		printRunnersNow(s.out, snapshot.Runners, output.wide(), time.Now())
		return nil
	}
	return cmd
}

// printRunnersNow lists the runners of a manager for people.
func printRunnersNow(w io.Writer, runners []view.Runner, wide bool, now time.Time) {
	if len(runners) == 0 {
		fmt.Fprintln(w, "There is no runner.")
		return
	}
	t := newTable(w, wide, "RUNNER", "NAME", "EXECUTOR", "JOBS", "LAST ANSWER", "+SERVER", "+WARNINGS", "PROBLEM")
	for i := range runners {
		r := &runners[i]
		t.row(r.Runner, r.Name, r.Executor, placesTaken(r), lastAnswer(r, now, view.Short), r.URL, warningsOf(r.Warnings), runnerTrouble(r, now))
	}
	t.end()
}

// warningsOf says how many warnings there are, and the first words of the first.
func warningsOf(all []string) string {
	const most = 60
	if len(all) == 0 {
		return ""
	}
	first := []rune(all[0])
	if len(first) > most {
		first = append(first[:most], '…')
	}
	return fmt.Sprintf("%d: %s", len(all), string(first))
}

// newRunnerPause returns the command that pauses runners, or that which lets them go on.
func newRunnerPause(s streams, pause bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pause RUNNER...",
		Short: "Have runners take no more jobs, until they are resumed; running jobs go on",
		Long: `Have runners take no more jobs. Jobs that run go on, and the manager keeps asking nothing for
these runners, also after a restart, until "tranter runner resume". RUNNER is a runner's name or its
short token.`,
		Example: `  tranter runner pause builders
  tranter runner pause mDNy3xabc`,
		Args: cobra.MinimumNArgs(1),
	}
	said := "takes no more jobs"
	if !pause {
		cmd.Use, cmd.Short = "resume RUNNER...", "Let runners take jobs again that were paused"
		cmd.Long = `Let runners take jobs again that "tranter runner pause", or somebody on the page, has paused.
RUNNER is a runner's name or its short token.`
		cmd.Example = `  tranter runner resume builders`
		said = "takes jobs again"
	}
	client := addControlFlags(cmd)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return runnerNames(cmd.Context(), client), cobra.ShellCompDirectiveNoFileComp
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := client()
		if err != nil {
			return err
		}
		var errs []error
		for _, name := range args {
			err := c.pauseRunner(cmd.Context(), name, pause)
			if err == nil {
				fmt.Fprintf(s.out, "Runner %s %s.\n", name, said)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	return cmd
}

// runnerNames are what shells complete runners by: their names, and the short tokens of those that have none.
func runnerNames(ctx context.Context, client func() (*controlClient, error)) []string {
	c, err := client()
	if err != nil {
		return nil
	}
	s, err := c.snapshot(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for i := range s.Runners {
		r := &s.Runners[i]
		names = append(names, cmp.Or(r.Name, r.Runner)+"\t"+view.Printable(r.Executor+" at "+r.URL))
	}
	return names
}

// completeFlag lets shells complete a flag's value.
func completeFlag(cmd *cobra.Command, flag string, values func(ctx context.Context) []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) { // only a flag that is not there fails
		return values(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
	})
}
