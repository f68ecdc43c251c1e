package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/view"
)

func newStatus(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the manager of this host is doing; exit code 1 when none is running",
		Example: `  tranter status
  tranter status --output json`,
		Args: onlyFlags,
	}
	client := addControlFlags(cmd)
	output := addOutputFlag(cmd.Flags())
	which := addServiceFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := client()
		if err != nil {
			return err
		}
		if *output != "json" {
			if err := which.printService(cmd.Context(), s.out); err != nil {
				return err
			}
		}
		c = which.ofService(cmd, c)
		status, err := c.status(cmd.Context())
		if err != nil {
			return err
		}
		if *output == "json" {
			return writeJSON(s.out, status)
		}
		printStatus(s.out, status.Status, output.wide(), time.Now())
		printPools(s.out, status.Pools, output.wide())
		printBatchCounts(s.out, status.Batch, output.wide())
		return nil
	}
	return cmd
}

func newDrain(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Let the manager of this host finish its jobs, take no new ones, and end",
		Example: `  tranter drain
  tranter drain --wait
  tranter drain --leave-jobs --wait   # for a restart: running jobs go on, the next start takes them up`,
		Args: onlyFlags,
	}
	client := addControlFlags(cmd)
	await := cmd.Flags().Bool("wait", false, "wait until the manager has ended")
	away := cmd.Flags().Bool("leave-jobs", false, "let the manager end at once and running jobs go on by themselves; the next start takes them up")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := client()
		if err != nil {
			return err
		}
		status, err := c.status(cmd.Context())
		if err != nil {
			return err
		}
		if *away {
			if err := c.leave(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintf(s.out, "The manager ends; %s left for the next start.\n", view.Count(len(status.Jobs), "job"))
		} else {
			if err := c.drain(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintf(s.out, "The manager takes no new jobs; %s to finish.\n", view.Count(len(status.Jobs), "job"))
		}
		if !*await {
			return nil
		}
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-cmd.Context().Done():
				return cmd.Context().Err()
			case <-tick.C:
			}
			if _, err := c.status(cmd.Context()); errors.Is(err, errNotRunning) {
				fmt.Fprintln(s.out, "The manager has ended.")
				return nil
			}
		}
	}
	return cmd
}

// addControlFlags defines the flags that find a manager, and returns what makes its client.
func addControlFlags(cmd *cobra.Command) func() (*controlClient, error) {
	path := addConfigFlag(cmd.Flags())
	state := addStateDirFlag(cmd.Flags())
	return func() (*controlClient, error) {
		// A configuration with mistakes still says where the state is, and none is needed.
		c, _, err := parseConfig(*path, true)
		if err != nil && *state == "" {
			return nil, err
		}
		dir, err := stateDir(*state, c.StateDir)
		if err != nil {
			return nil, err
		}
		return newControlClient(dir), nil
	}
}

func printStatus(w io.Writer, s manager.Status, wide bool, now time.Time) {
	fmt.Fprintf(w, "The manager is %s since %s: %d of %s.\n", s.State, s.Started.Local().Format(time.DateTime), len(s.Jobs), view.Count(s.Concurrent, "possible job"))
	if s.ConfigProblem != "" {
		fmt.Fprintf(w, "The changed configuration is not used:\n%s\n", s.ConfigProblem)
	}
	if len(s.Runners) > 0 {
		fmt.Fprintln(w)
		t := newTable(w, wide, "RUNNER", "NAME", "EXECUTOR", "JOBS", "+REQUESTS", "LAST ANSWER", "PROBLEM", "SERVER")
		for _, r := range s.Runners {
			t.row(r.Runner, r.Name, r.Executor, jobsOf(r), r.Requests, answered(r, now), problemOf(r, now), r.URL)
		}
		t.end()
	}
	if len(s.Jobs) > 0 {
		fmt.Fprintln(w)
		t := newTable(w, wide, "JOB", "NAME", "PROJECT", "RUNNER", "STAGE", "SINCE", "+KEY", "+PAGE")
		for _, j := range s.Jobs {
			t.row(j.ID, j.Name, j.Project, j.Runner, j.Stage, view.Short(now.Sub(j.Taken)), j.Key, j.URL)
		}
		t.end()
	}
}

func jobsOf(r manager.RunnerStatus) string {
	if r.Limit > 0 {
		return fmt.Sprintf("%d/%d", r.Jobs, r.Limit)
	}
	return fmt.Sprint(r.Jobs)
}

func answered(r manager.RunnerStatus, now time.Time) string {
	if r.Contact == nil {
		return "never"
	}
	return view.Short(now.Sub(*r.Contact)) + " ago"
}

func problemOf(r manager.RunnerStatus, now time.Time) string {
	switch {
	case r.Paused != nil:
		return fmt.Sprintf("paused for %s: %s", view.Short(r.Paused.Sub(now)), r.Problem)
	case r.Held != "":
		return "paused: " + r.Held
	case r.Problem != "":
		return r.Problem
	case r.Busy != "":
		return r.Busy
	default:
		return "-"
	}
}
