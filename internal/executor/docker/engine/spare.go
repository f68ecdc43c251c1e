package engine

import (
	"context"
	"net"
)

// Spare is a connection that is made before it is needed: to make one to an engine that is far away takes as long as
// a request. A nil Spare is none.
type Spare struct {
	stop context.CancelFunc
	made chan net.Conn // gets the connection, or is closed without
}

// Spare begins to make a connection for Attach and returns at once. To an engine on this machine none is made. The caller
// has to close what it returns.
func (e *Engine) Spare(ctx context.Context) *Spare {
	if e.address.scheme == schemeUnix || e.address.scheme == schemePipe {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	s := &Spare{stop: stop, made: make(chan net.Conn, 1)}
	go func() {
		defer close(s.made)
		if conn, err := e.connect(ctx); err == nil {
			s.made <- conn
		}
	}()
	return s
}

// take returns the connection, once; nil if there is none.
func (s *Spare) take(ctx context.Context) net.Conn {
	if s == nil {
		return nil
	}
	select {
	case conn := <-s.made:
		return conn
	case <-ctx.Done():
		return nil
	}
}

// Close ends the connection if nobody has taken it, and waits until that is done.
func (s *Spare) Close() {
	if s == nil {
		return
	}
	s.stop()
	for conn := range s.made {
		_ = conn.Close()
	}
}
