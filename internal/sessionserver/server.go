// Package sessionserver is the HTTPS server by which a GitLab server reaches the interactive terminals of running jobs
// (runner contract, section 1.14).
//
// It knows neither jobs nor executors: who runs a job admits whom it has offered access to. Proxying to a job's services
// is not offered.
package sessionserver

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/connlimit"
)

const (
	// openLimit is how long a user waits for a terminal before the answer is that there is none.
	openLimit     = time.Minute
	headerTimeout = 10 * time.Second
	idleTimeout   = time.Minute
	prefix        = "/session/"
	// maxConnections are open at a time, terminals included; others wait.
	maxConnections = 256
)

// Options say where the server listens.
type Options struct {
	Listen    string // address; the port may be 0
	Advertise string // host, or host and port, under which GitLab reaches it; empty: Listen
	Identity  string // file for key and certificate
	Log       *slog.Logger
	OpenLimit time.Duration // 0: a minute
}

// Server lets GitLab into terminals. It is safe for concurrent use.
type Server struct {
	log       *slog.Logger
	listener  net.Listener
	identity  *identity
	base      string // of the URLs that are offered
	openLimit time.Duration
	owned     sync.WaitGroup // requests, also those whose connection was taken over

	mu     sync.Mutex
	guests map[string]guest // by the last part of the URL's path
	ended  bool
}

// guest is one job's terminal as it was offered.
type guest struct {
	token [sha256.Size]byte // hash of the token
	open  func(context.Context) (tranter.Terminal, error)
}

// Listen begins to listen; Serve answers. The address that is offered is known from here on.
func Listen(ctx context.Context, o Options) (*Server, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for terminals ([session_server] listen_address): %w", err)
	}
	host, port, err := advertised(o, listener.Addr())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	id, err := openIdentity(o.Identity, host, time.Now)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &Server{
		log: o.Log, listener: listener, identity: id, base: "https://" + net.JoinHostPort(host, port) + prefix,
		openLimit: o.OpenLimit, guests: map[string]guest{},
	}
	if s.openLimit <= 0 {
		s.openLimit = openLimit
	}
	return s, nil
}

// advertised is what users' servers are told: the port is that of the listener unless another one is given.
func advertised(o Options, listening net.Addr) (host, port string, err error) {
	host, port, err = net.SplitHostPort(listening.String())
	if err != nil {
		return "", "", err
	}
	if strings.Contains(o.Advertise, "://") {
		return "", "", fmt.Errorf("[session_server] advertise_address %q: write it without a scheme, as host:port", o.Advertise)
	}
	if o.Advertise == "" {
		if h, _, err := net.SplitHostPort(o.Listen); err == nil && h != "" {
			host = h // as it is written: a name stays a name
		}
	} else if h, p, err := net.SplitHostPort(o.Advertise); err == nil {
		host = h
		if p != "" {
			port = p
		}
	} else {
		host = strings.Trim(o.Advertise, "[]")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			return "", "", fmt.Errorf("find this host's name for the session server ([session_server] advertise_address gives it): %w", err)
		}
		o.Log.Warn("The session server is announced by this host's name; advertise_address names another one", "host", host)
	}
	return host, port, nil
}

// Close ends a server that does not serve.
func (s *Server) Close() error { return s.listener.Close() }

// Serve answers until ctx ends, which ends all terminals that are attached, and returns when they have ended.
func (s *Server) Serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	server := &http.Server{
		Handler: http.HandlerFunc(s.serveHTTP), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // everybody can connect and say nonsense
	}
	listener := tls.NewListener(connlimit.Listener(s.listener, maxConnections), &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, // websockets are not for HTTP/2
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.identity.current() },
	})
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve terminals: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	err := group.Wait()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.owned.Wait()
	return err
}

// Offer makes the access to the terminal of one job to come. Nothing is kept of it: Admit has to be called for it.
func (s *Server) Offer() (tranter.Access, error) {
	certificate, err := s.identity.pem()
	if err != nil {
		return tranter.Access{}, err
	}
	return tranter.Access{URL: s.base + random(), Certificate: certificate, Authorization: tranter.Secret(random())}, nil
}

// random is 64 hexadecimal digits that nobody guesses.
func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return hex.EncodeToString(b[:])
}

// Admit lets who has the access in by open, until the returned function is called. A terminal that is attached then goes
// on until the job ends it.
func (s *Server) Admit(a tranter.Access, open func(context.Context) (tranter.Terminal, error)) (leave func()) {
	id := a.URL[strings.LastIndexByte(a.URL, '/')+1:]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guests[id] = guest{token: sha256.Sum256([]byte(a.Authorization.Reveal())), open: open}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.guests, id)
	}
}

// serveHTTP sorts the requests: /session/ID/exec is a terminal.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, prefix)
	id, rest, _ := strings.Cut(path, "/")
	s.mu.Lock()
	g, known := s.guests[id]
	known = known && !s.ended
	if known {
		s.owned.Add(1)
		defer s.owned.Done()
	}
	s.mu.Unlock()
	if !ok || !known {
		http.Error(w, "there is no such session: the job has ended, or is not here", http.StatusNotFound)
		return
	}
	token := sha256.Sum256([]byte(r.Header.Get("Authorization")))
	if subtle.ConstantTimeCompare(token[:], g.token[:]) != 1 {
		http.Error(w, "the session's authorization is wrong", http.StatusUnauthorized)
		return
	}
	if rest != "exec" {
		http.Error(w, "a session has a terminal at /exec and nothing else", http.StatusNotFound)
		return
	}
	s.exec(w, r, g)
}

// refusal is the status for why there is no terminal.
func refusal(err error) int {
	if errors.Is(err, tranter.ErrTerminalBusy) {
		return http.StatusLocked
	}
	return http.StatusServiceUnavailable
}
