package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	tranter "github.com/tranter-ci/tranter"
)

// dialer makes connections to one engine.
type dialer interface {
	dial(ctx context.Context) (net.Conn, error)
	close() error
}

// dialTimeout is how long a connection and its TLS handshake may take.
const dialTimeout = 30 * time.Second

// A connection whose other end has gone without a word is given up after quiet + probes * interval = 45 s. What was sent
// and not acknowledged is given up after unacknowledged.
const (
	quiet          = 15 * time.Second
	interval       = 10 * time.Second
	probes         = 3
	unacknowledged = 45 * time.Second
)

// newDialer returns what connects to the address. The error is a *tranter.ConfigError.
func newDialer(a address, s settings, env lookup, log *slog.Logger) (dialer, error) {
	switch a.scheme {
	case schemeUnix, schemePipe:
		return local{a}, nil
	case schemeSSH:
		return newTunnel(a, s.host, env, log)
	}
	d := &overTCP{address: a, dialer: net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: quiet, Interval: interval, Count: probes},
		Control:         limitUnacknowledged,
	}}
	if s.certPath == "" && !s.verify {
		return d, nil
	}
	config, err := tlsConfig(s)
	if err != nil {
		return nil, &tranter.ConfigError{Err: fmt.Errorf("TLS of the engine at %s: %w", a.text, err)}
	}
	host, _, _ := net.SplitHostPort(a.hostPort(true))
	config.ServerName = host
	if config.InsecureSkipVerify {
		log.Warn("the engine's certificate is not checked: set tls_verify = true", "host", a.text)
	}
	d.tls = config
	return d, nil
}

// local connects to a socket or a named pipe of this machine.
type local struct{ address }

func (d local) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if d.scheme == schemePipe {
		return dialPipe(ctx, d.path)
	}
	return (&net.Dialer{}).DialContext(ctx, "unix", d.path)
}

func (local) close() error { return nil }

// dialed connects by a function.
type dialed func(ctx context.Context) (net.Conn, error)

func (d dialed) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return d(ctx)
}

func (dialed) close() error { return nil }

// overTCP connects by TCP, with TLS if tls is not nil.
type overTCP struct {
	address address
	dialer  net.Dialer
	tls     *tls.Config
}

func (d *overTCP) dial(ctx context.Context) (net.Conn, error) {
	if d.tls == nil {
		return d.dialer.DialContext(ctx, "tcp", d.address.hostPort(false))
	}
	return (&tls.Dialer{NetDialer: &d.dialer, Config: d.tls}).DialContext(ctx, "tcp", d.address.hostPort(true))
}

func (d *overTCP) close() error { return nil }

// tlsConfig reads ca.pem, cert.pem and key.pem of the directory, if there is one: the engine's authority in place of the
// system's, and the certificate that we show. Without verify the engine's certificate is not checked.
func tlsConfig(s settings) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !s.verify} //nolint:gosec // what tls_verify = false means
	if s.certPath == "" {
		return config, nil
	}
	if s.verify {
		file := filepath.Join(s.certPath, "ca.pem")
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the certificate of the engine's authority: %w; tls_cert_path names a directory with ca.pem, cert.pem and key.pem", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM form", file)
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.certPath, "cert.pem"), filepath.Join(s.certPath, "key.pem"))
	if err != nil {
		return nil, fmt.Errorf("read our certificate and its key: %w; tls_cert_path names a directory with ca.pem, cert.pem and key.pem", err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

// dialError means that no connection to the engine could be made. It has no Unwrap: the client of the engine's API drops
// causes that it knows, such as a refused connection. Explain brings the cause back.
type dialError struct {
	host  string
	cause error
}

func (e *dialError) Error() string {
	return "cannot connect to the engine at " + e.host + ": " + e.reason()
}

// reason says why in words that the client of the engine's API does not take for something of its own.
func (e *dialError) reason() string {
	switch {
	case errors.Is(e.cause, syscall.ECONNREFUSED):
		return "nothing listens there"
	case errors.Is(e.cause, fs.ErrNotExist):
		return "there is no such socket"
	case errors.Is(e.cause, fs.ErrPermission):
		return "no permission to use the socket"
	}
	cause := e.cause
	if op, ok := errors.AsType[*net.OpError](cause); ok && op.Err != nil {
		cause = op.Err
	}
	return strings.NewReplacer("connection refused", "refused the connection", "dial unix", "unix").Replace(cause.Error())
}

// connect makes a connection and notes when that fails. The error is a *dialError, or the context's.
func (e *Engine) connect(ctx context.Context) (net.Conn, error) {
	conn, err := e.dialer.dial(ctx)
	if err == nil {
		return conn, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	e.stale.Store(true)
	return nil, &dialError{host: e.address.text, cause: err}
}
