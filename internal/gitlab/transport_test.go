package gitlab

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

// issued is a certificate and its key in PEM form.
type issued struct{ cert, key string }

func (i issued) pair(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(i.cert), []byte(i.key))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a.pem = block("CERTIFICATE", der)
	return a
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func (a *authority) issue(t *testing.T, name string) issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return issued{block("CERTIFICATE", der), block("PRIVATE KEY", k)}
}

// secure is a server with TLS that hands out jobs and notes who asks.
type secure struct {
	*httptest.Server
	mu          sync.Mutex
	clients     []string // common names; "" without a certificate
	connections int
}

func newSecure(t *testing.T, server, clients *authority) *secure {
	t.Helper()
	s := &secure{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := ""
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		s.mu.Lock()
		s.clients = append(s.clients, name)
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Request-Id", "from-the-server")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, payload)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.mu.Lock()
			s.connections++
			s.mu.Unlock()
		}
	}
	conf := &tls.Config{Certificates: []tls.Certificate{server.issue(t, "server").pair(t)}}
	if clients != nil {
		conf.ClientCAs, conf.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		conf.ClientCAs.AppendCertsFromPEM([]byte(clients.pem))
	}
	s.TLS = conf
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func ask(t *testing.T, c *patient) (*tranter.Job, error) {
	t.Helper()
	job, err := c.Request(t.Context(), tranter.Request{})
	discreet(t, err)
	return job, err
}

func TestWhoIsTrusted(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	s := newSecure(t, ca, nil)
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "ca.pem"), ca.pem)
	write(t, filepath.Join(dir, "certs", "127.0.0.1.crt"), ca.pem)
	for name, tc := range map[string]struct {
		change    func(*Options)
		ok, warns bool
	}{
		"nobody":          {func(*Options) {}, false, false},
		"a file":          {func(o *Options) { o.TLSCAFile = file }, true, false},
		"a text":          {func(o *Options) { o.TLSCAPEM = ca.pem }, true, false},
		"the host's file": {func(o *Options) { o.CertDir = filepath.Join(dir, "certs") }, true, false},
		"somebody else":   {func(o *Options) { o.TLSCAPEM = other.pem }, false, false},
		"file before host": {func(o *Options) {
			o.CertDir, o.TLSCAFile = filepath.Join(dir, "certs"), write(t, filepath.Join(dir, "o"), other.pem)
		}, false, false},
		"a missing file":      {func(o *Options) { o.TLSCAFile = filepath.Join(dir, "none") }, false, true},
		"a file of something": {func(o *Options) { o.TLSCAFile = write(t, filepath.Join(dir, "x"), "hello") }, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			job, err := ask(t, connect(t, s.URL, tc.change, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }))
			if (err == nil) != tc.ok {
				t.Fatalf("error %v", err)
			}
			if warned := strings.Contains(log.String(), "only the system's are used"); warned != tc.warns {
				t.Errorf("log: %s", log.String())
			}
			if err != nil {
				if !strings.Contains(err.Error(), "certificate") {
					t.Errorf("error %v does not say what is wrong", err)
				}
				return
			}
			if got := job.Local[tranter.LocalTLSCA]; got != ca.pem {
				t.Errorf("the job gets %q", got)
			}
			if job.Local[tranter.LocalCorrelationID] != "from-the-server" || job.Local[tranter.LocalTLSCert] != "" {
				t.Errorf("local: %v", job.Local)
			}
		})
	}
}

// What a job gets when no authority is configured must be enough to verify the server with.
func TestTheChainOfTheConnection(t *testing.T) {
	ca := newAuthority(t)
	s := newSecure(t, ca, nil)
	c := connect(t, s.URL, func(o *Options) { o.TLSCAPEM = ca.pem })
	if _, err := ask(t, c); err != nil {
		t.Fatal(err)
	}
	c.transport.caText = "" // as if the system knew the authority
	job, err := ask(t, c)
	if err != nil {
		t.Fatal(err)
	}
	text := job.Local[tranter.LocalTLSCA]
	if strings.Count(text, "BEGIN CERTIFICATE") != 2 || !strings.Contains(text, ca.pem) {
		t.Errorf("chain: %s", text)
	}
	if _, err := ask(t, connect(t, s.URL, func(o *Options) { o.TLSCAPEM = text })); err != nil {
		t.Error(err)
	}
}

func TestPlainHTTPGivesNoTLSFiles(t *testing.T) {
	s := newScript(t, reply{status: 201, body: payload})
	dir := t.TempDir()
	ca := newAuthority(t)
	client := ca.issue(t, "runner")
	job, err := ask(t, connect(t, s.URL, func(o *Options) {
		o.TLSCAFile = write(t, filepath.Join(dir, "ca"), ca.pem)
		o.TLSCertFile, o.TLSKeyFile = write(t, filepath.Join(dir, "c"), client.cert), write(t, filepath.Join(dir, "k"), client.key)
	}))
	if err != nil || len(job.Local) != 1 || len(job.Local[tranter.LocalCorrelationID]) != 32 {
		t.Errorf("%v, %v", job, err)
	}
}

func TestClientCertificates(t *testing.T) {
	ca := newAuthority(t)
	s := newSecure(t, ca, ca)
	dir := t.TempDir()
	client := ca.issue(t, "runner")
	cert, key := write(t, filepath.Join(dir, "cert"), client.cert), write(t, filepath.Join(dir, "key"), client.key)
	write(t, filepath.Join(dir, "certs", "127.0.0.1.auth.crt"), client.cert)
	write(t, filepath.Join(dir, "certs", "127.0.0.1.auth.key"), client.key)
	write(t, filepath.Join(dir, "half", "127.0.0.1.auth.crt"), client.cert)
	for name, tc := range map[string]struct {
		change func(*Options)
		cert   string
		text   string // of the error; with TLS 1.3 a refusal may show as a connection that breaks
	}{
		"files":             {func(o *Options) { o.TLSCertFile, o.TLSKeyFile = cert, key }, cert, ""},
		"the host's files":  {func(o *Options) { o.CertDir = filepath.Join(dir, "certs") }, filepath.Join(dir, "certs", "127.0.0.1.auth.crt"), ""},
		"none":              {func(*Options) {}, "", "request a job: 127.0.0.1"},
		"no key":            {func(o *Options) { o.TLSCertFile = cert }, "", "request a job: 127.0.0.1"},
		"no key of the two": {func(o *Options) { o.CertDir = filepath.Join(dir, "half") }, "", "request a job: 127.0.0.1"},
		"missing":           {func(o *Options) { o.TLSCertFile, o.TLSKeyFile = filepath.Join(dir, "no"), key }, "", "load the client certificate " + filepath.Join(dir, "no")},
		"of something else": {func(o *Options) { o.TLSCertFile, o.TLSKeyFile = cert, cert }, "", "load the client certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			job, err := ask(t, connect(t, s.URL, func(o *Options) { o.TLSCAPEM = ca.pem }, tc.change))
			if (err != nil) != (tc.text != "") || err != nil && !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("error %v, want %q", err, tc.text)
			}
			if err == nil && (job.Local[tranter.LocalTLSCert] != tc.cert || job.Local[tranter.LocalTLSKey] == "") {
				t.Errorf("local: %v", job.Local)
			}
		})
	}
}

func TestChangedFilesAreUsed(t *testing.T) {
	ca := newAuthority(t)
	s := newSecure(t, ca, ca)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	put := func(i issued, age time.Duration) {
		write(t, cert, i.cert)
		write(t, key, i.key)
		when := time.Now().Add(-age)
		for _, path := range []string{cert, key} {
			if err := os.Chtimes(path, when, when); err != nil {
				t.Fatal(err)
			}
		}
	}
	var log bytes.Buffer
	put(ca.issue(t, "first"), time.Hour)
	c := connect(t, s.URL, func(o *Options) {
		o.TLSCAPEM, o.TLSCertFile, o.TLSKeyFile = ca.pem, cert, key
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	want := func(name string, connections int) {
		t.Helper()
		if _, err := ask(t, c); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if got := s.clients[len(s.clients)-1]; got != name || s.connections != connections {
			t.Errorf("the server saw %q on connection %d, want %q on %d", got, s.connections, name, connections)
		}
	}
	want("first", 1)
	want("first", 1)
	put(ca.issue(t, "older"), 2*time.Hour) // from a backup
	want("older", 2)
	// Half of a pair, and then nothing at all, are not used.
	write(t, key, ca.issue(t, "third").key)
	want("older", 2)
	want("older", 2)
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	want("older", 2)
	if n := strings.Count(log.String(), "can't be used"); n != 2 {
		t.Errorf("%d warnings:\n%s", n, log.String())
	}
	put(ca.issue(t, "fourth"), 0)
	want("fourth", 3)
}

func TestAnAuthorityThatAppearsLater(t *testing.T) {
	ca := newAuthority(t)
	s := newSecure(t, ca, nil)
	dir := t.TempDir()
	c := connect(t, s.URL, func(o *Options) { o.CertDir = dir })
	if _, err := ask(t, c); err == nil {
		t.Fatal("an unknown authority was trusted")
	}
	write(t, filepath.Join(dir, "127.0.0.1.crt"), ca.pem)
	if _, err := ask(t, c); err != nil {
		t.Error(err)
	}
}

func TestConnectionAge(t *testing.T) {
	ca := newAuthority(t)
	for age, want := range map[time.Duration]int{0: 1, time.Hour: 1, time.Nanosecond: 3} {
		s := newSecure(t, ca, nil)
		c := connect(t, s.URL, func(o *Options) { o.TLSCAPEM, o.ConnectionMaxAge = ca.pem, age })
		for range 3 {
			if _, err := ask(t, c); err != nil {
				t.Fatal(err)
			}
		}
		s.mu.Lock()
		if s.connections != want {
			t.Errorf("age %v: %d connections, want %d", age, s.connections, want)
		}
		s.mu.Unlock()
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	ca := newAuthority(t)
	s := newSecure(t, ca, nil)
	s.TLS.MinVersion, s.TLS.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if _, err := ask(t, connect(t, s.URL, func(o *Options) { o.TLSCAPEM = ca.pem })); err == nil {
		t.Error("TLS 1.1 was used")
	}
}

// A proxy sees the whole address of a plain request.
func TestProxy(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(proxy.Close)
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, "http://gitlab.invalid/sub", func(o *Options) { o.Proxy = http.ProxyURL(at) })
	if _, err := ask(t, c); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 1 || asked[0] != "http://gitlab.invalid/sub/api/v4/jobs/request" {
		t.Errorf("the proxy was asked for %q", asked)
	}
}

func TestAnUploadIsNotMovedToAnUnencryptedServer(t *testing.T) {
	plain := newScript(t, reply{status: 201})
	ca := newAuthority(t)
	s := httptest.NewUnstartedServer(http.RedirectHandler(plain.URL, http.StatusTemporaryRedirect))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server").pair(t)}}
	s.StartTLS()
	t.Cleanup(s.Close)
	err := connect(t, s.URL, func(o *Options) { o.TLSCAPEM = ca.pem }).Upload(t.Context(), theJob(), artifact(t, "x", false))
	if err == nil || !strings.Contains(err.Error(), "without encryption") || len(plain.seen()) != 0 {
		t.Errorf("error %v", err)
	}
}

func TestTrusted(t *testing.T) {
	for _, tc := range []struct {
		base, to string
		want     bool
	}{
		{"https://gitlab.example.com", "https://gitlab.example.com/x", true},
		{"https://gitlab.example.com", "https://GitLab.example.com:443/x", true},
		{"https://gitlab.example.com", "http://gitlab.example.com/x", false},
		{"https://gitlab.example.com", "https://gitlab.example.com:8443/x", false},
		{"https://gitlab.example.com", "https://gitlab.example.com.evil/x", false},
		{"http://gitlab.example.com", "https://gitlab.example.com/x", true},
		{"http://gitlab.example.com:8080", "https://gitlab.example.com/x", true},
		{"http://gitlab.example.com:8080", "http://gitlab.example.com/x", false},
	} {
		to, err := url.Parse(tc.to)
		if err != nil {
			t.Fatal(err)
		}
		if got := connect(t, tc.base).trusted(to); got != tc.want {
			t.Errorf("%s to %s: %v", tc.base, tc.to, got)
		}
	}
}
