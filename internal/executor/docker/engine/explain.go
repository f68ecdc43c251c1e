package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	tranter "github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/remote"
)

// explained is an error with what to do about it.
type explained struct {
	text   string
	causes []error
}

func (e *explained) Error() string   { return e.text }
func (e *explained) Unwrap() []error { return e.causes }

// Explain returns the error with what to do about it, if that is known, and with its causes: also with that of a
// connection that could not be made, which the client of the engine's API leaves out. What has been explained, is about
// the configuration, or is the end of a context, stays as it is.
func Explain(err error) error {
	if err == nil || settled(err) {
		return err
	}
	text := err.Error()
	if dial, ok := errors.AsType[*dialError](err); ok {
		// The client's own words about the connection say less than ours.
		if i := strings.Index(text, "error during connect: "); i >= 0 {
			text = text[:i] + dial.Error()
		}
		return &explained{text: advise(text, connecting(dial.cause)), causes: []error{err, dial.cause}}
	}
	advice := connecting(err)
	if advice == "" {
		advice = fromMessage(text)
	}
	if advice == "" {
		return err
	}
	return &explained{text: advise(text, advice), causes: []error{err}}
}

func advise(text, advice string) string {
	if advice == "" {
		return text
	}
	return text + ": " + advice
}

func settled(err error) bool {
	if _, ok := errors.AsType[*explained](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tranter.ConfigError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*VersionError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*dialError](err); ok {
		return false
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

const whereEngine = "set host of [runners.docker] or DOCKER_HOST to where it listens"

// connecting returns what to do when a connection to the engine cannot be made; empty if that is not known.
func connecting(cause error) string {
	if advice, ok := aboutTLS(cause); ok {
		return advice
	}
	if advice, ok := aboutSSH(cause); ok {
		return advice
	}
	if dns, ok := errors.AsType[*net.DNSError](cause); ok {
		return "the name " + dns.Name + " cannot be looked up; check host of [runners.docker] or DOCKER_HOST, and the name server"
	}
	switch {
	case errors.Is(cause, syscall.ECONNREFUSED):
		return "start the engine (systemctl start docker), or " + whereEngine
	case errors.Is(cause, fs.ErrNotExist):
		return "install and start the engine (systemctl start docker), or " + whereEngine
	case errors.Is(cause, fs.ErrPermission):
		return "let this user use the engine: add it to the group of the socket (usermod -aG docker USER) and start anew, or run a rootless engine and " + whereEngine
	case errors.Is(cause, os.ErrDeadlineExceeded), errors.Is(cause, context.DeadlineExceeded), errors.Is(cause, syscall.ETIMEDOUT):
		return "nothing answers; check the address, the engine and the firewalls between"
	case errors.Is(cause, syscall.EHOSTUNREACH), errors.Is(cause, syscall.ENETUNREACH):
		return "there is no way to that address; check host of [runners.docker] or DOCKER_HOST, and the network"
	}
	return ""
}

func aboutTLS(cause error) (string, bool) {
	if said, ok := alerted(cause); ok {
		return "the engine does not accept our certificate (" + strings.TrimPrefix(said, "tls: ") + "): cert.pem and key.pem in tls_cert_path must be signed by the authority that the engine trusts (its --tlscacert), for clients, and not have expired", true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](cause); ok {
		return "what listens there does not speak TLS: use the port with TLS (2376 as a rule), or unset tls_verify and tls_cert_path (DOCKER_TLS_VERIFY, DOCKER_CERT_PATH)", true
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](cause); ok && invalid.Reason == x509.Expired {
		return "the engine's certificate has expired or is not valid yet: renew it (its --tlscert), and check the clocks of both machines", true
	}
	if _, ok := errors.AsType[x509.HostnameError](cause); ok {
		return "the engine's certificate is for another name: make one that names the host, or set host to a name that it has", true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](cause); ok {
		return "the engine's certificate is not signed by an authority that we trust: put the authority's certificate into ca.pem of tls_cert_path (DOCKER_CERT_PATH)", true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](cause); ok {
		return "the engine's certificate cannot be trusted: check ca.pem in tls_cert_path (DOCKER_CERT_PATH) and the engine's --tlscert", true
	}
	return "", false
}

// aboutSSH leaves out advice where remote has given it.
func aboutSSH(cause error) (string, bool) {
	if _, ok := errors.AsType[*remote.HostKeyError](cause); ok {
		return "", true
	}
	if _, ok := errors.AsType[*remote.AuthError](cause); ok {
		return "", true
	}
	if errors.Is(cause, remote.ErrForwarding) {
		return "check that the engine runs on that machine, that its sshd allows AllowStreamLocalForwarding or docker is in the PATH there, and that the user may use the engine's socket", true
	}
	return "", false
}

// fromMessage returns what to do about what an engine says; empty if that is not known.
func fromMessage(text string) string {
	text = strings.ToLower(text)
	for _, h := range hints() {
		if h.in(text) {
			return h.advice
		}
	}
	return ""
}

// Refused says whether the engine can't do what the configuration or the job's image asks for, by what it says: whoever
// wrote that has to change it. It wants the engine's error as it came.
func Refused(err error) bool {
	if err == nil {
		return false
	}
	text := strings.ToLower(err.Error())
	return slices.ContainsFunc(slices.Concat(hintsOfSettings(), hintsOfPrograms()), func(h hint) bool { return h.in(text) }) &&
		!slices.ContainsFunc(hintsOfEngine(), func(h hint) bool { return h.in(text) })
}

// hint is advice for messages that have all of the words, in lower case.
type hint struct {
	words  []string
	advice string
}

func (h hint) in(text string) bool {
	for _, word := range h.words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}
