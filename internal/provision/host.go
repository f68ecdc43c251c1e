package provision

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/remote"
)

const (
	// dialTimeout is how long a connection over a machine may take, with a new login if there must be one.
	dialTimeout = 45 * time.Second
	// checkTimeout is how long Check may take.
	checkTimeout = 45 * time.Second
)

// Host is a machine that is ready, and the connection to it, which is made anew when it was lost. All methods may be called
// at the same time.
type Host struct {
	name     string
	settings Settings
	target   remote.Target
	log      *slog.Logger
	link     *remote.Link
	socket   *remote.Socket
	secrets  *credentials // nil: the engine is reached through SSH
	tls      *tls.Config
	direct   net.Dialer

	mu  sync.Mutex
	put time.Time // when the machine was told last that somebody looks after it; zero: it has to be
}

func newHost(o *opening, link *remote.Link) (*Host, error) {
	h := &Host{
		name: o.machine.Name, settings: o.p.settings, target: o.target, log: o.log,
		link: link, secrets: o.kept.TLS, socket: remote.NewSocket(link, o.kept.Socket, o.log),
		direct: net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 10 * time.Second, Count: 3}},
	}
	if h.secrets == nil {
		return h, nil
	}
	var err error
	h.tls, err = h.secrets.config(h.name)
	return h, err
}

// Name returns the machine's name.
func (h *Host) Name() string { return h.name }

// Dial connects to the machine's engine. The context is for that alone; it takes 45 s at most.
func (h *Host) Dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if h.secrets == nil {
		conn, err := h.socket.Dial(ctx)
		if err != nil {
			return nil, fmt.Errorf("the engine of machine %s: %w", h.name, err)
		}
		return conn, nil
	}
	conn, err := h.dialTLS(ctx)
	if err == nil {
		return conn, nil
	}
	if time.Now().After(h.secrets.Until) {
		err = fmt.Errorf("its certificates have ended at %v, so it must be replaced: raise engine.certificate_life above max_age: %w", h.secrets.Until, err)
	}
	return nil, fmt.Errorf("the engine of machine %s: %w", h.name, err)
}

func (h *Host) dialTLS(ctx context.Context) (net.Conn, error) {
	port := strconv.Itoa(h.secrets.Port)
	var raw net.Conn
	var err error
	if h.target.Jump != nil { // the machine itself cannot be reached from here
		raw, err = h.link.Dial(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	} else {
		raw, err = h.direct.DialContext(ctx, "tcp", net.JoinHostPort(h.target.Host, port))
	}
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, h.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("speak TLS with %s: %w", raw.RemoteAddr(), err)
	}
	return conn, nil
}

// Reach connects from the machine to an address; network is "tcp" or "unix". It takes 45 s at most.
func (h *Host) Reach(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := h.link.Dial(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("from machine %s: %w", h.name, err)
	}
	return conn, nil
}

// Run runs a command on the machine as the user of the login. The error is *remote.ExitError if it fails. Nil streams are
// empty. How long it may take is the context's to say.
func (h *Host) Run(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := h.link.Run(ctx, command, stdin, stdout, stderr); err != nil {
		return fmt.Errorf("machine %s: %w", h.name, err)
	}
	return nil
}

// Shell is Run for people: with a terminal if pty is not nil, and with the login's shell if the command is empty. It may
// still be reading from stdin when it returns.
func (h *Host) Shell(ctx context.Context, command string, pty *remote.PTY, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := h.link.Shell(ctx, command, pty, remote.Streams{In: stdin, Out: stdout, Err: stderr}); err != nil {
		return fmt.Errorf("machine %s: %w", h.name, err)
	}
	return nil
}

// Check asks the machine's engine for a sign of life, and puts off the machine's own end where an eighth of the time until
// then is over, or 10 minutes. It takes 45 s at most. The error is *HeldError if another manager has taken the machine.
func (h *Host) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	began := time.Now()
	if !h.isPutOff(began) {
		if err := h.putOff(ctx); err != nil {
			return err
		}
		h.mu.Lock()
		h.put = began
		h.mu.Unlock()
	}
	err := ping(ctx, h.Dial)
	if err != nil { // it may be another machine, or have been started again
		h.mu.Lock()
		h.put = time.Time{}
		h.mu.Unlock()
	}
	return err
}

// putOffEvery is how long a machine that lingers long is left without being told that somebody looks after it. That takes a
// shell, and most of what a check costs.
const putOffEvery = 10 * time.Minute

// isPutOff says whether the machine's own end is far enough away to leave it at that.
func (h *Host) isPutOff(now time.Time) bool {
	every := putOffEvery
	if linger := h.settings.Linger; linger > 0 {
		every = min(every, linger/8)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.put.IsZero() && now.Sub(h.put) < every
}

// putOff tells the machine that somebody looks after it.
func (h *Host) putOff(ctx context.Context) error {
	if h.settings.Linger == 0 && h.settings.Owner == "" {
		return h.link.Run(ctx, "true", nil, nil, nil)
	}
	marker := newMarker()
	w := &work{
		name: h.name, login: h.target.User, marker: marker, script: h.settings.pushing(marker), log: h.log,
		report: func(tranter.Timing) {},
		told:   func(context.Context, event) error { return nil },
		asked:  func(context.Context, event) string { return "" },
	}
	return w.run(ctx, h.link)
}

// Environment returns what Docker's command needs to reach the engine, as NAME=VALUE. With TLS, DOCKER_CERT_PATH is for the
// caller to add, once it has written the Certificates to files.
func (h *Host) Environment() []string {
	if h.secrets == nil {
		return []string{"DOCKER_HOST=" + h.target.String(), "DOCKER_MACHINE_NAME=" + h.name}
	}
	return []string{
		"DOCKER_TLS_VERIFY=1", "DOCKER_HOST=tcp://" + net.JoinHostPort(h.target.Host, strconv.Itoa(h.secrets.Port)),
		"DOCKER_MACHINE_NAME=" + h.name,
	}
}

// Certificates returns the engine's authority, our certificate and its key in PEM form, for ca.pem, cert.pem and key.pem;
// empty without TLS. They are secret.
func (h *Host) Certificates() (authority, certificate, key string) {
	if h.secrets == nil {
		return "", "", ""
	}
	return h.secrets.Authority, h.secrets.Certificate, h.secrets.Key
}

// Close gives the connection up, with all that goes over it. The machine is not touched.
func (h *Host) Close() error { return errors.Join(h.release(), h.link.Close()) }

// release gives up what goes over connections other than the link.
func (h *Host) release() error { return h.socket.Close() }
