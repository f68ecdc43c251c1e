package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/view"
)

func newMachineList(s streams, open machineOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List machines: state, age, jobs, uses, cost so far, address",
		Long: `List the machines of the manager of this host, of all its pools: one pool for each runner
with the executor docker+machine. The cost is what price_per_hour makes of the age. While no
manager runs, it is what the last one has left.`,
		Example: `  tranter machine ls
  tranter machine ls --state idle,leased
  tranter machine ls --pool builders --output json`,
		Args: onlyFlags,
	}
	reach := addMachineFlags(cmd, s, open)
	poolName := addPoolFlag(cmd)
	states := cmd.Flags().StringSlice("state", nil, "only machines in these states: "+stateNames())
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, state := range *states {
			if !slices.Contains(machineStates(), fleet.State(state)) {
				return fmt.Errorf("--state: %q is none of %s", state, stateNames())
			}
		}
		return reach(cmd.Context(), fromBook, func(c *machineClient) error {
			all, err := c.machines(cmd.Context(), *poolName)
			if err != nil {
				return err
			}
			if len(*states) > 0 {
				all = slices.DeleteFunc(all, func(m pool.MachineStatus) bool { return !slices.Contains(*states, string(m.State)) })
			}
			sortMachines(all)
			if *output == "json" {
				return writeJSON(s.out, all)
			}
			c.tellWhetherAlone(s.err)
			printMachines(s.out, all, output.wide(), time.Now())
			return nil
		})
	}
	return cmd
}

func addPoolFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("pool", "", "only the machines of this runner, by its name or its short token")
}

// tellWhetherAlone says where the answers come from when it is not a manager.
func (c *machineClient) tellWhetherAlone(w io.Writer) {
	if c.alone {
		fmt.Fprintf(w, "No manager is running with the state directory %s: this is what the last one has left.\n", c.dir)
	}
}

// machineStates are all states in their usual order.
func machineStates() []fleet.State {
	return []fleet.State{fleet.Wanted, fleet.Booting, fleet.Idle, fleet.Stopped, fleet.Leased, fleet.Draining, fleet.Removing}
}

func stateNames() string {
	var names []string
	for _, s := range machineStates() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// sortMachines orders machines by pool, age and name.
func sortMachines(all []pool.MachineStatus) {
	slices.SortFunc(all, func(a, b pool.MachineStatus) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), a.Made.Compare(b.Made), cmp.Compare(a.Name, b.Name))
	})
}

// printMachines lists machines for people.
func printMachines(w io.Writer, all []pool.MachineStatus, wide bool, now time.Time) {
	if len(all) == 0 {
		fmt.Fprintln(w, "There is no machine.")
		return
	}
	t := newTable(w, wide, "NAME", "STATE", "+FOR", "AGE", "JOBS", "USES", "COST", "ADDRESS", "+POOL", "+SET", "+ID", "+READY AFTER", "+DEADLINE", "REASON")
	for _, m := range all {
		ready, deadline := "-", "-"
		if m.Ready != nil {
			ready = view.Short(m.Ready.Sub(m.Made))
		}
		if m.Deadline != nil {
			deadline = view.When(*m.Deadline, now)
		}
		t.row(m.Name, m.State, view.Short(now.Sub(m.Since)), view.Short(now.Sub(m.Made)), len(m.Jobs), m.Uses, view.Money(m.Cost, ""), m.Address, m.Pool, m.Set, m.ID,
			ready, deadline, reasonOf(m))
	}
	t.end()
}

// reasonOf says why a machine is in its state, and what is wrong with it.
func reasonOf(m pool.MachineStatus) string {
	switch {
	case m.Leak != "":
		return "LEAK: " + m.Leak
	case m.Problem != "" && m.Reason != "" && m.Problem != m.Reason:
		return m.Reason + "; " + m.Problem
	default:
		return cmp.Or(m.Reason, m.Problem, "-")
	}
}

func newMachineInspect(s streams, open machineOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect NAME",
		Short: "Show all that is known of a machine, as JSON and without secrets",
		Example: `  tranter machine inspect runner-t1-auto-1790000000-1a2b3c4d
  tranter machine inspect 1a2b3c4d | jq -r .login.host`,
		Args: cobra.ExactArgs(1),
	}
	reach := addMachineFlags(cmd, s, open)
	completing(cmd, reach, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return reach(cmd.Context(), fromBook, func(c *machineClient) error {
			m, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			e, err := c.entry(cmd.Context(), m.Name)
			if err != nil {
				return err
			}
			return writeJSON(s.out, e)
		})
	}
	return cmd
}

// printPools lists pools of machines after the rest of a manager's state.
func printPools(w io.Writer, pools []poolCount, wide bool) {
	if len(pools) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := newTable(w, wide, "MACHINES OF", "NAME", "PROVIDER", "ALL", "COMING", "IDLE", "STOPPED", "IN USE", "GOING", "LEAKS", "JOBS WAITING", "PROBLEM")
	for _, p := range pools {
		n := p.Count
		all := 0
		for _, count := range n {
			all += count
		}
		most := strconv.Itoa(all)
		if p.Limit > 0 {
			most += fmt.Sprintf("/%d", p.Limit)
		}
		t.row(p.Pool, p.Runner, p.Provider, most, n[fleet.Wanted]+n[fleet.Booting], fmt.Sprintf("%d/%d", n[fleet.Idle], p.Target), n[fleet.Stopped], n[fleet.Leased],
			n[fleet.Draining]+n[fleet.Removing], p.Leaks, p.Waiting, p.Problem)
	}
	t.end()
}
