package coordinator_test

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/coordinator"
)

// A client may have made a connection that it has not used: the end does not wait for it.
func TestServeEndsWithUnusedConnections(t *testing.T) {
	c, err := coordinator.Open(coordinator.Options{Dir: filepath.Join(t.TempDir(), "gitlab")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx, l) }()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// An answer on another connection, accepted later, says that the first one has been accepted.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+"/api/v4/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	began := time.Now()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if spent := time.Since(began); spent > 3*time.Second {
		t.Errorf("it took %v to end", spent)
	}
}
