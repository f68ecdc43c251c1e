package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Paused returns the runners that a person has paused, by short token: by whom and since when.
func (h *History) Paused(ctx context.Context) (map[string]string, error) {
	rows, err := h.read.QueryContext(ctx, "SELECT runner, by, since FROM paused")
	if err != nil {
		return nil, fmt.Errorf("read which runners are paused: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	out := map[string]string{}
	for rows.Next() {
		var runner, by string
		var since int64
		if err := rows.Scan(&runner, &by, &since); err != nil {
			return nil, fmt.Errorf("read which runners are paused: %w", err)
		}
		out[runner] = PausedText(by, timeOf(since))
	}
	return out, wrapIf("read which runners are paused", rows.Err())
}

// PausedText says by whom and since when a runner is paused.
func PausedText(by string, since time.Time) string {
	text := "since " + since.UTC().Format("2006-01-02 15:04 MST")
	if by != "" {
		text += " by " + by
	}
	return text
}

// SetPaused keeps that a person has paused a runner, or no longer does.
func (h *History) SetPaused(ctx context.Context, runner, by string, paused bool) error {
	err := h.write(ctx, func(tx *sql.Tx) (err error) {
		if paused {
			_, err = tx.ExecContext(ctx, "INSERT INTO paused VALUES (?, ?, ?) ON CONFLICT DO NOTHING", runner, by, time.Now().UnixMilli())
		} else {
			_, err = tx.ExecContext(ctx, "DELETE FROM paused WHERE runner = ?", runner)
		}
		return err
	})
	return wrapIf("keep whether runner "+runner+" is paused", err)
}
