package coordinator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/filelock"
)

// disk is the state directory:
//
//	lock                     held while a coordinator uses the directory
//	owner                    who holds it, for the message to the next
//	state.json               runners, projects, counters
//	pipelines/ID.jsonl       journal of one pipeline and its jobs
//	jobs/ID/trace            log of a job
//	jobs/ID/artifact-TYPE    one uploaded file
//	repos/ID.git             what runners clone
//
// Files hold tokens: their mode is 0600. A change is on disk before it is acknowledged: a process that is killed at any
// moment leaves nothing behind that the next cannot go on from.
type disk struct {
	dir  string
	lock *os.File
}

// ErrInUse means that another process has the state directory.
var ErrInUse = errors.New("the state directory is in use by another coordinator")

func openDisk(dir string, now time.Time) (*disk, error) {
	if dir == "" {
		return nil, errors.New("no state directory is given")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	for _, sub := range []string{"", "pipelines", "jobs", "repos"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := filelock.Try(lock); err != nil {
		if errors.Is(err, filelock.ErrLocked) {
			err = fmt.Errorf("%s: %w%s", dir, ErrInUse, ownerOf(dir))
		}
		return nil, errors.Join(err, lock.Close())
	}
	d := &disk{dir: dir, lock: lock}
	d.clean()
	host, _ := os.Hostname()
	owner := fmt.Sprintf("process %d on %s, since %s", os.Getpid(), host, now.Format(time.RFC3339))
	if err := replace(filepath.Join(dir, "owner"), []byte(owner)); err != nil {
		return nil, errors.Join(fmt.Errorf("state directory: %w", err), d.Close())
	}
	return d, nil
}

func ownerOf(dir string) string {
	data, err := os.ReadFile(filepath.Join(dir, "owner"))
	if err != nil || len(data) == 0 {
		return ""
	}
	return " (" + strings.TrimSpace(string(data)) + "); stop that one, or choose another directory"
}

// clean removes what a killed process had not finished.
func (d *disk) clean() {
	for _, pattern := range []string{".new-*", ".snapshot-*", "jobs/*/.upload-*"} {
		found, _ := filepath.Glob(filepath.Join(escapeGlob(d.dir), pattern)) // the pattern is right
		for _, path := range found {
			_ = os.RemoveAll(path) // what stays is only in the way
		}
	}
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`*`, `[*]`, `?`, `[?]`, `[`, `[[]`).Replace(path)
}

func (d *disk) Close() error { return d.lock.Close() }

func (d *disk) jobDir(id int64) string {
	return filepath.Join(d.dir, "jobs", strconv.FormatInt(id, 10))
}

func (d *disk) tracePath(id int64) string { return filepath.Join(d.jobDir(id), "trace") }

func (d *disk) artifactPath(id int64, kind string) string {
	return filepath.Join(d.jobDir(id), "artifact-"+kind)
}

func (d *disk) repoPath(id int64) string {
	return filepath.Join(d.dir, "repos", strconv.FormatInt(id, 10)+".git")
}

func (d *disk) settingsPath() string { return filepath.Join(d.dir, "state.json") }

// save writes v as JSON in place of the file, or leaves the file as it is.
func save(path string, v any) error {
	data, err := json.Marshal(v)
	if err == nil {
		err = replace(path, data)
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", filepath.Base(path), err)
	}
	return nil
}

// replace gives the file other content, at once and as a whole.
func replace(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync() // else a power cut may leave the new name with no content
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// load reads what save has written. A file that is not there leaves v as it is.
func load(path string, v any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

// measure looks at the log of a stored job.
func (d *disk) measure(j *job) error {
	path := d.tracePath(j.ID)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	j.Log.size = info.Size()
	if j.Status.Executing() {
		j.Log.sum, err = checksum(path)
	}
	return err
}
