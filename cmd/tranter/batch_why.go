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

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/view"
)

// batchStory is the output of batch why.
type batchStory struct {
	Job       int64       `json:"job,omitempty"`
	BatchJob  *batchEntry `json:"batch_job,omitempty"`
	Sentences []string    `json:"sentences"`
}

func newBatchWhy(s streams, open batchOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "why NAME|BATCHJOB|JOB",
		Short: "Tell why a batch job is as it is, or why a CI job waits",
		Long: `Tell in sentences why a batch job is there and what it waits for, from what the manager
knows, what the batch system says, and the limits of the configuration. It is named as in
"tranter batch inspect". With the number of a CI job, tell why that waits or where it is; if
a batch job has the same number, both are told.`,
		Example: `  tranter batch why 4711
  tranter batch why tranter-1a2b3c-4d5e-mhq2x7k1-0
  tranter batch why 271828 --output json`,
		Args: cobra.ExactArgs(1),
	}
	reach := addBatchFlags(cmd, open)
	completingBatch(cmd, reach, 1)
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return reach(cmd.Context(), func(c batchClient) error {
			a, err := c.answer(cmd.Context(), "")
			if err != nil {
				return err
			}
			now := time.Now()
			stories := a.ofJob(args[0], now)
			e, err := c.find(cmd.Context(), args[0])
			switch {
			case err == nil && !slices.ContainsFunc(stories, func(s batchStory) bool { return s.BatchJob != nil && s.BatchJob.Name == e.Name }):
				stories = append(stories, batchStory{BatchJob: &e, Sentences: aboutBatch(e, a.status(e.Class), now)})
			case err != nil && len(stories) == 0:
				if _, e := strconv.ParseInt(args[0], 10, 64); e == nil && gone(err) {
					return missing("neither a batch job %s is known, nor does a CI job of that number wait for one or run in one%s", args[0], aloneText(c.alone))
				}
				return err
			}
			if *output == "json" {
				return writeJSON(s.out, stories)
			}
			c.tellWhetherAlone(s.err)
			for i, story := range stories {
				if i > 0 {
					fmt.Fprintln(s.out)
				}
				printSentences(s.out, story.Sentences)
			}
			return nil
		})
	}
	return cmd
}

func aloneText(alone bool) string {
	if alone {
		return "; no manager is running, which alone knows what waits"
	}
	return ""
}

func printSentences(w io.Writer, sentences []string) {
	for _, s := range sentences {
		fmt.Fprintln(w, view.Printable(s))
	}
}

// status returns how the cluster of a class stands.
func (a batchAnswer) status(class string) cluster.Status {
	for _, s := range a.Runners {
		if s.Class == class {
			return s
		}
	}
	return cluster.Status{Class: class}
}

// ofJob returns what there is to tell of the CI jobs of a number; runners of several servers may have one each.
func (a batchAnswer) ofJob(number string, now time.Time) []batchStory {
	id, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return nil
	}
	var stories []batchStory
	for _, s := range a.Runners {
		if story, found := storyOf(s, id, now); found {
			stories = append(stories, story)
		}
	}
	return stories
}

// storyOf tells where a job of a cluster is, or why it waits.
func storyOf(s cluster.Status, id int64, now time.Time) (batchStory, bool) {
	name := cmp.Or(s.Runner, s.Class)
	for _, one := range s.Allocations {
		for _, l := range one.Leases {
			if l.ID == id {
				e := batchEntry{Runner: s.Runner, System: s.System, Allocation: one}
				text := fmt.Sprintf("Job %d of runner %s has had a place in batch job %s for %s%s.", id, name, cmp.Or(one.BatchID, one.Name), view.Since(l.Since, now), beganText(l))
				return batchStory{Job: id, BatchJob: &e, Sentences: append([]string{text}, aboutBatch(e, s, now)...)}, true
			}
		}
	}
	i := slices.IndexFunc(s.Jobs, func(j cluster.WaitingJob) bool { return j.ID == id })
	if i < 0 {
		for _, one := range s.Allocations {
			if one.State != allocation.Ended && slices.Contains(one.For, id) {
				e := batchEntry{Runner: s.Runner, System: s.System, Allocation: one}
				text := fmt.Sprintf("Job %d of runner %s is not known to wait at the moment; a batch job was made for it.", id, name)
				return batchStory{Job: id, BatchJob: &e, Sentences: append([]string{text}, aboutBatch(e, s, now)...)}, true
			}
		}
		return batchStory{}, false
	}
	j := s.Jobs[i]
	story := batchStory{Job: id, Sentences: []string{waitingText(j, name, now)}}
	if j.Allocation != "" {
		if k := slices.IndexFunc(s.Allocations, func(a allocation.Allocation) bool { return a.Name == j.Allocation }); k >= 0 {
			story.BatchJob = &batchEntry{Runner: s.Runner, System: s.System, Allocation: s.Allocations[k]}
			story.Sentences = append(story.Sentences, aboutBatch(*story.BatchJob, s, now)...)
			if story.BatchJob.State == allocation.Started && j.Key == "" {
				story.Sentences = append(story.Sentences, "It is taken from GitLab the next time that the runner asks for a job, unless another runner takes it first.")
			}
			return story, true
		}
	}
	story.Sentences = append(story.Sentences, whyNone(s, j, now)...)
	return story, true
}

func beganText(l allocation.Lease) string {
	if l.Began {
		return ", and has begun"
	}
	return ", and is being prepared"
}

// waitingText is the first sentence on a job that waits.
func waitingText(j cluster.WaitingJob, runner string, now time.Time) string {
	label := fmt.Sprintf("Job %d", j.ID)
	if j.Name != "" {
		label += " (" + j.Name
		if j.Project != "" {
			label += " of " + j.Project
		}
		label += ")"
	}
	lasting := ""
	if !j.Since.IsZero() {
		lasting = " for " + view.Since(j.Since, now)
	}
	if j.Key == "" {
		return fmt.Sprintf("%s has waited in GitLab%s, for runner %s.", label, lasting, runner)
	}
	return fmt.Sprintf("%s was taken by runner %s and has waited for a place in a batch job%s.", label, runner, lasting)
}

// whyNone says why there is no batch job for a job that waits.
func whyNone(s cluster.Status, j cluster.WaitingJob, now time.Time) []string {
	switch {
	case j.Refused != "":
		return []string{"No batch job is made for it, because of what it asks for: " + j.Refused + "."}
	case s.Retired:
		return []string{"No batch job is made for it: the runner is not in the configuration any more."}
	}
	out := []string{"There is no batch job for it yet."}
	if s.Problem != "" {
		out = append(out, fmt.Sprintf("%s does not answer%s: %s.", systemName(s), againText(s, now), s.Problem))
	}
	if text := lastText(s, j, now); text != "" {
		out = append(out, text)
	}
	if s.Full != "" {
		text := "No more batch jobs are made at the moment: " + s.Full
		if s.Retry.After(now) {
			text += ", until " + view.Clock(s.Retry, now)
		}
		out = append(out, text+"."+limitsText(s))
	}
	if n, most := ofUser(s, j), s.Terms.PerUser; most > 0 && n >= most {
		out = append(out, fmt.Sprintf("There are %s for the same user, and max_per_user is %d.", view.Count(n, "batch job"), most))
	}
	if s.Terms.Places > 1 && s.Terms.PackWindow > 0 && j.Since.Add(s.Terms.PackWindow).After(now) {
		out = append(out, fmt.Sprintf("It waits for others to share a batch job with, until %s (pack_window).", view.Clock(j.Since.Add(s.Terms.PackWindow), now)))
	}
	return out
}

// lastText tells of the batch job that a job had last, or that was refused for another one like it.
func lastText(s cluster.Status, j cluster.WaitingJob, now time.Time) string {
	for _, a := range slices.Backward(s.Allocations) {
		own := slices.Contains(a.For, j.ID)
		if a.State != allocation.Ended || !own && (!a.Past.Refused || !alike(a.Shape, j.Shape)) {
			continue
		}
		label, reason := cmp.Or(a.BatchID, a.Name), cmp.Or(a.Reason, "no reason is known")
		switch {
		case a.Past.Refused && own:
			return fmt.Sprintf("Its batch job %s was refused %s ago: %s. The same is tried again after a pause of 10 minutes, which doubles each time.", label, view.Since(a.Times.Ended, now), reason)
		case a.Past.Refused:
			return fmt.Sprintf("A batch job like the one that it needs, %s, was refused %s ago: %s. The same is tried again after a pause of 10 minutes, which doubles each time.",
				label, view.Since(a.Times.Ended, now), reason)
		}
		return fmt.Sprintf("Its last one, %s, ended %s ago: %s. The next one is made after a pause, which doubles each time.", label, view.Since(a.Times.Ended, now), reason)
	}
	return ""
}

// alike says whether the scheduler is asked for the same with two shapes, as far as it matters to a refusal.
func alike(a, b tranter.Shape) bool {
	return a.Nodes == b.Nodes && a.CPUs == b.CPUs && a.Memory == b.Memory && a.GPUs == b.GPUs && a.Partition == b.Partition && a.Account == b.Account && a.QOS == b.QOS
}

// limitsText says how near the limits are.
func limitsText(s cluster.Status) string {
	live, queued := 0, 0
	for _, a := range s.Allocations {
		switch {
		case a.State == allocation.Ended:
			continue
		case a.State != allocation.Started && a.State != allocation.Ending && a.Times.Ran.IsZero():
			queued++
		}
		live++
	}
	var parts []string
	if s.Terms.Queued > 0 {
		parts = append(parts, fmt.Sprintf("%d of max_queued = %d wait", queued, s.Terms.Queued))
	}
	if s.Terms.Total > 0 {
		parts = append(parts, fmt.Sprintf("%d of max_allocations = %d are there", live, s.Terms.Total))
	}
	if len(parts) == 0 {
		return ""
	}
	return " Of the batch jobs, " + strings.Join(parts, ", and ") + "."
}

// ofUser counts the batch jobs that are counted for a job's user.
func ofUser(s cluster.Status, j cluster.WaitingJob) (n int) {
	for _, a := range s.Allocations {
		same := a.User == j.User && (j.User != "" || a.Domain == j.Domain)
		if same && a.State != allocation.Ended {
			n++
		}
	}
	return n
}
