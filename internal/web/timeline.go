package web

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

const (
	laneHeight = 20  // of the bars of a machine, in pixels
	mostBars   = 240 // on a lane: more can't be told apart
	mostLanes  = 60  // on a page
)

// scale maps times to places on an axis from 0 to 100 percent.
type scale struct{ from, to time.Time }

func (s scale) at(t time.Time) float64 {
	width := s.to.Sub(s.from)
	if width <= 0 {
		return 0
	}
	return min(100, max(0, 100*float64(t.Sub(s.from))/float64(width)))
}

// percent renders a place or a length on an axis.
func percent(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) + "%" }

// bar is a part of a lane: a state, or a job.
type bar struct {
	X, Width string // in percent
	Y, H     int    // in pixels
	Class    string // colour: t- and a state
	Text     string // what it is, for hover, focus and screen readers
	Link     string // of a job

	from, to float64
}

// tick is a label on the time axis.
type tick struct {
	X     string
	Label string
	Edge  string // start or end: the label may not stick out there
}

// lane is what is drawn of a machine.
type lane struct {
	Name, Link, Note string
	Bars             []bar
	Rows             []laneRow // the same as a table
}

// laneRow is a span in words.
type laneRow struct {
	What, Link, Reason, Took string
	From, To                 string
	Tone                     string
}

// ticks returns labels at round times, at most eight or so.
func ticks(s scale) []tick {
	width := s.to.Sub(s.from)
	steps := []time.Duration{
		time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
		time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour,
	}
	step := steps[len(steps)-1]
	for _, d := range steps {
		if width <= 8*d {
			step = d
			break
		}
	}
	layout := "15:04"
	switch {
	case step >= 24*time.Hour:
		layout = "Mon 2 Jan"
	case step < time.Minute:
		layout = time.TimeOnly
	case width > 24*time.Hour:
		layout = "Mon 15:04"
	}
	_, offset := s.from.Zone()
	shift := time.Duration(offset) * time.Second
	var out []tick
	for t := s.from.Add(shift).Truncate(step).Add(-shift); !t.After(s.to) && len(out) < 32; t = t.Add(step) {
		at := s.at(t)
		if t.Before(s.from) || at < 2 || at > 97 {
			continue
		}
		out = append(out, tick{X: percent(at), Label: t.Format(layout)})
	}
	return out
}

// stateClass is the colour of a machine's state on the timeline.
func stateClass(state string) string {
	switch state {
	case "wanted", "booting", "idle", "stopped", "leased", "draining", "removing":
		return "t-" + state
	default:
		return "t-other"
	}
}

// legend are the colours with their words, in the order of a machine's life.
func legend() []laneRow {
	return []laneRow{
		{Tone: "t-wanted", What: "wanted"},
		{Tone: "t-booting", What: "booting"},
		{Tone: "t-idle", What: "idle"},
		{Tone: "t-job", What: "job"},
		{Tone: "t-draining", What: "draining"},
		{Tone: "t-stopped", What: "stopped"},
		{Tone: "t-removing", What: "removing"},
	}
}

// drawLane works out what is to be drawn of a machine between two times. Names are those of jobs that are known, by key.
func drawLane(l view.Lane, s scale, now time.Time, names labels) lane {
	out := lane{Name: l.Machine, Link: "/machines/" + url.PathEscape(l.Machine), Note: cmp.Or(l.Set, l.Pool)}
	var jobs []view.Span
	for _, span := range l.Spans {
		end := until(span.End, cmp.Or(l.Gone, now))
		if !end.After(s.from) || span.Start.After(s.to) {
			continue
		}
		if span.Job != "" {
			jobs = append(jobs, span)
		} else {
			out.Bars = appendBar(out.Bars, stateBar(span, end, s, now))
		}
		out.Rows = append(out.Rows, spanRow(span, end, now, names))
	}
	out.Bars = append(out.Bars, jobBars(jobs, cmp.Or(l.Gone, now), s, names)...)
	if len(out.Bars) > mostBars {
		out.Bars = out.Bars[len(out.Bars)-mostBars:]
	}
	return out
}

func until(end, last time.Time) time.Time {
	if end.IsZero() {
		return last
	}
	return end
}

func stateBar(span view.Span, end time.Time, s scale, now time.Time) bar {
	b := bar{from: s.at(span.Start), to: s.at(end), Y: 0, H: laneHeight, Class: stateClass(span.State)}
	b.Text = fmt.Sprintf("%s for %s, since %s", view.StateWord(span.State), view.Short(end.Sub(span.Start)), view.Clock(span.Start, now))
	if span.Reason != "" {
		b.Text += ": " + view.Printable(span.Reason)
	}
	return b
}

// appendBar adds a bar, or makes the last one longer if nobody could tell the two apart.
func appendBar(bars []bar, b bar) []bar {
	const least = 0.08 // percent: about a pixel
	if n := len(bars); n > 0 && bars[n-1].Class == b.Class && bars[n-1].Link == "" && b.from-bars[n-1].to < least && b.to-b.from < least {
		bars[n-1].to = max(bars[n-1].to, b.to)
		return bars
	}
	return append(bars, b)
}

// labels are what is known of jobs, by their keys.
type labels map[string]*tranter.JobLabel

// labelsOf are those of the jobs that the manager has.
func labelsOf(now view.Snapshot) labels {
	names := make(labels, len(now.Jobs))
	for i := range now.Jobs {
		names[now.Jobs[i].Key] = &now.Jobs[i].Job
	}
	return names
}

// jobBars puts jobs that ran at the same time below each other.
func jobBars(jobs []view.Span, last time.Time, s scale, names labels) []bar {
	slices.SortStableFunc(jobs, func(a, b view.Span) int { return a.Start.Compare(b.Start) })
	var ends []time.Time // of the last job of each row
	rows := make([]int, len(jobs))
	for i, j := range jobs {
		row := slices.IndexFunc(ends, func(end time.Time) bool { return !end.After(j.Start) })
		if row < 0 {
			row = len(ends)
			ends = append(ends, time.Time{})
		}
		ends[row], rows[i] = until(j.End, last), row
	}
	height := max(2, (laneHeight-4)/max(1, len(ends)))
	var out []bar
	for i, j := range jobs {
		end := until(j.End, last)
		text := fmt.Sprintf("%s for %s, since %s", jobWord(j.Job, names), view.Short(end.Sub(j.Start)), j.Start.Format(time.TimeOnly))
		out = append(out, bar{
			from: s.at(j.Start), to: s.at(end), Y: min(laneHeight-2, 2+rows[i]*height), H: max(1, height-min(1, len(ends)-1)),
			Class: "t-job", Text: text, Link: jobLink(j.Job),
		})
	}
	return out
}

func jobWord(key string, names labels) string {
	if l := names[key]; l != nil {
		return fmt.Sprintf("job %s #%d", l.Name, l.ID)
	}
	return "job " + jobNumber(key)
}

func spanRow(span view.Span, end, now time.Time, names labels) laneRow {
	r := laneRow{
		What: view.StateWord(span.State), Tone: stateClass(span.State), Reason: view.Printable(span.Reason), Took: view.Short(end.Sub(span.Start)),
		From: view.Clock(span.Start, now), To: "now",
	}
	if span.Job != "" {
		r.What, r.Link, r.Tone = jobWord(span.Job, names), jobLink(span.Job), "t-job"
	}
	if !span.End.IsZero() {
		r.To = view.Clock(span.End, now)
	}
	return r
}

// finish gives bars their place on the axis; each can be seen.
func (l *lane) finish() {
	for i := range l.Bars {
		b := &l.Bars[i]
		width := max(b.to-b.from, 0.12)
		b.X, b.Width = percent(min(b.from, 100-width)), percent(width)
	}
}
