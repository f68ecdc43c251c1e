package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// topPane is one of the lists of top.
type topPane int

// The panes, in their order.
const (
	topJobs topPane = iota
	topWaiting
	topMachines
	topRunners
	topEvents
	topPanes
)

func (p topPane) String() string {
	return [...]string{"Jobs", "Waiting", "Machines", "Runners", "Events"}[p]
}

// topColumns are the heads of a pane's columns.
func topColumns(p topPane) []string {
	return [...][]string{
		{"JOB", "NAME", "PROJECT", "RUNNER", "STAGE", "AGE", "PLACE"},
		{"JOB", "NAME", "PROJECT", "RUNNER", "WAITED", "REASON"},
		{"NAME", "STATE", "FOR", "JOBS", "USES", "COST", "REASON"},
		{"NAME", "RUNNER", "EXECUTOR", "JOBS", "LAST ANSWER", "PROBLEM"},
		{"TIME", "KIND", "OF", "TEXT"},
	}[p]
}

// topRow is a line of a pane.
type topRow struct {
	id    string // of what it is about, in its pane
	cells []string
	level tranter.EventLevel
}

// matches says whether a row has a text, whatever its case.
func (r topRow) matches(text string) bool {
	return strings.Contains(strings.ToLower(strings.Join(r.cells, " ")), strings.ToLower(text))
}

// topRows are the rows of a pane.
func topRows(p topPane, s view.Snapshot, events []tranter.Event, now time.Time) []topRow {
	switch p {
	case topJobs:
		return topJobRows(s, now)
	case topWaiting:
		return topWaitingRows(s, now)
	case topMachines:
		return topMachineRows(s, now)
	case topRunners:
		return topRunnerRows(s, now)
	default:
		return topEventRows(events, now)
	}
}

func topJobRows(s view.Snapshot, now time.Time) []topRow {
	rows := make([]topRow, 0, len(s.Jobs))
	for i := range s.Jobs {
		j := &s.Jobs[i]
		rows = append(rows, topRow{id: j.Key, cells: []string{
			strconv.FormatInt(j.Job.ID, 10), j.Job.Name, j.Job.Project, nameOfRunner(s, j.Runner), view.StateWord(j.Stage), topAge(now.Sub(j.Times.Taken)),
			cmp.Or(j.Place.Machine, j.Place.Batch, "-"),
		}})
	}
	return rows
}

func topWaitingRows(s view.Snapshot, now time.Time) []topRow {
	var rows []topRow
	for i := range s.Jobs { // those that were taken and have no place
		j := &s.Jobs[i]
		if j.Times.Placed.IsZero() && j.Times.Ended.IsZero() {
			rows = append(rows, topRow{id: j.Key, cells: []string{
				strconv.FormatInt(j.Job.ID, 10), j.Job.Name, j.Job.Project, nameOfRunner(s, j.Runner), topAge(j.Times.Wait(now)), view.WhyJob(s, *j, now),
			}})
		}
	}
	for i := range s.Waiting {
		w := &s.Waiting[i]
		waited := "-"
		if !w.Since.IsZero() {
			waited = topAge(now.Sub(w.Since))
		}
		rows = append(rows, topRow{id: waitingID(w), cells: []string{
			strconv.FormatInt(w.ID, 10), cmp.Or(w.Name, "-"), cmp.Or(w.Project, "-"), nameOfRunner(s, w.Runner), waited, view.WhyWaiting(s, *w, now),
		}})
	}
	for i := range s.Runners {
		r := &s.Runners[i]
		if why := view.WhyQueued(s, *r, now); why != "" {
			rows = append(rows, topRow{id: queueID(r), cells: []string{"-", view.Count(int(r.Queue.Jobs), "job"), "-", nameOfRunner(s, r.Runner), "-", why}})
		}
	}
	return rows
}

// waitingID names a job that waits in GitLab.
func waitingID(w *view.Waiting) string { return w.Runner + "/" + strconv.FormatInt(w.ID, 10) }

// queueID names what waits in GitLab for a runner, of which only the number is known.
func queueID(r *view.Runner) string { return r.Runner + "/queue" }

func topMachineRows(s view.Snapshot, now time.Time) []topRow {
	rows := make([]topRow, 0, len(s.Machines))
	for i := range s.Machines {
		m := &s.Machines[i]
		row := topRow{id: m.Name, cells: []string{
			m.Name, m.State, topAge(now.Sub(m.Since)), strconv.Itoa(len(m.Jobs)), strconv.Itoa(m.Uses), view.Money(m.Cost, ""), cmp.Or(machineReason(m), "-"),
		}}
		switch {
		case m.Leak != "":
			row.level = tranter.EventError
		case m.Problem != "" || m.Deadline != nil && m.Deadline.Before(now):
			row.level = tranter.EventWarning
		}
		rows = append(rows, row)
	}
	return rows
}

// machineReason says why a machine is in its state, or what is wrong with it.
func machineReason(m *view.Machine) string {
	if m.Leak != "" {
		return "LEAK: " + m.Leak
	}
	if m.State == "leased" { // its reason is why the jobs were given to it
		return m.Problem
	}
	return cmp.Or(m.Reason, m.Problem)
}

func topRunnerRows(s view.Snapshot, now time.Time) []topRow {
	rows := make([]topRow, 0, len(s.Runners))
	for i := range s.Runners {
		r := &s.Runners[i]
		row := topRow{id: r.Runner, cells: []string{r.Name, r.Runner, r.Executor, placesTaken(r), lastAnswer(r, now, topAge), runnerTrouble(r, now)}}
		switch {
		case r.Problem != "":
			row.level = tranter.EventError
		case r.Paused != "":
			row.level = tranter.EventWarning
		}
		rows = append(rows, row)
	}
	return rows
}

func topEventRows(events []tranter.Event, now time.Time) []topRow {
	rows := make([]topRow, 0, len(events))
	for i := range events {
		e := &events[i]
		rows = append(rows, topRow{id: eventID(e), level: e.Level, cells: []string{view.Clock(e.Time, now), view.StateWord(string(e.Kind)), eventOf(e), e.Text}})
	}
	return rows
}

// eventOf names what an event is about: the number of a job, a machine, a batch job or a runner.
func eventOf(e *tranter.Event) string {
	number, _, _ := strings.Cut(e.Job, "-") // a key begins with it
	if strings.HasPrefix(string(e.Kind), "job_") {
		return cmp.Or(number, e.Runner, "-")
	}
	return cmp.Or(e.Machine, e.Batch, number, e.Runner, "-")
}

// eventID names an event among those that are shown.
func eventID(e *tranter.Event) string {
	return strconv.FormatInt(e.Time.UnixNano(), 36) + string(e.Kind) + e.Job + e.Machine
}

// nameOfRunner names a runner for people, from its short token.
func nameOfRunner(s view.Snapshot, short string) string {
	i := slices.IndexFunc(s.Runners, func(r view.Runner) bool { return r.Runner == short })
	if i < 0 || s.Runners[i].Name == "" {
		return short
	}
	return s.Runners[i].Name
}

func placesTaken(r *view.Runner) string {
	if r.Limit > 0 {
		return fmt.Sprintf("%d/%d", r.Jobs, r.Limit)
	}
	return strconv.Itoa(r.Jobs)
}

// lastAnswer says when the server has answered a runner last.
func lastAnswer(r *view.Runner, now time.Time, age func(time.Duration) string) string {
	if r.Contact == nil {
		return "never"
	}
	return age(now.Sub(*r.Contact)) + " ago"
}

// runnerTrouble says why a runner takes no job, if it does not.
func runnerTrouble(r *view.Runner, now time.Time) string {
	switch {
	case r.Backoff != nil && r.Backoff.After(now):
		return fmt.Sprintf("asks again in %s: %s", view.Short(r.Backoff.Sub(now)), r.Problem)
	case r.Paused != "":
		return "paused: " + r.Paused
	default:
		return cmp.Or(r.Problem, r.Busy, "-")
	}
}

// topAge is a duration as top shows it: so roughly that what stands still is not drawn anew at each look.
func topAge(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return "<10s"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())/10*10) + "s"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	default:
		return view.Short(d.Truncate(time.Minute))
	}
}
