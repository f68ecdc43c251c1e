package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tranter-ci/tranter/internal/allocation"
)

// Allocations are the books of all classes of batch jobs, and those that have ended. They hold no secrets.
type Allocations struct {
	db                                 *sql.DB
	put, past, forget, recent, oldRows *sql.Stmt
	sincePrune                         atomic.Int64
}

// allocationTables is the migration that adds them. What has ended is kept by the order in which it was forgotten.
const allocationTables = `
CREATE TABLE allocations (class TEXT NOT NULL, name TEXT NOT NULL, allocation TEXT NOT NULL, PRIMARY KEY (class, name)) STRICT, WITHOUT ROWID;
CREATE TABLE past_allocations (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, class TEXT NOT NULL, allocation TEXT NOT NULL) STRICT;
CREATE INDEX past_allocations_class ON past_allocations (class, id)`

// Allocations returns the books of batch jobs.
func (s *Store) Allocations() *Allocations { return &s.allocations }

func (a *Allocations) prepare(ctx context.Context, db *sql.DB) error {
	a.db = db
	a.sincePrune.Store(pruneEvery) // the first Save that forgets one looks
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&a.put, "INSERT INTO allocations (class, name, allocation) VALUES (?, ?, ?) ON CONFLICT (class, name) DO UPDATE SET allocation = excluded.allocation"},
		{&a.past, "INSERT INTO past_allocations (at, class, allocation) SELECT ?, class, allocation FROM allocations WHERE class = ? AND name = ?"},
		{&a.forget, "DELETE FROM allocations WHERE class = ? AND name = ?"},
		{&a.recent, "SELECT allocation FROM past_allocations WHERE class = ? ORDER BY id DESC LIMIT ?"},
		{&a.oldRows, `
DELETE FROM past_allocations WHERE id < min(
  (SELECT min(id) FROM past_allocations) + ?3,
  max(
    (SELECT max(id) FROM past_allocations) - ?2 + 1,
    coalesce((SELECT id FROM past_allocations WHERE at >= ?1 ORDER BY id LIMIT 1), (SELECT max(id) FROM past_allocations) + 1)))`},
	} {
		var err error
		if *p.stmt, err = db.PrepareContext(ctx, p.text); err != nil {
			return err
		}
	}
	return nil
}

func (a *Allocations) close() error {
	var errs []error
	for _, stmt := range []*sql.Stmt{a.put, a.past, a.forget, a.recent, a.oldRows} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	return errors.Join(errs...)
}

// Classes returns the classes that have allocations, or had some that are remembered.
func (a *Allocations) Classes(ctx context.Context) ([]string, error) {
	rows, err := a.db.QueryContext(ctx, "SELECT class FROM allocations UNION SELECT class FROM past_allocations ORDER BY 1")
	if err != nil {
		return nil, fmt.Errorf("read whose batch jobs there are: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var out []string
	for rows.Next() {
		var class string
		if err := rows.Scan(&class); err != nil {
			return out, fmt.Errorf("read whose batch jobs there are: %w", err)
		}
		out = append(out, class)
	}
	return out, rows.Err()
}

// Load returns the allocations of a class by name, even if there is an error, which names those whose entries are damaged:
// they are to be ended, since nothing but their names is known.
func (a *Allocations) Load(ctx context.Context, class string) ([]allocation.Allocation, error) {
	rows, err := a.db.QueryContext(ctx, "SELECT name, allocation FROM allocations WHERE class = ? ORDER BY name", class)
	if err != nil {
		return nil, fmt.Errorf("read the batch jobs of %s: %w", class, err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var out []allocation.Allocation
	var broken []error
	for rows.Next() {
		var name, data string
		if err := rows.Scan(&name, &data); err != nil {
			return out, fmt.Errorf("read the batch jobs of %s: %w", class, err)
		}
		var one allocation.Allocation
		if err := json.Unmarshal([]byte(data), &one); err != nil {
			broken = append(broken, fmt.Errorf("read batch job %s of %s: its entry is damaged: %w", name, class, err))
			one = allocation.Allocation{State: allocation.Ending, Places: 1, Reason: "its entry in the book is damaged"}
		}
		one.Name = name
		out = append(out, one)
	}
	return out, errors.Join(append(broken, rows.Err())...)
}

// Save keeps, in one transaction, how the allocations of a class stand that have changed; those named in gone, which may be
// among them, become history.
func (a *Allocations) Save(ctx context.Context, class string, changed []allocation.Allocation, gone []string) error {
	if len(changed)+len(gone) == 0 {
		return nil
	}
	if err := a.save(ctx, class, changed, gone); err != nil {
		return fmt.Errorf("save the batch jobs of %s: %w", class, err)
	}
	return nil
}

func (a *Allocations) save(ctx context.Context, class string, changed []allocation.Allocation, gone []string) error {
	tx, err := a.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	put, past, forget := tx.StmtContext(ctx, a.put), tx.StmtContext(ctx, a.past), tx.StmtContext(ctx, a.forget)
	for i := range changed {
		data, err := json.Marshal(&changed[i])
		if err != nil {
			return fmt.Errorf("batch job %s: %w", changed[i].Name, err)
		}
		if _, err := put.ExecContext(ctx, class, changed[i].Name, string(data)); err != nil {
			return err
		}
	}
	// The time is that of this process: it is no fact about a batch job.
	now := time.Now()
	for _, name := range gone {
		if _, err := past.ExecContext(ctx, now.UnixMilli(), class, name); err != nil {
			return err
		}
		if _, err := forget.ExecContext(ctx, class, name); err != nil {
			return err
		}
	}
	if len(gone) > 0 && a.sincePrune.Add(int64(len(gone))) >= pruneEvery {
		a.sincePrune.Store(0)
		if err := a.prune(ctx, tx, now.Add(-historyAge), historyRows); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// prune removes history before a time, and the oldest beyond a number of rows, but at most pruneAtOnce.
func (a *Allocations) prune(ctx context.Context, tx *sql.Tx, before time.Time, rows int) error {
	_, err := tx.StmtContext(ctx, a.oldRows).ExecContext(ctx, before.UnixMilli(), rows, pruneAtOnce)
	return err
}

// History returns the allocations of a class that have ended and are forgotten, newest first: all that can be read, even if
// there is an error.
func (a *Allocations) History(ctx context.Context, class string, limit int) ([]allocation.Allocation, error) {
	rows, err := a.recent.QueryContext(ctx, class, limit)
	if err != nil {
		return nil, fmt.Errorf("read the history of the batch jobs of %s: %w", class, err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var out []allocation.Allocation
	var broken []error
	for rows.Next() {
		var data string
		if err := rows.Scan(&data); err != nil {
			return out, fmt.Errorf("read the history of the batch jobs of %s: %w", class, err)
		}
		var one allocation.Allocation
		if err := json.Unmarshal([]byte(data), &one); err != nil {
			broken = append(broken, fmt.Errorf("read the history of the batch jobs of %s: an entry is damaged: %w", class, err))
			continue
		}
		out = append(out, one)
	}
	return out, errors.Join(append(broken, rows.Err())...)
}
