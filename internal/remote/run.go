package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// ExitError means that a command ran and failed.
type ExitError struct {
	Code   int    // -1 if a signal ended it or nothing is known
	Signal string // without SIG; empty if none
}

func (e *ExitError) Error() string {
	if e.Signal != "" {
		return "the command was ended by signal " + e.Signal
	}
	if e.Code < 0 {
		return "the command ended without a status"
	}
	return fmt.Sprintf("the command ended with status %d", e.Code)
}

// Run runs a command in the user's shell there. Nil streams are empty. The error is *ExitError if the command fails. When
// the context ends the command is killed as far as the machine does that (sshd does not for root), its streams are closed,
// and the context's error is returned; no stream is written to after the return. Reading from stdin cannot be broken off,
// so its reader should end.
func (c *Conn) Run(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) error {
	session, err := c.session(ctx)
	if err != nil {
		return err
	}
	session.Stdin = stdin
	return c.finish(ctx, session, stdout, stderr, func() error { return session.Run(command) })
}

// finish runs what a session is for, and closes it.
func (c *Conn) finish(ctx context.Context, session *ssh.Session, stdout, stderr io.Writer, run func() error) error {
	out, errs := &gate{w: stdout}, &gate{w: stderr}
	session.Stdout, session.Stderr = out, errs
	result := make(chan error, 1)
	running := c.spawn(func() {
		defer func() { _ = session.Close() }()
		result <- run()
	})
	if !running {
		_ = session.Close()
		return fmt.Errorf("run a command on %s: %w", c.target, net.ErrClosed)
	}
	select {
	case err := <-result:
		return c.exit(err)
	case <-ctx.Done():
	}
	out.shut()
	errs.shut()
	c.spawn(func() {
		_ = session.Signal(ssh.SIGKILL)
		_ = session.Close()
	})
	return fmt.Errorf("run a command on %s: %w", c.target, ctx.Err())
}

// gate is a way to a writer that can be shut.
type gate struct {
	mu     sync.Mutex
	w      io.Writer // nil: nowhere
	closed bool
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return 0, net.ErrClosed
	case g.w == nil:
		return len(p), nil
	}
	return g.w.Write(p)
}

// shut returns when nothing is being written any more.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

func (c *Conn) exit(err error) error {
	if err == nil {
		return nil
	}
	if ended, ok := errors.AsType[*ssh.ExitError](err); ok {
		if ended.Signal() != "" {
			return &ExitError{Code: -1, Signal: ended.Signal()}
		}
		return &ExitError{Code: ended.ExitStatus()}
	}
	if _, ok := errors.AsType[*ssh.ExitMissingError](err); ok && !c.lostSoon() {
		return &ExitError{Code: -1}
	}
	if c.lostSoon() {
		return fmt.Errorf("run a command on %s: %w", c.target, ErrLost)
	}
	return fmt.Errorf("run a command on %s: %w", c.target, err)
}

// lostGrace is how long after a command without a status the end of the connection may be noticed.
const lostGrace = time.Second

// lostSoon says whether the connection has ended, or does so in a moment.
func (c *Conn) lostSoon() bool {
	limit := time.NewTimer(lostGrace)
	defer limit.Stop()
	select {
	case <-c.gone:
		return true
	case <-limit.C:
		return false
	}
}

// noSessionError means that a command was not begun.
type noSessionError struct{ error }

func (e *noSessionError) Unwrap() error { return e.error }

// session opens a session; the context ends the wait.
func (c *Conn) session(ctx context.Context) (*ssh.Session, error) {
	type opened struct {
		session *ssh.Session
		err     error
	}
	result := make(chan opened, 1)
	opening := func() {
		session, err := c.client.NewSession()
		result <- opened{session, err}
	}
	if !c.spawn(opening) {
		return nil, fmt.Errorf("open a session on %s: %w", c.target, net.ErrClosed)
	}
	select {
	case r := <-result:
		if r.err != nil {
			if lost(r.err) {
				_ = c.client.Close()
				<-c.gone // so that the caller sees it
			}
			return nil, &noSessionError{fmt.Errorf("open a session on %s: %w", c.target, r.err)}
		}
		return r.session, nil
	case <-ctx.Done():
		c.spawn(func() {
			if r := <-result; r.err == nil {
				_ = r.session.Close()
			}
		})
		return nil, fmt.Errorf("open a session on %s: %w", c.target, ctx.Err())
	}
}

// Pipe runs a command there and returns a connection to its standard input and output. Closing the connection ends the
// session. What the command says on its standard error goes to the writer. The context is for the start alone.
func (c *Conn) Pipe(ctx context.Context, command string, stderr io.Writer) (net.Conn, error) {
	session, err := c.session(ctx)
	if err != nil {
		return nil, err
	}
	session.Stderr = stderr
	p := &pipe{session: session}
	if p.WriteCloser, err = session.StdinPipe(); err == nil {
		if p.Reader, err = session.StdoutPipe(); err == nil {
			err = session.Start(command)
		}
	}
	if err != nil {
		_ = session.Close()
		return nil, fmt.Errorf("run a command on %s: %w", c.target, err)
	}
	return p, nil
}

// pipe is a command's standard input and output as a connection.
type pipe struct {
	io.WriteCloser
	io.Reader
	session *ssh.Session
	once    sync.Once
}

func (p *pipe) CloseWrite() error { return p.WriteCloser.Close() }

func (p *pipe) Close() error {
	p.once.Do(func() { _ = p.session.Close() })
	return nil
}

func (p *pipe) LocalAddr() net.Addr              { return pipeAddr{} }
func (p *pipe) RemoteAddr() net.Addr             { return pipeAddr{} }
func (p *pipe) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (p *pipe) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (p *pipe) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "ssh" }
func (pipeAddr) String() string  { return "ssh" }
