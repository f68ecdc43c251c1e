package remote

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Target is a machine and how to log in to it. Find makes one from an address and the user's SSH configuration.
type Target struct {
	User string
	Host string // name or address
	Port int    // 0: 22

	Identities     []string // files with private keys, in the order to offer; those that do not exist are passed over
	IdentitiesOnly bool     // of the agent's keys offer only those of Identities
	Agent          string   // the socket of the SSH agent; empty: none

	KnownHosts   []string // files; those that do not exist are passed over
	HostKeyAlias string   // the name to look for in KnownHosts in place of the host's
	Trust        Trust    // what to do with a host that KnownHosts does not know
	// HostKey is the only key that is taken of the host, as files of authorized keys have it; it goes before KnownHosts and
	// Trust. Conn.HostKey gives it.
	HostKey string

	Jump           *Target       // the machine to go through; nil: none
	ConnectTimeout time.Duration // for the connection alone, without the login; 0: 30 s
}

// Trust says what to do with the key of a host that is not known yet. A key that differs from the known one is never taken.
type Trust int

// The ways to treat unknown hosts, by StrictHostKeyChecking.
const (
	TrustKnown Trust = iota // yes, ask: only known hosts
	TrustNew                // accept-new: note the key in the first of KnownHosts
	TrustAny                // no, off: take it and note nothing
)

const defaultPort = 22

// String returns the target as an address, for messages.
func (t Target) String() string {
	return (&url.URL{Scheme: "ssh", User: url.User(t.User), Host: t.address()}).String()
}

func (t Target) address() string {
	port := t.Port
	if port == 0 {
		port = defaultPort
	}
	return net.JoinHostPort(t.Host, strconv.Itoa(port))
}

// Parse reads ssh://[user@]host[:port][/path] and returns the path apart; it is empty if there is none. A password in it
// is an error: it would be in configuration files.
func Parse(text string) (Target, string, error) {
	if strings.ContainsFunc(text, unicode.IsControl) {
		return Target{}, "", fmt.Errorf("the address %q contains control characters", text)
	}
	u, err := url.Parse(text)
	if err != nil {
		return Target{}, "", fmt.Errorf("an SSH address is malformed: it must be ssh://[user@]host[:port][/path]")
	}
	_, password := u.User.Password()
	switch {
	case u.Scheme != "ssh":
		return Target{}, "", fmt.Errorf("the address %q must start with ssh://", u.Redacted())
	case password:
		return Target{}, "", fmt.Errorf("the address %q has a password: take it out, and log in with a key or an agent", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "":
		return Target{}, "", fmt.Errorf("the address %q has more than user, host, port and path", u.Redacted())
	}
	t := Target{User: u.User.Username(), Host: u.Hostname()}
	if err := checkHost(t.Host); err != nil {
		return Target{}, "", fmt.Errorf("the address %q: %w", u.Redacted(), err)
	}
	if t.Port, err = parsePort(u.Port()); err != nil {
		return Target{}, "", fmt.Errorf("the address %q: %w", u.Redacted(), err)
	}
	path := strings.TrimSuffix(u.Path, "/")
	if strings.ContainsFunc(path, unicode.IsControl) || strings.ContainsFunc(t.User, unicode.IsControl) {
		return Target{}, "", fmt.Errorf("the address %q contains control characters", u.Redacted())
	}
	return t, path, nil
}

func checkHost(host string) error {
	if host == "" {
		return fmt.Errorf("it names no host")
	}
	if strings.HasPrefix(host, "-") || strings.ContainsFunc(host, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return fmt.Errorf("%q is no name of a host", host)
	}
	return nil
}

// parsePort reads a port; an empty text is 0.
func parsePort(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 65535 {
		return 0, fmt.Errorf("%q is no port: it must be a number from 1 to 65535", text)
	}
	return n, nil
}
