// Package link is the line between an executor and an agent that is the main process of a container: requests go in, events
// and the bytes of a journal come out, over streams that may break at any time while the agent goes on.
//
// Serve is the end in the container, Client the executor's. Connect makes a new stream to an agent that runs, Work carries
// out phases as the user that an image's entrypoint has become. Package agent does what a phase is about.
//
// On its way to the agent each request is one line of JSON. What comes back has two channels: one with an event per line,
// of which every other line is what the process had to say when it broke down; and one with nothing but journals, each
// begun by a mark that the request has chosen. The event that ends an attachment says how many bytes there were.
package link

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/diskspace"
)

// ErrBroken means that the stream to the agent has ended. The agent may go on; a new stream reaches it.
var ErrBroken = errors.New("the connection to the agent is broken")

// EndedError means that the process at the other end has ended. It is an ErrBroken, too.
type EndedError struct{ Said string } // its last words

func (e *EndedError) Error() string {
	if e.Said == "" {
		return "the agent has ended"
	}
	return "the agent has ended; its last words: " + e.Said
}

// Unwrap returns ErrBroken.
func (e *EndedError) Unwrap() error { return ErrBroken }

// EntrypointError means that an image's entrypoint has not brought the agent to life.
type EntrypointError struct {
	Said string // what it has printed, at most 64 KiB of it
	Exit int    // its exit code, 128 and the signal if one has ended it; -1: it could not be started
}

func (e *EntrypointError) Error() string {
	if e.Exit < 0 {
		return "the image's entrypoint can't be started: " + e.Said
	}
	text := fmt.Sprintf("the image's entrypoint ended with exit code %d instead of running the command that it was given", e.Exit)
	if e.Said != "" {
		text += "; it said: " + e.Said
	}
	return text
}

// Hello is what an agent says about itself and where it is.
type Hello struct {
	UID     int            `json:"uid"` // of the process that runs scripts; -1 where there is no such thing
	GID     int            `json:"gid"`
	Host    string         `json:"host"`
	Room    diskspace.Room `json:"room"`              // of the first directory that was opened, else of the root
	Said    string         `json:"said,omitempty"`    // what the entrypoint has printed so far, the last 64 KiB of it
	Trouble []string       `json:"trouble,omitempty"` // what did not work at the start and need not matter
}

// Target is something that should be reached by TCP: one of the ports is enough.
type Target struct {
	Name    string `json:"name"`
	Address string `json:"address"` // a name or an IP address; empty: Name
	Ports   []int  `json:"ports"`
}

// Probed tells how it went with a Target.
type Probed struct {
	Name string `json:"name"`
	Err  string `json:"err,omitempty"` // empty: it answers
}

// The requests.
const (
	opEnter  = "enter"
	opStart  = "start"
	opAttach = "attach"
	opDetach = "detach"
	opCancel = "cancel"
	opProbe  = "probe"
	opNote   = "note"
	opOwn    = "own"
	opHosts  = "hosts"
	opStop   = "stop" // to a worker: end all phases
)

// request is one line to the agent.
type request struct {
	ID      string         `json:"id"`
	Op      string         `json:"op"`
	Environ []string       `json:"environ,omitempty"`
	Phase   *tranter.Phase `json:"phase,omitempty"`
	PhaseID string         `json:"phase_id,omitempty"`
	Offset  int64          `json:"offset,omitempty"`
	Abort   bool           `json:"abort,omitempty"`
	Grace   time.Duration  `json:"grace,omitempty"`
	Targets []Target       `json:"targets,omitempty"`
	Limit   time.Duration  `json:"limit,omitempty"`
	Line    string         `json:"line,omitempty"`
	Of      string         `json:"of,omitempty"`   // detach: the request that is taken back
	Mark    string         `json:"mark,omitempty"` // attach: what the journal begins with on its channel
	Paths   []string       `json:"paths,omitempty"`
	Hosts   []string       `json:"hosts,omitempty"`
	UID     int            `json:"uid,omitempty"`
	GID     int            `json:"gid,omitempty"`
}

// event is one line from the agent. With the ID of a request it is the answer.
type event struct {
	Link   int                  `json:"tranter_link"` // protocol
	ID     string               `json:"id,omitempty"`
	Error  *fault               `json:"error,omitempty"`
	Hello  *Hello               `json:"hello,omitempty"`
	Result *tranter.PhaseResult `json:"result,omitempty"`
	Sent   int64                `json:"sent,omitempty"` // bytes of a journal
	Probed []Probed             `json:"probed,omitempty"`
	Bye    bool                 `json:"bye,omitempty"` // the process ends in an orderly way
}

// protocol is the version of what goes over the line. The manager may be replaced while an agent runs: a field may be
// added without a new version.
const protocol = 1

// Bounds of what is read.
const (
	maxRequest = 256 << 20
	maxEvent   = 4 << 20
	maxText    = 4 << 10  // of an error
	maxSaid    = 64 << 10 // of what an entrypoint prints
	maxWords   = 4 << 10  // of last words
)

// fault is an error on the line.
type fault struct {
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
	Said string `json:"said,omitempty"`
	Exit int    `json:"exit,omitempty"`
}

// The kinds of faults that are told apart.
const (
	faultLost       = "lost"
	faultMissing    = "missing"
	faultConfig     = "config"
	faultEntrypoint = "entrypoint"
)

func faultOf(err error) *fault {
	if err == nil {
		return nil
	}
	f := &fault{Text: tail(err.Error(), maxText)}
	entrypoint, isEntrypoint := errors.AsType[*EntrypointError](err)
	_, isConfig := errors.AsType[*tranter.ConfigError](err)
	switch {
	case errors.Is(err, tranter.ErrAgentLost):
		f.Kind = faultLost
	case errors.Is(err, tranter.ErrNotFound):
		f.Kind = faultMissing
	case isEntrypoint:
		f.Kind, f.Said, f.Exit = faultEntrypoint, entrypoint.Said, entrypoint.Exit
	case isConfig:
		f.Kind = faultConfig
	}
	return f
}

// remoteError is an error from the other end, with what it is here.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

// err is the error that a fault stands for. Who has sent it may be anything but our agent.
func (f *fault) err() error {
	if f == nil {
		return nil
	}
	f = &fault{Kind: f.Kind, Text: tail(f.Text, maxText), Said: tail(f.Said, maxSaid), Exit: f.Exit}
	switch f.Kind {
	case faultLost:
		return &remoteError{f.Text, tranter.ErrAgentLost}
	case faultMissing:
		return &remoteError{f.Text, tranter.ErrNotFound}
	case faultConfig:
		return &tranter.ConfigError{Err: errors.New(f.Text)}
	case faultEntrypoint:
		return &EntrypointError{Said: f.Said, Exit: f.Exit}
	}
	return errors.New(f.Text)
}

// parseRequest reads a line to the agent.
func parseRequest(line []byte) (request, error) {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("a request that can't be read: %w", err)
	}
	if r.ID == "" || r.Op == "" {
		return r, errors.New("a request without id and op")
	}
	return r, nil
}

// parseEvent says whether a line is an event.
func parseEvent(line []byte) (event, bool) {
	var e event
	if line = bytes.TrimSpace(line); len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &e) != nil {
		return e, false
	}
	return e, e.Link > 0
}

// phaseDir returns the directory of a phase, whose id can be no path.
func phaseDir(root, id string) (string, error) {
	if id == "" || len(id) > 100 || id != filepath.Base(id) || !filepath.IsLocal(id) || id == "." {
		return "", fmt.Errorf("%.100q can't be the id of a phase", id)
	}
	return filepath.Join(root, "phase-"+id), nil
}

// mark is what begins a journal on the channel for journals.
func mark(word string) []byte { return []byte("\x00" + word + "\n") }

// lineReader reads lines of a bounded length.
type lineReader struct {
	r     *bufio.Reader
	limit int
	buf   []byte
}

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 32<<10), limit: limit}
}

// next returns the next line, without its end. Of a line that is too long only the last part comes, and whole is false.
// The line is valid until the next call.
func (l *lineReader) next() (line []byte, whole bool, err error) {
	if cap(l.buf) > 1<<20 { // of a large phase; the next request is a small one
		l.buf = nil
	}
	l.buf, whole = l.buf[:0], true
	for {
		part, err := l.r.ReadSlice('\n')
		if len(l.buf)+len(part) > l.limit {
			l.buf, whole = l.buf[:0], false
		}
		l.buf = append(l.buf, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && len(l.buf) == 0:
			return nil, true, err
		}
		return bytes.TrimSuffix(l.buf, []byte{'\n'}), whole, nil
	}
}

// tail returns the last n bytes of s.
func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// lastBytes keeps the last bytes of what is written to it.
type lastBytes struct {
	max int
	buf []byte
}

func (l *lastBytes) add(p []byte) {
	l.buf = append(l.buf, p[max(0, len(p)-l.max):]...)
	if len(l.buf) > 2*l.max {
		l.buf = append([]byte(nil), l.buf[len(l.buf)-l.max:]...)
	}
}

func (l *lastBytes) String() string { return string(l.buf[max(0, len(l.buf)-l.max):]) }
