package engine

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// The schemes of an engine's address.
const (
	schemeUnix = "unix"
	schemeTCP  = "tcp"
	schemeSSH  = "ssh"
	schemePipe = "npipe"
	// schemeDialed is no scheme that can be written: connections are somebody else's to make.
	schemeDialed = "dialed"
)

// address says where an engine listens.
type address struct {
	text   string // as it was written, without a password; for messages
	scheme string
	path   string // of a socket or a pipe; with ssh, of the socket there, empty for the usual one
	host   string // host:port of TCP, the port may be missing
	base   string // with TCP, the path below which the API is; mostly empty
}

// parseAddress reads an address as DOCKER_HOST has it: unix:///path, tcp://host[:port], ssh://[user@]host[:port][/path]
// or, on Windows, npipe:////./pipe/name.
func parseAddress(text string) (address, error) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		if strings.HasPrefix(text, "/") {
			return address{}, fmt.Errorf("the engine's host %q has no scheme: write unix://%s", text, text)
		}
		return address{}, fmt.Errorf("the engine's host %q has no scheme: write unix:///path, tcp://host:port or ssh://user@host", text)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return address{}, fmt.Errorf("the engine's host %q contains control characters", text)
	}
	switch scheme {
	case schemeUnix:
		return parseUnix(text, rest)
	case schemeTCP:
		return parseTCP(text)
	case schemeSSH:
		return parseSSH(text)
	case schemePipe:
		return parsePipe(text, rest)
	case "http", "https":
		return address{}, fmt.Errorf("the engine's host %q: write tcp:// in place of %s://; tls_verify or tls_cert_path switch TLS on", text, scheme)
	case "fd":
		return address{}, fmt.Errorf("the engine's host %q is how an engine is told to listen; give the socket's path, such as unix:///var/run/docker.sock", text)
	default:
		return address{}, fmt.Errorf("the engine's host %q: the scheme %q is not known; it must be unix, tcp, ssh or, on Windows, npipe", text, scheme)
	}
}

// maxSocketPath is the most bytes that the path of a socket may have everywhere: some systems have room for 104 in all.
const maxSocketPath = 103

func parseUnix(text, socket string) (address, error) {
	if !path.IsAbs(socket) {
		return address{}, fmt.Errorf("the engine's host %q: the socket's path must be absolute, with three slashes: unix:///path", text)
	}
	if len(socket) > maxSocketPath {
		return address{}, fmt.Errorf("the engine's host %q: the system allows %d bytes for the path of a socket, and this has %d", text, maxSocketPath, len(socket))
	}
	return address{text: text, scheme: schemeUnix, path: socket}, nil
}

func parseTCP(text string) (address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return address{}, fmt.Errorf("the engine's host is malformed: %w", withoutText(err))
	}
	switch {
	case u.Hostname() == "":
		return address{}, fmt.Errorf("the engine's host %q names no host", u.Redacted())
	case u.User != nil:
		return address{}, fmt.Errorf("the engine's host %q has a user, and the engine's API over TCP knows none: it tells clients by their TLS certificates", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "":
		return address{}, fmt.Errorf("the engine's host %q has more than host, port and path", text)
	}
	if err := checkPort(u.Port()); err != nil {
		return address{}, fmt.Errorf("the engine's host %q: %w", text, err)
	}
	host := u.Host
	if u.Port() == "" {
		host = strings.TrimSuffix(host, ":")
	}
	return address{text: text, scheme: schemeTCP, host: host, base: strings.TrimSuffix(u.Path, "/")}, nil
}

func parseSSH(text string) (address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return address{}, fmt.Errorf("the engine's host is malformed: %w", withoutText(err))
	}
	return address{text: u.Redacted(), scheme: schemeSSH, path: strings.TrimSuffix(u.Path, "/")}, nil
}

func parsePipe(text, pipe string) (address, error) {
	if runtime.GOOS != "windows" {
		return address{}, fmt.Errorf("the engine's host %q is a named pipe, which only Windows has: set host to unix:///path, tcp://host:port or ssh://user@host", text)
	}
	return address{text: text, scheme: schemePipe, path: pipe}, nil
}

func checkPort(port string) error {
	if port == "" {
		return nil
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q is no port: it must be a number from 1 to 65535", port)
	}
	return nil
}

// withoutText takes the address, in which a password may be, off an error of url.Parse.
func withoutText(err error) error {
	if inner, ok := errors.AsType[*url.Error](err); ok {
		return inner.Err
	}
	return err
}

// hostPort returns the address to connect to by TCP; the usual ports of an engine are 2375, and 2376 with TLS.
func (a address) hostPort(encrypted bool) string {
	if _, _, err := net.SplitHostPort(a.host); err == nil {
		return a.host
	}
	port := "2375"
	if encrypted {
		port = "2376"
	}
	return net.JoinHostPort(strings.Trim(a.host, "[]"), port)
}
