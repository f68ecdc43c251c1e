package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/remote"
)

// machineHost is a pool.Host that people can be let into.
type machineHost interface {
	// Shell runs a command there, or the login's shell if it is empty, with a terminal if pty is not nil. The error is
	// *remote.ExitError if the command fails.
	Shell(ctx context.Context, command string, pty *remote.PTY, stdin io.Reader, stdout, stderr io.Writer) error
	// Environment is what a client of container engines needs, as NAME=VALUE.
	Environment() []string
}

// machineShell is a command on a machine as a terminal. Without a window its standard error is apart.
type machineShell struct {
	input       *io.PipeWriter
	output      *io.PipeReader
	errorOutput *io.PipeReader
	sizes       chan remote.Size
	stop        context.CancelFunc
	ended       chan struct{} // closed after the command

	mu    sync.Mutex
	code  int
	known bool // code is
}

// shell opens what a request for a shell asks for.
func (f *machineFleet) shell(r *http.Request) (tranter.Terminal, error) {
	host, err := f.host(r.Context(), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	pty, err := windowOf(r)
	if err != nil {
		return nil, err
	}
	return openMachineShell(r.Context(), host, r.FormValue("command"), pty), nil
}

// windowOf reads the size of the window that a request has; nil: it has none.
func windowOf(r *http.Request) (*remote.PTY, error) {
	if r.FormValue("columns") == "" {
		return nil, nil
	}
	columns, err := strconv.ParseUint(r.FormValue("columns"), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("read the width of the window: %w", err)
	}
	rows, err := strconv.ParseUint(r.FormValue("rows"), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("read the height of the window: %w", err)
	}
	return &remote.PTY{Term: r.FormValue("term"), Size: remote.Size{Columns: int(columns), Rows: int(rows)}}, nil //nolint:gosec // 16 bits
}

// host is a connection to a machine.
func (f *machineFleet) host(ctx context.Context, name string) (machineHost, error) {
	var host machineHost
	err := f.with(ctx, name, func(p machinePool, m fleet.Machine) error {
		h, err := p.Host(ctx, name)
		if err != nil {
			return fmt.Errorf("reach machine %s, which is %s: %w", name, m.State, err)
		}
		var ok bool
		if host, ok = h.(machineHost); !ok {
			return fmt.Errorf("machine %s has no shell", name)
		}
		return nil
	})
	return host, err
}

// openMachineShell starts a command on a machine. It ends with ctx.
func openMachineShell(ctx context.Context, host machineHost, command string, pty *remote.PTY) *machineShell {
	ctx, stop := context.WithCancel(ctx)
	in, input := io.Pipe()
	output, out := io.Pipe()
	errorOutput, errs := io.Pipe()
	s := &machineShell{input: input, output: output, errorOutput: errorOutput, sizes: make(chan remote.Size, 1), stop: stop, ended: make(chan struct{})}
	if pty != nil {
		pty.Resize = s.sizes
	}
	go func() {
		defer close(s.ended)
		err := host.Shell(ctx, command, pty, in, out, errs)
		s.finish(err)
		if _, known := s.ExitCode(); known {
			err = nil // its output ends as usual
		} else {
			err = errors.New(err.Error()) // it may be an io.EOF, which would say the same
		}
		_ = in.Close()
		_ = errs.Close()
		_ = out.CloseWithError(err)
	}()
	return s
}

// signalled is the exit code of a command that a signal has ended, or of which nothing is known, as ssh has it.
const signalled = 255

// finish notes how the command has ended.
func (s *machineShell) finish(err error) {
	exit, failed := errors.AsType[*remote.ExitError](err)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.known = true
	case failed && exit.Code >= 0:
		s.code, s.known = exit.Code, true
	case failed:
		s.code, s.known = signalled, true
	}
}

// Read gives the command's output.
func (s *machineShell) Read(p []byte) (int, error) { return s.output.Read(p) }

// Errors gives its standard error.
func (s *machineShell) Errors() io.Reader { return s.errorOutput }

// Write gives input to the command. What a command has not waited for is nobody's.
func (s *machineShell) Write(p []byte) (int, error) {
	n, err := s.input.Write(p)
	if errors.Is(err, io.ErrClosedPipe) {
		return len(p), nil
	}
	return n, err
}

// CloseWrite ends the command's input.
func (s *machineShell) CloseWrite() error { return s.input.Close() }

// Resize gives the window another size. The last one wins.
func (s *machineShell) Resize(columns, rows uint16) error {
	for {
		select {
		case s.sizes <- remote.Size{Columns: int(columns), Rows: int(rows)}:
			return nil
		default:
		}
		select {
		case <-s.sizes:
		default:
		}
	}
}

// ExitCode implements tranter.Terminal.
func (s *machineShell) ExitCode() (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code, s.known
}

// Close ends the command.
func (s *machineShell) Close() error {
	s.stop()
	_ = s.input.CloseWithError(io.ErrUnexpectedEOF)
	_ = s.output.Close()
	_ = s.errorOutput.Close()
	<-s.ended
	return nil
}
