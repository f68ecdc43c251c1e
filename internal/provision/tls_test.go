package provision

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
)

// speakTLS lets a client speak with a server that has the machine's pair, as an engine with tlsverify does.
func speakTLS(t *testing.T, made credentials, pair serverPair, client *tls.Config) error {
	t.Helper()
	certificate, err := tls.X509KeyPair([]byte(pair.certificate), []byte(pair.key))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(made.Authority)) {
		t.Fatal("no authority")
	}
	near, far := net.Pipe()
	defer near.Close()
	result := make(chan error, 1)
	go func() {
		server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots})
		err := server.HandshakeContext(t.Context())
		if err == nil {
			_, err = server.Write([]byte("x"))
		}
		far.Close()
		result <- err
	}()
	conn := tls.Client(near, client)
	err = conn.HandshakeContext(t.Context())
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	near.Close()
	if theirs := <-result; err == nil {
		err = theirs
	}
	return err
}
