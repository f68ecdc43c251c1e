package store

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// Logs are the logs of jobs that have ended, each a file of a directory, which is all the index that there is. Its methods are safe for
// concurrent use.
type Logs struct {
	root *os.Root
	keep time.Duration
	max  int64
	lack func() int64 // nil: there is always room on the disk

	mu    sync.Mutex // of all that changes the directory
	total int64      // bytes, as far as known
}

// logKey is what a job's key can be; nothing that it lets pass leads out of the directory.
var logKey = lazy.Regexp(`^[0-9A-Za-z][0-9A-Za-z_-]{0,127}$`)

const logSuffix = ".log"

// OpenLogs opens the directory of the logs, which is made if it is not there. Logs are kept so long, and so many bytes of them; if one is
// 0, none is kept.
func OpenLogs(dir string, keep time.Duration, maxBytes int64) (*Logs, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the directory of logs: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the directory of logs: %w", err)
	}
	if err := root.Chmod(".", 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("open the directory of logs: %w", err), root.Close())
	}
	return &Logs{root: root, keep: max(0, keep), max: max(0, maxBytes)}, nil
}

// Yield makes the oldest logs go while the disk has too little room for the jobs that run: lack tells how many bytes it lacks. It is to be
// called before anything is kept.
func (l *Logs) Yield(lack func() int64) { l.lack = lack }

// most returns how many bytes of logs may stay for now.
func (l *Logs) most() int64 {
	if l.lack == nil {
		return l.max
	}
	if lack := l.lack(); lack > 0 {
		return max(0, min(l.max, l.total-lack))
	}
	return l.max
}

// Close closes the directory.
func (l *Logs) Close() error { return l.root.Close() }

func logName(key string) (string, error) {
	if !logKey().MatchString(key) {
		return "", fmt.Errorf("%q is no key of a job", key)
	}
	return key + logSuffix, nil
}

// Keep takes over the file at path as the log of a job: it is not there any more afterwards, whether logs are kept or not.
func (l *Logs) Keep(key, path string) error {
	name, err := logName(key)
	if err != nil {
		return fmt.Errorf("keep a log: %w", err)
	}
	if l.keep == 0 || l.max == 0 {
		return wrapIf("remove the log of job "+key, os.Remove(path))
	}
	if err := l.take(name, path); err != nil {
		return fmt.Errorf("keep the log of job %s: %w", key, err)
	}
	return nil
}

func (l *Logs) take(name, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file", path)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if err := os.Rename(path, filepath.Join(l.root.Name(), name)); err != nil {
		if err := l.copy(name, path); err != nil { // from another file system
			return err
		}
	}
	if err := errors.Join(l.root.Chmod(name, 0o600), l.root.Chtimes(name, now, now)); err != nil {
		return err
	}
	if l.total += info.Size(); l.total <= l.most() {
		return nil
	}
	// To look through all of them takes long: some room more is made, so that not each job of a full directory has to.
	return l.prune(now, l.max/16)
}

func (l *Logs) copy(name, path string) (err error) {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := l.root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close()); err != nil {
		return errors.Join(err, l.root.Remove(name))
	}
	return os.Remove(path)
}

// Open opens the log of a job. The error wraps fs.ErrNotExist if there is none.
func (l *Logs) Open(key string) (*os.File, error) {
	name, err := logName(key)
	if err != nil {
		return nil, fmt.Errorf("open a log: %w: %w", err, fs.ErrNotExist)
	}
	info, err := l.root.Lstat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("open the log of job %s: %w", key, err)
	}
	f, err := l.root.Open(name)
	return f, wrapIf("open the log of job "+key, err)
}

// Prune removes logs that have been kept for long enough, and the oldest while they take more room than they may.
func (l *Logs) Prune(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.prune(now, 0)
}

// prune removes logs that are old, and the oldest while they take more room than they may, less some more.
func (l *Logs) prune(now time.Time, more int64) error {
	files, err := l.list()
	if err != nil {
		return fmt.Errorf("look through the logs: %w", err)
	}
	l.total = 0
	var last int64
	for _, f := range files {
		l.total += f.size
		last = f.size
	}
	most := l.most()
	most = max(most-more, min(last, most)) // the last one stays if it can
	var errs []error
	for _, f := range files {
		if l.total <= most && now.Sub(f.at) < l.keep {
			break
		}
		if err := l.root.Remove(f.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		l.total -= f.size
	}
	return wrapIf("remove old logs", errors.Join(errs...))
}

type logFile struct {
	name string
	size int64
	at   time.Time
}

// list returns the logs, the oldest first. What else is in the directory is nobody's business.
func (l *Logs) list() ([]logFile, error) {
	dir, err := l.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	var out []logFile
	for _, e := range entries {
		key, is := strings.CutSuffix(e.Name(), logSuffix)
		if !is || !e.Type().IsRegular() || !logKey().MatchString(key) {
			continue
		}
		if info, err := e.Info(); err == nil {
			out = append(out, logFile{e.Name(), info.Size(), info.ModTime()})
		}
	}
	slices.SortFunc(out, func(a, b logFile) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.name, b.name)) })
	return out, err
}
