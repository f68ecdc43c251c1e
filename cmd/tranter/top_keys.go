package main

import (
	"context"
	"fmt"
	"slices"

	tea "charm.land/bubbletea/v2"

	"github.com/tranter-ci/tranter/internal/view"
)

// key takes a key that was pressed; text is what it types.
func (m *topModel) key(key, text string) tea.Cmd {
	switch {
	case m.filtering:
		m.typed(key, text)
		return nil
	case m.question != nil:
		return m.answer(key)
	}
	m.said = ""
	if m.walk(key) {
		return nil
	}
	switch key {
	case "q", "ctrl+c":
		return tea.Quit
	case "enter":
		if row, has := m.current(); has && m.detail == nil {
			m.detail = &topDetail{pane: m.pane, id: row.id}
			return m.tail()
		}
	case "a":
		m.detail = &topDetail{pane: topPanes}
	case "/":
		m.detail, m.filtering = nil, true
	case "c", "d", "x", "p":
		m.ask(key)
	}
	return nil
}

// walk takes the keys that show something else; it returns whether this was one.
func (m *topModel) walk(key string) bool {
	page := max(1, m.height/2)
	switch key {
	case "tab", "right", "l":
		m.turn(m.pane + 1)
	case "shift+tab", "left", "h":
		m.turn(m.pane - 1 + topPanes)
	case "1", "2", "3", "4", "5":
		m.turn(topPane(key[0] - '1'))
	case "j", "down":
		m.move(1)
	case "k", "up":
		m.move(-1)
	case "pgdown", "space", "ctrl+f":
		m.move(page)
	case "pgup", "ctrl+b":
		m.move(-page)
	case "g", "home":
		m.move(-1 << 30)
	case "G", "end":
		m.move(1 << 30)
	case "esc", "backspace":
		if m.detail != nil {
			m.detail = nil
		} else {
			m.filter = ""
		}
	default:
		return false
	}
	return true
}

// ask asks whether something is really to be done with what is chosen.
func (m *topModel) ask(key string) {
	row, has := m.current()
	if m.detail != nil && m.detail.pane < topPanes {
		row.id, has = m.detail.id, true
	}
	pane := map[string]topPane{"c": topJobs, "d": topMachines, "x": topMachines, "p": topRunners}[key]
	if key == "c" && m.pane == topWaiting && m.job(row.id) != nil { // it was taken
		pane = topWaiting
	}
	if !has || m.pane != pane || m.detail != nil && m.detail.pane == topPanes {
		m.said = fmt.Sprintf("%s is for %s: choose one there first.", key, pane)
		return
	}
	m.question = topAsk(m.snapshot, key, row.id)
}

// topAsk is the question before something is done.
func topAsk(s view.Snapshot, key, id string) *topQuestion {
	q := &topQuestion{action: topAction{name: id}}
	switch key {
	case "c":
		q.action.verb, q.text = "cancel", "Cancel job "+topJobLabel(s, id)+"?"
	case "d":
		q.action.verb, q.text = "drain", "Drain machine "+id+", so that it takes no more jobs and is then removed?"
	case "x":
		q.action.verb, q.text = "remove", "Remove machine "+id+lostWith(s, id)+"?"
	case "p":
		q.action.verb, q.text = "pause", "Pause runner "+nameOfRunner(s, id)+", so that it takes no more jobs?"
		if slices.ContainsFunc(s.Runners, func(r view.Runner) bool { return r.Runner == id && r.Paused != "" }) {
			q.action.verb, q.text = "resume", "Let runner "+nameOfRunner(s, id)+" take jobs again?"
		}
	}
	return q
}

// topJobLabel names a job of the snapshot.
func topJobLabel(s view.Snapshot, key string) string {
	for i := range s.Jobs {
		if j := &s.Jobs[i]; j.Key == key {
			return view.Label(j.Job.ID, j.Job.Name, j.Job.Project)
		}
	}
	return key
}

// lostWith says how many jobs end with a machine.
func lostWith(s view.Snapshot, name string) string {
	for i := range s.Machines {
		if one := &s.Machines[i]; one.Name == name && len(one.Jobs) > 0 {
			return ", which fails the " + view.Count(len(one.Jobs), "job") + " on it"
		}
	}
	return ""
}

// answer takes y, which has it done, or anything else, which does not.
func (m *topModel) answer(key string) tea.Cmd {
	q := m.question
	m.question = nil
	if key != "y" && key != "Y" {
		m.said = "Nothing was done."
		return nil
	}
	m.said = "Asking the manager..."
	return func() tea.Msg {
		ctx, stop := context.WithTimeout(m.ctx, topPatience)
		defer stop()
		return topDone{action: q.action, err: m.source.act(ctx, q.action)}
	}
}
