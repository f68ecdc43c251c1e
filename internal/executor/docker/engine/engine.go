// Package engine connects to a container engine (Docker, Podman) by a socket, by TCP with TLS, or over SSH, says what is
// behind the connection, attaches to containers, and turns an engine's errors into advice.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	tranter "github.com/tranter-ci/tranter"
)

// Options says which engine to use (contract 9.5).
type Options struct {
	// Host is where the engine listens: unix:///path, tcp://host[:port], ssh://[user@]host[:port][/path/of/socket] or, on
	// Windows, npipe:////./pipe/name. If it is empty, DOCKER_HOST, DOCKER_CERT_PATH and DOCKER_TLS_VERIFY hold; without
	// DOCKER_HOST the first of these sockets that takes a connection: /var/run/docker.sock, $XDG_RUNTIME_DIR/docker.sock,
	// $XDG_RUNTIME_DIR/podman/podman.sock, /run/podman/podman.sock.
	Host string
	// CertPath is a directory with ca.pem, cert.pem and key.pem. It switches TLS on for tcp.
	CertPath string
	// Verify switches TLS on for tcp and checks the engine's certificate: against ca.pem of CertPath, without CertPath
	// against the system's authorities. With CertPath alone the engine's certificate is not checked.
	Verify bool
	// Dial makes a connection to the engine in place of all that: Host is only a name for messages then, and the environment
	// says nothing. For a machine's engine, to which its owner keeps the way (docker-machine, section 2.3).
	Dial func(ctx context.Context) (net.Conn, error)
	Log  *slog.Logger // nil: none
}

// Engine is a container engine. All methods may be called at the same time; one Engine serves all jobs that use it.
type Engine struct {
	address address
	pinned  string // the API version asked for by DOCKER_API_VERSION; empty: the newest that both sides know
	dialer  dialer
	api     atomic.Pointer[connection]
	facts   atomic.Pointer[Facts]
	stale   atomic.Bool // there was no connection since the facts were gathered
	gather  sync.Mutex  // held while facts are gathered
}

// Open connects to an engine and asks it what it is. The error is a *tranter.ConfigError when the options or the
// environment are wrong; Gone when there is no engine (now); Explain has been applied to it.
func Open(ctx context.Context, o Options) (*Engine, error) {
	return open(ctx, o, os.Getenv)
}

func open(ctx context.Context, o Options, env lookup) (*Engine, error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{address: address{text: o.Host, scheme: schemeDialed}, dialer: dialed(o.Dial)}
	if o.Dial == nil {
		var err error
		if e, err = found(ctx, o, env, log); err != nil {
			return nil, err
		}
	}
	if _, err := e.Refresh(ctx); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// found returns an engine that was not asked anything yet, as options and environment say where it is.
func found(ctx context.Context, o Options, env lookup, log *slog.Logger) (*Engine, error) {
	s := settle(ctx, o, env)
	a, err := parseAddress(s.host)
	if err != nil {
		return nil, &tranter.ConfigError{Err: err}
	}
	pinned, err := parsePinned(s.pinned)
	if err != nil {
		return nil, &tranter.ConfigError{Err: err}
	}
	d, err := newDialer(a, s, env, log)
	if err != nil {
		return nil, err
	}
	return &Engine{address: a, pinned: pinned, dialer: d}, nil
}

// API returns the client of the engine's API. After a Refresh it may be another one, so do not keep it for long.
func (e *Engine) API() *client.Client { return e.api.Load().Client }

// Facts returns what the engine said about itself when it was last asked, by Open, Refresh or Current.
func (e *Engine) Facts() Facts { return *e.facts.Load() }

// Current returns the facts; it asks anew if the engine could not be reached since they were gathered, because then it may
// have been restarted with other settings or in another version.
func (e *Engine) Current(ctx context.Context) (Facts, error) {
	if e.stale.Load() {
		return e.Refresh(ctx)
	}
	return e.Facts(), nil
}

// Host returns the engine's address, for messages.
func (e *Engine) Host() string { return e.address.text }

// Close gives up the connections that are idle. Streams are their owners' to close.
func (e *Engine) Close() error {
	if api := e.api.Load(); api != nil {
		_ = api.Close()
	}
	if err := e.dialer.close(); err != nil {
		return fmt.Errorf("close the connection to the engine at %s: %w", e.address.text, err)
	}
	return nil
}

// idle is how many connections are kept for the next requests, and for how long. Streams of attached containers do not
// count. Some proxies in front of engines end idle connections after a minute.
const (
	idleConns   = 32
	idleTimeout = 45 * time.Second
)

// newAPI returns a client of the engine's API in a version, or in none yet.
func (e *Engine) newAPI(version string) (*connection, error) {
	transport := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return e.connect(ctx) },
		DisableCompression:  true,
		MaxIdleConns:        idleConns,
		MaxIdleConnsPerHost: idleConns,
		IdleConnTimeout:     idleTimeout,
	}
	// The client need not know how we connect: TLS and SSH are below it, and no proxy is between.
	host := "tcp://engine" + e.address.base
	if e.address.scheme == schemeTCP {
		host = "tcp://" + e.address.hostPort(false) + e.address.base
	}
	api, err := client.New(client.WithHost(host), client.WithAPIVersion(version), // in this order: the host configures a client of its own
		client.WithHTTPClient(&http.Client{Transport: bounded{transport, maxAnswer}, CheckRedirect: client.CheckRedirect}))
	if err != nil {
		return nil, fmt.Errorf("make the client of the engine at %s: %w", e.address.text, err)
	}
	return &connection{api, transport}, nil
}

// oldest is the oldest version of the API that we can use: that of Docker 19.03.
const oldest = client.MinAPIVersion

// VersionError means that there is no version of the API that both the engine and we can use.
type VersionError struct {
	Host, Has, Needs string
	Pinned           bool // Needs is what DOCKER_API_VERSION asks for
}

func (e *VersionError) Error() string {
	if e.Pinned {
		return fmt.Sprintf("the engine at %s has version %s of the API, and DOCKER_API_VERSION asks for %s: unset it, or update the engine", e.Host, e.Has, e.Needs)
	}
	return fmt.Sprintf("the engine at %s has version %s of the API, and %s or newer is needed: update the engine (Docker 19.03 or newer, Podman 3 or newer)", e.Host, e.Has, e.Needs)
}

// negotiate picks the version of the API to use.
func (e *Engine) negotiate(has string) (string, error) {
	if has == "" {
		return "", fmt.Errorf("what answers at %s is no container engine: it does not say which version of the API it has; check host", e.address.text)
	}
	switch {
	case versions.LessThan(has, oldest):
		return "", &VersionError{Host: e.address.text, Has: has, Needs: oldest}
	case e.pinned != "" && versions.LessThan(has, e.pinned):
		return "", &VersionError{Host: e.address.text, Has: has, Needs: e.pinned, Pinned: true}
	case e.pinned != "":
		return e.pinned, nil
	case versions.LessThan(has, client.MaxAPIVersion):
		return has, nil
	}
	return client.MaxAPIVersion, nil
}
