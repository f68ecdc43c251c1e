package provision

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

const (
	usualCertLife = 30 * 24 * time.Hour
	// certSkew is how far certificates reach back: the machine's clock may be behind ours, and before its first
	// synchronisation by much.
	certSkew = 24 * time.Hour
)

// credentials are what we show to the engine of one machine, and know it by.
type credentials struct {
	Authority   string    `json:"authority"`   // the certificate that has signed the engine's, in PEM form
	Certificate string    `json:"certificate"` // ours
	Key         string    `json:"key"`         // of it
	Port        int       `json:"port"`
	Until       time.Time `json:"until"` // the end of them all
}

// serverPair is what the machine gets.
type serverPair struct{ certificate, key string }

// newCredentials makes an authority, and a certificate for each side. The authority's key is forgotten, so nothing else is
// ever signed with it: what a job finds on a machine opens no other.
func newCredentials(names []string, life time.Duration, now time.Time) (credentials, serverPair, error) {
	if life == 0 {
		life = usualCertLife
	}
	until := now.Add(life).UTC().Truncate(time.Second)
	authority, err := issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Tranter: authority of " + names[0]}, NotBefore: now.Add(-certSkew), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	if err != nil {
		return credentials{}, serverPair{}, err
	}
	server := &x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, NotBefore: now.Add(-certSkew), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			server.IPAddresses = append(server.IPAddresses, ip)
		} else if name != "" {
			server.DNSNames = append(server.DNSNames, name)
		}
	}
	theirs, err := issue(server, authority)
	if err != nil {
		return credentials{}, serverPair{}, err
	}
	ours, err := issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Tranter"}, NotBefore: now.Add(-certSkew), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, authority)
	if err != nil {
		return credentials{}, serverPair{}, err
	}
	return credentials{Authority: authority.pem, Certificate: ours.pem, Key: ours.keyPEM, Until: until},
		serverPair{theirs.pem, theirs.keyPEM}, nil
}

// issued is a certificate with its key.
type issued struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem, keyPEM string
}

// issue makes a key and a certificate that the authority signs, or the certificate itself if it is nil.
func issue(template *x509.Certificate, authority *issued) (*issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	parent, signer := template, key
	if authority != nil {
		parent, signer = authority.certificate, authority.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	made := &issued{key: key}
	if made.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	made.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	made.keyPEM = string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}))
	return made, nil
}

// config returns what TLS is spoken with. The engine is known by the machine's name, so that its address may change.
func (c *credentials) config(name string) (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(c.Authority)) {
		return nil, fmt.Errorf("read the certificates of %s: there is no authority", name)
	}
	pair, err := tls.X509KeyPair([]byte(c.Certificate), []byte(c.Key))
	if err != nil {
		return nil, fmt.Errorf("read the certificates of %s: %w", name, err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: name,
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
	}, nil
}
