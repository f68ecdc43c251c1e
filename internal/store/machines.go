package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tranter-ci/tranter/internal/fleet"
)

// How long the history of machines is kept: whichever is reached first.
const (
	historyAge  = 30 * 24 * time.Hour
	historyRows = 200_000
	pruneEvery  = 1000   // events that are appended between two looks
	pruneAtOnce = 10_000 // events that are removed at a time, so that nobody waits long
)

// Machines are the books of all pools: their machines, and what has happened to them. They hold secrets.
type Machines struct {
	db                         *sql.DB
	put, forget, event, recent *sql.Stmt
	sincePrune                 atomic.Int64
}

// machineTables is the migration that adds them. Events are kept by the order in which they were appended, which is that
// of their time unless a clock was set.
const machineTables = `
CREATE TABLE machines (pool TEXT NOT NULL, name TEXT NOT NULL, machine TEXT NOT NULL, PRIMARY KEY (pool, name)) STRICT, WITHOUT ROWID;
CREATE TABLE machine_events (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, pool TEXT NOT NULL, machine TEXT NOT NULL, event TEXT NOT NULL) STRICT;
CREATE INDEX machine_events_machine ON machine_events (machine) WHERE machine <> ''`

// Machines returns the books of machines.
func (s *Store) Machines() *Machines { return &s.machines }

func (m *Machines) prepare(ctx context.Context, db *sql.DB) error {
	m.db = db
	m.sincePrune.Store(pruneEvery) // the first Append looks
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&m.put, "INSERT INTO machines (pool, name, machine) VALUES (?, ?, ?) ON CONFLICT (pool, name) DO UPDATE SET machine = excluded.machine"},
		{&m.forget, "DELETE FROM machines WHERE pool = ? AND name = ?"},
		{&m.event, "INSERT INTO machine_events (at, pool, machine, event) VALUES (?, ?, ?, ?)"},
		{&m.recent, "SELECT event FROM machine_events WHERE machine = ? AND machine <> '' ORDER BY id DESC LIMIT ?"},
	} {
		var err error
		if *p.stmt, err = db.PrepareContext(ctx, p.text); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machines) close() error {
	var errs []error
	for _, stmt := range []*sql.Stmt{m.put, m.forget, m.event, m.recent} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	return errors.Join(errs...)
}

// Load returns the machines of a pool by name, even if there is an error, which names those whose entries are damaged: they
// are to be removed, since nothing but their names is known.
func (m *Machines) Load(ctx context.Context, pool string) ([]fleet.Machine, error) {
	rows, err := m.db.QueryContext(ctx, "SELECT name, machine FROM machines WHERE pool = ? ORDER BY name", pool)
	if err != nil {
		return nil, fmt.Errorf("read the machines of pool %s: %w", pool, err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var out []fleet.Machine
	var broken []error
	for rows.Next() {
		var name, data string
		if err := rows.Scan(&name, &data); err != nil {
			return out, fmt.Errorf("read the machines of pool %s: %w", pool, err)
		}
		var one fleet.Machine
		if err := json.Unmarshal([]byte(data), &one); err != nil {
			broken = append(broken, fmt.Errorf("read machine %s of pool %s: its entry is damaged: %w", name, pool, err))
			one = fleet.Machine{State: fleet.Removing, Reason: "its entry in the book is damaged"}
		}
		one.Name = name
		out = append(out, one)
	}
	return out, errors.Join(append(broken, rows.Err())...)
}

// Append keeps, in one transaction, what has happened in a pool and how the machines that it has changed stand; those
// named in gone are forgotten, their events are not.
func (m *Machines) Append(ctx context.Context, pool string, events []fleet.Event, changed []fleet.Machine, gone []string) error {
	if len(events)+len(changed)+len(gone) == 0 {
		return nil
	}
	if err := m.append(ctx, pool, events, changed, gone); err != nil {
		return fmt.Errorf("save the machines of pool %s: %w", pool, err)
	}
	return nil
}

func (m *Machines) append(ctx context.Context, pool string, events []fleet.Event, changed []fleet.Machine, gone []string) error {
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	put, forget, event := tx.StmtContext(ctx, m.put), tx.StmtContext(ctx, m.forget), tx.StmtContext(ctx, m.event)
	for i := range events {
		data, err := json.Marshal(&events[i])
		if err != nil {
			return err
		}
		if _, err := event.ExecContext(ctx, events[i].At.UnixMilli(), pool, events[i].Machine, string(data)); err != nil {
			return err
		}
	}
	for i := range changed {
		data, err := json.Marshal(&changed[i])
		if err != nil {
			return fmt.Errorf("machine %s: %w", changed[i].Name, err)
		}
		if _, err := put.ExecContext(ctx, pool, changed[i].Name, string(data)); err != nil {
			return err
		}
	}
	for _, name := range gone {
		if _, err := forget.ExecContext(ctx, pool, name); err != nil {
			return err
		}
	}
	if err := m.pruneNow(ctx, tx, len(events)); err != nil {
		return err
	}
	return tx.Commit()
}

// pruneNow removes old history once in many events. The time is that of this process: it is no fact about a machine.
func (m *Machines) pruneNow(ctx context.Context, tx *sql.Tx, events int) error {
	if events == 0 || m.sincePrune.Add(int64(events)) < pruneEvery {
		return nil
	}
	m.sincePrune.Store(0)
	return prune(ctx, tx, time.Now().Add(-historyAge), historyRows)
}

// prune removes the events before a time, and the oldest beyond a number of rows, but at most pruneAtOnce. It looks only
// at what it removes.
func prune(ctx context.Context, tx *sql.Tx, before time.Time, rows int) error {
	_, err := tx.ExecContext(ctx, `
DELETE FROM machine_events WHERE id < min(
  (SELECT min(id) FROM machine_events) + ?3,
  max(
    (SELECT max(id) FROM machine_events) - ?2 + 1,
    coalesce((SELECT id FROM machine_events WHERE at >= ?1 ORDER BY id LIMIT 1), (SELECT max(id) FROM machine_events) + 1)))`,
		before.UnixMilli(), rows, pruneAtOnce)
	return err
}

// History returns the last events of a machine, in any pool, oldest first: all that can be read, even if there is an error.
func (m *Machines) History(ctx context.Context, machine string, limit int) ([]fleet.Event, error) {
	rows, err := m.recent.QueryContext(ctx, machine, limit)
	if err != nil {
		return nil, fmt.Errorf("read the history of machine %s: %w", machine, err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var out []fleet.Event
	var broken []error
	for rows.Next() {
		var data string
		if err := rows.Scan(&data); err != nil {
			return nil, fmt.Errorf("read the history of machine %s: %w", machine, err)
		}
		var e fleet.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			broken = append(broken, fmt.Errorf("read the history of machine %s: an event is damaged: %w", machine, err))
			continue
		}
		out = append(out, e)
	}
	slices.Reverse(out)
	return out, errors.Join(append(broken, rows.Err())...)
}

// Pools returns the names of the pools that have machines, sorted.
func (m *Machines) Pools(ctx context.Context) ([]string, error) {
	rows, err := m.db.QueryContext(ctx, "SELECT DISTINCT pool FROM machines ORDER BY pool")
	if err != nil {
		return nil, fmt.Errorf("read the pools: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var out []string
	for rows.Next() {
		var pool string
		if err := rows.Scan(&pool); err != nil {
			return nil, fmt.Errorf("read the pools: %w", err)
		}
		out = append(out, pool)
	}
	return out, rows.Err()
}
