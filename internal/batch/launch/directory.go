package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/filelock"
)

// The files of a launch, in the order in which they come.
const (
	lockFile    = "lock"         // locked by what runs the command, and by the command
	intentFile  = "intent.json"  // what is to be run
	logFile     = "log"          // what the process that runs the command has to say
	cancelFile  = "cancel"       // the command is to end
	begunFile   = "begun.json"   // it was begun, and never is again
	processFile = "process.json" // who runs it
	stdoutFile  = "stdout"       // what it has written, of much of it the end
	stderrFile  = "stderr"
	foundFile   = "found.json" // the job that was named in a part of its output that is not kept
	exitFile    = "exit.json"  // it has ended
	finalFile   = "final.json" // how the job has ended that it has handed in
)

// intent is what is to be run.
type intent struct {
	Command Command          `json:"command"`
	As      *tranter.Account `json:"as,omitempty"`
}

// begun says that a command was begun.
type begun struct {
	At  time.Time `json:"at"`
	PID int       `json:"pid"` // of what runs it, for people
}

// process is the command's first process, and the number of its group.
type process struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // when it started, as the system tells; empty: unknown
}

// ended says how a command has ended.
type ended struct {
	At       time.Time `json:"at"`
	ExitCode int       `json:"exit_code"`
	Signal   int       `json:"signal,omitempty"`
	TimedOut bool      `json:"timed_out,omitempty"`
	Stopped  bool      `json:"stopped,omitempty"` // it was cancelled
	Error    string    `json:"error,omitempty"`   // it did not start
}

// directory is where the files of one launch are.
type directory string

func (d directory) file(name string) string { return filepath.Join(string(d), name) }

func (d directory) has(name string) bool {
	_, err := os.Lstat(d.file(name))
	return err == nil
}

func (d directory) make() error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(string(d)))
}

// mostRecord bounds what is read of one of the files; a script for standard input is in one of them.
const mostRecord = 32 << 20

func (d directory) read(name string, to any) error {
	f, err := os.Open(d.file(name))
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, mostRecord))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, to); err != nil {
		return fmt.Errorf("read %s: %w", d.file(name), err)
	}
	return nil
}

// write puts a file in its place as a whole, to stay there.
func (d directory) write(name string, what any) error {
	temp, err := d.temporary(what)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, d.file(name)); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(string(d))
}

// claim is like write, and fails with os.ErrExist if the file is there.
func (d directory) claim(name string, what any) error {
	temp, err := d.temporary(what)
	if err != nil {
		return err
	}
	if err := errors.Join(os.Link(temp, d.file(name)), os.Remove(temp)); err != nil {
		return err
	}
	return syncDir(string(d))
}

func (d directory) temporary(what any) (string, error) {
	data, err := json.Marshal(what)
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(string(d), ".new.*") // 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// syncDir makes what was made in a directory stay. Not every file system can.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// mostText bounds what is read of a command's words.
const mostText = 64 << 10

// text returns the end of a file; "" if there is none.
func (d directory) text(name string) string {
	f, err := os.Open(d.file(name))
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > mostText {
		_, _ = f.Seek(st.Size()-mostText, io.SeekStart)
	}
	data, _ := io.ReadAll(io.LimitReader(f, mostText))
	return string(data)
}

// lock takes the lock of the launch, until the file and those that were inherited from it are closed.
func (d directory) lock() (*os.File, error) {
	f, err := os.OpenFile(d.file(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := filelock.Try(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// alive says whether the command runs, or what runs it.
func (d directory) alive() (bool, error) {
	if !d.has(lockFile) {
		return false, nil
	}
	f, err := d.lock()
	if errors.Is(err, filelock.ErrLocked) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, f.Close()
}

// insist ends the command of a cancelled launch if what runs it should not be there to do it.
func (d directory) insist() {
	var cancelled begun
	var p process
	if d.read(cancelFile, &cancelled) != nil || d.read(processFile, &p) != nil || p.PID <= 1 || p.Start == "" || p.Start != startOf(p.PID) {
		return
	}
	signalGroup(p.PID, time.Since(cancelled.At) >= 2*killAfter)
}

// remove forgets the launch: from the first step on it is not one any more.
func (d directory) remove() error {
	gone := filepath.Join(filepath.Dir(string(d)), ".gone."+filepath.Base(string(d)))
	if err := os.RemoveAll(gone); err != nil { // of an earlier attempt
		return err
	}
	if err := os.Rename(string(d), gone); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.RemoveAll(gone)
}
