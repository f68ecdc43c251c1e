// Package connlimit bounds how many connections a server has at a time, so that whoever can reach it can't have it use
// up the process's files and memory.
package connlimit

import (
	"net"
	"sync"
)

// Listener returns a listener that accepts connections of l while fewer than n are open; others wait in the system's
// queue. Closing it closes l and ends an Accept that waits.
func Listener(l net.Listener, n int) net.Listener {
	return &listener{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

type listener struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &conn{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// conn gives its place free when it is closed.
type conn struct {
	net.Conn
	free func()
}

func (c *conn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
