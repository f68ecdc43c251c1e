package tranter

import (
	"context"
	"errors"
	"io"
)

// TerminalSession is a Session that can open an interactive terminal in the job's environment.
type TerminalSession interface {
	Session
	// Terminal opens a terminal beside a running phase: the job's shell, as the job's user, in the project directory and
	// with the job's variables. It waits until the job's sources are there. ctx is for the opening only. All processes of
	// the terminal are gone after Close of the session.
	Terminal(ctx context.Context, phaseID string) (Terminal, error)
}

// Terminal is an open terminal. Read and Write may run at the same time, and Close and Resize at any time. Read gives
// io.EOF when the shell has ended.
type Terminal interface {
	io.ReadWriteCloser
	// Resize tells the programs in the terminal how large the user's window is, in characters.
	Resize(columns, rows uint16) error
	// CloseWrite tells that there is no more input: the shell ends once it has read what there was.
	CloseWrite() error
	// ExitCode returns the shell's, once Read has given io.EOF; ok is false if the terminal ended otherwise.
	ExitCode() (code int, ok bool)
}

// Access is how a coordinator reaches the terminal of the one job for which it was made (runner contract, section 1.14).
type Access struct {
	URL           string `json:"url"`
	Certificate   string `json:"certificate"` // PEM text of what the URL's server is verified with
	Authorization Secret `json:"authorization"`
}

// Errors of opening terminals.
var (
	ErrNoTerminal   = errors.New("the executor has no interactive terminals")
	ErrTerminalBusy = errors.New("another terminal is attached to the job; a job has one at a time")
	ErrJobEnded     = errors.New("the job has ended")
)
