package image

import (
	"context"
	"errors"
	"fmt"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// mostSaid is the size in bytes up to which an engine's own words are repeated.
const mostSaid = 600

var (
	tooManyPattern = lazy.Regexp(`toomanyrequests|too many requests|http (?:status:? )?429|rate limit exceeded`)
	serverPattern  = lazy.Regexp(`\b50[0234] (?:internal server error|bad gateway|service unavailable|gateway time-?out)|http (?:status:? )?5\d\d\b`)
	eofPattern     = lazy.Regexp(`(?:^|[: ])(?:unexpected )?eof$`)
)

// kind is which of the errors a finding becomes.
type kind int

const (
	config kind = iota
	absent      // of the configuration too: the registry does not have the image, as far as it tells
	dependency
	other
)

// finding is what is wrong, and what to do next.
type finding struct {
	kind   kind
	what   string
	advice string
}

// rule recognizes a finding by one of the words in what the engine says, in lower case, or by a pattern.
type rule struct {
	words   []string
	pattern func(text string) bool
	finding func(o order) finding
}

// explain types the error of a pull and says what to do next, by the text that the engine gives and by its status. What is
// wrong with the engine itself, and an error that has been explained, stays as it is.
func explain(err error, o order) error {
	if err == nil || verdict(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errors.Is(err, errStalled) {
		f := stalled(o)
		return f.error(o, err.Error())
	}
	var streamed *streamError
	if client.IsErrConnectionFailed(err) || (!errors.As(err, &streamed) && !answered(err)) {
		return err
	}
	f := classify(err, o)
	return f.error(o, err.Error())
}

// answered reports whether an engine has refused a request, as opposed to one that is gone or whose words make no sense.
func answered(err error) bool {
	for _, is := range []func(error) bool{
		cerrdefs.IsInvalidArgument, cerrdefs.IsNotFound, cerrdefs.IsUnauthorized, cerrdefs.IsPermissionDenied, cerrdefs.IsConflict,
		cerrdefs.IsInternal, cerrdefs.IsUnavailable, cerrdefs.IsResourceExhausted, cerrdefs.IsNotImplemented, cerrdefs.IsUnknown,
	} {
		if is(err) {
			return true
		}
	}
	return false
}

// error gives the finding its type. The engine's words are from elsewhere: shortened, on one line, without secrets.
func (f finding) error(o order, said string) error {
	said = shorten(o.login.mask(withoutURLSecrets(said)), mostSaid)
	err := fmt.Errorf("image %s: %s. %s (the engine says: %s)", o.Name, f.what, f.advice, said)
	switch f.kind {
	case config, absent:
		return &tranter.ConfigError{Err: err}
	case dependency:
		return &tranter.DependencyError{Err: err}
	default:
		return &tranter.PullError{Err: err}
	}
}

// classify finds the first rule that fits (runner contract, section 3.9, with more kinds told apart).
func classify(err error, o order) finding {
	text := plainText(err.Error(), o)
	for _, r := range rules() {
		if r.fits(text) {
			return r.finding(o)
		}
	}
	switch {
	case cerrdefs.IsNotFound(err):
		return missing(o)
	case cerrdefs.IsUnauthorized(err), cerrdefs.IsPermissionDenied(err):
		return refused(o)
	case cerrdefs.IsInvalidArgument(err):
		return finding{config, "the engine does not accept the request", "Check the image's name and platform"}
	default:
		return finding{other, "the pull failed", "Look into the log of the engine, and try docker pull on its machine"}
	}
}

func (r rule) fits(text string) bool {
	if r.pattern != nil && r.pattern(text) {
		return true
	}
	for _, w := range r.words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// plainText is what the rules look at: the image's name, which a job chooses, must not decide about the kind of an error.
func plainText(said string, o order) string {
	text := strings.ToLower(said)
	names := []string{o.Name}
	if !o.name.isID() {
		path := o.name.repository()
		_, short, _ := strings.Cut(path, "/")
		names = append(names, o.name.full(), path, short, strings.TrimPrefix(short, "library/"), o.name.tag())
	}
	for _, n := range names {
		if len(n) > 3 {
			text = strings.ReplaceAll(text, strings.ToLower(n), "NAME")
		}
	}
	return text
}

// rules are in the order in which they are tried.
func rules() []rule {
	return append(append(engineRules(), networkRules()...), accessRules()...)
}

func always(f finding) func(order) finding { return func(order) finding { return f } }

// engineRules are for faults of the engine's machine, and for what would look like another fault by its other words.
func engineRules() []rule {
	return []rule{
		{words: []string{"no space left on device", "disk quota exceeded", "not enough space"}, finding: always(finding{
			other, "the disk of the engine is full",
			"Free some space on the engine's machine (tranter docker prune, docker system df), or let the runner's disk guard keep more of it free",
		})},
		{pattern: tooManyPattern().MatchString, finding: tooMany},
		{words: []string{"no matching manifest", "no match for platform", "does not match the specified platform", "cannot be used on this platform", "no child with platform", "no image found in manifest list", "no image found in image index"}, finding: otherSystem},
		{words: []string{"server gave http response to https client"}, finding: func(o order) finding {
			return finding{
				config, "the registry " + o.name.registry() + " speaks plain HTTP, and the engine wants HTTPS",
				fmt.Sprintf("Give the registry a certificate, or add %q to insecure-registries in the engine's daemon.json (registries.conf for Podman)", o.name.registry()),
			}
		}},
		{words: []string{"certificate signed by unknown authority", "x509:", "certificate is not trusted", "tls: failed to verify", "remote error: tls", "first record does not look like a tls handshake"}, finding: func(o order) finding {
			return finding{
				config, "the engine does not trust the TLS certificate of the registry " + o.name.registry(),
				"Put the authority's certificate into /etc/docker/certs.d/" + o.name.registry() + "/ca.crt on the engine's machine, and check the certificate's names and dates and the machine's clock",
			}
		}},
		{words: []string{"invalid reference format", "invalid repository name", "invalid tag format", "invalid checksum digest"}, finding: always(finding{config, "the engine does not accept the name", "Correct the name of the image"})},
		{words: []string{"unsupported manifest", "media type", "mediatype", "schema 1", "image format, image manifest version 2, schema 1", "unknown manifest"}, finding: always(finding{other, "what the registry has there is no image that this engine can run", "Check that the name is one of an image and not of another artifact, or build the image anew in a current format"})},
		{words: []string{"layer verification failed", "digest mismatch", "unexpected commit digest", "manifest verification failed", "content digest"}, finding: always(finding{other, "what the registry sent is damaged", "Push the image anew; if there is a proxy or a mirror between, empty its cache"})},
	}
}

// networkRules are for the way to the registry, and for the registry when it fails.
func networkRules() []rule {
	down := func(what, advice string) func(order) finding {
		return func(o order) finding {
			return finding{dependency, fmt.Sprintf(what, o.name.registry()), advice}
		}
	}
	return []rule{
		{words: []string{"no such host", "server misbehaving", "temporary failure in name resolution", "name or service not known"}, finding: down(
			"the name of the registry %s does not resolve on the engine's machine", "Check the registry's name in the image, and the DNS settings of the engine's machine")},
		{words: []string{"proxyconnect"}, finding: down(
			"the proxy between the engine and the registry %s does not answer", "Check the proxy settings of the engine (HTTPS_PROXY, NO_PROXY)")},
		{words: []string{"connection refused"}, finding: down(
			"the registry %s refuses connections", "Check that it runs, and its port in the image's name")},
		{words: []string{"tls handshake", "i/o timeout", "client.timeout exceeded", "context deadline exceeded", "request canceled", "timeout awaiting", "operation timed out", "connection timed out"}, finding: down(
			"the registry %s does not answer in time", "Check the network of the engine's machine, its proxy and firewall settings, and that the registry runs")},
		{words: []string{"dial tcp", "connection reset", "broken pipe", "network is unreachable", "no route to host", "use of closed network connection"}, pattern: eofPattern().MatchString, finding: down(
			"the connection to the registry %s fails", "Check the network of the engine's machine, and that the registry runs")},
		{pattern: serverPattern().MatchString, words: []string{"bad gateway", "service unavailable"}, finding: down(
			"the registry %s fails itself", "Look into the registry's log or at its status page, and run the job again later")},
	}
}

// accessRules are for what a registry refuses.
func accessRules() []rule {
	return []rule{
		{words: []string{"pull access denied", "repository does not exist or may require", "requested access to the resource is denied", "no basic auth credentials", "access to the resource is denied", "unauthorized", "authentication required", "denied:", "http 401", "http 403", "401 unauthorized", "403 forbidden", "access forbidden"}, finding: refused},
		{words: []string{"not found", "manifest unknown", "name unknown", "no such image", "http 404"}, finding: missing},
	}
}

func stalled(o order) finding {
	return finding{
		dependency, "the pull is given up, for the registry " + o.name.registry() + " sends nothing any more",
		"Check the network between the engine and the registry, and the registry's load",
	}
}

func tooMany(o order) finding {
	advice := "Log in with DOCKER_AUTH_CONFIG to have a higher limit"
	if o.login.source != "" {
		advice = "Use a login with a higher limit than the one from " + o.login.source
	}
	return finding{
		dependency, "the registry " + o.name.registry() + " answers that there have been too many requests",
		advice + ", set registry_mirror in [runners.docker] to keep copies near, or use the pull policy " + IfNotPresent,
	}
}

func otherSystem(o order) finding {
	what := "it does not exist for the platform of the engine"
	if o.platform != (platform{}) {
		what = "it does not exist for the platform " + o.platform.String()
	}
	return finding{config, what, "Name an image that is built for it, or change the platform (image: docker: platform in the job, or the runner's configuration), or run the job on an engine of the image's platform"}
}

func missing(o order) finding {
	what := "the registry " + o.name.registry() + " does not have it"
	if tag := o.name.tag(); tag != "" {
		what += fmt.Sprintf(" (repository %s, tag %s)", o.name.repository(), tag)
	}
	return finding{absent, what, "Check the spelling of repository and tag or digest, and that it was pushed"}
}

// refused says which login was used or where one was looked for; the login itself is not told.
func refused(o order) finding {
	if o.login.source != "" {
		user := ""
		if o.login.auth.Username != "" {
			user = fmt.Sprintf(" as the user %s", shorten(o.login.auth.Username, 100))
		}
		return finding{
			absent,
			fmt.Sprintf("the registry refuses access with the credentials from %s, kept there for %s%s, or the repository %s does not exist",
				o.login.source, o.login.path, user, o.name.repository()),
			"Check the name, that the login is still valid, and that it may read the repository",
		}
	}
	return finding{
		absent,
		fmt.Sprintf("the repository %s does not exist, or it needs a login and none is set for it", o.name.repository()),
		fmt.Sprintf("Check the name; if it is right, add a login for %s to the variable DOCKER_AUTH_CONFIG of the job or of the runner's environment or to the docker config of the runner's user (%s for %s)",
			o.name.registry(), o.Logins.searched(), strings.Join(prefixes(o.name.repository()), ", ")),
	}
}
