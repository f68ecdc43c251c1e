package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// History is what is kept of the past: jobs that have ended, what happened, the lives of machines, and how many there were of what,
// once a minute. It is a database of its own, since other processes read it while the manager writes. No secret is in it. Its
// methods are safe for concurrent use; one that fails has changed nothing, and is no reason to stop a job.
type History struct {
	db   *sql.DB // one connection, which writes; nil: it is only read
	read *sql.DB // several, so that a long question never makes a write wait

	packer packer
}

// historyReaders is how many questions are answered at a time.
const historyReaders = 4

// ErrDamaged means that what is on the disk is no history, or not all of one.
var ErrDamaged = errors.New("the history is damaged")

// historyMigrations bring a history from each version to the next.
func historyMigrations() []string { return []string{historyTables} }

// OpenHistory opens the history at path for the process that writes it. It is made if it is not there, and brought to this program's
// version.
func OpenHistory(ctx context.Context, path string) (*History, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) // its companions get its mode from SQLite
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	db, err := openHistoryDB(path, "rwc", 1, "auto_vacuum(INCREMENTAL)", "journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(0)")
	if err != nil {
		return nil, err
	}
	if err := migrateHistory(ctx, db); err != nil {
		return nil, errors.Join(historyError(path, err), db.Close())
	}
	read, err := openHistoryDB(path, "ro", historyReaders, "query_only(1)")
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &History{db: db, read: read}, nil
}

// ReadHistory opens the history at path for another process than the one that writes it, which may be running. Methods that write
// return an error. fs.ErrNotExist means that nothing has been kept yet.
func ReadHistory(ctx context.Context, path string) (*History, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	if info.Size() == 0 {
		return nil, fmt.Errorf("open the history: %s is empty: %w", path, fs.ErrNotExist)
	}
	read, err := openHistoryDB(path, "ro", historyReaders, "query_only(1)")
	if err != nil {
		return nil, err
	}
	version, err := historyVersion(ctx, read)
	switch {
	case err != nil:
	case version == 0:
		err = fmt.Errorf("nothing is kept in it yet: %w", fs.ErrNotExist)
	case version < len(historyMigrations()):
		err = fmt.Errorf("it was written by an older tranter (version %d, this one knows %d): start the manager once, which brings it up to date", version, len(historyMigrations()))
	}
	if err != nil {
		return nil, errors.Join(historyError(path, err), read.Close())
	}
	return &History{read: read}, nil
}

func openHistoryDB(path, mode string, connections int, pragmas ...string) (*sql.DB, error) {
	query := url.Values{"_pragma": append([]string{"busy_timeout(5000)", "cache_size(-8000)"}, pragmas...), "_txlock": {"immediate"}, "mode": {mode}}
	if mode == "ro" {
		query.Set("_txlock", "deferred")
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// historyError says what is wrong with the file at path.
func historyError(path string, err error) error {
	if e := (*sqlite.Error)(nil); errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_NOTADB || e.Code()&0xff == sqlite3.SQLITE_CORRUPT) {
		return fmt.Errorf("open %s: %w: %w; move it away, and a new one is begun", path, ErrDamaged, err)
	}
	return fmt.Errorf("open the history %s: %w", path, err)
}

func historyVersion(ctx context.Context, db *sql.DB) (int, error) {
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return 0, err
	}
	if known := len(historyMigrations()); version > known {
		return 0, fmt.Errorf("it was written by a newer tranter (version %d, this one knows %d)", version, known)
	}
	return version, nil
}

func migrateHistory(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	known := len(historyMigrations())
	if version > known {
		return fmt.Errorf("it was written by a newer tranter (version %d, this one knows %d)", version, known)
	}
	for _, m := range historyMigrations()[version:] {
		if _, err := tx.ExecContext(ctx, m); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", known)); err != nil {
		return err
	}
	return tx.Commit()
}

// errReadOnly means that the history was opened by ReadHistory.
var errReadOnly = errors.New("the history is open for reading only")

// write does something in one transaction.
func (h *History) write(ctx context.Context, do func(*sql.Tx) error) error {
	if h.db == nil {
		return errReadOnly
	}
	tx, err := h.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// Close closes the history.
func (h *History) Close() error {
	err := h.read.Close()
	if h.db != nil {
		err = errors.Join(err, h.db.Close())
	}
	return err
}
