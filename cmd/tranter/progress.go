package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/view"
	"golang.org/x/term"
)

// jobView is one job of a pipeline as the progress display shows it.
type jobView struct {
	ID                int64
	Name, Stage       string
	State             string // GitLab's: created, pending, running, success, failed, canceled, skipped, manual
	Reason            string // failure reason, or why it is not run
	ExitCode          int
	AllowFailure      bool
	Started, Finished time.Time
	Attempt           int // 1 for the first
}

// done says whether nothing more will happen to the job by itself.
func (j jobView) done() bool {
	switch j.State {
	case "success", "failed", "canceled", "skipped", "manual":
		return true
	}
	return false
}

// elapsed is how long the job has run by now, or ran; 0 if it has not been started.
func (j jobView) elapsed(now time.Time) time.Duration {
	switch {
	case j.Started.IsZero():
		return 0
	case j.Finished.IsZero():
		return now.Sub(j.Started)
	default:
		return j.Finished.Sub(j.Started)
	}
}

// mark is the sign before a job's name, and its colour.
func (j jobView) mark() (sign, color string) {
	switch j.State {
	case "success":
		return "✓", "\x1b[32m"
	case "failed":
		if j.AllowFailure {
			return "!", "\x1b[33m"
		}
		return "✗", "\x1b[31m"
	case "running", "canceling":
		return "●", "\x1b[34m"
	case "manual":
		return "▷", "\x1b[2m"
	case "canceled":
		return "⊘", "\x1b[33m"
	case "skipped":
		return "»", "\x1b[2m"
	default:
		return "·", "\x1b[2m"
	}
}

// note is what is said after the time.
func (j jobView) note() string {
	var parts []string
	switch j.State {
	case "failed":
		why := strings.ReplaceAll(j.Reason, "_", " ")
		if j.ExitCode != 0 {
			why = fmt.Sprintf("exit status %d", j.ExitCode)
		}
		if j.AllowFailure {
			why = "failed, which is allowed: " + why
		}
		parts = append(parts, why)
	case "manual":
		parts = append(parts, "manual: not run")
	case "skipped":
		parts = append(parts, "skipped: what it waits for did not succeed")
	case "canceled":
		parts = append(parts, "canceled")
	case "pending", "canceling":
		parts = append(parts, j.State)
	}
	if j.Attempt > 1 {
		parts = append(parts, fmt.Sprintf("attempt %d", j.Attempt))
	}
	return strings.Join(parts, ", ")
}

// row renders the job as one line with the given width of the name column.
func (j jobView) row(now time.Time, nameWidth, stageWidth int, color bool) string {
	sign, start := j.mark()
	end := "\x1b[0m"
	if !color {
		start, end = "", ""
	}
	spent := ""
	if d := j.elapsed(now); d > 0 {
		spent = view.Short(d)
	}
	return strings.TrimRight(fmt.Sprintf("  %s%s%s %s  %s  %6s   %s", start, sign, end, pad(j.Name, nameWidth), pad(j.Stage, stageWidth), spent, j.note()), " ")
}

func pad(s string, width int) string {
	if n := width - len([]rune(s)); n > 0 {
		return s + strings.Repeat(" ", n)
	}
	return s
}

// columns returns the widths of the name and stage columns.
func columns(jobs []jobView) (name, stage int) {
	for _, j := range jobs {
		name = max(name, len([]rune(j.Name)))
		stage = max(stage, len([]rune(j.Stage)))
	}
	return min(name, 60), min(stage, 20)
}

// progress shows a running pipeline.
type progress interface {
	// update shows the jobs as they are now; it is called on every change and several times a second.
	update(jobs []jobView, now time.Time)
	// finish shows the last state for good.
	finish(jobs []jobView, now time.Time)
}

// newProgress redraws in place on a terminal and prints a line per change elsewhere.
func newProgress(w io.Writer) progress {
	if isTerminal(w) {
		return &liveProgress{w: w}
	}
	return &plainProgress{w: w, seen: map[int64]string{}}
}

// plainProgress prints a line when a job starts and when it ends.
type plainProgress struct {
	w    io.Writer
	seen map[int64]string
	ends bool // say nothing when a job starts
}

func (p *plainProgress) update(jobs []jobView, now time.Time) {
	name, stage := columns(jobs)
	for _, j := range jobs {
		if p.seen[j.ID] == j.State || (j.State != "running" && !j.done()) || j.State == "manual" || p.ends && !j.done() {
			continue
		}
		p.seen[j.ID] = j.State
		fmt.Fprintln(p.w, j.row(now, name, stage, false))
	}
}

func (p *plainProgress) finish(jobs []jobView, now time.Time) {
	p.update(jobs, now)
	name, stage := columns(jobs)
	for _, j := range jobs {
		if j.State == "manual" {
			fmt.Fprintln(p.w, j.row(now, name, stage, false))
		}
	}
}

// liveProgress draws all jobs, each time over what it drew before. Of a pipeline that is higher than the terminal it
// shows the jobs that are running or have just ended, and counts the others.
type liveProgress struct {
	w      io.Writer
	drawn  int
	footer string // shown below while the pipeline runs
}

func (p *liveProgress) update(jobs []jobView, now time.Time) {
	width, height := p.size()
	rows := p.rows(jobs, now)
	if len(rows) > height-3 {
		rows = p.condensed(jobs, now, height-4)
	}
	if p.footer != "" {
		rows = append(rows, "  "+p.footer)
	}
	p.draw(rows, width)
}

func (p *liveProgress) finish(jobs []jobView, now time.Time) {
	p.draw(nil, 0)
	for _, row := range p.rows(jobs, now) {
		fmt.Fprintln(p.w, row)
	}
}

func (p *liveProgress) rows(jobs []jobView, now time.Time) []string {
	name, stage := columns(jobs)
	rows := make([]string, 0, len(jobs))
	for _, j := range jobs {
		rows = append(rows, j.row(now, name, stage, true))
	}
	return rows
}

func (p *liveProgress) condensed(jobs []jobView, now time.Time, room int) []string {
	var shown []jobView
	counts := map[string]int{}
	for _, j := range jobs {
		counts[j.State]++
		if j.State == "running" || j.State == "failed" {
			shown = append(shown, j)
		}
	}
	if len(shown) > room && room > 0 {
		shown = shown[len(shown)-room:]
	}
	total := fmt.Sprintf("  %d jobs: %d done, %d failed, %d running, %d waiting", len(jobs), counts["success"], counts["failed"],
		counts["running"], counts["created"]+counts["pending"])
	return append(p.rows(shown, now), total)
}

func (p *liveProgress) draw(rows []string, width int) {
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	b.WriteString("\x1b[J")
	for _, row := range rows {
		b.WriteString(cut(row, width))
		b.WriteString("\n")
	}
	p.drawn = len(rows)
	_, _ = io.WriteString(p.w, b.String())
}

// cut shortens a row to the terminal's width, so that it stays one line; escape sequences take no room.
func cut(row string, width int) string {
	var b strings.Builder
	shown, escape := 0, false
	for _, r := range row {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		case shown >= width-1:
			continue
		default:
			shown++
		}
		b.WriteRune(r)
	}
	return b.String()
}

func (p *liveProgress) size() (width, height int) {
	if f, ok := p.w.(interface{ Fd() uintptr }); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil {
			return w, h
		}
	}
	return 100, 40
}
