package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/tranter-ci/tranter"
)

var (
	errPlainHTTP = errors.New("the registry would be reached over plain HTTP")
	errStalled   = errors.New("nothing came any more")
)

// explain types what went wrong with an image of a registry, and says what to do next.
func explain(err error, r reference, login string) error {
	if err == nil || verdict(err) || errors.Is(err, context.Canceled) {
		return err
	}
	if answer := answered(err, r, login); answer != nil {
		return answer
	}
	said := shorten(err.Error(), 600)
	var bad *badLayer
	var alert tls.AlertError
	var certificate *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	server := r.server()
	switch {
	case errors.Is(err, errPlainHTTP), strings.Contains(said, "server gave HTTP response to HTTPS client"):
		return configError("image %s: the registry %s speaks plain HTTP, which is only used where it is allowed. Add %q to insecure_registries in [runners.apptainer], or use HTTPS (%s)", r.asked, server, server, said)
	case errors.As(err, &certificate), errors.As(err, &unknown), errors.As(err, &alert):
		return configError("image %s: the TLS certificate of the registry %s is not trusted. Add its authority to the system's, or correct the registry's name (%s)", r.asked, server, said)
	case errors.Is(err, errTooLarge), errors.As(err, &bad):
		return configError("image %s can't be used: %s", r.asked, said)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &tranter.PullError{Err: fmt.Errorf("image %s: there is no room for it where images are kept. Make room, or set image_max_size (%s)", r.asked, said)}
	}
	return unreachable(err, r, said)
}

// unreachable is for what lies between here and a registry.
func unreachable(err error, r reference, said string) error {
	server := r.server()
	dependency := func(what, advice string) error {
		return &tranter.DependencyError{Err: fmt.Errorf("image %s: %s. %s (%s)", r.asked, what, advice, said)}
	}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return dependency("the name of the registry "+server+" does not resolve", "Check the name in the image, and the DNS settings of this machine")
	case strings.Contains(said, "proxyconnect"):
		return dependency("the proxy between here and the registry "+server+" does not answer", "Check HTTPS_PROXY and NO_PROXY")
	case errors.Is(err, syscall.ECONNREFUSED):
		return dependency("the registry "+server+" refuses connections", "Check that it runs, and its port in the image's name")
	case errors.Is(err, errStalled), errors.Is(err, context.DeadlineExceeded), timeout(err):
		return dependency("the registry "+server+" does not answer in time", "Check the network, proxy and firewall settings of this machine, and that the registry runs")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), strings.HasSuffix(said, "EOF"):
		return dependency("the connection to the registry "+server+" fails", "Check the network, and that the registry runs")
	}
	return &tranter.PullError{Err: fmt.Errorf("image %s: %s", r.asked, said)}
}

func timeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// answered is for what a registry says itself; nil: it says nothing.
func answered(err error, r reference, login string) error {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		return nil
	}
	server, said := r.server(), shorten(err.Error(), 600)
	repository := r.name.Context().RepositoryStr()
	switch status := answer.StatusCode; {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		if login == "" {
			return configError("image %s: the repository %s does not exist, or the registry %s needs a login and none is set for it. Check the name; if it is right, add a login for %s to the variable DOCKER_AUTH_CONFIG of the job or of the runner's environment. Jobs have one for GitLab's own registry, CI_REGISTRY (%s)", r.asked, repository, server, server, said)
		}
		return configError("image %s: the registry %s refuses access to %s as the user %s. Check the name, that the login in DOCKER_AUTH_CONFIG or CI_REGISTRY_USER and CI_REGISTRY_PASSWORD is still valid, and that it may read the repository (%s)", r.asked, server, repository, shorten(login, 100), said)
	case status == http.StatusNotFound:
		return configError("image %s: the registry %s does not have it (repository %s, %s). Check the spelling, and that it was pushed (%s)", r.asked, server, repository, r.name.Identifier(), said)
	case status == http.StatusTooManyRequests:
		return &tranter.DependencyError{Err: fmt.Errorf("image %s: the registry %s answers that there have been too many requests. Log in with DOCKER_AUTH_CONFIG to have a higher limit, or use the pull policy if-not-present (%s)", r.asked, server, said)}
	case status >= http.StatusInternalServerError:
		return &tranter.DependencyError{Err: fmt.Errorf("image %s: the registry %s fails itself. Look into its log or at its status page, and run the job again later (%s)", r.asked, server, said)}
	}
	return nil
}

// verdict reports whether an error has its type already.
func verdict(err error) bool {
	var c *tranter.ConfigError
	var d *tranter.DependencyError
	var p *tranter.PullError
	return errors.As(err, &c) || errors.As(err, &d) || errors.As(err, &p)
}
