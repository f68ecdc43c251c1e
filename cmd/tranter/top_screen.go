package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// View draws the screen.
func (m *topModel) View() tea.View {
	v := tea.NewView(strings.Join(m.screen(), "\n"))
	v.AltScreen = true
	return v
}

// screen is what is shown: as many lines as the terminal has, none wider than it.
func (m *topModel) screen() []string {
	width, height := cmp.Or(m.width, 80), cmp.Or(m.height, 24)
	foot := m.foot()
	var lines []topLine
	if m.known {
		lines = topHead(m.snapshot, m.snapshot.At)
		lines = append(lines, topAttention(view.Attention(m.snapshot, m.snapshot.At), max(1, height/8))...)
		lines = append(lines, m.tabs())
		lines = append(lines, m.body(width, max(0, height-len(lines)-1))...)
	}
	lines = lines[:min(len(lines), max(0, height-1))]
	for len(lines) < height-1 {
		lines = append(lines, topLine{})
	}
	lines = append(lines, foot)
	shown := make([]string, 0, len(lines))
	for _, l := range lines {
		if !m.colors && l.style != topChosen { // reverse is no colour, and says where one is
			l.style = topPlain
		}
		shown = append(shown, l.fitted(width))
	}
	return shown
}

// tabs names the panes with their numbers, and which is shown.
func (m *topModel) tabs() topLine {
	var parts []string
	for p := range topPanes {
		text := fmt.Sprintf("%d %s", int(p)+1, p)
		if p != topEvents {
			text += " " + strconv.Itoa(len(topRows(p, m.snapshot, nil, m.snapshot.At)))
		}
		if p == m.pane {
			text = "[" + text + "]"
		} else {
			text = " " + text + " "
		}
		parts = append(parts, text)
	}
	return topLine{strings.Join(parts, " "), topCyan}
}

// foot is the last line: a question, what has happened, or the keys.
func (m *topModel) foot() topLine {
	switch {
	case m.question != nil:
		return topLine{m.question.text + " y/n", topYellow}
	case m.filtering:
		return topLine{"/" + m.filter + "_", topBold}
	case m.trouble != "":
		text := m.trouble
		if m.known {
			text += " Shown is how it stood at " + m.snapshot.At.Local().Format(time.TimeOnly) + "."
		}
		return topLine{text, topRed}
	case m.said != "":
		return topLine{m.said, topBold}
	case !m.known:
		return topLine{"Asking the manager...", topFaint}
	case m.detail != nil:
		return topLine{"esc back  j/k scroll" + topActionKeys(m.detail.pane) + "  q quit", topFaint}
	case m.filter != "":
		return topLine{"only what has \"" + m.filter + "\": esc shows all" + topActionKeys(m.pane) + "  q quit", topFaint}
	}
	return topLine{"tab/1-5 lists  j/k choose  enter why  / filter  a attention" + topActionKeys(m.pane) + "  q quit", topFaint}
}

// topActionKeys are the keys that do something in a pane.
func topActionKeys(p topPane) string {
	switch p {
	case topJobs, topWaiting:
		return "  c cancel"
	case topMachines:
		return "  d drain  x remove"
	case topRunners:
		return "  p pause/resume"
	default:
		return ""
	}
}

// body is what the pane shows, in so many lines.
func (m *topModel) body(width, height int) []topLine {
	if m.detail != nil {
		lines := m.about(width, height)
		from := min(m.detail.scroll, max(0, len(lines)-height))
		m.detail.scroll = from
		return lines[from:]
	}
	rows := m.rows(m.pane)
	if len(rows) == 0 {
		return []topLine{{text: topNothing(m.pane, m.filter)}}
	}
	at := m.at(rows)
	room := max(1, height-1)
	from := max(0, min(at-room/2, len(rows)-room))
	seen := rows[from:min(len(rows), from+room)]
	lines := topTable(topColumns(m.pane), seen, width)
	lines[1+at-from].style = topChosen
	return lines
}

func topNothing(p topPane, filter string) string {
	switch {
	case filter != "":
		return "Nothing here has \"" + filter + "\"."
	case p == topJobs:
		return "No job is running."
	case p == topWaiting:
		return "No job waits."
	case p == topMachines:
		return "There is no machine."
	case p == topRunners:
		return "There is no runner."
	}
	return "Nothing has happened yet."
}

// about tells of the one thing that was chosen.
func (m *topModel) about(width, height int) []topLine {
	s := m.snapshot
	switch m.detail.pane {
	case topJobs, topWaiting:
		return m.aboutJob(width, height)
	case topMachines:
		i := slices.IndexFunc(s.Machines, func(o view.Machine) bool { return o.Name == m.detail.id })
		if i < 0 {
			return topWrapped("Machine "+m.detail.id+" is gone; \"tranter machine why "+m.detail.id+"\" tells its history.", width)
		}
		return aboutMachine(s, s.Machines[i], m.events, width)
	case topRunners:
		i := slices.IndexFunc(s.Runners, func(o view.Runner) bool { return o.Runner == m.detail.id })
		if i < 0 {
			return topWrapped("The runner is not there any more.", width)
		}
		return aboutRunner(s, &s.Runners[i], m.events, width)
	case topEvents:
		for i := range m.events {
			if e := &m.events[i]; eventID(e) == m.detail.id {
				return aboutEvent(e, width)
			}
		}
		return topWrapped("The event is not among the last ones any more; \"tranter events\" has it.", width)
	default:
		var lines []topLine
		for _, n := range view.Attention(s, s.At) {
			lines = append(lines, styled(topWrapped(noticeLine(n).text, width), noticeLine(n).style)...)
			lines = append(lines, topWrapped("  "+n.Do, width)...)
		}
		if len(lines) == 0 {
			return []topLine{{text: "Nothing needs attention."}}
		}
		return lines
	}
}

func styled(lines []topLine, style topStyle) []topLine {
	for i := range lines {
		lines[i].style = style
	}
	return lines
}

func (m *topModel) aboutJob(width, height int) []topLine {
	s := m.snapshot
	if i := slices.IndexFunc(s.Waiting, func(w view.Waiting) bool { return waitingID(&w) == m.detail.id }); i >= 0 {
		w := s.Waiting[i]
		return append(styled(topWrapped("Job "+view.Label(w.ID, w.Name, w.Project), width), topBold), topWrapped(view.WhyWaiting(s, w, s.At), width)...)
	}
	if i := slices.IndexFunc(s.Runners, func(r view.Runner) bool { return queueID(&r) == m.detail.id }); i >= 0 {
		return topWrapped(cmp.Or(view.WhyQueued(s, s.Runners[i], s.At), "Nothing waits there any more."), width)
	}
	j := m.job(m.detail.id)
	if j == nil {
		return topWrapped("The job has ended; \"tranter job why "+m.detail.id+"\" tells how.", width)
	}
	lines := styled(topWrapped("Job "+view.Label(j.Job.ID, j.Job.Name, j.Job.Project), width), topBold)
	lines = append(lines, topWrapped(view.WhyJob(s, *j, s.At), width)...)
	lines = append(lines, topWrapped(jobFacts(j.JobHistory), width)...)
	lines = append(lines, topLine{"Log: " + view.Bytes(j.LogBytes), topFaint})
	switch {
	case m.detail.wrong != "":
		return append(lines, topWrapped(m.detail.wrong, width)...)
	case len(m.detail.log) == 0:
		return append(lines, topLine{text: "(nothing yet)", style: topFaint})
	}
	room := max(3, height-len(lines))
	for _, text := range m.detail.log[max(0, len(m.detail.log)-room):] {
		lines = append(lines, topLine{text: text})
	}
	return lines
}

// jobFacts are the rest of what is known of a job, in one line.
func jobFacts(j tranter.JobHistory) string {
	facts := []string{"key " + j.Key, "runner " + cmp.Or(j.Name, j.Runner)}
	for _, f := range []struct{ name, value string }{
		{"ref", j.Job.Ref}, {"user", j.Job.User}, {"machine", j.Place.Machine}, {"batch job", j.Place.Batch},
	} {
		if f.value != "" {
			facts = append(facts, f.name+" "+f.value)
		}
	}
	if j.Times.Queued > 0 {
		facts = append(facts, "queued "+view.Short(j.Times.Queued))
	}
	if u := j.Usage; u.CPUTime > 0 || u.MaxMemory > 0 {
		facts = append(facts, fmt.Sprintf("used %s of processor time, %s of memory at most", view.Short(u.CPUTime), view.Bytes(u.MaxMemory)))
	}
	return strings.Join(facts, ", ")
}

func aboutMachine(s view.Snapshot, one view.Machine, events []tranter.Event, width int) []topLine {
	lines := styled(topWrapped("Machine "+one.Name, width), topBold)
	lines = append(lines, topWrapped(view.WhyMachine(s, one, s.At), width)...)
	facts := fmt.Sprintf("runner %s, made %s, %s, set %s, address %s", nameOfRunner(s, one.Pool), view.Ago(one.Made, s.At), view.Count(one.Uses, "use"),
		cmp.Or(one.Set, "-"), cmp.Or(one.Address, "-"))
	lines = append(lines, topWrapped(facts, width)...)
	return append(lines, lastEvents(events, s.At, func(e *tranter.Event) bool { return e.Machine == one.Name })...)
}

func aboutRunner(s view.Snapshot, r *view.Runner, events []tranter.Event, width int) []topLine {
	lines := styled(topWrapped("Runner "+cmp.Or(r.Name, r.Runner), width), topBold)
	lines = append(lines, topWrapped(fmt.Sprintf("%s, executor %s, at %s, %s; last answer %s; %s", r.Runner, r.Executor, r.URL, view.Count(r.Jobs, "job"),
		lastAnswer(r, s.At, view.Short), cmp.Or(strings.TrimPrefix(runnerTrouble(r, s.At), "-"), "no trouble")), width)...)
	for _, warning := range r.Warnings {
		lines = append(lines, styled(topWrapped("warning: "+warning, width), topYellow)...)
	}
	return append(lines, lastEvents(events, s.At, func(e *tranter.Event) bool { return e.Runner == r.Runner })...)
}

func aboutEvent(e *tranter.Event, width int) []topLine {
	lines := styled(topWrapped(e.Time.Local().Format(time.DateTime)+" "+view.StateWord(string(e.Kind)), width), topBold)
	lines = append(lines, topWrapped(e.Text, width)...)
	for _, f := range []struct{ name, value string }{{"runner", e.Runner}, {"job", e.Job}, {"machine", e.Machine}, {"batch job", e.Batch}} {
		if f.value != "" {
			lines = append(lines, topWrapped(f.name+" "+f.value, width)...)
		}
	}
	if e.Took > 0 {
		lines = append(lines, topLine{text: "took " + view.Short(e.Took)})
	}
	return lines
}

// lastEvents are the events that fit, the latest first.
func lastEvents(events []tranter.Event, now time.Time, fits func(*tranter.Event) bool) []topLine {
	var lines []topLine
	for i := range events {
		if e := &events[i]; fits(e) {
			lines = append(lines, topLine{view.Clock(e.Time, now) + "  " + e.Text, levelStyle(e.Level)})
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return append([]topLine{{"Events, the latest first:", topFaint}}, lines...)
}
