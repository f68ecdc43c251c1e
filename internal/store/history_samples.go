package store

import (
	"context"
	"database/sql"
	"math"
	"time"
)

// Sample keeps how much there was of what at a time, by the minute: "machines.idle", "jobs.running". What is of one runner only has
// a slash and its short token behind the name: "jobs.running/abcdef12". A second one of the same minute replaces the first.
func (h *History) Sample(ctx context.Context, at time.Time, values map[string]float64) error {
	minute := millis(at) / minuteMillis * minuteMillis
	hour := minute / hourMillis * hourMillis
	err := h.write(ctx, func(tx *sql.Tx) error {
		for name, value := range values {
			if math.IsNaN(value) || math.IsInf(value, 0) {
				continue
			}
			id, err := seriesID(ctx, tx, name)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, "INSERT INTO samples VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", id, minute, value); err != nil {
				return err
			}
			// What a long time was like is read from the hours. They are summed up anew: a minute may be told twice.
			if _, err := tx.ExecContext(ctx, `
INSERT INTO hours SELECT ?1, ?2, count(*), sum(value), max(value) FROM samples WHERE series = ?1 AND at >= ?2 AND at < ?2 + ?3
ON CONFLICT DO UPDATE SET n = excluded.n, sum = excluded.sum, most = excluded.most`, id, hour, int64(hourMillis)); err != nil {
				return err
			}
		}
		return nil
	})
	return wrapIf("keep samples", err)
}

const (
	minuteMillis = 60_000
	hourMillis   = 3_600_000
)

func seriesID(ctx context.Context, tx *sql.Tx, name string) (int64, error) {
	if _, err := tx.ExecContext(ctx, "INSERT INTO series (name) VALUES (?) ON CONFLICT DO NOTHING", name); err != nil {
		return 0, err
	}
	var id int64
	err := tx.QueryRowContext(ctx, "SELECT id FROM series WHERE name = ?", name).Scan(&id)
	return id, err
}
