package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/view"
)

// grid is the time of a chart, in equal steps.
type grid struct {
	from, step int64 // milliseconds
	n          int
}

// newGrid divides a time into at most so many steps of a length that people count in. They begin where such a length begins,
// so that a chart that moves on shows the same steps as before.
func newGrid(from, to time.Time, steps int) grid {
	if steps <= 0 {
		steps = 200
	}
	a, b := millis(from), max(millis(from)+1, millis(to))
	lengths := []int64{1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1440, 2880, 10080}
	at := func(step int64) grid {
		begin := a / step * step
		return grid{begin, step, int((b - begin + step - 1) / step)}
	}
	for _, l := range lengths {
		if g := at(l * minuteMillis); g.n <= steps {
			return g
		}
	}
	g := at(((b-a)/int64(steps)/(24*hourMillis) + 1) * 24 * hourMillis)
	for g.n > steps {
		g = at(g.step * 2)
	}
	return g
}

func (g grid) end() int64 { return g.from + g.step*int64(g.n) }

func (g grid) chart(unit string, names ...string) view.Chart {
	c := view.Chart{From: timeOf(g.from), Step: time.Duration(g.step) * time.Millisecond, Unit: unit, Series: []view.Series{}}
	for _, name := range names {
		c.Series = append(c.Series, view.Series{Name: name, Values: make([]*float64, g.n)})
	}
	return c
}

// Chart answers a query for a chart. One that asks for none of view.Charts is an error that wraps tranter.ErrNotFound.
func (h *History) Chart(ctx context.Context, q view.ChartQuery, prices cost.Table) (c view.Chart, err error) {
	g := newGrid(q.From, q.To, q.Steps)
	switch q.Name {
	case "machines":
		c, err = machineChart(ctx, h.read, g, q.Runner)
	case "load":
		c, err = loadChart(ctx, h.read, g, q.Runner)
	case "waits":
		c, err = waitChart(ctx, h.read, g, q.Runner)
	case "jobs":
		c, err = jobChart(ctx, h.read, g, q.Runner)
	case "cost":
		c, err = costChart(ctx, h.read, g, q, prices)
	default:
		return c, fmt.Errorf("there is no chart %q: %w", q.Name, tranter.ErrNotFound)
	}
	return c, wrapIf("make the chart "+q.Name, err)
}

// machineChart is how many machines there were on average, by state.
func machineChart(ctx context.Context, db *sql.DB, g grid, runner string) (view.Chart, error) {
	all, err := readSamples(ctx, db, g, "machines.", runner)
	if err != nil {
		return view.Chart{}, err
	}
	order := []fleet.State{fleet.Wanted, fleet.Booting, fleet.Idle, fleet.Stopped, fleet.Leased, fleet.Draining, fleet.Removing}
	place := func(name string) int {
		if i := slices.Index(order, fleet.State(name)); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortFunc(all, func(a, b sampled) int {
		return cmp.Or(cmp.Compare(place(a.name), place(b.name)), strings.Compare(a.name, b.name))
	})
	c := g.chart("machines")
	for _, s := range all {
		c.Series = append(c.Series, view.Series{Name: s.name, Values: averages(s, all)})
	}
	return c, nil
}

// loadChart is how many jobs ran and waited on average, and how many waited at most.
func loadChart(ctx context.Context, db *sql.DB, g grid, runner string) (view.Chart, error) {
	all, err := readSamples(ctx, db, g, "jobs.", runner)
	if err != nil {
		return view.Chart{}, err
	}
	c := g.chart("jobs", "running", "waiting", "most that waited")
	for _, s := range all {
		switch s.name {
		case "running":
			c.Series[0].Values = averages(s, all)
		case "waiting":
			c.Series[1].Values = averages(s, all)
			for i, n := range s.n {
				if n > 0 {
					c.Series[2].Values[i] = &s.most[i]
				}
			}
		}
	}
	return c, nil
}

// sampled are the samples of a series, step by step.
type sampled struct {
	name      string
	n         []int64 // samples
	sum, most []float64
}

// averages are those of a series. What was sampled at a time for others of its kind, but not for it, was 0.
func averages(s sampled, all []sampled) []*float64 {
	out := make([]*float64, len(s.n))
	for i := range out {
		var n int64
		for _, other := range all {
			n = max(n, other.n[i])
		}
		if n > 0 {
			v := s.sum[i] / float64(n)
			out[i] = &v
		}
	}
	return out
}

// readSamples reads the series with a prefix, of one runner or of all together. Steps of whole hours are read from the sums of hours.
func readSamples(ctx context.Context, db *sql.DB, g grid, prefix, runner string) ([]sampled, error) {
	names, err := readSeries(ctx, db, prefix, runner)
	if err != nil {
		return nil, err
	}
	text := "SELECT (at - ?2) / ?3, count(*), sum(value), max(value) FROM samples WHERE series = ?1 AND at >= ?2 AND at < ?4 GROUP BY 1"
	if g.step%hourMillis == 0 {
		text = "SELECT (at - ?2) / ?3, sum(n), sum(sum), max(most) FROM hours WHERE series = ?1 AND at >= ?2 AND at < ?4 GROUP BY 1"
	}
	var out []sampled
	for id, name := range names {
		s := sampled{name, make([]int64, g.n), make([]float64, g.n), make([]float64, g.n)}
		err := each(ctx, db, text, []any{id, g.from, g.step, g.end()}, func(rows *sql.Rows) error {
			var i, n int64
			var sum, most float64
			if err := rows.Scan(&i, &n, &sum, &most); err != nil {
				return err
			}
			s.n[i], s.sum[i], s.most[i] = n, sum, most
			return nil
		})
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// readSeries returns the names behind a prefix by the number of the series.
func readSeries(ctx context.Context, db *sql.DB, prefix, runner string) (map[int64]string, error) {
	out := map[int64]string{}
	err := each(ctx, db, "SELECT id, name FROM series WHERE name >= ? AND name < ?", []any{prefix, prefix + "\U0010ffff"}, func(rows *sql.Rows) error {
		var id int64
		var name string
		if err := rows.Scan(&id, &name); err != nil {
			return err
		}
		if name, of, _ := strings.Cut(strings.TrimPrefix(name, prefix), "/"); of == runner {
			out[id] = name
		}
		return nil
	})
	return out, err
}

// each passes each row of an answer on.
func each(ctx context.Context, db *sql.DB, text string, args []any, row func(*sql.Rows) error) error {
	rows, err := db.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// waitChart is how long half of the jobs, and 95 of 100, have waited for their places at most, in seconds: exactly, by the nearest rank.
func waitChart(ctx context.Context, db *sql.DB, g grid, runner string) (view.Chart, error) {
	c := g.chart("seconds", "p50", "p95")
	for i := range g.n {
		from := g.from + int64(i)*g.step
		waits, err := waitsIn(ctx, db, from, from+g.step, runner)
		if err != nil {
			return c, err
		}
		if len(waits) > 0 {
			p50, p95 := rank(waits, 50)/1000, rank(waits, 95)/1000
			c.Series[0].Values[i], c.Series[1].Values[i] = &p50, &p95
		}
	}
	return c, nil
}

// rank is that of sorted values below which so many of a hundred are, or which they are.
func rank(sorted []float64, percent int) float64 { return sorted[(len(sorted)*percent+99)/100-1] }

// waitsIn returns how long the jobs that got their places in a time have waited, in milliseconds, sorted. SQLite puts the numbers into
// one text: rows of their own take most of the time.
func waitsIn(ctx context.Context, db *sql.DB, from, to int64, runner string) ([]float64, error) {
	text, args := "SELECT group_concat(wait) FROM waits INDEXED BY waits_placed WHERE placed >= ? AND placed < ?", []any{from, to}
	if runner != "" {
		text += " AND runner = ?"
		args = append(args, runner)
	}
	var all sql.NullString
	if err := db.QueryRowContext(ctx, text, args...).Scan(&all); err != nil || all.String == "" {
		return nil, err
	}
	out := make([]float64, 0, strings.Count(all.String, ",")+1)
	for number := range strings.SplitSeq(all.String, ",") {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, err
		}
		out = append(out, float64(n))
	}
	slices.Sort(out)
	return out, nil
}

// jobChart is how many jobs ended, by the hour and how they ended.
func jobChart(ctx context.Context, db *sql.DB, g grid, runner string) (view.Chart, error) {
	c := g.chart("jobs", "succeeded", "failed", "failed by the system", "canceled")
	text := "SELECT (ended - ?) / ?, state, reason, count(*) FROM jobs INDEXED BY jobs_ended WHERE ended >= ? AND ended < ?"
	args := []any{g.from, g.step, g.from, g.end()}
	if runner != "" {
		text += " AND runner = ?"
		args = append(args, runner)
	}
	counts := make([][4]float64, g.n)
	err := each(ctx, db, text+" GROUP BY 1, 2, 3", args, func(rows *sql.Rows) error {
		var i int
		var state, reason string
		var n float64
		if err := rows.Scan(&i, &state, &reason, &n); err != nil {
			return err
		}
		counts[i][outcome(state, reason)] += n
		return nil
	})
	if err != nil {
		return c, err
	}
	for i := range counts {
		for k := range counts[i] {
			v := counts[i][k] * hourMillis / float64(g.step)
			c.Series[k].Values[i] = &v
		}
	}
	return c, nil
}

// outcome is the series of a job in jobChart.
func outcome(state, reason string) int {
	switch {
	case tranter.JobState(state) == tranter.JobSuccess:
		return 0
	case tranter.FailureReason(reason) == tranter.JobCanceled:
		return 3
	}
	switch tranter.FailureReason(reason) {
	case "", tranter.ScriptFailure, tranter.JobExecutionTimeout:
		return 1
	default:
		return 2
	}
}

// costChart is what was paid: for machines with jobs, for idle ones, and for batch jobs.
func costChart(ctx context.Context, db *sql.DB, g grid, q view.ChartQuery, prices cost.Table) (view.Chart, error) {
	c := g.chart(prices.Currency, "jobs", "idle", "batch jobs")
	of := cost.Of{}
	var err error
	if of.Lives, err = readLives(ctx, db, timeOf(g.from), timeOf(g.end())); err != nil {
		return c, err
	}
	if of.Jobs, err = billed(ctx, db, "j.bill <> '' AND j.id >= ? AND j.id < ?", firstID(timeOf(g.from)), firstID(timeOf(g.end()).Add(longestJob))); err != nil {
		return c, err
	}
	if q.Runner != "" {
		of.Lives = slices.DeleteFunc(of.Lives, func(l cost.Life) bool { return l.Pool != q.Runner })
		of.Jobs = slices.DeleteFunc(of.Jobs, func(j tranter.JobHistory) bool { return j.Runner != q.Runner })
	}
	s := cost.InSteps(of, prices, cost.Grid{From: timeOf(g.from), Step: time.Duration(g.step) * time.Millisecond, N: g.n}, q.To)
	for k, values := range [][]float64{s.Busy, s.Idle, s.Batch} {
		for i := range values {
			c.Series[k].Values[i] = &values[i]
		}
	}
	return c, nil
}
