package connlimit_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/connlimit"
)

// One connection too many waits until another one is closed, once even if that is closed twice; Close ends the waiting.
func TestConnectionsWait(t *testing.T) {
	var lc net.ListenConfig
	inner, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := connlimit.Listener(inner, 2)
	accepted, ended := make(chan net.Conn), make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	var d net.Dialer
	for range 4 {
		c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	waits := func() {
		t.Helper()
		select {
		case <-accepted:
			t.Fatal("one connection too many was accepted")
		case <-time.After(50 * time.Millisecond):
		}
	}
	first, second := <-accepted, <-accepted
	waits()
	_, _ = first.Close(), first.Close()
	third := <-accepted
	waits()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the end: %v", err)
	}
	_, _ = second.Close(), third.Close()
}
