package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// topFake answers as a manager does.
type topFake struct {
	snapshot view.Snapshot
	events   []tranter.Event
	err      error
	acted    []topAction
}

func (f *topFake) look(context.Context) (view.Snapshot, []tranter.Event, error) {
	return f.snapshot, f.events, f.err
}

func (f *topFake) tail(_ context.Context, job string, _ int64) ([]string, error) {
	return []string{"the log of " + job}, nil
}

func (f *topFake) act(_ context.Context, a topAction) error {
	f.acted = append(f.acted, a)
	return nil
}

// topScene is a manager with one of everything, under names that a terminal must not get.
func topScene() *topFake {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	contact := ago(5 * time.Second)
	job := func(id int64, name string, placed bool) view.Job {
		j := view.Job{Stage: "step_script", JobHistory: tranter.JobHistory{
			Key: fmt.Sprintf("%d-k", id), Runner: "t1", Job: tranter.JobLabel{ID: id, Name: name, Project: "group/app"},
			Times: tranter.JobTimes{Taken: ago(20 * time.Minute)}, Result: tranter.Result{State: tranter.JobRunning},
		}}
		if placed {
			j.Times.Placed, j.Place.Machine = ago(19*time.Minute), "m1"
		} else {
			j.Stage = "prepare_executor"
		}
		return j
	}
	return &topFake{
		snapshot: view.Snapshot{
			At: now, Version: "1.0", Manager: view.Manager{State: "running", Started: ago(3 * time.Hour), Concurrent: 10},
			Runners:  []view.Runner{{Name: "builders", Runner: "t1", Executor: "docker+machine", URL: "https://gitlab.example.com", Jobs: 2, Limit: 5, Contact: &contact}},
			Jobs:     []view.Job{job(7, "rspec \x1b[2J\u202e", true), job(8, "build", false)},
			Waiting:  []view.Waiting{{ID: 9, Name: "deploy", Project: "group/app", Runner: "t1", Since: ago(time.Minute)}},
			Pools:    []view.Pool{{Pool: "t1", Runner: "builders", Provider: "amazonec2", Limit: 10, Count: map[string]int{"leased": 1, "booting": 1}, Waiting: 1}},
			Machines: []view.Machine{{Name: "m1", Pool: "t1", State: "leased", Since: ago(time.Hour), Made: ago(2 * time.Hour), Jobs: []string{"7-k"}, Uses: 4, Leak: "quota\n\x9b2J"}},
			Recent:   view.Recent{Ended: 40, Failed: map[string]int{"script_failure": 3}, Waits: 12, WaitP50: 12 * time.Second, WaitP95: time.Minute, Priced: true, Today: 1.5, Month: 40, Currency: "EUR"},
		},
		events: []tranter.Event{{ID: 2, Time: now, Kind: tranter.JobEnded, Level: tranter.EventWarning, Job: "6-k", Text: "Job failed\x07"}, {ID: 1, Time: ago(time.Minute), Kind: tranter.ManagerStarted, Text: "It takes jobs"}},
	}
}

// topTester sends messages to a model and runs what it wants to have run, but for the waiting.
type topTester struct {
	*topModel

	t    *testing.T
	fake *topFake
}

func newTopTester(t *testing.T) *topTester {
	t.Helper()
	fake := topScene()
	m := &topTester{topModel: &topModel{ctx: t.Context(), source: fake, interval: time.Second, width: 80, height: 24}, t: t, fake: fake}
	m.Update(m.look())
	return m
}

func (m *topTester) keys(keys ...string) *topTester {
	m.t.Helper()
	for _, key := range keys {
		press := tea.KeyPressMsg{Text: key, Code: []rune(key)[0]}
		switch key {
		case "enter":
			press = tea.KeyPressMsg{Code: tea.KeyEnter}
		case "esc":
			press = tea.KeyPressMsg{Code: tea.KeyEscape}
		case "tab":
			press = tea.KeyPressMsg{Code: tea.KeyTab}
		}
		if _, cmd := m.Update(press); cmd != nil {
			if msg := cmd(); msg != nil {
				if _, more := m.Update(msg); more != nil {
					m.Update(more())
				}
			}
		}
	}
	return m
}

func (m *topTester) shows(parts ...string) {
	m.t.Helper()
	lines := m.screen()
	if len(lines) != m.height {
		m.t.Errorf("%d lines on a screen of %d", len(lines), m.height)
	}
	for _, line := range lines {
		if w := ansi.StringWidth(line); w > m.width {
			m.t.Errorf("%d columns on a screen of %d: %q", w, m.width, line)
		}
		for _, c := range ansi.Strip(line) {
			if !unicode.IsPrint(c) {
				m.t.Errorf("%q would be obeyed", line)
			}
		}
	}
	text := strings.Join(lines, "\n")
	for _, part := range parts {
		if !strings.Contains(text, part) {
			m.t.Errorf("%q is not there:\n%s", part, text)
		}
	}
}

func TestTopShowsWhatThereIs(t *testing.T) {
	m := newTopTester(t)
	m.shows("running for 3h00m, 2 of 10 possible jobs, 2 waiting", "24 h: 40 ended, 3 failed; wait p50 12.0s, p95 1m00s; today 1.50, month 40.00 EUR",
		"machines: 1 booting, 1 leased", "! 1 machine may be left", "[1 Jobs 2]", "rspec \ufffd[2J", "builders  step script")
	m.keys("tab").shows("[2 Waiting 2]", "8    build", "9    deploy")
	m.keys("3").shows("m1    leased  1h00m", "LEAK: quota")
	m.keys("4").shows("builders  t1      docker+machine  2/5   <10s ago")
	m.keys("5").shows("job ended        6   Job failed", "manager started  -   It takes jobs")
	m.keys("tab").shows("[1 Jobs 2]")
}

func TestTopTellsWhy(t *testing.T) {
	m := newTopTester(t)
	m.keys("enter").shows("Job 7 (rspec", "on machine m1; its stage is step script", "the log of 7-k")
	m.keys("esc", "2", "enter").shows("waits for a machine: 1 is being made for it")
	m.keys("esc", "j", "enter").shows("Job 9 (deploy of group/app)", "It has waited in GitLab for 1m00s")
	m.keys("3", "enter").shows("Leased for 1h00m to job 7")
	m.keys("4", "enter").shows("Runner builders", "5.0s ago; no trouble")
	m.keys("5", "enter").shows("job ended", "job 6-k")
	m.keys("a").shows("! 1 machine may be left at the provider")
}

func TestTopActsOnlyAfterYes(t *testing.T) {
	m := newTopTester(t)
	m.keys("c").shows("Cancel job 7 (rspec", "y/n")
	m.keys("n").shows("Nothing was done.")
	m.keys("d").shows("d is for Machines: choose one there first.")
	m.keys("c", "y", "3", "d", "y", "x").shows("Remove machine m1, which fails the 1 job on it? y/n")
	m.keys("y", "4", "p", "y")
	m.fake.snapshot.Runners[0].Paused = "somebody"
	m.Update(m.look())
	m.keys("p").shows("Let runner builders take jobs again?")
	m.keys("y").shows("Done: resume t1.")
	want := []topAction{{"cancel", "7-k"}, {"drain", "m1"}, {"remove", "m1"}, {"pause", "t1"}, {"resume", "t1"}}
	if !slices.Equal(m.fake.acted, want) {
		t.Errorf("got %v, want %v", m.fake.acted, want)
	}
}

func TestTopFilters(t *testing.T) {
	m := newTopTester(t)
	m.keys("/", "B", "u", "i", "l", "d", "8").shows("/Build8_", "Nothing here has")
	m.keys("esc", "/", "s", "t", "e", "p", "enter").shows("only what has \"step\"", "rspec")
	if rows := m.rows(topJobs); len(rows) != 1 {
		t.Errorf("got %d rows, want 1", len(rows))
	}
	m.keys("esc").shows("build")
}

func TestTopGoesOnWhenTheManagerIsAwayForATime(t *testing.T) {
	m := newTopTester(t)
	m.fake.err = fmt.Errorf("%w with the state directory x", errNotRunning)
	m.Update(m.look())
	m.shows("No manager answers; trying again.", "rspec")
	m.fake.err = errors.New("it stutters")
	m.Update(m.look())
	m.shows("No manager answers; trying again: it stutters")
	m.fake.err = nil
	m.Update(m.look())
	if m.trouble != "" {
		t.Errorf("still in trouble: %s", m.trouble)
	}
	empty := &topTester{topModel: &topModel{ctx: t.Context(), source: m.fake, width: 80, height: 24}, t: t}
	empty.shows("Asking the manager...")
}

func TestTopFitsEveryScreen(t *testing.T) {
	for _, size := range []struct{ width, height int }{{80, 24}, {40, 10}, {20, 5}, {1, 1}, {200, 60}} {
		m := newTopTester(t)
		m.colors = true
		m.Update(tea.WindowSizeMsg{Width: size.width, Height: size.height})
		for _, key := range []string{"1", "2", "3", "4", "5", "enter", "esc", "a", "j", "G", "g"} {
			m.keys(key).shows()
		}
	}
}

func TestTopOnceIsPlain(t *testing.T) {
	f := topScene()
	text := strings.Join(topOnce(f.snapshot, f.events, 0), "\n")
	if strings.ContainsAny(text, "\x1b\x07\r") || !strings.Contains(text, "LEAK: quota") || !strings.Contains(text, "Events: 2") {
		t.Errorf("got %s", text)
	}
}

func TestTablesHaveTheirExtraColumnsOnlyWhenWide(t *testing.T) {
	for wide, want := range map[bool]string{
		false: "A   C\n1   -\n22  x\ufffd[2J\n",
		true:  "A   B   C\n1   bb  -\n22  -   x\ufffd[2J\n",
	} {
		var out bytes.Buffer
		list := newTable(&out, wide, "A", "+B", "C")
		list.row(1, "bb", "")
		list.row(22, "", "x\x1b[2J")
		list.end()
		if out.String() != want {
			t.Errorf("wide %t: got %q, want %q", wide, out.String(), want)
		}
	}
}
