package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/view"
)

// aboutBatch tells of a batch job why it is there, and what it waits for.
func aboutBatch(e batchEntry, s cluster.Status, now time.Time) []string {
	a := e.Allocation
	out := []string{madeText(e, now)}
	switch a.State {
	case allocation.Planned:
		out = append(out, plannedText(a, now))
	case allocation.Submitting:
		out = append(out, fmt.Sprintf("The batch system was asked for it %s ago and has not answered. If it has got it, its list will show that; else it is asked again under the same name.", view.Since(a.Times.Asked, now)))
	case allocation.Queued:
		out = append(out, queuedText(a, now)...)
	case allocation.Started:
		out = append(out, startedText(a, s.Terms, now)...)
	case allocation.Ending:
		out = append(out, fmt.Sprintf("It is being ended, for %s: %s. It is gone when the batch system says so.", view.Since(firstTime(a.Times.Ending, a.Times.Told), now), cmp.Or(a.Reason, "no reason is known")))
	case allocation.Ended:
		out = append(out, endedText(a, now))
	}
	if a.State != allocation.Ended {
		switch {
		case s.Problem == orphaned:
			out = append(out, "Nobody looks after it: "+s.Problem+".")
		case s.Problem != "":
			out = append(out, fmt.Sprintf("%s does not answer%s, so this may be out of date: %s.", systemName(s), againText(s, now), s.Problem))
		}
		if a.Absent > 0 {
			out = append(out, "The batch system did not list it the last time; it is looked for in the accounting before it is given up.")
		}
	}
	return out
}

// madeText says what a batch job was made for.
func madeText(e batchEntry, now time.Time) string {
	a := e.Allocation
	label := "Batch job " + a.Name
	if batchID(a) != "" {
		label = fmt.Sprintf("Batch job %s (%s)", a.BatchID, a.Name)
	}
	text := fmt.Sprintf("%s of runner %s is %s. It was made %s ago", label, cmp.Or(e.Runner, a.Class), stateOf(a), view.Since(a.Times.Planned, now))
	jobs := ""
	if a.State != allocation.Ended {
		jobs = forText(a)
	}
	switch who := login(a); {
	case jobs != "" && who != "":
		text += jobs + " of " + who
	case who != "":
		text += " for " + who
	default:
		text += jobs
	}
	if a.User != "" {
		text += ", as user " + a.User
	}
	if a.Attempt > 1 {
		text += fmt.Sprintf("; it is attempt %d", a.Attempt)
	}
	return text + "."
}

// forText says for which jobs a batch job is there.
func forText(a allocation.Allocation) string {
	var ids []string
	for _, l := range a.Leases {
		ids = append(ids, strconv.FormatInt(l.ID, 10))
	}
	for _, id := range a.For {
		if text := strconv.FormatInt(id, 10); !slices.Contains(ids, text) {
			ids = append(ids, text)
		}
	}
	switch len(ids) {
	case 0:
		return ""
	case 1:
		return " for job " + ids[0]
	}
	const most = 10
	if n := len(ids) - most; n > 0 {
		ids = append(ids[:most], fmt.Sprintf("%d others", n))
	}
	return " for jobs " + strings.Join(ids[:len(ids)-1], ", ") + " and " + ids[len(ids)-1]
}

func plannedText(a allocation.Allocation, now time.Time) string {
	if a.Times.NotBefore.After(now) {
		return fmt.Sprintf("The batch system did not take it: %s. It is asked again at %s.", cmp.Or(a.Reason, "it has said nothing more"), view.Clock(a.Times.NotBefore, now))
	}
	return "The batch system is asked for it as soon as the limits allow, at most so many at once as submit_rate and submit_burst say."
}

func queuedText(a allocation.Allocation, now time.Time) []string {
	if launchedIt(a) {
		if !a.Batch.Ended.IsZero() {
			return []string{fmt.Sprintf("Its command ended %s ago. What it has launched takes its jobs by itself; this is kept until those wait no more.", view.Since(a.Batch.Ended, now))}
		}
		return []string{fmt.Sprintf("What was launched has run%s for %s, and takes its jobs by itself.", onNodes(a), view.Since(a.Times.Ran, now))}
	}
	if !a.Times.Ran.IsZero() {
		return []string{fmt.Sprintf("The batch system says that it has run on %s for %s, but our program in it has not said so yet. It may still start; if it says nothing for minutes, the batch job is given up.",
			cmp.Or(a.Batch.Nodes, "its nodes"), view.Since(a.Times.Ran, now))}
	}
	wait, _ := waitOf(a, now)
	text := fmt.Sprintf("It has waited in the queue%s for %s", queueName(a), view.Short(wait))
	if a.Batch.Reason != "" {
		text += fmt.Sprintf("; the reason is %q%s", a.Batch.Reason, reasonMeans(a.Batch.Reason))
	}
	out := []string{text + "."}
	if a.Batch.Expected.After(now) {
		out = append(out, fmt.Sprintf("The batch system expects it to start at %s, in %s.", view.Clock(a.Batch.Expected, now), view.Short(a.Batch.Expected.Sub(now))))
	}
	if a.Batch.Never {
		out = append(out, "That does not pass by itself: the batch job is given up, and its job told why.")
	}
	return out
}

func onNodes(a allocation.Allocation) string {
	if a.Batch.Nodes == "" {
		return ""
	}
	return " on " + a.Batch.Nodes
}

func queueName(a allocation.Allocation) string {
	if q := cmp.Or(a.Batch.Queue, a.Shape.Partition); q != "" {
		return " " + q
	}
	return ""
}

// reasonMeans says in plain words what a reason for waiting means; nothing if it is not known.
func reasonMeans(reason string) string {
	if means := view.SchedulerReason(reason); means != "" {
		return ": " + means
	}
	return ""
}

func startedText(a allocation.Allocation, t cluster.Terms, now time.Time) []string {
	text := fmt.Sprintf("It has run on %s for %s, after %s in the queue", cmp.Or(a.Batch.Nodes, "its nodes"), view.Since(a.Times.Started, now), waitedOf(a, now))
	if a.Order != allocation.SelfTaking {
		text += ", and " + placesText(a)
	}
	out := []string{text + "."}
	switch {
	case a.Drain:
		out = append(out, fmt.Sprintf("It takes no more jobs: %s.", cmp.Or(a.Reason, "no reason is known")))
	case len(a.Leases) > 0 || a.Order == allocation.SelfTaking:
	case a.Uses == 0:
		out = append(out, fmt.Sprintf("No job has come yet; without one it ends at %s (take_timeout).", view.Clock(a.Times.Started.Add(cmp.Or(t.TakeTimeout, 2*time.Minute)), now)))
	case !a.Times.Idle.IsZero():
		out = append(out, fmt.Sprintf("It has had %s, and stays for the next one until %s (linger).", view.Count(a.Uses, "job"), view.Clock(a.Times.Idle.Add(t.Linger), now)))
	}
	if !a.Times.Until.IsZero() {
		out = append(out, fmt.Sprintf("Its time is over at %s, in %s.", view.Clock(a.Times.Until, now), view.Short(max(0, a.Times.Until.Sub(now)))))
	}
	if quiet := now.Sub(a.Times.LastSeen); !a.Times.LastSeen.IsZero() && quiet > 30*time.Second {
		out = append(out, fmt.Sprintf("Our program in it was heard of %s ago; it is given up if that goes on.", view.Short(quiet)))
	}
	return out
}

// placesText says how many of the places are used.
func placesText(a allocation.Allocation) string {
	switch used, all := len(a.Leases), max(1, a.Places); {
	case all > 1:
		return fmt.Sprintf("%d of its %d places are used", used, all)
	case used == 1:
		return "its place is used"
	}
	return "its place is free"
}

func endedText(a allocation.Allocation, now time.Time) string {
	text := fmt.Sprintf("It ended %s ago", view.Since(a.Times.Ended, now))
	if how := howEnded(a); how != "" {
		text += " (" + how + ")"
	}
	if a.Reason != "" {
		text += ": " + a.Reason
	}
	if ran := ranFor(a); ran > 0 {
		text += fmt.Sprintf(". It waited %s, ran %s, and had %s", waitedOf(a, now), view.Short(ran), view.Count(a.Uses, "job"))
	}
	return text + "."
}

// howEnded is the state in which a batch job ended, as the scheduler has it.
func howEnded(a allocation.Allocation) string {
	if !a.Batch.State.Final() {
		return ""
	}
	text := string(a.Batch.State)
	switch {
	case a.Batch.Signal > 0:
		text += fmt.Sprintf(", signal %d", a.Batch.Signal)
	case a.Batch.ExitCode > 0:
		text += fmt.Sprintf(", exit code %d", a.Batch.ExitCode)
	}
	return text
}
