package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/filelock"
)

// directory is where a phase and all about it lies. Only the job's user has access.
type directory string

const (
	phaseFile   = "phase.json"  // what to do
	journalFile = "journal"     // the log
	resultFile  = "result.json" // how it ended; it appears whole
	reserveFile = "result.tmp"  // room for the result
	cancelFile  = "cancel"      // a request to end
	lockFile    = "lock"        // held while the agent runs
	readyFile   = "ready"       // the sources are there: terminals may be opened
	outputFile  = "agent.log"   // what the agent itself has to say
)

// reserved is more than a result takes: 60 steps and a long message.
const reserved = 16 << 10

// maxJSON bounds what is read of a file that a job may have written to.
const maxJSON = 256 << 20

// cancelRequest is the content of the cancel file.
type cancelRequest struct {
	Abort bool          `json:"abort"`
	Grace time.Duration `json:"grace"`
	// Interrupted says why who runs the job ends it, if it is not that somebody has cancelled it.
	Interrupted string `json:"interrupted,omitempty"`
}

func (c cancelRequest) cause() error {
	if c.Interrupted == "" {
		return errCanceled
	}
	return &interruption{c.Interrupted}
}

// interruption is a cancel that is not the user's.
type interruption struct{ reason string }

func (i *interruption) Error() string { return i.reason }

// Is makes it a cancel.
func (i *interruption) Is(target error) bool { return target == errCanceled }

// open opens one of the directory's files. With the directory belonging to the job's user, and the manager to root, what
// has the file's name may be something else by now: links are not followed, and only a plain file is opened.
func (d directory) open(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(d.file(name), flags|noTricks, 0o600)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is not a plain file any more", d.file(name)))
	}
	return f, nil
}

func (d directory) file(name string) string { return filepath.Join(string(d), name) }

// lock takes the agent's lock until the file is closed. The error is filelock.ErrLocked while an agent runs.
func (d directory) lock() (*os.File, error) {
	f, err := d.open(lockFile, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("open the phase's lock: %w", err)
	}
	if err := filelock.Try(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// running says whether an agent is at work.
func (d directory) running() (bool, error) {
	f, err := d.lock()
	if errors.Is(err, filelock.ErrLocked) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, f.Close()
}

func (d directory) exists(name string) bool {
	_, err := os.Lstat(d.file(name))
	return err == nil
}

// writtenPhase is the content of the phase's file.
type writtenPhase struct {
	Format int `json:"format"` // tranter.PhaseFormat of who wrote it
	tranter.Phase
}

func (d directory) readPhase() (*tranter.Phase, error) {
	var p writtenPhase
	if err := d.readJSON(phaseFile, &p); err != nil {
		return nil, err
	}
	if p.Format > tranter.PhaseFormat {
		return nil, fmt.Errorf("the phase was written by a newer tranter (format %d, this agent knows %d)", p.Format, tranter.PhaseFormat)
	}
	return &p.Phase, nil
}

func (d directory) readJSON(name string, v any) error {
	f, err := d.open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxJSON))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", d.file(name), err)
	}
	return nil
}

// writeJSON writes v under name so that readers see all of it or nothing.
func (d directory) writeJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(string(d), name+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = ownLike(tmp, string(d))
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), d.file(name))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

func (d directory) reserve() error {
	if err := os.WriteFile(d.file(reserveFile), bytes.Repeat([]byte{' '}, reserved), 0o600); err != nil {
		return fmt.Errorf("make room for the result: %w", err)
	}
	return nil
}

// writeResult puts the result into the room that was reserved for it.
func (d directory) writeResult(r tranter.PhaseResult) error {
	r.Format = tranter.PhaseFormat
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.file(reserveFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Truncate(int64(len(data)))
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(d.file(reserveFile), d.file(resultFile))
	}
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// output returns the last part of what the agent itself has said.
func (d directory) output() string {
	f, err := d.open(outputFile, os.O_RDONLY)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 2000 {
		_, _ = f.Seek(-2000, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(f, 2000))
	return string(bytes.TrimSpace(data))
}
