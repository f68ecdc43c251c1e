package remote

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
)

// Link is a connection to a machine that is made anew, when it was lost, by the next who asks for something. All methods
// may be called at the same time.
type Link struct {
	target Target
	log    *slog.Logger

	turn chan struct{} // of size one: who is in it may use conn
	conn *Conn         // nil before the first

	mu     sync.Mutex         // guards what follows
	closed bool               // no more connections are made
	cancel context.CancelFunc // of the connection that is being made; nil: none is
}

// NewLink returns a link that is not connected yet.
func NewLink(t Target, log *slog.Logger) *Link {
	return &Link{target: t, log: log, turn: make(chan struct{}, 1)}
}

// Linked returns a link that begins with a connection, which it owns from now on. From the first one that is made anew the
// host must have the key that it has shown in this one.
func Linked(c *Conn, log *slog.Logger) *Link {
	l := NewLink(c.target, log)
	l.target.HostKey = c.HostKey()
	l.conn = c
	return l
}

// Target returns where the link leads.
func (l *Link) Target() Target { return l.target }

// Conn returns the connection, a new one if there is none or the old one was lost. It is the link's to close. Errors are
// those of Dial, and net.ErrClosed.
func (l *Link) Conn(ctx context.Context) (*Conn, error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-l.turn }()
	ctx, cancel, err := l.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if l.conn != nil && !l.conn.ended() {
		return l.conn, nil
	}
	if l.conn != nil {
		l.log.Warn("the SSH connection was lost; making a new one", "host", l.target.String())
		_ = l.conn.Close()
		l.conn = nil
	}
	conn, err := Dial(ctx, l.target)
	if err != nil {
		return nil, err
	}
	l.conn = conn
	return conn, nil
}

// begin returns a context that ends when the link is closed.
func (l *Link) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, net.ErrClosed
	}
	ctx, l.cancel = context.WithCancel(ctx)
	return ctx, l.cancel, nil
}

// ended says whether a connection has ended.
func (c *Conn) ended() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// linkTries is how many connections one call tries: one that turns out to be lost, its successor, and one more.
const linkTries = 3

// with calls use with a connection. It does so again, with a new one, as long as use says that nothing was done.
func (l *Link) with(ctx context.Context, use func(*Conn) (undone bool, err error)) error {
	for try := 1; ; try++ {
		conn, err := l.Conn(ctx)
		if err != nil {
			return err
		}
		undone, err := use(conn)
		if err == nil || !undone || !conn.ended() || ctx.Err() != nil || try == linkTries {
			return err
		}
	}
}

// Dial is Conn.Dial.
func (l *Link) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var through net.Conn
	err := l.with(ctx, func(c *Conn) (undone bool, err error) {
		through, err = c.Dial(ctx, network, address)
		return !errors.Is(err, ErrForwarding), err
	})
	return through, err
}

// Run is Conn.Run. A command that may have begun is not run again.
func (l *Link) Run(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) error {
	return l.with(ctx, func(c *Conn) (undone bool, err error) {
		err = c.Run(ctx, command, stdin, stdout, stderr)
		_, undone = errors.AsType[*noSessionError](err)
		return undone, err
	})
}

// Shell is Conn.Shell. A command that may have begun is not run again.
func (l *Link) Shell(ctx context.Context, command string, pty *PTY, s Streams) error {
	return l.with(ctx, func(c *Conn) (undone bool, err error) {
		err = c.Shell(ctx, command, pty, s)
		_, undone = errors.AsType[*noSessionError](err)
		return undone, err
	})
}

// Close ends the connection and all that goes over it; nothing can be asked for any more.
func (l *Link) Close() error {
	l.mu.Lock()
	l.closed = true
	if l.cancel != nil {
		l.cancel()
	}
	l.mu.Unlock()
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if l.conn == nil {
		return nil
	}
	return l.conn.Close()
}
