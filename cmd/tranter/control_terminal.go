package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/terminal"
)

// terminalUpgrade is what a connection to the control socket becomes: a stream of package terminal.
const terminalUpgrade = "tranter-terminal"

// controlTerminals gives terminals to those who may use the control socket.
type controlTerminals struct {
	attach func(r *http.Request) (tranter.Terminal, error)
	owned  sync.WaitGroup // requests, also those whose connection was taken over
}

func (c *controlTerminals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.owned.Add(1)
	defer c.owned.Done()
	t, err := c.attach(r)
	if err != nil {
		http.Error(w, err.Error(), attachStatus(err))
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		_ = t.Close()
		return
	}
	hangUp := func() { _ = conn.Close() }
	defer context.AfterFunc(r.Context(), hangUp)()
	_ = conn.SetDeadline(time.Time{})
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", terminalUpgrade); err != nil {
		hangUp()
		_ = t.Close()
		return
	}
	_ = terminal.Serve(buffered, conn, t, hangUp) // the user is gone, or knows
}

func attachStatus(err error) int {
	switch {
	case errors.Is(err, tranter.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, tranter.ErrTerminalBusy):
		return http.StatusLocked
	case errors.Is(err, tranter.ErrJobEnded):
		return http.StatusGone
	default:
		return http.StatusServiceUnavailable
	}
}

// attach opens a terminal in the environment of the job with the given key. It waits until the job has one.
func (c *controlClient) attach(ctx context.Context, key string) (*terminal.Stream, error) {
	return c.terminal(ctx, "/jobs/"+url.PathEscape(key)+"/terminal")
}

// terminal opens a terminal that the manager has at a path.
func (c *controlClient) terminal(ctx context.Context, path string) (*terminal.Stream, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, c.explain(err)
	}
	release := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer release()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://manager"+path, nil)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", terminalUpgrade)
	if err := req.Write(conn); err != nil {
		return nil, errors.Join(c.explain(err), conn.Close())
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, req) //nolint:bodyclose // it is the connection, or is read here
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask the manager for a terminal: %w", err), conn.Close())
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, errors.Join(errors.New(strings.TrimSpace(string(text))), conn.Close())
	}
	return terminal.Connect(ctx, in, conn, conn.Close)
}

// explain names the manager that could not be asked.
func (c *controlClient) explain(err error) error {
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w with the state directory %s (name another with --state-dir)", errNotRunning, c.dir)
	}
	return fmt.Errorf("ask the manager: %w", err)
}
