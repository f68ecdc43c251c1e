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

	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/view"
)

func newBatchList(s streams, open batchOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List batch jobs: state, nodes, places, jobs, waits, reasons",
		Long: `List the batch jobs that the manager of this host has for CI jobs, with the batch system's
number, and the numbers of the CI jobs that are in them; those in parentheses have a place
in prospect. Below are the jobs for which there is no place yet, and what earlier managers
have left in the directories that are shared with the nodes. While no manager runs, it is
what the last one has left.`,
		Example: `  tranter batch ls
  tranter batch ls --runner hpc --all
  tranter batch ls --output json | jq -r '.[] | select(.state == "queued") | .batch_id'`,
		Args: onlyFlags,
	}
	reach := addBatchFlags(cmd, open)
	runner := addRunnerFlag(cmd)
	ended := cmd.Flags().Bool("all", false, "also the last ones that have ended")
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return reach(cmd.Context(), func(c batchClient) error {
			a, err := c.answer(cmd.Context(), *runner)
			if err != nil {
				return err
			}
			all := a.entries()
			if !*ended {
				all = slices.DeleteFunc(all, func(e batchEntry) bool { return e.State == allocation.Ended })
			} else if all, err = c.withPast(cmd, all, a, *runner != ""); err != nil {
				return err
			}
			sortBatch(all)
			if *output == "json" {
				return writeJSON(s.out, all)
			}
			c.tellWhetherAlone(s.err)
			now := time.Now()
			printBatch(s.out, all, output.wide(), now)
			printWaiting(s.out, a.Runners, now)
			printLeft(s.out, a.Left, now)
			return nil
		})
	}
	return cmd
}

// listedPast is how many batch jobs that have ended are listed at most.
const listedPast = 100

// withPast adds those that have ended; of the runners in the answer only, if so wanted.
func (c batchClient) withPast(cmd *cobra.Command, all []batchEntry, a batchAnswer, only bool) ([]batchEntry, error) {
	past, err := c.past(cmd.Context(), listedPast)
	if err != nil {
		return nil, err
	}
	for _, p := range past {
		if !only || slices.ContainsFunc(a.Runners, func(s cluster.Status) bool { return s.Class == p.Class }) {
			all = append(all, batchEntry{Runner: p.Runner, Allocation: p.Allocation})
		}
	}
	return all, nil
}

// sortBatch orders batch jobs by runner, age and name.
func sortBatch(all []batchEntry) {
	slices.SortFunc(all, func(a, b batchEntry) int {
		return cmp.Or(cmp.Compare(a.Runner, b.Runner), a.Times.Planned.Compare(b.Times.Planned), cmp.Compare(a.Name, b.Name))
	})
}

// printBatch lists batch jobs for people.
func printBatch(w io.Writer, all []batchEntry, wide bool, now time.Time) {
	if len(all) == 0 {
		fmt.Fprintln(w, "There is no batch job.")
		return
	}
	t := newTable(w, wide, "RUNNER", "NAME", "BATCH JOB", "STATE", "WHERE", "PLACES", "JOBS", "WAITED", "AGE", "USER", "+CPUS", "+GPUS", "+NODES", "+ATTEMPT", "+USES", "REASON")
	for _, e := range all {
		a := e.Allocation
		t.row(cmp.Or(e.Runner, a.Class), a.Name, batchID(a), stateOf(a), placeOf(a), placesOf(a), jobsIn(a), waitedOf(a, now), view.Short(now.Sub(a.Times.Planned)),
			cmp.Or(a.User, login(a)), a.Shape.CPUs, a.Shape.GPUs, a.Shape.Nodes, a.Attempt, a.Uses, batchReason(a))
	}
	t.end()
}

// launchedIt says whether a command was run for it that takes jobs by itself, so that nothing in it tells us that it has started.
func launchedIt(a allocation.Allocation) bool {
	return a.Order == allocation.SelfTaking && a.State == allocation.Queued && !a.Times.Ran.IsZero()
}

// batchID is the batch system's id; empty if there is none but the name.
func batchID(a allocation.Allocation) string {
	if a.BatchID == a.Name {
		return ""
	}
	return a.BatchID
}

// stateOf is the state of a batch job as people call it.
func stateOf(a allocation.Allocation) string {
	if launchedIt(a) {
		return "launched"
	}
	return string(a.State)
}

// placeOf says where a batch job runs: on which nodes, or where it waits.
func placeOf(a allocation.Allocation) string {
	return cmp.Or(a.Batch.Nodes, a.Batch.Queue, a.Shape.Partition, "-")
}

// placesOf says how many of the places are used.
func placesOf(a allocation.Allocation) string {
	if a.Order == allocation.SelfTaking {
		return "-"
	}
	return fmt.Sprintf("%d/%d", len(a.Leases), max(1, a.Places))
}

// jobsIn are the numbers of the CI jobs of a batch job, in parentheses those that are not in it yet.
func jobsIn(a allocation.Allocation) string {
	var ids []string
	has := map[int64]bool{}
	for _, l := range a.Leases {
		has[l.ID] = true
		ids = append(ids, strconv.FormatInt(l.ID, 10))
	}
	for _, id := range a.For {
		if !has[id] && a.State != allocation.Ended {
			ids = append(ids, "("+strconv.FormatInt(id, 10)+")")
		}
	}
	const most = 4
	if len(ids) > most {
		ids = append(ids[:most-1], fmt.Sprintf("and %d more", len(ids)-most+1))
	}
	return cmp.Or(strings.Join(ids, " "), "-")
}

// waitOf is how long a batch job has waited in the queue, up to now if it does still; false: it never came there.
func waitOf(a allocation.Allocation, now time.Time) (time.Duration, bool) {
	from := firstTime(a.Times.Queued, a.Batch.Submitted, a.Times.Asked)
	if from.IsZero() {
		return 0, false
	}
	to := firstTime(a.Times.Started, a.Batch.Started, a.Times.Ran, a.Times.Ended)
	if to.IsZero() {
		to = now
	}
	return max(0, to.Sub(from)), true
}

func waitedOf(a allocation.Allocation, now time.Time) string {
	if d, ok := waitOf(a, now); ok {
		return view.Short(d)
	}
	return "-"
}

func firstTime(times ...time.Time) time.Time {
	for _, t := range times {
		if !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

// batchReason says why a batch job stands as it does: in the batch system's words while it is its turn.
func batchReason(a allocation.Allocation) string {
	switch {
	case launchedIt(a):
		return ""
	case a.State == allocation.Queued && !a.Times.Ran.IsZero():
		return "it starts"
	case a.State == allocation.Queued && a.Batch.Reason != "":
		return a.Batch.Reason
	case a.State == allocation.Started && len(a.Leases) == 0 && !a.Times.Idle.IsZero():
		return "it is free"
	case a.State == allocation.Started:
		return ""
	}
	return a.Reason
}

// printWaiting tells which jobs have no place, and of schedulers that do not answer.
func printWaiting(w io.Writer, all []cluster.Status, now time.Time) {
	for _, s := range all {
		name := view.Printable(cmp.Or(s.Runner, s.Class))
		if s.Waiting > 0 {
			fmt.Fprintf(w, "%s in GitLab for %s.\n", waitOrWaits(s.Waiting, ""), name)
		}
		if s.Taken > 0 {
			fmt.Fprintf(w, "%s for a place in a batch job.\n", waitOrWaits(s.Taken, " of "+name))
		}
		lacking := slices.ContainsFunc(s.Jobs, func(j cluster.WaitingJob) bool { return j.Allocation == "" && j.Refused == "" })
		if s.Full != "" && lacking {
			fmt.Fprintf(w, "No more batch jobs are made for %s at the moment: %s.\n", name, view.Printable(s.Full))
		}
		switch {
		case s.Problem == orphaned:
			fmt.Fprintf(w, "%s: %s.\n", name, s.Problem)
		case s.Problem != "":
			fmt.Fprintf(w, "%s does not answer%s: %s\n", systemName(s), againText(s, now), view.Printable(s.Problem))
		}
	}
}

func waitOrWaits(n int, whose string) string {
	if n == 1 {
		return "1 job" + whose + " waits"
	}
	return fmt.Sprintf("%d jobs%s wait", n, whose)
}

// systemName is what a cluster's batch system is called at the beginning of a sentence.
func systemName(s cluster.Status) string {
	switch {
	case s.System == "":
		return "The batch system of " + view.Printable(cmp.Or(s.Runner, s.Class))
	case s.Order == allocation.SelfTaking:
		return "The " + view.Printable(s.System) + " of " + view.Printable(cmp.Or(s.Runner, s.Class))
	}
	return "The scheduler of " + view.Printable(cmp.Or(s.Runner, s.Class)) + " (" + view.Printable(s.System) + ")"
}

func againText(s cluster.Status, now time.Time) string {
	if s.Again.IsZero() || !s.Again.After(now) {
		return ""
	}
	return ", and is asked again in " + view.Short(s.Again.Sub(now))
}

func newBatchInspect(s streams, open batchOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect NAME|BATCHJOB",
		Short: "Show all that is known of a batch job, as JSON",
		Long: `Show all that is known of a batch job, as JSON: what it was asked for, what the batch
system says of it, its places, and when it came to each of its states. It is named by its
name, a part of it, or the batch system's number. Those that have ended are known for a while.`,
		Example: `  tranter batch inspect tranter-1a2b3c-4d5e-mhq2x7k1-0
  tranter batch inspect 271828 | jq .batch.usage`,
		Args: cobra.ExactArgs(1),
	}
	reach := addBatchFlags(cmd, open)
	completingBatch(cmd, reach, 1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return reach(cmd.Context(), func(c batchClient) error {
			e, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return writeJSON(s.out, e)
		})
	}
	return cmd
}

// printBatchCounts lists runners with batch jobs after the rest of a manager's state.
func printBatchCounts(w io.Writer, counts []batchCount, wide bool) {
	if len(counts) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := newTable(w, wide, "BATCH JOBS OF", "SYSTEM", "ORDER", "JOBS IN GITLAB", "WITHOUT A PLACE", "IN PLACES", "PLANNED", "SUBMITTING", "QUEUED", "STARTED", "ENDING", "PROBLEM")
	for _, c := range counts {
		n := c.Count
		t.row(cmp.Or(c.Runner, c.Class), c.System, c.Order, c.Waiting, c.Taken, c.Running, n[allocation.Planned], n[allocation.Submitting], n[allocation.Queued],
			n[allocation.Started], n[allocation.Ending], c.Problem)
	}
	t.end()
}
