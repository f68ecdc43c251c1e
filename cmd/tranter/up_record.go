package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/filelock"
)

// upRecord is what "tranter up" remembers of what it makes, so that whatever ends it, the next start removes that. It is
// written before anything is made.
type upRecord struct {
	// Process is the process that works with the state directory, or has done so.
	Process string `json:"process,omitempty"`
	// Registrations are runners that are at a server, or may be.
	Registrations []upRegistration `json:"registrations,omitempty"`
	// Prefixes are those of caches in buckets that we have chosen and that only our jobs have written to.
	Prefixes []string `json:"cache_prefixes,omitempty"`
	// Work says that a manager may have run: there may be jobs, machines, containers, volumes and caches.
	Work bool `json:"work,omitempty"`

	path string
}

// upRegistration is a runner that we have registered, or have tried to.
type upRegistration struct {
	Kind tokenKind `json:"kind"`
	URL  string    `json:"url"`
	Name string    `json:"name"`
	// Mark is in the maintenance note of a runner that was made with a registration token.
	Mark  string         `json:"mark,omitempty"`
	ID    int64          `json:"id,omitempty"`
	Token tranter.Secret `json:"token,omitempty"` // empty: the server's answer did not come
	At    time.Time      `json:"at"`
	CA    string         `json:"tls_ca_file,omitempty"`
	Cert  string         `json:"tls_cert_file,omitempty"`
	Key   string         `json:"tls_key_file,omitempty"`
}

// lost says what a person has to do about a registration whose answer did not come: GitLab has no request by which a
// registration token would find the runner.
func (r upRegistration) lost() string {
	return fmt.Sprintf("a runner may be left at %s: the answer to its registration at %s was lost; look there for %q with %s in its maintenance note, remove it, and run \"tranter up --clean --forget\"",
		r.URL, r.At.UTC().Format(time.RFC3339), r.Name, r.Mark)
}

// The files of the state directory of "tranter up", besides those of a manager.
const (
	upLockFile   = "up.lock"
	upRecordFile = "up.json"
	upConfigFile = "config.toml"
)

// readUpRecord reads the record of a state directory; one that is not there is empty.
func readUpRecord(dir string) (*upRecord, error) {
	r := &upRecord{path: filepath.Join(dir, upRecordFile)}
	data, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, r)
	}
	if err != nil {
		return nil, fmt.Errorf("read what an earlier start has made: %w; without %s nothing of it can be removed", err, r.path)
	}
	return r, nil
}

// empty says that nothing is left to be removed.
func (r *upRecord) empty() bool {
	return len(r.Registrations) == 0 && len(r.Prefixes) == 0 && !r.Work
}

// intend records what is about to be asked for. To verify the same token again makes nothing more.
func (r *upRecord) intend(entry upRegistration) error {
	r.Registrations = slices.DeleteFunc(r.Registrations, func(other upRegistration) bool {
		return entry.Token != "" && other.Token == entry.Token && other.Kind == entry.Kind && sameServer(other.URL, entry.URL)
	})
	r.Registrations = append(r.Registrations, entry)
	return r.write()
}

// write keeps the record: whole or not at all, readable by its owner only. An empty one is removed.
func (r *upRecord) write() error {
	if r.empty() {
		if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the record: %w", err)
		}
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = replaceFile(r.path, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep a record of what is made: %w", err)
	}
	return nil
}

// lockUp keeps a second "tranter up" off a state directory until the returned file is closed.
func lockUp(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, upLockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	err = filelock.Try(f)
	if errors.Is(err, filelock.ErrLocked) {
		err = fmt.Errorf("another \"tranter up\" works with the state directory %s: end it, or name another directory with --state-dir", dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ownUp refuses a state directory that a manager has used which "tranter up" did not start: its machines are not ours to
// remove.
func ownUp(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, upLockFile)); err == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "tranter.db")); err != nil {
		return nil //nolint:nilerr // there is none
	}
	return fmt.Errorf("the state directory %s is that of \"tranter run\": \"tranter up\" removes all that is in its own one, so name another with --state-dir", dir)
}
