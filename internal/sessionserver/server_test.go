package sessionserver_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/sessionserver"
)

// echo is a terminal that shows what is typed; its shell ends when "exit" is typed.
type echo struct {
	in   *io.PipeWriter
	out  *io.PipeReader
	shut chan struct{}
	once sync.Once
}

func newEcho() *echo {
	r, w := io.Pipe()
	return &echo{in: w, out: r, shut: make(chan struct{})}
}

func (e *echo) Read(p []byte) (int, error) { return e.out.Read(p) }

func (e *echo) Write(p []byte) (int, error) {
	if string(p) == "exit" {
		return len(p), e.in.Close()
	}
	return e.in.Write(p)
}

func (e *echo) Resize(uint16, uint16) error { return nil }
func (e *echo) CloseWrite() error           { return nil }
func (e *echo) ExitCode() (int, bool)       { return 0, true }

func (e *echo) Close() error {
	e.once.Do(func() { close(e.shut) })
	return e.out.CloseWithError(errors.New("closed"))
}

// running is a server at work.
type running struct {
	*sessionserver.Server
	stop  context.CancelFunc
	ended chan error
}

func start(t *testing.T, o sessionserver.Options) *running {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Identity == "" {
		o.Identity = filepath.Join(t.TempDir(), "identity.pem")
	}
	s, err := sessionserver.Listen(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Server: s, stop: stop, ended: make(chan error, 1)}
	go func() { r.ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-r.ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server does not end")
		}
	})
	return r
}

// admit offers access to terminals and lets in by open.
func (r *running) admit(t *testing.T, open func(context.Context) (tranter.Terminal, error)) (tranter.Access, func()) {
	t.Helper()
	a, err := r.Offer()
	if err != nil {
		t.Fatal(err)
	}
	return a, r.Admit(a, open)
}

func one(e *echo) func(context.Context) (tranter.Terminal, error) {
	return func(context.Context) (tranter.Terminal, error) { return e, nil }
}

// A client that reaches the server by the advertised name can verify it.
func TestTheAdvertisedNameIsVerified(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"runner.example.com", "127.0.0.1", "localhost"} {
		r := start(t, sessionserver.Options{Advertise: host})
		a, leave := r.admit(t, one(newEcho()))
		defer leave()
		u, err := url.Parse(a.URL)
		if err != nil || u.Hostname() != host {
			t.Fatalf("%s, %v", a.URL, err)
		}
		c := client(t, a.Certificate)
		c.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", "127.0.0.1:"+u.Port())
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URL+"/exec", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || resp.ProtoMajor != 1 {
			t.Errorf("%s: %s over %s", host, resp.Status, resp.Proto)
		}
	}
}

// client trusts the certificate that was offered, and nothing else.
func client(t *testing.T, certificate string) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(certificate)) {
		t.Fatalf("no certificate: %q", certificate)
	}
	c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func dial(t *testing.T, a tranter.Access, protocols ...string) (*websocket.Conn, int, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	c := client(t, a.Certificate)
	c.Timeout = 0
	conn, resp, err := websocket.Dial(ctx, a.URL+"/exec", &websocket.DialOptions{ //nolint:bodyclose // Dial's caller need not
		HTTPClient: c, HTTPHeader: http.Header{"Authorization": {a.Authorization.Reveal()}, "Origin": {"https://gitlab.example.com"}}, Subprotocols: protocols,
	})
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	if conn != nil {
		t.Cleanup(func() { _ = conn.CloseNow() })
	}
	return conn, status, err
}

func TestBothSubprotocols(t *testing.T) {
	t.Parallel()
	r := start(t, sessionserver.Options{})
	const text = "h\xc3\xa9llo \x00\xff\x1b[0m"
	for protocol, kind := range map[string]websocket.MessageType{
		"terminal.gitlab.com": websocket.MessageBinary, "base64.terminal.gitlab.com": websocket.MessageText, "": websocket.MessageBinary,
	} {
		e := newEcho()
		a, leave := r.admit(t, one(e))
		defer leave()
		var protocols []string
		encode, decode := func(s string) string { return s }, func(s string) string { return s }
		if protocol != "" {
			protocols = []string{"other.example.com", protocol}
		}
		if kind == websocket.MessageText {
			encode = func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
			decode = func(s string) string { b, _ := base64.StdEncoding.DecodeString(s); return string(b) }
		}
		conn, _, err := dial(t, a, protocols...)
		if err != nil {
			t.Fatalf("%s: %v", protocol, err)
		}
		if conn.Subprotocol() != protocol {
			t.Errorf("subprotocol %q, want %q", conn.Subprotocol(), protocol)
		}
		if err := conn.Write(t.Context(), kind, []byte(encode(text))); err != nil {
			t.Fatal(err)
		}
		k, got, err := conn.Read(t.Context())
		if err != nil || k != kind || decode(string(got)) != text {
			t.Errorf("%s: %q as %v, %v", protocol, got, k, err)
		}
		if err := conn.Write(t.Context(), kind, []byte(encode("exit"))); err != nil {
			t.Fatal(err)
		}
		if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
			t.Errorf("%s: the end of the shell arrives as %v", protocol, err)
		}
		<-e.shut
	}
}

func TestWhoIsNotLetIn(t *testing.T) {
	t.Parallel()
	r := start(t, sessionserver.Options{OpenLimit: 50 * time.Millisecond})
	fail := func(err error) func(context.Context) (tranter.Terminal, error) {
		return func(context.Context) (tranter.Terminal, error) { return nil, err }
	}
	good, leave := r.admit(t, one(newEcho()))
	defer leave()
	busy, leave := r.admit(t, fail(tranter.ErrTerminalBusy))
	defer leave()
	none, leave := r.admit(t, fail(tranter.ErrNoTerminal))
	defer leave()
	slow, leave := r.admit(t, func(ctx context.Context) (tranter.Terminal, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	defer leave()
	gone, leave := r.admit(t, one(newEcho()))
	leave()
	never, err := r.Offer()
	if err != nil {
		t.Fatal(err)
	}
	wrong, empty := good, good
	wrong.Authorization, empty.Authorization = busy.Authorization, ""
	for name, tt := range map[string]struct {
		access tranter.Access
		want   int
	}{
		"wrong token": {wrong, 401}, "no token": {empty, 401}, "another is in": {busy, 423}, "no terminal": {none, 503}, "too slow": {slow, 503},
		"job ended": {gone, 404}, "no job came": {never, 404},
	} {
		if _, status, err := dial(t, tt.access, "terminal.gitlab.com"); status != tt.want {
			t.Errorf("%s: status %d, want %d (%v)", name, status, tt.want, err)
		}
	}
	for path, want := range map[string]int{"/exec": 405, "/proxy/db/5432/": 404, "": 404, "/exec/more": 404, "/../x/exec": 404} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, good.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", good.Authorization.Reveal())
		resp, err := client(t, good.Certificate).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	if good.URL == busy.URL || good.Authorization == busy.Authorization || len(good.Authorization.Reveal()) != 64 {
		t.Error("two jobs have the same access")
	}
}

func TestATerminalEndsWithItsUserAndTheServer(t *testing.T) {
	t.Parallel()
	r := start(t, sessionserver.Options{})
	e := newEcho()
	a, leave := r.admit(t, one(e))
	defer leave()
	conn, _, err := dial(t, a)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.CloseNow() // as a lost connection
	<-e.shut

	e = newEcho()
	b, leave := r.admit(t, one(e))
	defer leave()
	if _, _, err = dial(t, b); err != nil {
		t.Fatal(err)
	}
	r.stop()
	<-e.shut
}

func TestTheIdentityStays(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "identity.pem")
	first, err := start(t, sessionserver.Options{Identity: file}).Offer()
	if err != nil {
		t.Fatal(err)
	}
	second, err := start(t, sessionserver.Options{Identity: file}).Offer()
	if err != nil {
		t.Fatal(err)
	}
	if first.Certificate != second.Certificate {
		t.Error("a restart made another certificate: coordinators of running jobs would not trust it")
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if strings.Contains(first.Certificate, "PRIVATE") {
		t.Error("the key was given away")
	}
	if err := os.WriteFile(file, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	third, err := start(t, sessionserver.Options{Identity: file}).Offer()
	if err != nil || third.Certificate == first.Certificate {
		t.Errorf("after damage: %v", err)
	}
}

func TestAdvertisedAddress(t *testing.T) {
	t.Parallel()
	for advertise, want := range map[string]string{
		"runner.example.com": "https://runner.example.com:", "runner.example.com:7443": "https://runner.example.com:7443/session/", "[::1]:99": "https://[::1]:99/session/",
		"10.0.0.1": "https://10.0.0.1:", "": "https://127.0.0.1:",
	} {
		a, err := start(t, sessionserver.Options{Advertise: advertise}).Offer()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(a.URL, want) || strings.Contains(a.URL, ":0/") {
			t.Errorf("advertise %q: %s", advertise, a.URL)
		}
	}
	_, err := sessionserver.Listen(t.Context(), sessionserver.Options{
		Listen: "127.0.0.1:0", Advertise: "https://x", Identity: filepath.Join(t.TempDir(), "i"), Log: slog.New(slog.DiscardHandler),
	})
	if err == nil || !strings.Contains(err.Error(), "without a scheme") {
		t.Errorf("with a scheme: %v", err)
	}
}
