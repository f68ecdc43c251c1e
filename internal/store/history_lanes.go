package store

import (
	"bytes"
	"context"
	"database/sql"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/view"
)

// present selects the lives that were there in a time. Of the two indexes that can tell, it takes the one that has less to pass over: those that were
// made before its end, or those that went after its beginning.
func present(from, to time.Time) *filter {
	f := &filter{}
	end := int64(open)
	if !to.IsZero() {
		end = millis(to)
	}
	f.add("gone > ? AND made < ?", millis(from), end)
	return f
}

// Lanes returns the lives of machines that were there in a time, the latest made first; of their spans those that touch it.
func (h *History) Lanes(ctx context.Context, q view.LaneQuery) ([]view.Lane, error) {
	f := present(q.From, q.To)
	if q.Pool != "" {
		f.add("pool = ?", q.Pool)
	}
	if q.Machine != "" {
		f.add("machine = ?", q.Machine)
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 200
	}
	from, to := millis(q.From), f.args[1].(int64)
	var out []view.Lane
	err := each(ctx, h.read, `
SELECT pool, machine, set_name, made, gone, `+statesOf+`, `+leasesOf+`
FROM lives l LEFT JOIN past_spans p ON p.life = l.id WHERE `+f.text()+` ORDER BY made DESC, l.id DESC LIMIT ?`, append(f.args, limit), func(rows *sql.Rows) error {
		var made, gone int64
		var lane view.Lane
		var states, leases sql.RawBytes
		if err := rows.Scan(&lane.Pool, &lane.Machine, &lane.Set, &made, &gone, &states, &leases); err != nil {
			return err
		}
		lane.Made, lane.Gone = timeOf(made), endOf(gone)
		lane.Spans = make([]view.Span, 0, bytes.Count(states, []byte{endOfSpan})+bytes.Count(leases, []byte{endOfSpan})+2)
		eachSpan(string(states), from, to, func(s view.Span) {
			s.State, s.Job = s.Job, ""
			lane.Spans = append(lane.Spans, s)
		})
		eachSpan(string(leases), from, to, func(s view.Span) { lane.Spans = append(lane.Spans, s) })
		out = append(out, lane)
		return nil
	})
	return out, wrapIf("read the machines of the past", err)
}

// The spans of a life in one text, in the order of time: start, end, state or job, reason, with endOfField and endOfSpan between them.
const (
	packedStates = "(SELECT group_concat(concat_ws(char(31), start, stop, state, replace(replace(reason, char(31), ' '), char(30), ' ')), char(30) ORDER BY start, stop) FROM spans s WHERE s.life = l.id AND job = '')"
	packedLeases = "(SELECT group_concat(concat_ws(char(31), start, stop, replace(replace(job, char(31), ' '), char(30), ' '), ''), char(30) ORDER BY start, stop) FROM spans s WHERE s.life = l.id AND job > '')"
	statesOf     = "coalesce(p.states, " + packedStates + ", '')"
	leasesOf     = "coalesce(p.leases, " + packedLeases + ", '')"
	endOfField   = "\x1f"
	endOfSpan    = '\x1e'
)

// eachSpan reads a text of spans, those that touch a time; what is in Job may be a state. What is damaged is left out.
func eachSpan(text string, from, to int64, do func(view.Span)) {
	for text != "" {
		var row string
		row, text, _ = strings.Cut(text, string(endOfSpan))
		first, row, _ := strings.Cut(row, endOfField)
		second, row, _ := strings.Cut(row, endOfField)
		what, reason, ok := strings.Cut(row, endOfField)
		start, err := strconv.ParseInt(first, 10, 64)
		stop, err2 := strconv.ParseInt(second, 10, 64)
		if ok && err == nil && err2 == nil && stop >= from && start < to {
			do(view.Span{Job: what, Reason: reason, Start: timeOf(start), End: endOf(stop)})
		}
	}
}

// endOf is the end of what may last.
func endOf(ms int64) time.Time {
	if ms == open {
		return time.Time{}
	}
	return timeOf(ms)
}

// Lives returns what is to be paid for machines that were there in a time, with what is paid for after their end, with all their
// leases. A zero time is no bound.
func (h *History) Lives(ctx context.Context, from, to time.Time) ([]cost.Life, error) {
	return readLives(ctx, h.read, from, to)
}

// LivesOf returns the lives of the machines that a job has held.
func (h *History) LivesOf(ctx context.Context, job string) ([]cost.Life, error) {
	return lives(ctx, h.read, "l.id IN (SELECT life FROM spans WHERE job = ? AND job <> '')", job)
}

func readLives(ctx context.Context, db *sql.DB, from, to time.Time) ([]cost.Life, error) {
	f := present(from.Add(-paidBehind), to)
	return lives(ctx, db, f.text(), f.args...)
}

// paidBehind is how long after its end a machine may have to be paid for, at most: minimum and step.
const paidBehind = 48 * time.Hour

func lives(ctx context.Context, db *sql.DB, which string, args ...any) ([]cost.Life, error) {
	var out []cost.Life
	err := each(ctx, db, `
SELECT pool, runner, machine, set_name, per_hour, minimum, step, made, gone, `+leasesOf+`
FROM lives l LEFT JOIN past_spans p ON p.life = l.id WHERE `+which+` ORDER BY made, l.id`, args, func(rows *sql.Rows) error {
		var minimum, step, made, gone int64
		var l cost.Life
		var holds sql.RawBytes
		if err := rows.Scan(&l.Pool, &l.Runner, &l.Machine, &l.Set, &l.Rate.PerHour, &minimum, &step, &made, &gone, &holds); err != nil {
			return err
		}
		l.Rate.Minimum, l.Rate.Step = time.Duration(minimum)*time.Millisecond, time.Duration(step)*time.Millisecond
		l.Made, l.Gone = timeOf(made), endOf(gone)
		if len(holds) > 0 {
			l.Holds = make([]cost.Hold, 0, bytes.Count(holds, []byte{endOfSpan})+1)
		}
		eachSpan(string(holds), 0, open, func(s view.Span) { l.Holds = append(l.Holds, cost.Hold{Job: s.Job, Start: s.Start, End: s.End}) })
		out = append(out, l)
		return nil
	})
	return out, wrapIf("read the lives of machines", err)
}
