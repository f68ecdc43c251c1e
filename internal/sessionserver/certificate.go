package sessionserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	authorityValid = 10 * 365 * 24 * time.Hour
	validFor       = 365 * 24 * time.Hour
	renewBefore    = 90 * 24 * time.Hour
	backdated      = time.Hour // clocks differ
)

// identity is what the server is verified by: an authority of its own, kept over restarts, so that coordinators which were
// told of it with a running job go on to trust it, and a certificate that it signs for the host, made anew at each start
// and before it expires.
type identity struct {
	file string // PEM: the authority's key, then its certificate; mode 0600
	host string
	now  func() time.Time

	mu        sync.Mutex
	authority *tls.Certificate
	text      string // the authority's certificate as PEM
	cert      *tls.Certificate
}

// openIdentity reads the authority, or makes one.
func openIdentity(file, host string, now func() time.Time) (*identity, error) {
	i := &identity{file: file, host: host, now: now}
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the session server's certificate: %w", err)
	}
	if authority, err := tls.X509KeyPair(data, data); err == nil && authority.Leaf.IsCA { // a damaged one is replaced
		i.keep(authority)
	}
	_, err = i.current()
	return i, err
}

func (i *identity) keep(authority tls.Certificate) {
	i.authority, i.cert = &authority, nil
	i.text = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Certificate[0]}))
}

// lasts says whether a certificate need not be renewed yet.
func (i *identity) lasts(c *tls.Certificate) bool {
	return c != nil && i.now().Before(c.Leaf.NotAfter.Add(-renewBefore))
}

// current returns the certificate for the host, renewed if it is about to expire.
func (i *identity) current() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.lasts(i.authority) {
		if err := i.makeAuthorityLocked(); err != nil {
			return nil, fmt.Errorf("make the session server's certificate: %w", err)
		}
	}
	if !i.lasts(i.cert) {
		if err := i.makeCertificateLocked(); err != nil {
			return nil, fmt.Errorf("make the session server's certificate: %w", err)
		}
	}
	return i.cert, nil
}

// pem returns as text what the server is verified with.
func (i *identity) pem() (string, error) {
	if _, err := i.current(); err != nil {
		return "", err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.text, nil
}

func (i *identity) makeAuthorityLocked() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template, err := i.template("tranter session server", authorityValid)
	if err != nil {
		return err
	}
	template.BasicConstraintsValid, template.IsCA, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	authority, err := tls.X509KeyPair(text, text)
	if err != nil {
		return err
	}
	if err := replaceFile(i.file, text); err != nil {
		return err
	}
	i.keep(authority)
	return nil
}

func (i *identity) makeCertificateLocked() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template, err := i.template(i.host, validFor)
	if err != nil {
		return err
	}
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if ip := net.ParseIP(i.host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{i.host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.authority.Leaf, key.Public(), i.authority.PrivateKey)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	i.cert = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return nil
}

// template is what both certificates have.
func (i *identity) template(name string, valid time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: i.now().Add(-backdated), NotAfter: i.now().Add(valid),
	}, nil
}

// replaceFile writes a file, which only we can read, all at once.
func replaceFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}
