package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/cache/builtin"
	"github.com/tranter-ci/tranter/internal/cache/remote"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/connlimit"
	"github.com/tranter-ci/tranter/internal/filelock"
	"github.com/tranter-ci/tranter/internal/job"
)

// distributedCache returns what signs for a runner's distributed cache, or nil if it has none.
func (s surroundings) distributedCache(ctx context.Context, c config.Config, r config.Runner) (job.CacheSigner, error) {
	switch {
	case r.Cache.Type != "builtin":
		return remoteCache(r.Cache), nil
	case s.cache == nil:
		return nil, errors.New("the built-in cache is served by \"tranter run\" and \"tranter run-single\" only")
	}
	signer, err := s.cache.signer(ctx, c.CacheServer)
	if err != nil {
		return nil, fmt.Errorf("the built-in cache: %w", err)
	}
	return signer, nil
}

// cacheServer is the server of the built-in cache. It starts when the first runner uses it.
type cacheServer struct {
	state string // the state directory
	log   *slog.Logger

	mu      sync.Mutex
	as      config.CacheServer // what it was started with
	running *job.CacheSigner   // nil: it does not run
	stop    func()
}

func newCacheServer(state string, log *slog.Logger) *cacheServer {
	return &cacheServer{state: state, log: log, stop: func() {}}
}

// signer returns what signs for the server, which it starts if it does not run yet. The server runs until close, even
// if ctx ends before.
func (s *cacheServer) signer(ctx context.Context, c config.CacheServer) (job.CacheSigner, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		signer, err := s.start(ctx, c)
		if err != nil {
			return nil, err
		}
		s.running, s.as = &signer, c
	}
	if s.as != c {
		s.log.Warn("A change of [cache_server] holds from the next start on")
	}
	return *s.running, nil
}

// close ends the server.
func (s *cacheServer) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
	s.stop = func() {}
}

// cacheIdentity is what stays the same over restarts, so that URLs which jobs have go on working.
type cacheIdentity struct {
	Key     []byte `json:"key"`
	Address string `json:"address,omitempty"` // the one that was chosen; empty: the configuration names one
}

func (s *cacheServer) identityPath() string { return filepath.Join(s.state, "cache-server.json") }

// identity reads the identity, or makes a new one.
func (s *cacheServer) identity() (cacheIdentity, error) {
	var id cacheIdentity
	text, err := os.ReadFile(s.identityPath())
	if err == nil {
		err = json.Unmarshal(text, &id)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return id, fmt.Errorf("read %s: %w; remove it to have a new one made", s.identityPath(), err)
	}
	if len(id.Key) < 32 {
		id.Key = make([]byte, 32)
		_, _ = rand.Read(id.Key) // never fails
	}
	return id, nil
}

// keep writes the identity, whole or not at all.
func (s *cacheServer) keep(id cacheIdentity) error {
	text, err := json.Marshal(id)
	if err != nil {
		return err
	}
	temp := s.identityPath() + "." + rand.Text()
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, s.identityPath())
}

// start opens the store and serves it.
func (s *cacheServer) start(ctx context.Context, c config.CacheServer) (job.CacheSigner, error) {
	var certificates []tls.Certificate
	if c.TLSCertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
		if err != nil {
			return nil, fmt.Errorf("its certificate: %w", err)
		}
		certificates = append(certificates, pair)
	}
	dir := cmp.Or(c.Directory, filepath.Join(s.state, "cache"))
	lock, err := lockCache(dir)
	if err != nil {
		return nil, err
	}
	id, err := s.identity()
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	store, err := builtin.Open(builtin.Options{Dir: filepath.Join(dir, "archives"), Limit: int64(c.MaxSizeMiB) << 20, Key: id.Key, Log: s.log})
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	listener, err := s.listen(c, &id)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := s.keep(id); err != nil {
		return nil, errors.Join(fmt.Errorf("keep the key of the built-in cache: %w", err), listener.Close(), lock.Close())
	}
	base := cmp.Or(c.URL, cacheURL(c, listener.Addr().String()))
	stop := s.serve(context.WithoutCancel(ctx), certificates, store, listener)
	s.stop = func() {
		stop()
		_ = lock.Close()
	}
	s.log.Info("The built-in cache is served", "address", listener.Addr().String(), "url", base, "directory", dir, "bytes", store.Size())
	return remote.New(builtin.NewSigner(base, id.Key)), nil
}

// lockCache keeps other managers from the directory until the returned file is closed.
func lockCache(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make its directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock its directory: %w", err)
	}
	if err := filelock.Try(f); err != nil {
		if errors.Is(err, filelock.ErrLocked) {
			err = fmt.Errorf("another manager uses the directory %s: end it, or name another one as directory in [cache_server]", dir)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func open(address string) (net.Listener, error) {
	return net.Listen("tcp", address) //nolint:noctx // it does not wait
}

// listen opens the configured address, else the one from before, else a free one.
func (s *cacheServer) listen(c config.CacheServer, id *cacheIdentity) (net.Listener, error) {
	if c.ListenAddress != "" {
		return open(c.ListenAddress)
	}
	const free = "127.0.0.1:0"
	l, err := open(cmp.Or(id.Address, free))
	if err != nil && id.Address != "" {
		s.log.Warn("The built-in cache gets another port; running jobs can't reach it any more", "error", err)
		l, err = open(free)
	}
	if err != nil {
		return nil, err
	}
	id.Address = l.Addr().String()
	return l, nil
}

// cacheURL is how jobs on this machine, or on others if it listens for those, reach the server.
func cacheURL(c config.CacheServer, address string) string {
	scheme := "http"
	if c.TLSCertFile != "" {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return scheme + "://" + address
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// maxCacheConnections are open at a time; others wait.
const maxCacheConnections = 1024

// serve serves the store until the returned function is called.
func (s *cacheServer) serve(ctx context.Context, certificates []tls.Certificate, store *builtin.Store, l net.Listener) func() {
	server := &http.Server{
		Handler: store, ReadHeaderTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		Protocols: new(http.Protocols), ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	server.Protocols.SetHTTP1(true)
	l = connlimit.Listener(l, maxCacheConnections)
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	owned.Go(func() { store.Run(ctx) })
	owned.Go(func() {
		var err error
		if len(certificates) > 0 {
			server.TLSConfig = &tls.Config{Certificates: certificates, MinVersion: tls.VersionTLS12}
			err = server.ServeTLS(l, "", "")
		} else {
			err = server.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("The built-in cache has ended", "error", err)
		}
	})
	return func() {
		cancel()
		_ = server.Close()
		owned.Wait()
	}
}
