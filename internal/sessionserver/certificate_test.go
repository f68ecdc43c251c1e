package sessionserver

import (
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"
)

// A renewed certificate is trusted by whom the one before it was given to.
func TestRenewal(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	id, err := openIdentity(filepath.Join(t.TempDir(), "id.pem"), "runner.example.com", func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	before, err := id.pem()
	if err != nil {
		t.Fatal(err)
	}
	first, err := id.current()
	if err != nil {
		t.Fatal(err)
	}
	verify := func(trusted, host string) {
		t.Helper()
		cert, err := id.current()
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(trusted))
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, DNSName: host}); err != nil {
			t.Errorf("at %v: %v", now, err)
		}
	}
	verify(before, "runner.example.com")
	now = now.Add(validFor - renewBefore - time.Hour)
	if same, _ := id.current(); same != first {
		t.Error("renewed too early")
	}
	now = now.Add(2 * time.Hour)
	if renewed, _ := id.current(); renewed == first {
		t.Error("not renewed")
	}
	verify(before, "runner.example.com")
	now = now.Add(20 * 365 * 24 * time.Hour)
	after, err := id.pem()
	if err != nil || after == before {
		t.Errorf("the authority was not renewed, %v", err)
	}
	verify(after, "runner.example.com")
	other, err := openIdentity(id.file, "other.example.com", func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if cert, err := other.current(); err != nil || cert.Leaf.VerifyHostname("other.example.com") != nil {
		t.Errorf("another host: %v", err)
	}
}
