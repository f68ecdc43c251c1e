package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
)

func newBatch(s streams) *cobra.Command { return newBatchWith(s, openBatchBook) }

func newBatchWith(s streams, open batchOpener) *cobra.Command {
	return group("batch", "See, explain, end and account for the batch jobs in which CI jobs run", `  tranter batch ls
  tranter batch why 4711
  tranter batch history --by user`,
		newBatchList(s, open), newBatchInspect(s, open), newBatchWhy(s, open), newBatchEnd(s, open), newBatchHistory(s, open))
}

// batchClient asks a manager about its batch jobs, or what stands in for one within this process.
type batchClient struct{ *machineClient }

// batchUse runs use with a client of the batch jobs: those of the running manager, else what the last one has left.
type batchUse func(ctx context.Context, use func(batchClient) error) error

// addBatchFlags defines the flags that find batch jobs.
func addBatchFlags(cmd *cobra.Command, open batchOpener) batchUse {
	path := addConfigFlag(cmd.Flags())
	state := addStateDirFlag(cmd.Flags())
	return func(ctx context.Context, use func(batchClient) error) (err error) {
		c, _, err := parseConfig(*path, true)
		if err != nil && *state == "" {
			return err
		}
		dir, err := stateDir(*state, c.StateDir)
		if err != nil {
			return err
		}
		client := &machineClient{controlClient: newControlClient(dir)}
		if err := client.ping(ctx); !errors.Is(err, errNotRunning) {
			if err != nil {
				return err
			}
			return use(batchClient{client})
		}
		fleet, closeAll, err := open(ctx, c, dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeAll()) }()
		mux := http.NewServeMux()
		fleet.route(mux)
		return answeredHere(ctx, dir, mux, func(m *machineClient) error { return use(batchClient{m}) })
	}
}

func addRunnerFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("runner", "", "only the batch jobs of this runner, by its name or its short token")
}

// answer returns how all batch jobs stand, or those of a runner.
func (c batchClient) answer(ctx context.Context, runner string) (batchAnswer, error) {
	var a batchAnswer
	if err := c.ask(ctx, http.MethodGet, "/batch", nil, &a); err != nil || runner == "" {
		return a, err
	}
	var known []string
	for _, s := range a.Runners {
		known = append(known, poolLabel(s.Class, s.Runner))
	}
	a.Runners = slices.DeleteFunc(a.Runners, func(s cluster.Status) bool { return s.Runner != runner && s.Class != runner })
	a.Left = nil
	switch {
	case len(a.Runners) > 0:
		return a, nil
	case len(known) == 0:
		return a, missing("no runner has batch jobs")
	}
	return a, missing("no runner %q has batch jobs; there is %s", runner, strings.Join(known, ", "))
}

// past returns the last batch jobs that have ended and are not in the book any more, the newest first.
func (c batchClient) past(ctx context.Context, limit int) ([]pastBatch, error) {
	var out []pastBatch
	err := c.ask(ctx, http.MethodGet, "/batch/history?limit="+strconv.Itoa(limit), nil, &out)
	return out, err
}

func (c batchClient) end(ctx context.Context, name, reason string) error {
	query := url.Values{"reason": {reason}}
	return c.ask(ctx, http.MethodPost, "/batch/"+url.PathEscape(name)+"/end?"+query.Encode(), nil, &struct{}{})
}

// batchEntry is a batch job with its runner.
type batchEntry struct {
	Runner string `json:"runner"`
	System string `json:"system,omitempty"`
	allocation.Allocation
}

// entries are the batch jobs of an answer.
func (a batchAnswer) entries() []batchEntry {
	out := []batchEntry{}
	for _, s := range a.Runners {
		for _, one := range s.Allocations {
			out = append(out, batchEntry{Runner: s.Runner, System: s.System, Allocation: one})
		}
	}
	return out
}

// findBatch returns the batch job that a user names: by its name, by the batch system's id, or by a part of the name that no
// other has and that is no number.
func findBatch(all []batchEntry, name string) (batchEntry, error) {
	_, number := strconv.ParseInt(name, 10, 64)
	fits := []func(e batchEntry) bool{
		func(e batchEntry) bool { return e.Name == name },
		func(e batchEntry) bool { return e.BatchID == name && e.State != allocation.Ended },
		func(e batchEntry) bool { return e.BatchID == name },
		func(e batchEntry) bool { return number != nil && strings.Contains(e.Name, name) },
	}
	for _, fit := range fits {
		var found []batchEntry
		var names []string
		for _, e := range all {
			if name != "" && fit(e) {
				found, names = append(found, e), append(names, e.Name)
			}
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return batchEntry{}, fmt.Errorf("%q fits %d batch jobs: %s", name, len(found), strings.Join(names, ", "))
		}
	}
	return batchEntry{}, missing("there is no batch job %q (\"tranter batch ls\" lists those that there are, \"tranter batch history\" some that have ended)", name)
}

// find returns the batch job that a user names, also one that has ended.
func (c batchClient) find(ctx context.Context, name string) (batchEntry, error) {
	a, err := c.answer(ctx, "")
	if err != nil {
		return batchEntry{}, err
	}
	all := a.entries()
	e, unknown := findBatch(all, name)
	if e.Name == name || e.BatchID == name && name != "" {
		return e, unknown
	}
	ended, err := c.past(ctx, maxBatchHistory)
	if err != nil {
		return e, err
	}
	for _, p := range ended {
		all = append(all, batchEntry{Runner: p.Runner, Allocation: p.Allocation})
	}
	return findBatch(all, name)
}

// completingBatch lets shells complete the names of batch jobs, of so many at most; 0: of any number.
func completingBatch(cmd *cobra.Command, reach batchUse, most int) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		err := reach(cmd.Context(), func(c batchClient) error {
			a, err := c.answer(cmd.Context(), "")
			for _, e := range a.entries() {
				names = append(names, e.Name+"\t"+string(e.State))
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
