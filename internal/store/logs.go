package store

import (
	"os"
	"time"
)

// Logs are the logs of jobs that have ended.
type Logs struct {
	dir  string
	keep time.Duration
	max  int64
}

// OpenLogs opens the directory of the logs.
func OpenLogs(dir string, keep time.Duration, maxBytes int64) (*Logs, error) {
	return &Logs{dir, keep, maxBytes}, nil
}

// Keep takes over a job's log.
func (l *Logs) Keep(key, path string) error { return nil }

// Open opens a job's log.
func (l *Logs) Open(key string) (*os.File, error) { return nil, os.ErrNotExist }

// Prune removes logs.
func (l *Logs) Prune(now time.Time) error { return nil }
