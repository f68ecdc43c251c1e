package web

import (
	"crypto/tls"
	"log/slog"
)

// CertificateOf returns what a listener takes its certificate from.
func CertificateOf(files TLS) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	c := &certificate{files: files, log: slog.New(slog.DiscardHandler)}
	return c.get, c.load()
}
