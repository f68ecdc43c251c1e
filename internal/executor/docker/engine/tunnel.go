package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	tranter "github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/remote"
)

// tunnel connects to the socket of an engine on another machine over SSH.
type tunnel struct {
	link   *remote.Link
	socket *remote.Socket
}

func newTunnel(a address, host string, env lookup, log *slog.Logger) (dialer, error) {
	target, socket, err := remote.Find(host, env)
	if err != nil {
		return nil, &tranter.ConfigError{Err: fmt.Errorf("the engine at %s: %w", a.text, err)}
	}
	link := remote.NewLink(target, log)
	return &tunnel{link: link, socket: remote.NewSocket(link, socket, log)}, nil
}

func (t *tunnel) dial(ctx context.Context) (net.Conn, error) { return t.socket.Dial(ctx) }

func (t *tunnel) close() error { return errors.Join(t.socket.Close(), t.link.Close()) }
