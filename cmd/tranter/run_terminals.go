package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/sessionserver"
)

// sessionIdentity is the file with the session server's key and certificate, in the state directory.
const sessionIdentity = "session-server.pem"

// openTerminals listens for terminals, if the configuration says so, and completes the manager's options.
func openTerminals(ctx context.Context, c config.SessionServer, stateDir string, log *slog.Logger, o *manager.Options) (*sessionserver.Server, error) {
	o.Linger = c.SessionTimeout // "tranter job attach" needs no server
	if c.ListenAddress == "" {
		return nil, nil
	}
	s, err := sessionserver.Listen(ctx, sessionserver.Options{
		Listen: c.ListenAddress, Advertise: c.AdvertiseAddress, Identity: filepath.Join(stateDir, sessionIdentity), Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("start the session server: %w", err)
	}
	o.Terminals = s
	return s, nil
}
