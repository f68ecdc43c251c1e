package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/view"
)

// machinePoll is how often machines that are waited for are looked at.
const machinePoll = 200 * time.Millisecond

func newMachineCreate(s streams, open machineOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create machines by hand, and wait until they are ready for jobs",
		Long: `Create machines in a pool and wait until they are ready for jobs, with the time that each
step takes. They count towards the limit, take jobs like any others, and are not removed for
being spare: "tranter machine rm" does that.

It works without a running manager too; the next one takes the machines over, and one that
nobody looks after ends itself as self_destruct_after says.`,
		Example: `  tranter machine create
  tranter machine create --pool builders --count 3
  tranter machine create --set spot --output json`,
		Args: onlyFlags,
	}
	reach := addMachineFlags(cmd, s, open)
	poolName := cmd.Flags().String("pool", "", "runner whose machines they are to be, by its name or its short token; not needed where there is only one")
	count := cmd.Flags().Int("count", 1, "how many")
	set := cmd.Flags().String("set", "", "option set to create them with, as option_sets names it (default: the first)")
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *count < 1 || *count > maxWanted {
			return fmt.Errorf("--count: %d is not between 1 and %d", *count, maxWanted)
		}
		return reach(cmd.Context(), inPlace, func(c *machineClient) error {
			names, err := c.create(cmd.Context(), *poolName, wantedMachines{Count: *count, Set: *set})
			if err != nil {
				return err
			}
			w := &machineWatch{client: c, out: s.out}
			if *output == "json" {
				w.out = io.Discard
			}
			ready, err := w.created(cmd.Context(), names)
			if *output == "json" {
				if failed := writeJSON(s.out, ready); failed != nil {
					return failed
				}
			}
			return err
		})
	}
	return cmd
}

// machineWatch waits for machines, and tells how they come and go.
type machineWatch struct {
	client *machineClient
	out    io.Writer
	shown  map[string]shownMachine
	failed int
}

// shownMachine is what has been told of a machine.
type shownMachine struct {
	state  fleet.State
	steps  int
	failed bool
}

// until looks at the machines with these names until each is done; now is nil once a machine has gone.
func (w *machineWatch) until(ctx context.Context, names []string, done func(name string, now *pool.MachineStatus) (bool, error)) error {
	w.shown = map[string]shownMachine{}
	tick := time.NewTicker(machinePoll)
	defer tick.Stop()
	for {
		all, err := w.client.machines(ctx, "")
		if err != nil {
			return err
		}
		now := map[string]*pool.MachineStatus{}
		for i, m := range all {
			now[m.Name] = &all[i]
		}
		var left []string
		for _, name := range names {
			ok, err := done(name, now[name])
			if err != nil {
				return err
			}
			if !ok {
				left = append(left, name)
			}
		}
		if names = left; len(names) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// created waits until machines are ready, and returns those that are. One that has failed is waited for until it is gone, or
// can't be removed. The error says how many are not ready.
func (w *machineWatch) created(ctx context.Context, names []string) ([]pool.MachineStatus, error) {
	fmt.Fprintf(w.out, "Creating %s.\n", view.Count(len(names), "machine"))
	ready := []pool.MachineStatus{}
	err := w.until(ctx, names, func(name string, m *pool.MachineStatus) (bool, error) {
		if m == nil {
			if w.shown[name].failed {
				return true, nil
			}
			why, err := w.lastFailure(ctx, name)
			w.fail(name, why)
			return true, err
		}
		if w.shown[name].failed {
			return m.State != fleet.Removing || m.Tries > 0 || m.Leak != "", nil
		}
		w.tell(*m)
		switch {
		case m.Ready != nil:
			fmt.Fprintf(w.out, "%s  ready after %s%s\n", view.Printable(name), view.Short(m.Ready.Sub(m.Made)), at(m.Address))
			ready = append(ready, *m)
			return true, nil
		case m.State == fleet.Removing || m.State == fleet.Draining || m.Leak != "":
			w.fail(name, reasonOf(*m))
			w.shown[name] = shownMachine{state: m.State, failed: true}
		}
		return false, nil
	})
	if err == nil && w.failed > 0 {
		err = fmt.Errorf("%d of %s could not be created: \"tranter machine why NAME\" tells more", w.failed, view.Count(len(names), "machine"))
	}
	return ready, err
}

// tell tells what is new of a machine that is being made.
func (w *machineWatch) tell(m pool.MachineStatus) {
	before := w.shown[m.Name]
	if m.State == fleet.Booting && before.state != fleet.Booting {
		fmt.Fprintf(w.out, "%s  created after %s%s\n", view.Printable(m.Name), view.Short(m.Since.Sub(m.Made)), at(m.Address))
	}
	for _, step := range m.Boot[min(before.steps, len(m.Boot)):] {
		fmt.Fprintf(w.out, "%s    %s %s\n", view.Printable(m.Name), view.Printable(step.Step), view.Short(step.Took))
	}
	w.shown[m.Name] = shownMachine{state: m.State, steps: len(m.Boot)}
}

func (w *machineWatch) fail(name, why string) {
	w.failed++
	fmt.Fprintf(w.out, "%s  failed: %s\n", view.Printable(name), view.Printable(why))
}

// lastFailure says why a machine is gone.
func (w *machineWatch) lastFailure(ctx context.Context, name string) (string, error) {
	events, err := w.client.past(ctx, name)
	if err != nil && !gone(err) {
		return "", err
	}
	why := "it is gone"
	for _, e := range events {
		if e.Kind == fleet.MachineFailed || e.Kind == fleet.MachineRemoving {
			why = eventText(e)
		}
	}
	return why, nil
}

func at(address string) string {
	if address == "" {
		return ""
	}
	return " at " + view.Printable(address)
}
