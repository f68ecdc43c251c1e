package main

import (
	"context"
	"fmt"

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
	q := &topQuestion{action: topAction{name: row.id}}
	switch key {
	case "c":
		q.action.verb, q.text = "cancel", "Cancel job "+m.jobLabel(row.id)+"?"
	case "d":
		q.action.verb, q.text = "drain", "Drain machine "+row.id+", so that it takes no more jobs and is then removed?"
	case "x":
		q.action.verb, q.text = "remove", "Remove machine "+row.id+m.lost(row.id)+"?"
	case "p":
		q.action.verb, q.text = "pause", "Pause runner "+nameOfRunner(m.snapshot, row.id)+", so that it takes no more jobs?"
		for i := range m.snapshot.Runners {
			if r := &m.snapshot.Runners[i]; r.Runner == row.id && r.Paused != "" {
				q.action.verb, q.text = "resume", "Let runner "+nameOfRunner(m.snapshot, row.id)+" take jobs again?"
			}
		}
	}
	m.question = q
}

// jobLabel names a job of the snapshot.
func (m *topModel) jobLabel(key string) string {
	if j := m.job(key); j != nil {
		return view.Label(j.Job.ID, j.Job.Name, j.Job.Project)
	}
	return key
}

// lost says how many jobs end with a machine.
func (m *topModel) lost(name string) string {
	for i := range m.snapshot.Machines {
		if one := &m.snapshot.Machines[i]; one.Name == name && len(one.Jobs) > 0 {
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
