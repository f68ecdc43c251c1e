package engine_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	a.certificate, a.key = issue(t, template, nil)
	return a
}

func issue(t testing.TB, template *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

// leaf makes a certificate for 127.0.0.1, or for the name if there is one.
func (a *authority) leaf(t testing.TB, name string, until time.Duration) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(until),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if name != "" {
		template.IPAddresses, template.DNSNames = nil, []string{name}
	}
	certificate, key := issue(t, template, a)
	return tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key, Leaf: certificate}
}

// certPath writes a directory as DOCKER_CERT_PATH has it.
func certPath(t testing.TB, trusts *authority, shows tls.Certificate) string {
	t.Helper()
	dir := t.TempDir()
	key, err := x509.MarshalECPrivateKey(shows.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"ca.pem":   {Type: "CERTIFICATE", Bytes: trusts.certificate.Raw},
		"cert.pem": {Type: "CERTIFICATE", Bytes: shows.Certificate[0]},
		"key.pem":  {Type: "EC PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// secure puts TLS, with certificates of clients, before the engine and returns its address.
func secure(t testing.TB, certificate tls.Certificate, clients *authority) string {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(clients.certificate)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})
	if err != nil {
		t.Fatal(err)
	}
	socket := strings.TrimPrefix(enginetest.Host(t), "unix://")
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { secured(conn.(*tls.Conn), socket) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return "tcp://" + l.Addr().String()
}

func secured(in *tls.Conn, socket string) {
	defer in.Close()
	if in.Handshake() != nil {
		return
	}
	out, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer out.Close()
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(out, in)
		out.(*net.UnixConn).CloseWrite()
	})
	both.Go(func() {
		io.Copy(in, out)
		in.CloseWrite()
	})
	both.Wait()
}

func TestAnEngineBehindTLS(t *testing.T) {
	ca := newAuthority(t)
	host := secure(t, ca.leaf(t, "", time.Hour), ca)
	dir := certPath(t, ca, ca.leaf(t, "", time.Hour))
	for name, o := range map[string]engine.Options{
		"verified":    {Host: host, CertPath: dir, Verify: true},
		"not checked": {Host: host, CertPath: dir},
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t, o)
			id := mustCreate(t, e, "sleep", "1000")
			start(t, e, id)
			s, err := e.Exec(t.Context(), id, []string{"cat"}, "")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			out, _ := both(s, func() {
				fmt.Fprint(s.Stdin, "over TLS")
				s.Stdin.Close()
			})
			if out != "over TLS" {
				t.Errorf("stdout %q", out)
			}
		})
	}
}

func TestTheEnvironmentSwitchesTLSOn(t *testing.T) {
	ca := newAuthority(t)
	values := map[string]string{
		"DOCKER_HOST": secure(t, ca.leaf(t, "", time.Hour), ca), "DOCKER_TLS_VERIFY": "1",
		"DOCKER_CERT_PATH": certPath(t, ca, ca.leaf(t, "", time.Hour)),
	}
	e, err := engine.OpenWith(t.Context(), engine.Options{}, func(name string) string { return values[name] })
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
}

func TestFaultsOfTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good := ca.leaf(t, "", time.Hour)
	trusted := certPath(t, ca, good)
	host := secure(t, good, ca)
	web := httptest.NewTLSServer(http.NotFoundHandler())
	defer web.Close()
	plain := newRelay(t, enginetest.Host(t))
	for name, c := range map[string]struct {
		options engine.Options
		says    string
	}{
		"expired":                  {engine.Options{Host: secure(t, ca.leaf(t, "", -time.Hour), ca), CertPath: trusted, Verify: true}, "has expired or is not valid yet"},
		"another authority":        {engine.Options{Host: host, CertPath: certPath(t, other, good), Verify: true}, "ca.pem of tls_cert_path"},
		"the system's authorities": {engine.Options{Host: host, Verify: true}, "ca.pem of tls_cert_path"},
		"another name":             {engine.Options{Host: secure(t, ca.leaf(t, "elsewhere", time.Hour), ca), CertPath: trusted, Verify: true}, "is for another name"},
		"a stranger's certificate": {engine.Options{Host: host, CertPath: certPath(t, ca, other.leaf(t, "", time.Hour)), Verify: true}, "does not accept our certificate"},
		"our expired certificate":  {engine.Options{Host: host, CertPath: certPath(t, ca, ca.leaf(t, "", -time.Hour)), Verify: true}, "does not accept our certificate"},
		"TLS to an engine without": {engine.Options{Host: plain.host, CertPath: trusted, Verify: true}, "does not speak TLS"},
		"an engine with TLS":       {engine.Options{Host: "tcp://" + web.Listener.Addr().String()}, "the engine speaks TLS: set tls_verify"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := engine.OpenWith(t.Context(), c.options, nothing)
			if err == nil || !strings.Contains(err.Error(), c.says) || engine.Gone(err) {
				t.Errorf("error %v, gone %v, want %q", err, engine.Gone(err), c.says)
			}
		})
	}
	for _, missing := range []string{"ca.pem", "cert.pem", "key.pem"} {
		dir := certPath(t, ca, good)
		os.Remove(filepath.Join(dir, missing))
		_, err := engine.OpenWith(t.Context(), engine.Options{Host: host, CertPath: dir, Verify: true}, nothing)
		if err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("without %s: error %v", missing, err)
		}
	}
}
