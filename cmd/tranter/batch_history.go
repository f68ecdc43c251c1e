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
	"github.com/tranter-ci/tranter/internal/view"
)

// endedBatch is a batch job in the output of batch history.
type endedBatch struct {
	Runner    string        `json:"runner"`
	Name      string        `json:"name"`
	BatchID   string        `json:"batch_id,omitempty"`
	User      string        `json:"user,omitempty"`
	Account   string        `json:"account,omitempty"`
	Where     string        `json:"where,omitempty"` // nodes, or the partition of one that never ran
	Ended     time.Time     `json:"ended,omitzero"`
	How       string        `json:"how,omitempty"`
	Reason    string        `json:"reason,omitempty"`
	Jobs      int           `json:"jobs"`      // that it had
	Waited    time.Duration `json:"waited"`    // in the queue; nanoseconds
	Ran       time.Duration `json:"ran"`       // nanoseconds
	CPUHours  float64       `json:"cpu_hours"` // processors times run time
	GPUHours  float64       `json:"gpu_hours"`
	MaxMemory int64         `json:"max_memory,omitempty"` // bytes
}

func endedOf(p pastBatch) endedBatch {
	a := p.Allocation
	e := endedBatch{
		Runner: p.Runner, Name: a.Name, BatchID: a.BatchID, User: login(a), Account: a.User, Ended: a.Times.Ended, How: howEnded(a), Reason: a.Reason,
		Jobs: a.Uses, Ran: ranFor(a), MaxMemory: a.Batch.Usage.MaxMemory, Where: cmp.Or(a.Batch.Nodes, a.Batch.Queue, a.Shape.Partition),
	}
	e.Waited, _ = waitOf(a, a.Times.Ended)
	nodes := max(1, cmp.Or(a.Batch.Usage.Nodes, a.Shape.Nodes))
	e.CPUHours = a.Batch.Usage.CPUTime.Hours()
	if e.CPUHours <= 0 {
		e.CPUHours = e.Ran.Hours() * float64(cmp.Or(a.Batch.Usage.CPUs, nodes*max(1, a.Shape.CPUs)))
	}
	e.GPUHours = e.Ran.Hours() * float64(nodes*a.Shape.GPUs)
	return e
}

// ranFor is how long a batch job has run; 0: it did not.
func ranFor(a allocation.Allocation) time.Duration {
	from, to := firstTime(a.Batch.Started, a.Times.Ran, a.Times.Started), firstTime(a.Batch.Ended, a.Times.Ended)
	if from.IsZero() || to.IsZero() {
		return 0
	}
	return max(0, to.Sub(from))
}

func newBatchHistory(s streams, open batchOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List batch jobs that have ended, and what they have cost; or sums by runner, user or day",
		Long: `List batch jobs that have ended, the newest first: how long they waited in the queue and ran,
the CPU hours (processors that they had, times the hours), the largest process as far as the
batch system accounts for it, and how they ended. With --by, sums. The manager remembers the
last ones, for weeks. It works without a running manager too.`,
		Example: `  tranter batch history
  tranter batch history --by user --since 168h
  tranter batch history --by day --output json`,
		Args: onlyFlags,
	}
	reach := addBatchFlags(cmd, open)
	f := historyFlags{
		runner: addRunnerFlag(cmd),
		by:     cmd.Flags().String("by", "", "sums in place of a list: runner, user (GitLab's) or day"),
		since:  cmd.Flags().Duration("since", 0, "only those that have ended within this time, such as 24h"),
		limit:  cmd.Flags().Int("limit", 50, "how many to list at most; sums are over all"),
		output: addOutputFlag(cmd.Flags()),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, ok := sumKeys()[*f.by]; *f.by != "" && !ok {
			return fmt.Errorf("--by: %q is none of runner, user, day", *f.by)
		}
		if *f.limit < 1 {
			return fmt.Errorf("--limit: %d is less than 1", *f.limit)
		}
		return reach(cmd.Context(), func(c batchClient) error {
			past, err := c.past(cmd.Context(), maxBatchHistory)
			if err != nil {
				return err
			}
			now := time.Now()
			return f.print(s.out, f.pick(past, now))
		})
	}
	return cmd
}

// historyFlags are the flags of batch history.
type historyFlags struct {
	runner, by *string
	since      *time.Duration
	limit      *int
	output     *outputFormat
}

// pick returns those that are wanted.
func (f historyFlags) pick(past []pastBatch, now time.Time) []endedBatch {
	out := []endedBatch{}
	for _, p := range past {
		if *f.runner != "" && *f.runner != p.Runner && *f.runner != p.Class || *f.since > 0 && p.Times.Ended.Before(now.Add(-*f.since)) {
			continue
		}
		if out = append(out, endedOf(p)); *f.by == "" && len(out) == *f.limit {
			break
		}
	}
	return out
}

func (f historyFlags) print(w io.Writer, all []endedBatch) error {
	switch {
	case *f.by != "":
		sums := sumUp(all, sumKeys()[*f.by])
		if *f.output == "json" {
			return writeJSON(w, sums)
		}
		printSums(w, *f.by, sums)
	case *f.output == "json":
		return writeJSON(w, all)
	default:
		printEnded(w, all, f.output.wide())
	}
	return nil
}

// printEnded lists batch jobs that have ended for people.
func printEnded(w io.Writer, all []endedBatch, wide bool) {
	if len(all) == 0 {
		fmt.Fprintln(w, "No batch job is known that has ended.")
		return
	}
	t := newTable(w, wide, "ENDED", "RUNNER", "+NAME", "BATCH JOB", "WHERE", "USER", "JOBS", "WAITED", "RAN", "CPU HOURS", "GPU HOURS", "MAX MEMORY", "HOW", "REASON")
	for _, e := range all {
		t.row(e.Ended.Local().Format(time.DateTime), e.Runner, e.Name, cmp.Or(e.BatchID, e.Name), e.Where, cmp.Or(e.Account, e.User), e.Jobs, view.Short(e.Waited), view.Short(e.Ran),
			hours(e.CPUHours), hours(e.GPUHours), mebibytes(e.MaxMemory), e.How, e.Reason)
	}
	t.end()
}

// batchSum is what batch jobs have cost together.
type batchSum struct {
	Key       string        `json:"key"`
	BatchJobs int           `json:"batch_jobs"`
	Failed    int           `json:"failed"` // that ended otherwise than by themselves and without an error
	Jobs      int           `json:"jobs"`
	Waited    time.Duration `json:"waited"` // on average; nanoseconds
	Ran       time.Duration `json:"ran"`    // nanoseconds
	CPUHours  float64       `json:"cpu_hours"`
	GPUHours  float64       `json:"gpu_hours"`
	MaxMemory int64         `json:"max_memory,omitempty"` // of the one that had most, bytes
}

// sumKeys says by what sums can be made.
func sumKeys() map[string]func(endedBatch) string {
	return map[string]func(endedBatch) string{
		"runner": func(e endedBatch) string { return e.Runner },
		"user":   func(e endedBatch) string { return cmp.Or(e.User, e.Account, "-") },
		"day":    func(e endedBatch) string { return e.Ended.Local().Format(time.DateOnly) },
	}
}

// sumUp sums by a key, in the order of keys.
func sumUp(all []endedBatch, key func(endedBatch) string) []batchSum {
	sums := map[string]*batchSum{}
	out := []batchSum{}
	for _, e := range all {
		k := key(e)
		s := sums[k]
		if s == nil {
			s = &batchSum{Key: k}
			sums[k] = s
		}
		s.BatchJobs++
		s.Jobs += e.Jobs
		s.Waited += e.Waited
		s.Ran += e.Ran
		s.CPUHours += e.CPUHours
		s.GPUHours += e.GPUHours
		s.MaxMemory = max(s.MaxMemory, e.MaxMemory)
		if e.How != "completed" {
			s.Failed++
		}
	}
	for _, s := range sums {
		s.Waited /= time.Duration(s.BatchJobs)
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b batchSum) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// printSums lists sums for people, with that of all if there are several.
func printSums(w io.Writer, by string, sums []batchSum) {
	if len(sums) == 0 {
		fmt.Fprintln(w, "No batch job is known that has ended.")
		return
	}
	t := newTable(w, false, strings.ToUpper(by), "BATCH JOBS", "NOT COMPLETED", "JOBS", "WAITED ON AVERAGE", "RAN", "CPU HOURS", "GPU HOURS", "MAX MEMORY")
	all := batchSum{Key: "all"}
	line := func(s batchSum) {
		t.row(s.Key, s.BatchJobs, s.Failed, s.Jobs, view.Short(s.Waited), view.Short(s.Ran), hours(s.CPUHours), hours(s.GPUHours), mebibytes(s.MaxMemory))
	}
	for _, s := range sums {
		line(s)
		all.Waited = (all.Waited*time.Duration(all.BatchJobs) + s.Waited*time.Duration(s.BatchJobs)) / time.Duration(all.BatchJobs+s.BatchJobs)
		all.BatchJobs, all.Failed, all.Jobs, all.Ran = all.BatchJobs+s.BatchJobs, all.Failed+s.Failed, all.Jobs+s.Jobs, all.Ran+s.Ran
		all.CPUHours, all.GPUHours, all.MaxMemory = all.CPUHours+s.CPUHours, all.GPUHours+s.GPUHours, max(all.MaxMemory, s.MaxMemory)
	}
	if len(sums) > 1 {
		line(all)
	}
	t.end()
}

func hours(h float64) string {
	switch {
	case h == 0:
		return "-"
	case h < 0.001:
		return "<0.001"
	}
	return strconv.FormatFloat(h, 'f', 3, 64)
}

func mebibytes(n int64) string {
	if n <= 0 {
		return "-"
	}
	return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20)
}
