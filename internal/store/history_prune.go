package store

import (
	"context"
	"database/sql"
	"strconv"
	"time"
)

// How much is forgotten at a time, so that nobody waits long for it.
const (
	pruneJobs    = 500
	pruneEvents  = 2000
	pruneLives   = 200
	pruneSamples = 10_000
	prunePages   = 500
)

// keepFine is how long samples are kept by the minute; those of hours are kept as long as jobs.
const keepFine = 8 * 24 * time.Hour

// Prune forgets some of what is older than jobs (and machines, and how many there were) and events may be; 0: for ever. It is to be called
// time and again, as once a minute.
func (h *History) Prune(ctx context.Context, now time.Time, jobs, events time.Duration) error {
	var steps []func(*sql.Tx) error
	del := func(text string, args ...any) {
		steps = append(steps, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, text, args...)
			return err
		})
	}
	if jobs > 0 {
		before := now.Add(-jobs)
		steps = append(steps, func(tx *sql.Tx) error { return forgetJobs(ctx, tx, before) })
		del("DELETE FROM waits WHERE rowid IN (SELECT rowid FROM waits WHERE placed < ? LIMIT ?)", millis(before), pruneJobs)
		steps = append(steps, func(tx *sql.Tx) error { return forgetLives(ctx, tx, before) })
		del("DELETE FROM hours WHERE (series, at) IN (SELECT series, at FROM series s JOIN hours h ON h.series = s.id AND h.at < ? LIMIT ?)", millis(before), pruneSamples)
	}
	if events > 0 {
		steps = append(steps, func(tx *sql.Tx) error { return forgetEvents(ctx, tx, now.Add(-events)) })
	}
	minutes := keepFine
	if jobs > 0 {
		minutes = min(minutes, jobs)
	}
	// Whole hours only: the sum of an hour is made of what is there.
	del("DELETE FROM samples WHERE (series, at) IN (SELECT m.series, m.at FROM series s JOIN samples m ON m.series = s.id AND m.at < ? LIMIT ?)", millis(now.Add(-minutes))/hourMillis*hourMillis, pruneSamples)
	for _, step := range steps {
		if err := h.write(ctx, step); err != nil {
			return wrapIf("forget what is old", err)
		}
	}
	_, err := h.db.ExecContext(ctx, "PRAGMA incremental_vacuum("+strconv.Itoa(prunePages)+")")
	return wrapIf("give room back", err)
}

func forgetJobs(ctx context.Context, tx *sql.Tx, before time.Time) error {
	var last sql.NullInt64
	if err := tx.QueryRowContext(ctx, "SELECT max(id) FROM (SELECT id FROM jobs WHERE id < ? ORDER BY id LIMIT ?)", firstID(before), pruneJobs).Scan(&last); err != nil || !last.Valid {
		return err
	}
	for _, text := range []string{
		"DELETE FROM job_search WHERE rowid IN (SELECT id FROM jobs WHERE id <= ?)",
		"DELETE FROM records WHERE id <= ?",
		"DELETE FROM jobs WHERE id <= ?",
	} {
		if _, err := tx.ExecContext(ctx, text, last.Int64); err != nil {
			return err
		}
	}
	return nil
}

func forgetEvents(ctx context.Context, tx *sql.Tx, before time.Time) error {
	const old = "(SELECT id FROM events WHERE time < ? ORDER BY time, id LIMIT ?)"
	for _, text := range []string{"DELETE FROM event_search WHERE rowid IN " + old, "DELETE FROM events WHERE id IN " + old} {
		if _, err := tx.ExecContext(ctx, text, millis(before), pruneEvents); err != nil {
			return err
		}
	}
	return nil
}

func forgetLives(ctx context.Context, tx *sql.Tx, before time.Time) error {
	const old = "(SELECT id FROM lives WHERE gone < ? ORDER BY gone, id LIMIT ?)"
	for _, text := range []string{"DELETE FROM spans WHERE life IN " + old, "DELETE FROM past_spans WHERE life IN " + old, "DELETE FROM lives WHERE id IN " + old} {
		if _, err := tx.ExecContext(ctx, text, millis(before), pruneLives); err != nil {
			return err
		}
	}
	return nil
}
