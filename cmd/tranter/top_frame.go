package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// topStyle is how a line is shown where there are colours.
type topStyle string

// The styles, as a terminal has them.
const (
	topPlain    topStyle = ""
	topBold     topStyle = "\x1b[1m"
	topFaint    topStyle = "\x1b[2m"
	topChosen   topStyle = "\x1b[7m"
	topRed      topStyle = "\x1b[31m"
	topYellow   topStyle = "\x1b[33m"
	topCyan     topStyle = "\x1b[36m"
	topStyleEnd          = "\x1b[0m"
)

// topLine is a line of the screen: text without anything that a terminal obeys, and how it is shown.
type topLine struct {
	text  string
	style topStyle
}

// fitted cuts a line to a width and gives it its style. A line that is chosen is as wide as the screen.
func (l topLine) fitted(width int) string {
	text := ansi.Truncate(view.Printable(l.text), width, "…")
	if l.style == topChosen {
		text += strings.Repeat(" ", max(0, width-ansi.StringWidth(text)))
	}
	if l.style == topPlain || text == "" {
		return text
	}
	return string(l.style) + text + topStyleEnd
}

// levelStyle is the style of what somebody should care for.
func levelStyle(level tranter.EventLevel) topStyle {
	switch level {
	case tranter.EventError:
		return topRed
	case tranter.EventWarning:
		return topYellow
	default:
		return topPlain
	}
}

// topHead are the first lines: how the manager stands, in numbers.
func topHead(s view.Snapshot, now time.Time) []topLine {
	m := s.Manager
	waiting, _ := s.Queued()
	for i := range s.Jobs { // those that were taken and have no place
		if j := &s.Jobs[i]; j.Times.Placed.IsZero() && j.Times.Ended.IsZero() {
			waiting++
		}
	}
	first := fmt.Sprintf("tranter %s: %s for %s, %d of %s, %d waiting", s.Version, view.StateWord(m.State), topAge(now.Sub(m.Started)), len(s.Jobs),
		view.Count(m.Concurrent, "possible job"), waiting)
	style := topBold
	if m.State != "running" {
		style = topYellow
	}
	lines := []topLine{{first, style}, {topLately(s.Recent), topPlain}}
	if len(s.Pools) > 0 {
		lines = append(lines, topLine{"machines: " + machineCounts(s), topPlain})
	}
	return lines
}

// topLately tells of the last hours in one line.
func topLately(r view.Recent) string {
	parts := []string{fmt.Sprintf("24 h: %d ended, %d failed", r.Ended, failedOf(r))}
	if r.Waits > 0 {
		parts = append(parts, fmt.Sprintf("wait p50 %s, p95 %s", view.Short(r.WaitP50), view.Short(r.WaitP95)))
	}
	if r.Priced {
		parts = append(parts, fmt.Sprintf("today %s, month %s", view.Money(r.Today, ""), view.Money(r.Month, r.Currency)))
	}
	return strings.Join(parts, "; ")
}

func failedOf(r view.Recent) (n int) {
	for _, k := range r.Failed {
		n += k
	}
	return n
}

// machineCounts counts the machines of all pools by their states.
func machineCounts(s view.Snapshot) string {
	count := map[string]int{}
	for _, p := range s.Pools {
		for state, n := range p.Count {
			count[state] += n
		}
	}
	var parts []string
	for _, state := range machineStates() {
		if n := count[string(state)]; n > 0 {
			parts = append(parts, strconv.Itoa(n)+" "+string(state))
		}
		delete(count, string(state))
	}
	for _, state := range slices.Sorted(maps.Keys(count)) {
		if n := count[state]; n > 0 {
			parts = append(parts, strconv.Itoa(n)+" "+state)
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

// topAttention are the lines of what needs attention, at most so many.
func topAttention(notices []view.Notice, most int) []topLine {
	var lines []topLine
	for i, n := range notices {
		if rest := len(notices) - i; i == most-1 && rest > 1 {
			return append(lines, topLine{fmt.Sprintf("! %d more: a shows all", rest), topFaint})
		}
		lines = append(lines, noticeLine(n))
	}
	return lines
}

func noticeLine(n view.Notice) topLine {
	style := map[view.Level]topStyle{view.Error: topRed, view.Warning: topYellow}[n.Level]
	return topLine{"! " + n.Text, style}
}

// topTable lays rows out in columns of a width; 0: as wide as they need. The first line is the head. The last column takes what is
// left.
func topTable(columns []string, rows []topRow, width int) []topLine {
	cells := make([][]string, 0, len(rows)+1)
	cells = append(cells, columns)
	for _, r := range rows {
		shown := make([]string, 0, len(columns))
		for _, c := range r.cells {
			shown = append(shown, view.Printable(c))
		}
		cells = append(cells, shown)
	}
	widths := columnWidths(cells, width)
	lines := make([]topLine, 0, len(cells))
	for i, row := range cells {
		var b strings.Builder
		for k, c := range row {
			if k == len(row)-1 {
				b.WriteString(c) // the line is cut as a whole
				break
			}
			c = ansi.Truncate(c, widths[k], "…")
			b.WriteString(c + strings.Repeat(" ", widths[k]-ansi.StringWidth(c)+2))
		}
		line := topLine{text: strings.TrimRight(b.String(), " "), style: topFaint}
		if i > 0 {
			line.style = levelStyle(rows[i-1].level)
		}
		lines = append(lines, line)
	}
	return lines
}

// columnWidths returns the widths of the columns: what they need, or less where all together are too wide.
func columnWidths(cells [][]string, width int) []int {
	const least = 6
	widths := make([]int, len(cells[0]))
	for _, row := range cells {
		for k, c := range row {
			widths[k] = max(widths[k], ansi.StringWidth(c))
		}
	}
	if width == 0 {
		return widths
	}
	last := len(widths) - 1
	room := width - min(widths[last], width/3)
	for {
		sum := 0
		widest := 0
		for k, w := range widths[:last] {
			sum += w + 2
			if w > widths[widest] {
				widest = k
			}
		}
		if sum <= room || widths[widest] <= least {
			return widths
		}
		widths[widest]--
	}
}

// topWrapped breaks a text into lines of a width, at spaces where there are any.
func topWrapped(text string, width int) []topLine {
	var lines []topLine
	for part := range strings.SplitSeq(ansi.Wrap(view.Printable(text), max(10, width), ""), "\n") {
		lines = append(lines, topLine{text: part})
	}
	return lines
}

// topOnce is all that top shows, one after the other, for programs and for terminals that can do nothing. Width 0: lines are as long
// as they are.
func topOnce(s view.Snapshot, events []tranter.Event, width int) []string {
	now := s.At
	lines := topHead(s, now)
	for _, n := range view.Attention(s, now) {
		lines = append(lines, noticeLine(n))
	}
	for p := range topPanes {
		rows := topRows(p, s, events, now)
		lines = append(lines, topLine{}, topLine{text: fmt.Sprintf("%s: %d", p, len(rows))})
		if len(rows) > 0 {
			lines = append(lines, topTable(topColumns(p), rows, width)...)
		}
	}
	shown := make([]string, 0, len(lines))
	for _, l := range lines {
		l.style = topPlain
		shown = append(shown, l.fitted(cmp.Or(width, 1<<20)))
	}
	return shown
}
