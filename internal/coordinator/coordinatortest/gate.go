package coordinatortest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// gate is a listener that can be away for a while.
type gate struct {
	t    testing.TB
	addr net.Addr

	mu     sync.Mutex
	inner  net.Listener  // nil while it is away
	change chan struct{} // closed at a change
	closed bool
}

func newGate(t testing.TB, address string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return &gate{t: t, addr: l.Addr(), inner: l, change: make(chan struct{})}
}

// Refuse lets connections be refused, and closes those that there are, until Admit is called.
func (g *GitLab) Refuse() {
	g.gate.set(nil)
	g.server.CloseClientConnections()
}

// Admit ends Refuse.
func (g *GitLab) Admit() {
	g.t.Helper()
	limit := time.After(10 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := net.Listen("tcp", g.gate.addr.String())
		if err == nil {
			g.gate.set(l)
			return
		}
		select {
		case <-tick.C: // somebody has got the port meanwhile
		case <-limit:
			g.t.Fatal(err)
		}
	}
}

func (g *gate) set(l net.Listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inner != nil {
		_ = g.inner.Close()
	}
	g.inner = l
	close(g.change)
	g.change = make(chan struct{})
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		g.mu.Lock()
		inner, change, closed := g.inner, g.change, g.closed
		g.mu.Unlock()
		switch {
		case closed:
			return nil, net.ErrClosed
		case inner == nil:
			<-change
			continue
		}
		if conn, err := inner.Accept(); err == nil {
			return conn, nil
		}
		g.mu.Lock()
		stays := g.inner == inner && !g.closed
		g.mu.Unlock()
		if stays {
			return nil, net.ErrClosed
		}
	}
}

// Close implements net.Listener.
func (g *gate) Close() error {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.set(nil)
	return nil
}

// Addr implements net.Listener.
func (g *gate) Addr() net.Addr { return g.addr }
