package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// Record keeps events, all or none, in their order. Of those that tell of a job which got its place, how long that took is kept too.
func (h *History) Record(ctx context.Context, events []tranter.Event) error {
	if len(events) == 0 {
		return nil
	}
	err := h.write(ctx, func(tx *sql.Tx) error {
		insert, err := tx.PrepareContext(ctx, "INSERT INTO events (time, kind, family, level, runner, job, machine, batch, text, took) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
		if err != nil {
			return err
		}
		defer insert.Close() //nolint:errcheck // it is of the transaction
		for i := range events {
			e := &events[i]
			r, err := insert.ExecContext(ctx, millis(e.Time), string(e.Kind), family(string(e.Kind)), string(e.Level), e.Runner, e.Job, e.Machine, e.Batch, e.Text, int64(e.Took))
			if err != nil {
				return err
			}
			if err := searchable(ctx, tx, r, e); err != nil {
				return err
			}
			if e.Kind == tranter.JobPlaced && e.Past != nil {
				if err := keepWait(ctx, tx, e.Past); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return wrapIf("keep events", err)
}

// searchable makes an event be found by its words.
func searchable(ctx context.Context, tx *sql.Tx, inserted sql.Result, e *tranter.Event) error {
	id, err := inserted.LastInsertId()
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO event_search (rowid, text) VALUES (?, ?)", id, strings.ToLower(strings.Join([]string{e.Text, e.Machine, e.Job, e.Batch, string(e.Kind)}, " ")))
	return err
}

// family is what kinds of events begin with that belong together: "machine_", "job_".
func family(kind string) string {
	head, _, found := strings.Cut(kind, "_")
	if !found {
		return kind
	}
	return head + "_"
}

// Events returns events, the latest first.
func (h *History) Events(ctx context.Context, q view.EventQuery) ([]tranter.Event, error) {
	f, err := eventFilter(ctx, h.read, q)
	if err != nil || f == nil {
		return nil, wrapIf("read the events", err)
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	var out []tranter.Event
	err = each(ctx, h.read, "SELECT e.id, time, kind, level, runner, job, machine, batch, e.text, took FROM "+f.from+" WHERE "+f.text()+" ORDER BY "+f.order+" LIMIT ?", append(f.args, limit), func(rows *sql.Rows) error {
		var e tranter.Event
		var at, took int64
		if err := rows.Scan(&e.ID, &at, &e.Kind, &e.Level, &e.Runner, &e.Job, &e.Machine, &e.Batch, &e.Text, &took); err != nil {
			return err
		}
		e.Time, e.Took = timeOf(at), time.Duration(took)
		out = append(out, e)
		return nil
	})
	return out, wrapIf("read the events", err)
}

// eventFilter makes the filter of a question about events; nil: there is no answer. The order is that of time, or where words are searched
// for, that in which events were kept.
func eventFilter(ctx context.Context, db *sql.DB, q view.EventQuery) (*filter, error) {
	f := &filter{from: "events e", order: "time DESC, e.id DESC"}
	text := searched(q.Text)
	indexed := len([]rune(text)) >= 3
	if indexed {
		f.from, f.order, f.led = "event_search s CROSS JOIN events e ON e.id = s.rowid", "s.rowid DESC", true
		f.add("event_search MATCH ?", trigrams(text))
	}
	if text != "" {
		f.add("instr(lower(e.text || ' ' || machine || ' ' || job || ' ' || batch || ' ' || kind), ?) > 0", text)
	}
	if q.Before > 0 {
		var at int64
		err := db.QueryRowContext(ctx, "SELECT time FROM events WHERE id = ?", q.Before).Scan(&at)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return nil, nil // it is forgotten, and all that are older
		case err != nil:
			return nil, err
		case indexed:
			f.add("s.rowid < ?", q.Before)
		default:
			f.add("(time, e.id) < (?, ?)", at, q.Before)
		}
	}
	f.addEvents(q)
	return f, nil
}

// addEvents selects events by what they are about.
func (f *filter) addEvents(q view.EventQuery) {
	if !q.From.IsZero() {
		f.add("time >= ?", millis(q.From))
	}
	if !q.To.IsZero() {
		f.add("time < ?", millis(q.To))
	}
	f.is("job", q.Job)
	f.is("machine", q.Machine)
	f.is("batch", q.Batch)
	switch {
	case q.Kind == "":
	case strings.HasSuffix(q.Kind, "_") && family(q.Kind) == q.Kind:
		f.is("family", q.Kind)
	default: // a kind, or the beginning of some
		f.add("+kind >= ? AND +kind < ?", q.Kind, q.Kind+"\U0010ffff")
	}
	f.is("level", string(q.Level))
	f.is("runner", q.Runner)
}
