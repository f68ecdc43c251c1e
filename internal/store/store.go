// Package store keeps what has to survive a restart of the manager: its jobs, machines and batch jobs, in an SQLite database
// in the state directory.
//
// It knows no rules; what a record means is for packages manager, job, pool and cluster, which declare the interfaces that it
// serves.
package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"

	"modernc.org/sqlite" // also the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tranter-ci/tranter"
)

// Store is an open database. Its methods are safe for concurrent use.
type Store struct {
	db           *sql.DB
	save, remove *sql.Stmt // each job needs them several times
	machines     Machines
	allocations  Allocations
}

// migrations bring a database from each version to the next.
func migrations() []string {
	return []string{
		`CREATE TABLE jobs (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT`,
		machineTables,
		allocationTables,
	}
}

// ErrInUse means that another process has the database open.
var ErrInUse = errors.New("in use by another process")

// Open opens the database at path, which is made if it is not there, and brings it to this program's version. ErrInUse
// means that another process has it; the end of that process, whatever its cause, frees it.
func Open(ctx context.Context, path string) (*Store, error) {
	// Before SQLite makes it with the mode that umask leaves: it holds job tokens.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	// synchronous=NORMAL: in WAL mode a crash of this program loses nothing, only one of the host may lose the last records.
	query := url.Values{"_pragma": {"busy_timeout(1000)", "journal_mode(WAL)", "synchronous(NORMAL)", "secure_delete(1)", "locking_mode(EXCLUSIVE)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	db.SetMaxOpenConns(1)
	s := &Store{db: db}
	if err := s.setUp(ctx); err != nil {
		if e := (*sqlite.Error)(nil); errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_BUSY {
			err = ErrInUse
		}
		return nil, errors.Join(fmt.Errorf("open the database %s: %w", path, err), db.Close())
	}
	return s, nil
}

func (s *Store) migrate(ctx context.Context) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations()) {
		return fmt.Errorf("it was written by a newer tranter (version %d, this one knows %d)", version, len(migrations()))
	}
	for _, m := range migrations()[version:] {
		if _, err := tx.ExecContext(ctx, m); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(migrations()))); err != nil {
		return err
	}
	return tx.Commit()
}

func (s *Store) setUp(ctx context.Context) error {
	if err := s.migrate(ctx); err != nil {
		return err
	}
	return s.prepare(ctx)
}

func (s *Store) prepare(ctx context.Context) (err error) {
	s.save, err = s.db.PrepareContext(ctx, "INSERT INTO jobs (key, record) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET record = excluded.record")
	if err != nil {
		return err
	}
	if s.remove, err = s.db.PrepareContext(ctx, "DELETE FROM jobs WHERE key = ?"); err != nil {
		return err
	}
	if err := s.machines.prepare(ctx, s.db); err != nil {
		return err
	}
	return s.allocations.prepare(ctx, s.db)
}

// Save inserts a job or replaces it.
func (s *Store) Save(ctx context.Context, r tranter.JobRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("save job %s: %w", r.Key, err)
	}
	if _, err := s.save.ExecContext(ctx, r.Key, string(data)); err != nil {
		return fmt.Errorf("save job %s: %w", r.Key, err)
	}
	return nil
}

// Remove forgets a job.
func (s *Store) Remove(ctx context.Context, key string) error {
	if _, err := s.remove.ExecContext(ctx, key); err != nil {
		return fmt.Errorf("forget job %s: %w", key, err)
	}
	return nil
}

// Jobs returns all jobs.
func (s *Store) Jobs(ctx context.Context) ([]tranter.JobRecord, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT key, record FROM jobs ORDER BY key")
	if err != nil {
		return nil, fmt.Errorf("read the jobs: %w", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err tells
	var out []tranter.JobRecord
	for rows.Next() {
		var key, data string
		if err := rows.Scan(&key, &data); err != nil {
			return nil, fmt.Errorf("read the jobs: %w", err)
		}
		var r tranter.JobRecord
		if err := json.Unmarshal([]byte(data), &r); err != nil {
			return nil, fmt.Errorf("read job %s: %w", key, err)
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// Close closes the database.
func (s *Store) Close() error {
	return errors.Join(s.save.Close(), s.remove.Close(), s.machines.close(), s.allocations.close(), s.db.Close())
}
