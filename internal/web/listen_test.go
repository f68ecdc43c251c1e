package web_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter/internal/web"
	"github.com/tranter-ci/tranter/internal/web/webtest"
)

func noTLS() web.TLS { return web.TLS{} }

// serve serves until the test ends, and returns the address.
func (r *rig) serve(t *testing.T, address string, files web.TLS) string {
	t.Helper()
	l, err := r.server.Open(t.Context(), address, files)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- l.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("serving ended with %v", err)
		}
	})
	return l.URL()
}

func ask(t *testing.T, client *http.Client, url, host string, change ...func(*http.Request)) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for _, c := range change {
		c(req)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestAnAddressWithoutAHostIsOnLoopback(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	url := r.serve(t, ":0", noTLS())
	if !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Errorf("it is at %s", url)
	}
	l, err := r.server.OpenMetrics(t.Context(), ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !strings.HasPrefix(l.URL(), "http://[::]:") && !strings.HasPrefix(l.URL(), "http://0.0.0.0:") {
		t.Errorf("listen_address is at %s", l.URL())
	}
	for _, address := range []string{"a:b:c", "host:port:9", "127.0.0.1:99999"} {
		if l, err := r.server.Open(t.Context(), address, noTLS()); err == nil {
			l.Close()
			t.Errorf("%s is no address", address)
		}
	}
	taken := strings.TrimPrefix(url, "http://")
	if _, err := r.server.Open(t.Context(), taken, noTLS()); err == nil || !strings.Contains(err.Error(), taken) {
		t.Errorf("an address that is taken: %v", err)
	}
}

func TestOnLoopbackOtherNamesAreRefused(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	url := r.serve(t, "127.0.0.1:0", noTLS())
	for host, want := range map[string]int{
		"": 200, "localhost": 200, "LOCALHOST:80": 200, "tranter.localhost": 200, "[::1]:9253": 200, "127.0.0.1": 200,
		"evil.example": 403, "evil.example:9253": 403, "localhost.evil.example": 403, "10.0.0.1": 403, "127.0.0.1.nip.io": 403,
	} {
		if code, _ := ask(t, http.DefaultClient, url+"/api/snapshot", host); code != want {
			t.Errorf("for %q it answered %d, want %d", host, code, want)
		}
	}
	if code, _ := ask(t, http.DefaultClient, url+"/api/snapshot", "ci.example.com", bearer(actToken)); code != 200 {
		t.Errorf("behind a proxy, with the token, it answered %d", code)
	}
	if code, _ := ask(t, http.DefaultClient, url+"/healthz", "evil.example"); code != 200 {
		t.Errorf("/healthz answered %d", code)
	}
}

// certify writes a certificate for a name, and returns a pool that trusts it.
func certify(t *testing.T, dir, name string) (*x509.CertPool, web.TLS) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := web.TLS{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	for file, block := range map[string]*pem.Block{files.CertFile: {Type: "CERTIFICATE", Bytes: der}, files.KeyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool, files
}

func TestPagesOverTLS(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	pool, files := certify(t, t.TempDir(), "localhost")
	url := r.serve(t, "127.0.0.1:0", files)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	if code, body := ask(t, client, url+"/", "localhost"); code != 200 || !strings.Contains(body, "<main") {
		t.Errorf("answered %d", code)
	}
	res, err := client.PostForm(url+"/login", map[string][]string{"token": {actToken}, "back": {"/healthz"}})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	for _, c := range res.Request.Response.Cookies() {
		if !c.Secure {
			t.Errorf("the cookie %s is not only for TLS", c.Name)
		}
	}
	// It would hold for all ports of the host, also for those where somebody else serves without TLS.
	if res.Header.Get("Strict-Transport-Security") != "" {
		t.Error("other services of the host are cut off")
	}
	if _, err := r.server.Open(t.Context(), "127.0.0.1:0", web.TLS{CertFile: "/nowhere/cert.pem", KeyFile: "/nowhere/key.pem"}); err == nil || !strings.Contains(err.Error(), "cert_file /nowhere/cert.pem") {
		t.Errorf("without files: %v", err)
	}
}

func TestACertificateIsReadAnewWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		_, files := certify(t, dir, "before.example")
		get, err := web.CertificateOf(files)
		if err != nil {
			t.Fatal(err)
		}
		name := func() string {
			c, err := get(nil)
			if err != nil {
				t.Fatal(err)
			}
			return c.Leaf.DNSNames[0]
		}
		certify(t, dir, "after.example")
		if got := name(); got != "before.example" {
			t.Errorf("at once it is that of %s", got)
		}
		time.Sleep(11 * time.Second)
		if got := name(); got != "after.example" {
			t.Errorf("then it is that of %s", got)
		}
		if err := os.WriteFile(files.CertFile, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		if got := name(); got != "after.example" {
			t.Errorf("with a broken file it is that of %s", got)
		}
	})
}
