package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/tranter-ci/tranter/internal/view"
)

const day = 24 * time.Hour

// Recent says what the last hours were like, but for the cost.
func (h *History) Recent(ctx context.Context, now time.Time) (view.Recent, error) {
	r := view.Recent{Failed: map[string]int{}}
	err := each(ctx, h.read, "SELECT state, reason, count(*) FROM jobs INDEXED BY jobs_ended WHERE ended >= ? AND ended <= ? GROUP BY 1, 2",
		[]any{millis(now.Add(-day)), millis(now)}, func(rows *sql.Rows) error {
			var state, reason string
			var n int
			if err := rows.Scan(&state, &reason, &n); err != nil {
				return err
			}
			r.Ended += n
			if state != "success" {
				r.Failed[reason] += n
			}
			return nil
		})
	if err != nil {
		return r, wrapIf("read what the last hours were like", err)
	}
	for _, back := range []time.Duration{time.Hour, day} {
		if err = recentWaits(ctx, h.read, &r, now, back); err != nil || r.Waits > 0 {
			break
		}
	}
	return r, wrapIf("read how long jobs have waited", err)
}

func recentWaits(ctx context.Context, db *sql.DB, r *view.Recent, now time.Time, back time.Duration) error {
	waits, err := waitsIn(ctx, db, millis(now.Add(-back)), millis(now)+1, "")
	if err != nil || len(waits) == 0 {
		return err
	}
	r.Waits = len(waits)
	r.WaitP50, r.WaitP95 = time.Duration(rank(waits, 50))*time.Millisecond, time.Duration(rank(waits, 95))*time.Millisecond
	return nil
}
