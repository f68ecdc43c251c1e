package gitlab

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// Times of a connection (runner contract, section 1.1).
const (
	dialTimeout      = 30 * time.Second
	keepAlive        = 30 * time.Second
	handshakeTimeout = 10 * time.Second
	continueTimeout  = time.Second
	headerTimeout    = 10 * time.Minute
	idleTimeout      = 90 * time.Second
	idleConnections  = 100
)

// transport keeps the connections to a server. When a file of a certificate changes, new connections use it.
type transport struct {
	o     Options
	files tlsFiles

	mu      sync.Mutex
	current *http.Transport // nil: not made yet
	caText  string          // of the authorities in use besides the system's
	used    [3]stamp        // the files as they were when current was made
	failed  [3]stamp        // and when it could not be made anew
	flushed time.Time
}

// tlsFiles are paths; empty: none.
type tlsFiles struct{ ca, cert, key string }

// stamp tells whether a file has changed. Not only a later time counts: a restored file may be older.
type stamp struct{ mod, size int64 }

func newTransport(o Options, host string) *transport {
	f := tlsFiles{ca: o.TLSCAFile, cert: o.TLSCertFile, key: o.TLSKeyFile}
	if o.CertDir != "" {
		at := filepath.Join(o.CertDir, host)
		f.ca = cmp.Or(f.ca, at+".crt")
		f.cert = cmp.Or(f.cert, at+".auth.crt")
		f.key = cmp.Or(f.key, at+".auth.key")
	}
	if o.TLSCAPEM != "" {
		f.ca = ""
	}
	return &transport{o: o, files: f, flushed: time.Now()}
}

// get returns the transport for the next request.
func (t *transport) get() (*http.Transport, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := [3]stamp{look(t.files.ca), look(t.files.cert), look(t.files.key)}
	if t.current == nil || now != t.used {
		if err := t.renew(now); err != nil {
			return nil, err
		}
	}
	if age := t.o.ConnectionMaxAge; age > 0 && time.Since(t.flushed) > age {
		t.current.CloseIdleConnections()
		t.flushed = time.Now()
	}
	return t.current, nil
}

func look(path string) stamp {
	if path == "" {
		return stamp{}
	}
	s, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{mod: s.ModTime().UnixNano(), size: s.Size()}
}

// renew makes the transport from the files as they are. While it can't, the old one is used: a certificate and its key
// are not written in the same moment.
func (t *transport) renew(now [3]stamp) error {
	made, text, err := t.make()
	if err != nil {
		if t.current == nil {
			return err
		}
		if now != t.failed {
			t.failed = now
			t.o.Log.Warn("The changed TLS files can't be used; the old ones stay in use", "error", err)
		}
		return nil
	}
	if t.current != nil {
		t.current.CloseIdleConnections()
		t.o.Log.Info("TLS files have changed; new connections use them")
	}
	t.current, t.caText, t.used, t.flushed = made, text, now, time.Now()
	return nil
}

func (t *transport) make() (*http.Transport, string, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	text := t.authorities(conf)
	if err := t.clientCertificate(conf); err != nil {
		return nil, "", err
	}
	dialer := &net.Dialer{
		Timeout: dialTimeout,
		// A server that vanished is noticed in minutes although a request for a job is silent for long.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: 4},
	}
	// With an own DialContext HTTP/2 is off: a held request, a log and an upload do not share a connection that one of
	// them can block or lose.
	return &http.Transport{
		Proxy:                 t.o.Proxy,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   handshakeTimeout,
		ExpectContinueTimeout: continueTimeout,
		ResponseHeaderTimeout: headerTimeout,
		IdleConnTimeout:       idleTimeout,
		MaxIdleConns:          idleConnections,
		MaxIdleConnsPerHost:   idleConnections,
	}, text, nil
}

// authorities adds the configured certificate authorities to the system's and returns their text. What can't be used is
// only warned about, as in the stock runner: the system's may do.
func (t *transport) authorities(conf *tls.Config) string {
	text := t.o.TLSCAPEM
	if text == "" && t.files.ca != "" {
		data, err := os.ReadFile(t.files.ca)
		switch {
		case err == nil:
			text = string(data)
		case t.o.TLSCAFile != "" || !errors.Is(err, os.ErrNotExist):
			t.o.Log.Warn("The file of certificate authorities can't be read; only the system's are used", "file", t.files.ca, "error", err)
		}
	}
	if text == "" {
		return ""
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM([]byte(text)) {
		t.o.Log.Error("The file of certificate authorities holds no certificate in PEM form; only the system's are used", "file", t.files.ca)
		return ""
	}
	conf.RootCAs = pool
	return text
}

// clientCertificate loads our certificate, if there is one.
func (t *transport) clientCertificate(conf *tls.Config) error {
	cert, key, found := t.certificateFiles()
	if !found {
		if (t.o.TLSCertFile == "") != (t.o.TLSKeyFile == "") {
			t.o.Log.Warn("A client certificate needs both tls-cert-file and tls-key-file; none is used")
		}
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("load the client certificate %s with the key %s: %w", cert, key, err)
	}
	conf.Certificates = []tls.Certificate{pair}
	return nil
}

// certificateFiles returns the paths of our certificate and its key. Those that were only looked for by the server's
// name must be there; configured ones count in any case.
func (t *transport) certificateFiles() (cert, key string, found bool) {
	cert, key = t.files.cert, t.files.key
	if cert == "" || key == "" {
		return "", "", false
	}
	there := func(path, configured string) bool { return configured != "" || look(path) != (stamp{}) }
	return cert, key, there(cert, t.o.TLSCertFile) && there(key, t.o.TLSKeyFile)
}

// local returns what a job needs to reach the server as we do: see the keys of Job.Local.
func (t *transport) local(state *tls.ConnectionState) map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	local := map[string]string{}
	if state == nil {
		return local
	}
	if ca := cmp.Or(t.caText, chain(state)); ca != "" {
		local[tranter.LocalTLSCA] = ca
	}
	if cert, key, found := t.certificateFiles(); found {
		local[tranter.LocalTLSCert], local[tranter.LocalTLSKey] = absolute(cert), absolute(key)
	}
	return local
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// chain is the PEM text of the certificates that the connection was verified with.
func chain(state *tls.ConnectionState) string {
	if len(state.VerifiedChains) == 0 {
		return ""
	}
	var text strings.Builder
	for _, c := range state.VerifiedChains[0] {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return text.String()
}
