package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// operation is what the manager asks a worker to do.
type operation string

const (
	opOpen    operation = "open"    // Body: openRequest
	opSettled operation = "settled" // the answer to a question of the open request Of; Body: settled
	opStart   operation = "start"   // Body: tranter.Phase
	opAttach  operation = "attach"  // answered when the phase has ended
	opCancel  operation = "cancel"
	opUsed    operation = "used" // answered with what the phases that have ended have used
	opClose   operation = "close"
	opDrop    operation = "drop" // nobody waits for the answer to Of any more
	opEnd     operation = "end"  // the worker ends itself
	opPing    operation = "ping" // the manager is alive
)

// request is one line from the manager to a worker. It holds no secret unless Body is in it, which it is on connections.
type request struct {
	ID      string          `json:"id,omitempty"`
	Op      operation       `json:"op"`
	Job     string          `json:"job,omitempty"`
	Attempt string          `json:"attempt,omitempty"` // to open the session; one of another is closed first
	Phase   string          `json:"phase,omitempty"`
	Of      string          `json:"of,omitempty"`
	Abort   bool            `json:"abort,omitempty"`
	Grace   time.Duration   `json:"grace,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Apart   bool            `json:"apart,omitempty"` // the body lies in a file of the request's id
	Body    json.RawMessage `json:"body,omitempty"`
}

// answer is one line from a worker to the manager.
type answer struct {
	Re     string                `json:"re,omitempty"`
	Done   bool                  `json:"done,omitempty"` // nothing more comes
	Error  *failure              `json:"error,omitempty"`
	Result *tranter.PhaseResult  `json:"result,omitempty"`
	Log    string                `json:"log,omitempty"` // what Open says to the user, from byte At of all that
	At     int                   `json:"at,omitempty"`
	Settle *tranter.Surroundings `json:"settle,omitempty"` // a question: what follows from this
	Used   *used                 `json:"used,omitempty"`
	Sign   *sign                 `json:"sign,omitempty"`
}

// used is what a job's processes have used.
type used struct {
	CPUTime   time.Duration `json:"cpu_time"`
	MaxMemory int64         `json:"max_memory"` // of the largest one, bytes
}

// openRequest is what Open of the worker's executor is called with.
type openRequest struct {
	Job       *tranter.Job       `json:"job"`
	Dirs      tranter.Dirs       `json:"dirs"`
	Variables []tranter.Variable `json:"variables"`
	Internal  []int              `json:"internal,omitempty"` // the variables that are: the payload's format has no word for it
	Settles   bool               `json:"settles,omitempty"`  // questions are answered
}

// settled is what follows from a job's surroundings.
type settled struct {
	Dirs      tranter.Dirs       `json:"dirs"`
	Variables []tranter.Variable `json:"variables"`
	Internal  []int              `json:"internal,omitempty"`
	Error     *failure           `json:"error,omitempty"`
}

func internals(vars []tranter.Variable) (which []int) {
	for i, v := range vars {
		if v.Internal {
			which = append(which, i)
		}
	}
	return which
}

func markInternals(vars []tranter.Variable, which []int) []tranter.Variable {
	for _, i := range which {
		if i >= 0 && i < len(vars) {
			vars[i].Internal = true
		}
	}
	return vars
}

// failure is an error on its way.
type failure struct {
	Kind string `json:"kind,omitempty"`
	Exit int    `json:"exit,omitempty"`
	Text string `json:"text"`
}

const maxText = 8 << 10 // bytes of an error's text

func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Text: err.Error()}
	if len(f.Text) > maxText {
		f.Text = f.Text[:maxText] + "..."
	}
	var (
		config     *tranter.ConfigError
		build      *tranter.BuildError
		pull       *tranter.PullError
		dependency *tranter.DependencyError
	)
	switch {
	case errors.As(err, &build):
		f.Kind, f.Exit = "build", build.ExitCode
	case errors.As(err, &config):
		f.Kind = "config"
	case errors.As(err, &pull):
		f.Kind = "pull"
	case errors.As(err, &dependency):
		f.Kind = "dependency"
	case errors.Is(err, tranter.ErrAgentLost):
		f.Kind = "agent lost"
	case errors.Is(err, tranter.ErrNotFound):
		f.Kind = "not found"
	case errors.Is(err, tranter.ErrMachineLost):
		f.Kind = "lost"
	}
	return f
}

// err returns the error of the same class.
func (f *failure) err() error {
	if f == nil {
		return nil
	}
	text := errors.New(f.Text)
	switch f.Kind {
	case "build":
		return &tranter.BuildError{ExitCode: f.Exit, Err: text}
	case "config":
		return &tranter.ConfigError{Err: text}
	case "pull":
		return &tranter.PullError{Err: text}
	case "dependency":
		return &tranter.DependencyError{Err: text}
	case "agent lost":
		return &classed{f.Text, tranter.ErrAgentLost}
	case "not found":
		return &classed{f.Text, tranter.ErrNotFound}
	case "lost":
		return &classed{f.Text, tranter.ErrMachineLost}
	}
	return text
}

// classed is an error whose text was made elsewhere, of the class of another.
type classed struct {
	text  string
	class error
}

func (c *classed) Error() string { return c.text }

// Unwrap returns what class it is of.
func (c *classed) Unwrap() error { return c.class }

// sign is what a worker tells about itself. Its lines are whole or not there; Seq counts up.
type sign struct {
	Seq     int64     `json:"seq"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	BatchID string    `json:"batch_id,omitempty"`
	Started time.Time `json:"started"`
	Until   time.Time `json:"until,omitzero"`
	Free    int       `json:"free"`
	Ended   bool      `json:"ended,omitempty"`
	Reason  string    `json:"reason,omitempty"`
}

const (
	maxSign    = 4 << 10
	maxAnswer  = 512 << 10 // bytes of a line from a worker
	maxRequest = 64 << 20  // of a line from the manager, or of a body
	logPiece   = 32 << 10
)

// tidy makes what a worker says of itself fit to be shown.
func (s *sign) tidy() {
	s.Host, s.BatchID, s.Reason = brief(s.Host, 255), brief(s.BatchID, 64), brief(s.Reason, 1000)
}

// brief returns the beginning of a text, in one line that a terminal can show.
func brief(s string, most int) string {
	out := []rune(s[:min(len(s), 4*most)])
	for i, r := range out {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			out[i] = ' '
		}
	}
	return string(out[:min(len(out), most)])
}

var goodName = lazy.Regexp(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$`)

// checkName says whether a name can be that of a file. It has no way out of a directory.
func checkName(what, name string) error {
	if !goodName().MatchString(name) {
		return errors.New("the " + what + " " + brief(name, 200) + " can't be the name of a file: letters, digits, dots, dashes and underscores can")
	}
	return nil
}

// lines cuts a stream into lines that are JSON. What is no JSON, such as half a line of a writer that was killed, is left out.
type lines struct {
	rest []byte
	most int
}

var errLongLine = errors.New("a line is too long")

func (l *lines) add(p []byte, each func(line []byte)) error {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			break
		}
		if line := l.rest[:i]; len(line) > 0 && json.Valid(line) {
			each(line)
		}
		l.rest = l.rest[i+1:]
	}
	if len(l.rest) > l.most {
		return errLongLine
	}
	if len(l.rest) == 0 {
		l.rest = nil
	}
	return nil
}
