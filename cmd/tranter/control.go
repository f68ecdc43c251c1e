package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/manager"
)

// controlSocket is where a running manager answers status, drain and upgrade, in its state directory.
const controlSocket = "control.sock"

// controlled is what the control socket needs of a manager.
type controlled interface {
	Status() manager.Status
	Drain()
	leave()
	upgrade(ctx context.Context) error
	Attach(ctx context.Context, key string) (tranter.Terminal, error)
}

// statusAnswer is what a manager tells about itself.
type statusAnswer struct {
	manager.Status
	Version string `json:"version"`
	// Pools are those of machines, and Leases says on which machine a job is, by its key.
	Pools  []poolCount       `json:"pools,omitempty"`
	Leases map[string]string `json:"leases,omitempty"`
	// Batch are the runners whose jobs run in batch jobs, and Places says in which one a job is, by its key.
	Batch  []batchCount          `json:"batch,omitempty"`
	Places map[string]batchPlace `json:"places,omitempty"`
}

// control is all that answers on a control socket.
type control struct {
	controlled

	machines *machineFleet
	batches  *batchFleet
	outlook  *outlook // nil: there is none
}

// serve answers on the control socket of stateDir until ctx ends. The socket has mode 0600: who may read the state directory
// may ask.
func (c control) serve(ctx context.Context, stateDir string) error {
	path := filepath.Join(stateDir, controlSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old control socket: %w", err)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("listen on the control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(err, listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		status := statusAnswer{Status: c.Status(), Version: version}
		status.Pools, status.Leases = c.machines.summary(r.Context())
		status.Batch, status.Places = c.batches.summary(r.Context())
		writeAnswer(w, status)
	})
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, _ *http.Request) {
		c.Drain()
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("POST /leave", func(w http.ResponseWriter, _ *http.Request) {
		c.leave()
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("POST /upgrade", func(w http.ResponseWriter, r *http.Request) {
		if err := c.upgrade(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	terminals := &controlTerminals{attach: func(r *http.Request) (tranter.Terminal, error) { return c.Attach(r.Context(), r.PathValue("key")) }}
	mux.Handle("POST /jobs/{key}/terminal", terminals)
	shells := c.machines.route(mux)
	c.batches.route(mux)
	if c.outlook != nil {
		c.outlook.operator.route(mux, c.outlook.watched, c.outlook.logs)
	}
	err = serveOn(ctx, listener, mux)
	terminals.owned.Wait()
	shells.owned.Wait()
	return err
}

// serveOn answers on a listener until ctx ends.
func serveOn(ctx context.Context, listener net.Listener, mux *http.ServeMux) error {
	group, ctx := errgroup.WithContext(ctx)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
	}
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	return group.Wait()
}

// writeAnswer answers with a value.
func writeAnswer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the asker is gone, or knows
}

// errNotRunning means that no manager answers on a state directory.
var errNotRunning = errors.New("no manager is running")

// controlClient talks to the manager of a state directory.
type controlClient struct {
	dir  string
	dial func(ctx context.Context) (net.Conn, error)
	http *http.Client
}

func newControlClient(stateDir string) *controlClient {
	return controlClientOver(stateDir, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(stateDir, controlSocket))
	})
}

// controlClientOver makes a client of connections that dial makes.
func controlClientOver(stateDir string, dial func(ctx context.Context) (net.Conn, error)) *controlClient {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	return &controlClient{dir: stateDir, dial: dial, http: &http.Client{Timeout: 10 * time.Second, Transport: transport}}
}

func (c *controlClient) call(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://manager"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return refusalOf(resp)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// unreachable says why the manager has not answered.
func (c *controlClient) unreachable(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w with the state directory %s (name another with --state-dir)", errNotRunning, c.dir)
	}
	return fmt.Errorf("ask the manager: %w", err)
}

// refusalOf is the error of an answer that is none.
func refusalOf(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if why := strings.TrimSpace(string(text)); why != "" {
		return fmt.Errorf("the manager answered: %s", why)
	}
	return fmt.Errorf("the manager answered %s", resp.Status)
}

// status asks for the manager's state.
func (c *controlClient) status(ctx context.Context) (statusAnswer, error) {
	var s statusAnswer
	err := c.call(ctx, http.MethodGet, "/status", &s)
	return s, err
}

// drain tells the manager to take no new jobs.
func (c *controlClient) drain(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/drain", nil)
}

// leave tells the manager to end and to let its jobs go on.
func (c *controlClient) leave(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/leave", nil)
}

// upgrade tells the manager to become the version that is installed now.
func (c *controlClient) upgrade(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/upgrade", nil)
}
