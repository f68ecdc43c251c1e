package main

import (
	"context"
	"errors"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// topSource is where top looks.
type topSource interface {
	// look returns all that is there now, and what has happened last, the latest first.
	look(ctx context.Context) (view.Snapshot, []tranter.Event, error)
	// tail returns the last lines of a job's log.
	tail(ctx context.Context, job string, size int64) ([]string, error)
	// act carries an action out.
	act(ctx context.Context, a topAction) error
}

// topAction is what a person wants to be done.
type topAction struct {
	verb string // cancel, pause, resume, drain or remove
	name string // of the job, runner or machine
}

// topPatience bounds each question to the manager.
const topPatience = 10 * time.Second

// topModel is the state of the screen. It is changed by messages only.
type topModel struct {
	ctx      context.Context //nolint:containedctx // commands of the library get none
	source   topSource
	interval time.Duration
	colors   bool

	width, height int
	snapshot      view.Snapshot
	events        []tranter.Event
	known         bool   // there is a snapshot
	trouble       string // why there is no newer one

	pane      topPane
	chosen    [topPanes]string // ids of the rows
	filter    string
	filtering bool // it is being typed
	question  *topQuestion
	detail    *topDetail
	said      string // what has come of the last key
}

// topQuestion waits for y or n.
type topQuestion struct {
	text   string
	action topAction
}

// topDetail is what is told of one thing, in place of the list.
type topDetail struct {
	pane   topPane // topPanes: of all that needs attention
	id     string
	scroll int
	log    []string // last lines of a job's
	wrong  string   // why there is none
}

// topLook is the answer of the manager.
type topLook struct {
	snapshot view.Snapshot
	events   []tranter.Event
	err      error
}

// topTail is the end of a job's log.
type topTail struct {
	job   string
	lines []string
	err   error
}

// topDone is what has come of an action.
type topDone struct {
	action topAction
	err    error
}

// topTick says that it is time to look again.
type topTick struct{}

// Init looks for the first time.
func (m *topModel) Init() tea.Cmd { return m.look }

// look asks the manager.
func (m *topModel) look() tea.Msg {
	ctx, stop := context.WithTimeout(m.ctx, topPatience)
	defer stop()
	s, events, err := m.source.look(ctx)
	return topLook{snapshot: s, events: events, err: err}
}

// tail asks for the log of the job that is shown, if one is.
func (m *topModel) tail() tea.Cmd {
	if m.detail == nil || m.detail.pane != topJobs && m.detail.pane != topWaiting {
		return nil
	}
	id := m.detail.id
	size := int64(0)
	if j := m.job(id); j != nil {
		size = j.LogBytes
	} else if m.detail.pane == topWaiting {
		return nil
	}
	return func() tea.Msg {
		ctx, stop := context.WithTimeout(m.ctx, topPatience)
		defer stop()
		lines, err := m.source.tail(ctx, id, size)
		return topTail{job: id, lines: lines, err: err}
	}
}

func (m *topModel) job(key string) *view.Job {
	for i := range m.snapshot.Jobs {
		if m.snapshot.Jobs[i].Key == key {
			return &m.snapshot.Jobs[i]
		}
	}
	return nil
}

// Update takes a message.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case topTick:
		return m, m.look
	case topLook:
		m.took(msg)
		return m, tea.Batch(m.tail(), tea.Tick(m.interval, func(time.Time) tea.Msg { return topTick{} }))
	case topExtra:
		m.took(topLook(msg))
	case topTail:
		if d := m.detail; d != nil && d.id == msg.job {
			if d.wrong = ""; msg.err != nil {
				d.wrong = msg.err.Error()
			} else {
				d.log = msg.lines
			}
		}
	case topDone:
		m.said = "Done: " + msg.action.verb + " " + msg.action.name + "."
		if msg.err != nil {
			m.said = "Not done: " + msg.err.Error()
		}
		return m, m.again
	case tea.KeyPressMsg:
		return m, m.key(msg.String(), msg.Key().Text)
	}
	return m, nil
}

// again asks the manager once, out of turn.
func (m *topModel) again() tea.Msg { return topExtra(m.look().(topLook)) } //nolint:forcetypeassert // it is one

// topExtra is an answer after which no other question is planned.
type topExtra topLook

func (m *topModel) took(l topLook) {
	switch {
	case errors.Is(l.err, errNotRunning):
		m.trouble = "No manager answers; trying again."
	case l.err != nil:
		m.trouble = "No manager answers; trying again: " + l.err.Error()
	default:
		m.trouble, m.known, m.snapshot, m.events = "", true, l.snapshot, l.events
	}
}

// rows are those of the pane that are shown.
func (m *topModel) rows(p topPane) []topRow {
	all := topRows(p, m.snapshot, m.events, m.snapshot.At)
	if m.filter == "" || p != m.pane {
		return all
	}
	kept := all[:0]
	for _, r := range all {
		if r.matches(m.filter) {
			kept = append(kept, r)
		}
	}
	return kept
}

// at returns where the chosen row is among those that are shown: the first one if it is not there any more.
func (m *topModel) at(rows []topRow) int {
	for i := range rows {
		if rows[i].id == m.chosen[m.pane] {
			return i
		}
	}
	return 0
}

// move chooses another row.
func (m *topModel) move(by int) {
	if m.detail != nil {
		m.detail.scroll = max(0, m.detail.scroll+by)
		return
	}
	rows := m.rows(m.pane)
	if len(rows) == 0 {
		return
	}
	m.chosen[m.pane] = rows[min(max(0, m.at(rows)+by), len(rows)-1)].id
}

// current is the row that is chosen.
func (m *topModel) current() (topRow, bool) {
	rows := m.rows(m.pane)
	if len(rows) == 0 {
		return topRow{}, false
	}
	return rows[m.at(rows)], true
}

// turn shows another pane.
func (m *topModel) turn(to topPane) {
	m.pane, m.detail, m.filter = (to+topPanes)%topPanes, nil, ""
}

// typed takes a key while the filter is typed.
func (m *topModel) typed(key, text string) {
	switch key {
	case "enter":
		m.filtering = false
	case "esc", "ctrl+c":
		m.filtering, m.filter = false, ""
	case "backspace":
		runes := []rune(m.filter)
		m.filter = string(runes[:max(0, len(runes)-1)])
	case "ctrl+u":
		m.filter = ""
	default:
		if len(m.filter) < 200 {
			m.filter += strings.ToValidUTF8(view.Printable(text), "")
		}
	}
}
