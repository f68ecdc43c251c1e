package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	headerTimeout   = 10 * time.Second
	readTimeout     = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 5 * time.Second
	maxHeaderBytes  = 32 << 10
	tlsLookEvery    = 10 * time.Second
)

// TLS are the files of a certificate and its key, PEM. Both empty: no TLS.
type TLS struct {
	CertFile, KeyFile string
}

// Listener is an address that is listened on.
type Listener struct {
	server *Server
	ln     net.Listener
	h      http.Handler
	url    string
}

// Serve listens on an address and serves everything there until the context ends. An address without a host is on loopback.
func (s *Server) Serve(ctx context.Context, address string, t TLS) error {
	l, err := s.Open(ctx, address, t)
	if err != nil {
		return err
	}
	return l.Serve(ctx)
}

// Open listens on an address for Handler, on loopback unless the address has a host. Listener.Serve goes on.
func (s *Server) Open(ctx context.Context, address string, t TLS) (*Listener, error) {
	host, port, err := splitAddress(address, "9253")
	if err != nil {
		return nil, fmt.Errorf("[web] address %q: %w", address, err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return listen(ctx, net.JoinHostPort(host, port), t, Listener{server: s, h: s.Handler()})
}

// OpenMetrics listens on an address for Listen, without TLS. As with GitLab Runner an address without a host is on all addresses of
// this host, and the port is 9252 unless given (runner contract, section 12.6).
func (s *Server) OpenMetrics(ctx context.Context, address string) (*Listener, error) {
	host, port, err := splitAddress(address, "9252")
	if err != nil {
		return nil, fmt.Errorf("listen_address %q: %w", address, err)
	}
	return listen(ctx, net.JoinHostPort(host, port), TLS{}, Listener{server: s, h: s.Listen()})
}

func splitAddress(address, port string) (string, string, error) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		if strings.Contains(err.Error(), "missing port") {
			return strings.Trim(address, "[]"), port, nil
		}
		if strings.Count(address, ":") > 1 && net.ParseIP(address) != nil {
			return address, port, nil // IPv6 without brackets
		}
		return "", "", fmt.Errorf("it is not of the form host:port: %w", err)
	}
	if p == "" {
		p = port
	}
	return host, p, nil
}

// listen begins to listen for l.
func listen(ctx context.Context, address string, t TLS, l Listener) (*Listener, error) {
	var files *certificate
	scheme := "http"
	if t.CertFile != "" || t.KeyFile != "" {
		files = &certificate{files: t, log: l.server.log}
		if err := files.load(); err != nil {
			return nil, err
		}
		scheme = "https"
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, listenError(address, err)
	}
	url := scheme + "://" + ln.Addr().String()
	if files != nil {
		ln = tls.NewListener(ln, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: files.get, NextProtos: []string{"h2", "http/1.1"}})
	}
	l.ln, l.url = ln, url
	return &l, nil
}

// URL returns where the pages are.
func (l *Listener) URL() string { return l.url }

// Close ends a listener that was not served.
func (l *Listener) Close() error { return l.ln.Close() }

// Serve serves until the context ends; then live streams end, and other requests get a few seconds.
func (l *Listener) Serve(ctx context.Context) error {
	requests, end := context.WithCancel(loopbackContext(context.WithoutCancel(ctx), isLoopback(l.ln.Addr())))
	defer end()
	server := &http.Server{
		Handler: l.h, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		BaseContext: func(net.Listener) context.Context { return requests },
		ErrorLog:    slog.NewLogLogger(l.server.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l.ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the web page on %s: %w", l.url, err)
	case <-ctx.Done():
	}
	end() // live streams would last for ever
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(last); err != nil {
		_ = server.Close() // they had their time
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the web page on %s: %w", l.url, err)
	}
	return nil
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// certificate reads a certificate anew when its files change.
type certificate struct {
	files TLS
	log   *slog.Logger

	mu     sync.Mutex
	pair   *tls.Certificate
	stamp  string
	looked time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) > tlsLookEvery {
		c.looked = time.Now()
		if stamp := c.changed(); stamp != c.stamp {
			if err := c.loadLocked(); err != nil {
				// Both files are seldom written at one time: the next look may find them whole.
				c.log.Warn("The certificate of the web page has changed and cannot be used; the one before goes on", "error", err)
			}
		}
	}
	return c.pair, nil
}

func (c *certificate) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.loadLocked()
}

func (c *certificate) loadLocked() error {
	stamp := c.changed()
	pair, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	if err != nil {
		return fmt.Errorf("the certificate of the web page ([web] cert_file %s, key_file %s): %w", c.files.CertFile, c.files.KeyFile, err)
	}
	c.pair, c.stamp, c.looked = &pair, stamp, time.Now()
	return nil
}

// changed returns a text that changes with the files.
func (c *certificate) changed() string {
	var b strings.Builder
	for _, name := range []string{c.files.CertFile, c.files.KeyFile} {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprintf(&b, "%d %d;", info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}

// listenError says why nothing can be served at an address, and what to do about it.
func listenError(address string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s can't be listened on: another program does, perhaps another manager; end that one, or choose another port", address)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	return fmt.Errorf("%s can't be listened on: %w", address, err)
}
