package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	tranter "github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/remote"
)

// usualSocket is where an engine listens on the other machine if the address does not say.
const usualSocket = "/var/run/docker.sock"

// perLine is how many connections through a program go over one SSH connection: a server allows 10 sessions as a rule.
const perLine = 8

// tunnel connects to the socket of an engine on another machine over SSH. One SSH connection carries all connections; when
// it is lost, the next that is asked for makes a new one. A machine that does not forward to sockets is asked to run
// `docker system dial-stdio` for each connection instead, as Docker's own command does; that needs Docker's command there.
type tunnel struct {
	target remote.Target
	socket string // there; empty: the usual one
	log    *slog.Logger

	turn   chan struct{} // of size one: who is in it may use what follows
	conn   *remote.Conn  // nil before the first
	lines  []*line       // with dial-stdio, in place of conn
	stdio  bool
	closed bool
}

// line is an SSH connection that carries some connections through a program.
type line struct {
	conn *remote.Conn
	used atomic.Int32
}

func newTunnel(a address, host string, env lookup, log *slog.Logger) (dialer, error) {
	target, socket, err := remote.Find(host, env)
	if err != nil {
		return nil, &tranter.ConfigError{Err: fmt.Errorf("the engine at %s: %w", a.text, err)}
	}
	return &tunnel{target: target, socket: socket, log: log, turn: make(chan struct{}, 1)}, nil
}

func (t *tunnel) take(ctx context.Context) error {
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *tunnel) give() { <-t.turn }

func (t *tunnel) dial(ctx context.Context) (net.Conn, error) {
	for {
		conn, stdio, err := t.current(ctx)
		if err != nil {
			return nil, err
		}
		if stdio {
			return t.dialStdio(ctx)
		}
		through, err := t.forward(ctx, conn)
		switch {
		case err == nil:
			return through, nil
		case errors.Is(err, remote.ErrForwarding):
			if err := t.switchOver(ctx, conn, err); err != nil {
				return nil, err
			}
		case ctx.Err() != nil || !isGone(conn):
			return nil, err
		}
		// Either the way is another now, or the connection was lost before we used it: once more, with a new one.
	}
}

// forward connects to the socket; it counts a machine that does not answer as lost.
func (t *tunnel) forward(ctx context.Context, conn *remote.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	socket := t.socket
	if socket == "" {
		socket = usualSocket
	}
	return conn.Dial(ctx, "unix", socket)
}

// isGone says whether an SSH connection has ended.
func isGone(conn *remote.Conn) bool {
	select {
	case <-conn.Gone():
		return true
	default:
		return false
	}
}

// current returns the SSH connection, a new one if there is none or the old one was lost; or that dial-stdio is to be used.
func (t *tunnel) current(ctx context.Context) (*remote.Conn, bool, error) {
	if err := t.take(ctx); err != nil {
		return nil, false, err
	}
	defer t.give()
	switch {
	case t.closed:
		return nil, false, net.ErrClosed
	case t.stdio:
		return nil, true, nil
	case t.conn != nil && !isGone(t.conn):
		return t.conn, false, nil
	}
	if t.conn != nil {
		t.log.Warn("the SSH connection to the engine was lost; making a new one", "host", t.target.String())
		_ = t.conn.Close()
		t.conn = nil
	}
	conn, err := remote.Dial(ctx, t.target)
	if err != nil {
		return nil, false, err
	}
	t.conn = conn
	return conn, false, nil
}

// maxProbe is how much is kept of what dial-stdio says when it is tried.
const maxProbe = 4 << 10

// switchOver uses dial-stdio from now on, if that works, and otherwise returns why nothing works.
func (t *tunnel) switchOver(ctx context.Context, conn *remote.Conn, refusal error) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	out, said := &bounded{limit: maxProbe}, &bounded{limit: maxProbe}
	err := conn.Run(ctx, t.command(), strings.NewReader("GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n"), out, said)
	if !strings.HasPrefix(string(out.text), "HTTP/1.") {
		if err == nil {
			err = errors.New("it answered nothing")
		}
		if text := strings.TrimSpace(string(said.text)); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return &noSocketError{refusal: refusal, stdio: err}
	}
	if err := t.take(ctx); err != nil {
		return err
	}
	defer t.give()
	if !t.stdio {
		t.log.Warn("the machine forwards to no socket; using docker system dial-stdio", "host", t.target.String())
	}
	t.stdio = true
	return nil
}

// noSocketError means that neither way to an engine's socket on another machine works.
type noSocketError struct{ refusal, stdio error }

func (e *noSocketError) Error() string {
	return fmt.Sprintf("%v; and docker system dial-stdio there does not work: %v", e.refusal, e.stdio)
}

func (e *noSocketError) Unwrap() []error { return []error{e.refusal, e.stdio} }

// command is what the other machine runs to reach the engine.
func (t *tunnel) command() string {
	if t.socket == "" {
		return "docker system dial-stdio"
	}
	return "docker --host " + quote("unix://"+t.socket) + " system dial-stdio"
}

func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

func (t *tunnel) dialStdio(ctx context.Context) (net.Conn, error) {
	l, err := t.line(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := l.conn.Pipe(ctx, t.command(), io.Discard)
	if err != nil {
		l.used.Add(-1)
		return nil, err
	}
	return &counted{Conn: conn, release: sync.OnceFunc(func() { l.used.Add(-1) })}, nil
}

// line returns an SSH connection that has room for one more, and counts that one.
func (t *tunnel) line(ctx context.Context) (*line, error) {
	if err := t.take(ctx); err != nil {
		return nil, err
	}
	defer t.give()
	if t.closed {
		return nil, net.ErrClosed
	}
	kept := t.lines[:0]
	var free *line
	for _, l := range t.lines {
		if isGone(l.conn) {
			_ = l.conn.Close()
			continue
		}
		kept = append(kept, l)
		if free == nil && l.used.Load() < perLine {
			free = l
		}
	}
	t.lines = kept
	if free == nil {
		conn, err := remote.Dial(ctx, t.target)
		if err != nil {
			return nil, err
		}
		free = &line{conn: conn}
		t.lines = append(t.lines, free)
	}
	free.used.Add(1)
	return free, nil
}

func (t *tunnel) close() error {
	t.turn <- struct{}{}
	defer t.give()
	t.closed = true
	var errs []error
	if t.conn != nil {
		errs = append(errs, t.conn.Close())
	}
	for _, l := range t.lines {
		errs = append(errs, l.conn.Close())
	}
	return errors.Join(errs...)
}

// counted is a connection that is counted on a line. It gives its place back when it is closed.
type counted struct {
	net.Conn
	release func()
}

func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	text  []byte
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.text = append(b.text, p[:min(len(p), b.limit-len(b.text))]...)
	return len(p), nil
}
