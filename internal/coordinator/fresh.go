package coordinator

import (
	"net"
	"net/http"
	"sync"
)

// fresh keeps the connections on which nothing has been asked yet, such as clients make ahead of need. An
// http.Server that shuts down waits seconds for a first request on them.
type fresh struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
	over  bool
}

// note is a hook for http.Server.ConnState.
func (f *fresh) note(c net.Conn, state http.ConnState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(f.conns, c)
	case f.over:
		_ = c.Close() // nobody misses it
	default:
		f.conns[c] = true
	}
}

// close closes them, and those that still come.
func (f *fresh) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	for c := range f.conns {
		_ = c.Close() // nobody misses it
	}
}
