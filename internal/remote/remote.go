// Package remote reaches a machine over SSH: it runs commands there and makes connections from there.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// loginTimeout is how long it may take to connect to one machine and to log in.
const loginTimeout = 30 * time.Second

// A machine is asked for a sign of life every lifeInterval, and is given up when none comes within lifeTimeout: a
// connection that silently died ends after 45 s at most.
const (
	lifeInterval = 15 * time.Second
	lifeTimeout  = 30 * time.Second
)

// ErrForwarding means that the machine did not make a connection for us: it forbids that, or nobody listens there. It
// does not always say which.
var ErrForwarding = errors.New("the machine made no connection")

// ErrLost means that the connection was lost while a command ran: nobody knows how that went.
var ErrLost = errors.New("the connection was lost")

// Conn is a connection to a machine. All methods may be called at the same time.
type Conn struct {
	client *ssh.Client
	target Target
	jump   *Conn         // nil if there is none; it is ours to close
	shown  ssh.PublicKey // by the host
	gone   chan struct{}
	work   sync.WaitGroup

	mu     sync.Mutex
	closed bool // guarded by mu: no more work begins
}

// Dial connects to the machine, through others if the target says so, and logs in with the keys of the agent and of the
// files. The context is for that alone. Errors are *HostKeyError if the machine is not the one it should be or not known,
// *AuthError if it lets us not in; anything else may pass.
func Dial(ctx context.Context, t Target) (*Conn, error) {
	c := &Conn{target: t, gone: make(chan struct{})}
	raw, err := c.reach(ctx)
	if err == nil {
		c.client, c.shown, err = login(ctx, t, raw)
	}
	if err != nil {
		if c.jump != nil {
			_ = c.jump.Close()
		}
		return nil, err
	}
	c.work.Go(func() {
		c.client.Wait() //nolint:errcheck // why it ended is of no use; those who wait for something get an error
		close(c.gone)
	})
	c.work.Go(c.watch)
	return c, nil
}

// reach makes the connection that SSH is spoken over.
func (c *Conn) reach(ctx context.Context) (net.Conn, error) {
	limit := c.target.ConnectTimeout
	if limit == 0 {
		limit = loginTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if c.target.Jump == nil {
		d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: lifeInterval, Interval: lifeInterval, Count: 3}}
		raw, err := d.DialContext(ctx, "tcp", c.target.address())
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", c.target, err)
		}
		return raw, nil
	}
	jump, err := Dial(ctx, *c.target.Jump)
	if err != nil {
		return nil, fmt.Errorf("on the way to %s: %w", c.target, err)
	}
	c.jump = jump
	raw, err := jump.Dial(ctx, "tcp", c.target.address())
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.target, err)
	}
	return raw, nil
}

// login speaks SSH over a connection, which it closes if that fails.
func login(ctx context.Context, t Target, raw net.Conn) (*ssh.Client, ssh.PublicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = raw.Close()
	})
	client, shown, err := handshake(ctx, t, raw)
	if !stop() {
		<-ended
		err = fmt.Errorf("log in to %s: %w", t, ctx.Err())
	}
	if err != nil {
		_ = raw.Close()
		return nil, nil, err
	}
	return client, shown, nil
}

// handshake returns the client and the key that the host has shown.
func handshake(ctx context.Context, t Target, raw net.Conn) (*ssh.Client, ssh.PublicKey, error) {
	hosts, err := newHostKeys(t)
	if err != nil {
		return nil, nil, err
	}
	keys := newKeyring(ctx, t)
	defer keys.close()
	if len(keys.signers) == 0 {
		return nil, nil, &AuthError{Target: t.String(), Notes: keys.notes}
	}
	var distrust error
	var shown ssh.PublicKey
	conn, channels, requests, err := ssh.NewClientConn(raw, hosts.name, &ssh.ClientConfig{
		User: t.User,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(keys.signers...)},
		HostKeyCallback: func(name string, from net.Addr, key ssh.PublicKey) error {
			shown, distrust = key, hosts.check(name, from, key)
			return distrust
		},
		HostKeyAlgorithms: hosts.algorithms(),
	})
	switch {
	case err == nil:
		return ssh.NewClient(conn, channels, requests), shown, nil
	case distrust != nil:
		return nil, nil, fmt.Errorf("log in to %s: %w", t, distrust)
	case refused(err):
		return nil, nil, &AuthError{Target: t.String(), Notes: keys.notes, Err: err}
	}
	return nil, nil, fmt.Errorf("log in to %s: %w", t, err)
}

// refused says whether the machine let us not in; the library has no type for it.
func refused(err error) bool {
	text := err.Error()
	return strings.Contains(text, "unable to authenticate") || strings.Contains(text, "Too many authentication failures")
}

// watch ends the connection when the machine gives no sign of life.
func (c *Conn) watch() {
	tick := time.NewTicker(lifeInterval)
	defer tick.Stop()
	for {
		select {
		case <-c.gone:
			return
		case <-tick.C:
		}
		// Any answer will do, also that there is no such request.
		limit := time.AfterFunc(lifeTimeout, func() { _ = c.client.Close() })
		_, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil)
		limit.Stop()
		if err != nil {
			_ = c.client.Close()
			return
		}
	}
}

// spawn runs work that Close waits for; it says no once the connection is being closed.
func (c *Conn) spawn(work func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.work.Go(work)
	}
	return !c.closed
}

// HostKey returns the key that the host has shown, as files of authorized keys have it; Target.HostKey takes it.
func (c *Conn) HostKey() string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(c.shown))) }

// Gone returns a channel that is closed when the connection has ended.
func (c *Conn) Gone() <-chan struct{} { return c.gone }

// Dial connects from the machine to a socket ("unix") or to an address ("tcp"); the name is looked up there. The context
// is for that alone. The connection has no deadlines, can be closed for writing alone (CloseWrite), and ends like one that
// was closed in order when SSH breaks. The error is ErrForwarding if the machine refuses.
func (c *Conn) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.client.DialContext(ctx, network, address)
	if refusal, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		return nil, fmt.Errorf("connect from %s to %s: %w (%s)", c.target, address, ErrForwarding, refusal.Message)
	}
	if err != nil {
		if lost(err) {
			_ = c.client.Close()
			<-c.gone // so that the caller sees it
		}
		return nil, fmt.Errorf("connect from %s to %s: %w", c.target, address, err)
	}
	return conn, nil
}

// lost says whether an error means that SSH has broken.
func lost(err error) bool {
	_, network := errors.AsType[*net.OpError](err)
	return network || errors.Is(err, io.EOF)
}

// Close ends the connection and all that goes over it, and waits until nothing of it is left. Closing again is harmless.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	_ = c.client.Close()
	c.work.Wait()
	if c.jump != nil {
		return c.jump.Close()
	}
	return nil
}
