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
)

// disk is the state directory:
//
//	lock                     held while a coordinator uses the directory
//	state.json               runners, projects, counters
//	pipelines/ID.json        one pipeline with its jobs
//	jobs/ID/trace            log of a job
//	jobs/ID/artifact-TYPE    one uploaded file
//	repos/ID.git             what runners clone
//
// Files hold tokens: their mode is 0600.
type disk struct {
	dir  string
	lock *os.File
}

// ErrInUse means that another process has the state directory.
var ErrInUse = errors.New("the state directory is in use by another coordinator")

func openDisk(dir string) (*disk, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	for _, sub := range []string{"", "pipelines", "jobs", "repos"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return &disk{dir: dir, lock: lock}, nil
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

func (d *disk) runPath(id int64) string {
	return filepath.Join(d.dir, "pipelines", strconv.FormatInt(id, 10)+".json")
}

// save writes v as JSON in place of the file, or leaves the file as it is.
func save(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("save %s: %w", filepath.Base(path), err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	_, err = tmp.Write(data)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save: %w", err), os.Remove(tmp.Name()))
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

// loadRuns reads all pipelines.
func (d *disk) loadRuns() ([]*run, error) {
	entries, err := os.ReadDir(filepath.Join(d.dir, "pipelines"))
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	var runs []*run
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		r := &run{}
		if err := load(filepath.Join(d.dir, "pipelines", e.Name()), r); err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
	return runs, nil
}
