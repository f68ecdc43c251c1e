package docker_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/remote/sshtest"
)

// gate passes connections with TLS, and a certificate of the client, on to the machine's engine.
type gate struct {
	host  string // as DOCKER_HOST has it
	certs string // directory for clients

	mu     sync.Mutex
	open   map[net.Conn]bool
	passed int
	all    sync.WaitGroup
}

func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{certs: t.TempDir(), open: map[net.Conn]bool{}}
	own, pool := g.certificate(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	g.host = "tcp://" + l.Addr().String()
	socket := strings.TrimPrefix(enginetest.Host(t), "unix://")
	g.all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			g.all.Go(func() { g.pass(conn, socket) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		g.cut()
		g.all.Wait()
	})
	return g
}

// certificate makes one that its owner has signed, for server and client, writes it as DOCKER_CERT_PATH has it, and
// returns it with who may come in.
func (g *gate) certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
	for name, content := range map[string][]byte{"ca.pem": public, "cert.pem": public, "key.pem": private} {
		if err := os.WriteFile(filepath.Join(g.certs, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(public, private)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(public)
	return pair, pool
}

func (g *gate) pass(in net.Conn, socket string) {
	defer in.Close()
	out, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer out.Close()
	g.mu.Lock()
	g.open[in] = true
	g.passed++
	g.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(out, in)
		_ = out.(*net.UnixConn).CloseWrite()
	})
	both.Go(func() {
		_, _ = io.Copy(in, out)
		_ = in.(*tls.Conn).CloseWrite()
	})
	both.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, in)
}

// cut ends all connections, as a loss of the network does.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for conn := range g.open {
		_ = conn.(*tls.Conn).NetConn().Close()
	}
}

// milestones is a log that has something done whenever another text comes.
type milestones struct {
	bytes.Buffer
	at []string
	do func()
}

func (m *milestones) Write(p []byte) (int, error) {
	n, err := m.Buffer.Write(p)
	for len(m.at) > 0 && bytes.Contains(m.Bytes(), []byte("\n"+m.at[0]+"\n")) {
		m.at = m.at[1:]
		m.do()
	}
	return n, err
}

const manyLines = 3000

// counting is a script that prints many lines, slowly enough to be disturbed.
const counting = `i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); [ $((i % 30)) != 0 ] || sleep 0.01; done`

// whole fails the test unless the log has each of the script's lines once, in order.
func whole(t *testing.T, log string) {
	t.Helper()
	var want strings.Builder
	for i := range manyLines {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if !strings.HasSuffix(log, want.String()) || strings.Count(log, "\nline 0\n") != 1 {
		t.Errorf("the log is not whole: %d bytes", len(log))
	}
}

// disturbed runs the job's script while disturb is called again and again.
func (r *rig) disturbed(disturb func()) {
	r.t.Helper()
	p := r.phase("script", tranter.PlaceBuild, counting)
	if err := r.session.Start(r.context(), p); err != nil {
		r.t.Fatal(err)
	}
	log := &milestones{at: []string{"line 300", "line 900", "line 901", "line 2000", "line 2999"}, do: disturb}
	result, err := r.session.Attach(r.context(), p.ID, 0, log)
	r.good(result, log.String(), err)
	if len(log.at) > 0 || result.LogBytes != int64(log.Len()) {
		r.t.Errorf("%+v; %d bytes; not come: %q", result, log.Len(), log.at)
	}
	whole(r.t, log.String())
}

func TestAnEngineOverTLS(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.shell = "sh"
	r.alone()
	g := newGate(t)
	r.settings.Host, r.settings.TLSCertPath, r.settings.TLSVerify = g.host, g.certs, true
	r.open()
	r.sources()
	r.disturbed(g.cut)
	has(t, r.good(r.perform(r.phase("finish", tranter.PlaceHelper, "echo the end"))), "\nthe end\n")
	r.close()
	if g.passed < 6 {
		t.Errorf("%d connections", g.passed)
	}
}

func TestAnEngineOverSSH(t *testing.T) { // not in parallel: it changes the environment
	for name, config := range map[string][]string{"forwarded": nil, "by a program": {"AllowStreamLocalForwarding no"}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "busybox")
			r.shell = "sh"
			r.alone()
			socket := strings.TrimPrefix(r.settings.Host, "unix://")
			cache, err := os.UserCacheDir()
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("XDG_CACHE_HOME", cache) // test images stay where they are
			s := sshtest.Start(t, config...)
			t.Setenv("HOME", s.Home)
			t.Setenv("SSH_AUTH_SOCK", "")
			r.settings.Host = s.URL(socket)
			r.open()
			r.sources()
			r.disturbed(func() { s.Kick(t) })
			r.restarted(s)
			r.close()
			if n := strings.Count(s.Log(), "Accepted publickey"); n < 5 {
				t.Errorf("%d logins:\n%s", n, s.Log())
			}
		})
	}
}

var errRigSeen = errors.New("the log has come that far")

// restarted starts the job's last phase, and has another manager take over in the middle.
func (r *rig) restarted(s *sshtest.Server) {
	r.t.Helper()
	p := r.phase("finish", tranter.PlaceHelper, counting)
	if err := r.session.Start(r.context(), p); err != nil {
		r.t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(r.context())
	defer stop(nil)
	log := &milestones{at: []string{"line 700"}, do: func() { stop(errRigSeen) }}
	if _, err := r.session.Attach(ctx, p.ID, 0, log); !errors.Is(err, errRigSeen) {
		r.t.Fatal(err)
	}
	o := r.options
	o.Settings = r.settings
	again, err := docker.New(o).Reopen(r.context(), r.session.Ref())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := again.Start(r.context(), p); err != nil { // it changes nothing, but says where the phase runs
		r.t.Fatal(err)
	}
	s.Kick(r.t)
	result, err := again.Attach(r.context(), p.ID, int64(log.Len()), log)
	r.good(result, log.String(), err)
	whole(r.t, log.String())
	r.session = again
}
