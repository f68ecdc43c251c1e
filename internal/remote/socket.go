package remote

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
	"time"
)

// usualSocket is where a container engine listens if nobody says otherwise.
const usualSocket = "/var/run/docker.sock"

// perLine is how many connections through a program go over one SSH connection: a server allows 10 sessions as a rule.
const perLine = 8

// socketTimeout is how long it may take to connect to a socket over a connection that is there.
const socketTimeout = 30 * time.Second

// Socket is the socket of a container engine on a machine. One SSH connection carries all connections to it. A machine that
// does not forward to sockets is asked to run `docker system dial-stdio` for each connection instead, as Docker's own
// command does; that needs Docker's command there. All methods may be called at the same time.
type Socket struct {
	link *Link
	path string // there; empty: the usual one
	log  *slog.Logger

	turn   chan struct{} // of size one: who is in it may use what follows
	lines  []*line       // with dial-stdio, besides the link
	stdio  bool
	closed bool
}

// line is an SSH connection that carries some connections through a program.
type line struct {
	link *Link
	used atomic.Int32
}

// NewSocket returns the engine's socket at a path on the machine where a link leads; an empty path is /var/run/docker.sock.
// The link stays its owner's.
func NewSocket(l *Link, path string, log *slog.Logger) *Socket {
	return &Socket{link: l, path: path, log: log, turn: make(chan struct{}, 1)}
}

// Dial connects to the socket. The context is for that alone. Errors are those of Link.Conn, and ErrForwarding if neither
// way works.
func (s *Socket) Dial(ctx context.Context) (net.Conn, error) {
	if stdio, err := s.way(ctx); err != nil {
		return nil, err
	} else if stdio {
		return s.dialStdio(ctx)
	}
	through, err := s.forward(ctx)
	if !errors.Is(err, ErrForwarding) {
		return through, err
	}
	if err := s.switchOver(ctx, err); err != nil {
		return nil, err
	}
	return s.dialStdio(ctx)
}

// forward connects to the socket; a machine that does not answer is not waited for.
func (s *Socket) forward(ctx context.Context) (net.Conn, error) {
	if _, err := s.link.Conn(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, socketTimeout)
	defer cancel()
	path := s.path
	if path == "" {
		path = usualSocket
	}
	return s.link.Dial(ctx, "unix", path)
}

func (s *Socket) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Socket) give() { <-s.turn }

// way says whether connections go through dial-stdio.
func (s *Socket) way(ctx context.Context) (stdio bool, err error) {
	if err := s.take(ctx); err != nil {
		return false, err
	}
	defer s.give()
	if s.closed {
		return false, net.ErrClosed
	}
	return s.stdio, nil
}

// UsesStdio says whether the machine forwards to no socket.
func (s *Socket) UsesStdio() bool {
	stdio, err := s.way(context.Background())
	return err == nil && stdio
}

// maxProbe is how much is kept of what dial-stdio says when it is tried.
const maxProbe = 4 << 10

// switchOver uses dial-stdio from now on, if that works, and otherwise returns why nothing works.
func (s *Socket) switchOver(ctx context.Context, refusal error) error {
	ctx, cancel := context.WithTimeout(ctx, socketTimeout)
	defer cancel()
	out, said := &bounded{limit: maxProbe}, &bounded{limit: maxProbe}
	err := s.link.Run(ctx, s.command(), strings.NewReader("GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n"), out, said)
	if !strings.HasPrefix(string(out.text), "HTTP/1.") {
		if err == nil {
			err = errors.New("it answered nothing")
		}
		if text := strings.TrimSpace(string(said.text)); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return &noSocketError{refusal: refusal, stdio: err}
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	if !s.stdio {
		s.log.Warn("the machine forwards to no socket; using docker system dial-stdio", "host", s.link.Target().String())
	}
	s.stdio = true
	return nil
}

// noSocketError means that neither way to an engine's socket on another machine works.
type noSocketError struct{ refusal, stdio error }

func (e *noSocketError) Error() string {
	return fmt.Sprintf("%v; and docker system dial-stdio there does not work: %v", e.refusal, e.stdio)
}

func (e *noSocketError) Unwrap() []error { return []error{e.refusal, e.stdio} }

// command is what the machine runs to reach the engine.
func (s *Socket) command() string {
	if s.path == "" {
		return "docker system dial-stdio"
	}
	return "docker --host '" + strings.ReplaceAll("unix://"+s.path, "'", `'\''`) + "' system dial-stdio"
}

func (s *Socket) dialStdio(ctx context.Context) (net.Conn, error) {
	l, err := s.line(ctx)
	if err != nil {
		return nil, err
	}
	release := sync.OnceFunc(func() { l.used.Add(-1) })
	conn, err := l.link.Conn(ctx)
	if err != nil {
		release()
		return nil, err
	}
	through, err := conn.Pipe(ctx, s.command(), io.Discard)
	if err != nil {
		release()
		return nil, err
	}
	return &counted{Conn: through, release: release}, nil
}

// line returns an SSH connection that has room for one more, and counts that one.
func (s *Socket) line(ctx context.Context) (*line, error) {
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer s.give()
	if s.closed {
		return nil, net.ErrClosed
	}
	for _, l := range s.lines {
		if l.used.Load() < perLine {
			l.used.Add(1)
			return l, nil
		}
	}
	l := &line{link: NewLink(s.link.Target(), s.log)}
	l.used.Add(1)
	s.lines = append(s.lines, l)
	return l, nil
}

// Close ends the connections through programs. Those that the machine forwards end with the link.
func (s *Socket) Close() error {
	s.turn <- struct{}{}
	defer s.give()
	s.closed = true
	var errs []error
	for _, l := range s.lines {
		errs = append(errs, l.link.Close())
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
