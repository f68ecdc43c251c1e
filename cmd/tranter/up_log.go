package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// upLogName is the name of a file of the log: the time of its first line.
var upLogName = lazy.Regexp(`^tranter-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{6}Z\.log$`)

// upLogTime is the layout of that time. Colons are not for all file systems.
const upLogTime = "2006-01-02T15-04-05.000000Z"

// upLog writes the log to a directory: a file for each start, and another one when a file has become too large. Of all its
// files the newest are kept.
type upLog struct {
	dir     string
	most    int64 // bytes of a file
	keep    int   // files
	also    io.Writer
	now     func() time.Time
	mu      sync.Mutex
	file    *os.File
	written int64
	failed  bool // that the file can't be written was told
}

// openUpLog begins a file of the log. What is written goes to also too.
func openUpLog(l *upLog) (*upLog, error) {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the log: %w", err)
	}
	if err := l.next(); err != nil {
		return nil, err
	}
	return l, nil
}

// next begins another file and removes the oldest ones.
func (l *upLog) next() error {
	name := "tranter-" + l.now().UTC().Format(upLogTime) + ".log"
	f, err := os.OpenFile(filepath.Join(l.dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	old := l.file
	l.file, l.written = f, 0
	if old != nil {
		err = old.Close()
	}
	return errors.Join(err, l.prune())
}

// prune removes the files of which there are too many.
func (l *upLog) prune() error {
	entries, err := os.ReadDir(l.dir) // in the order of their names, which is that of time
	if err != nil {
		return fmt.Errorf("look for old logs: %w", err)
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !e.Type().IsRegular() || !upLogName().MatchString(e.Name()) })
	var errs []error
	for i := range len(entries) - l.keep {
		errs = append(errs, os.Remove(filepath.Join(l.dir, entries[i].Name())))
	}
	return errors.Join(errs...)
}

// Write writes to both. A disk that is full does not stop the runner: it is told once.
func (l *upLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.also.Write(p)
	if e := l.toFile(p); e != nil && !l.failed {
		l.failed = true
		fmt.Fprintf(l.also, "tranter: the log in %s can't be written: %v\n", l.dir, e)
	}
	return n, err
}

func (l *upLog) toFile(p []byte) error {
	if l.written > 0 && l.written+int64(len(p)) > l.most {
		if err := l.next(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(p)
	l.written += int64(n)
	return err
}

// last writes the error that the command ends with to the file; to standard error it goes anyway.
func (l *upLog) last(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.toFile(fmt.Appendf(nil, "%s ERROR: %v\n", l.now().UTC().Format(time.RFC3339), err))
}

// Close ends the log.
func (l *upLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
