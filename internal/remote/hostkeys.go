package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// HostKeyError means that the key which a machine shows is not known, or is not the one that is known.
type HostKeyError struct {
	Host        string   // host:port, or the alias
	Type        string   // of the key that was shown
	Fingerprint string   // of it
	Known       []string // where other keys of this host are: file:line; empty if the host is unknown
	File        string   // the first file of known hosts
	Pinned      bool     // it is not Target.HostKey
}

func (e *HostKeyError) Error() string {
	if e.Pinned {
		return fmt.Sprintf("THE HOST KEY OF %s HAS CHANGED: it shows the %s key %s, which is not the one that it had at first. Either somebody is "+
			"between us and the machine, or it was set up anew, or another machine has its address now. Nothing was sent", e.Host, e.Type, e.Fingerprint)
	}
	if len(e.Known) > 0 {
		return fmt.Sprintf("THE HOST KEY OF %s HAS CHANGED: it shows the %s key %s, and another one is noted at %s. Either somebody is "+
			"between us and the machine, or it was set up anew. Nothing was sent. If it was set up anew, remove the old key with: ssh-keygen -f %s -R %s",
			e.Host, e.Type, e.Fingerprint, strings.Join(e.Known, ", "), quote(e.File), quote(bracketed(e.Host)))
	}
	return fmt.Sprintf("the host %s is not known: it shows the %s key %s. Compare that with the machine's own "+
		"(there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then add it with: %s",
		e.Host, e.Type, e.Fingerprint, e.scan())
}

// scan returns the command that notes the host's keys.
func (e *HostKeyError) scan() string {
	host, port, err := net.SplitHostPort(e.Host)
	if err != nil || port == "22" {
		if err != nil {
			host = e.Host
		}
		return fmt.Sprintf("ssh-keyscan %s >> %s", quote(host), quote(e.File))
	}
	return fmt.Sprintf("ssh-keyscan -p %s %s >> %s", port, quote(host), quote(e.File))
}

// bracketed returns the host as files of known hosts have it.
func bracketed(host string) string { return knownhosts.Normalize(host) }

// quote quotes a word for a shell if it must be.
func quote(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,=", r)
	}
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// hostKeys checks the key of one host.
type hostKeys struct {
	target Target
	name   string // what to look for: host:port
	files  []string
	known  ssh.HostKeyCallback
	pinned ssh.PublicKey // nil: none
}

func newHostKeys(t Target) (*hostKeys, error) {
	h := &hostKeys{target: t, name: t.address()}
	if t.HostKeyAlias != "" {
		h.name = net.JoinHostPort(t.HostKeyAlias, "22")
	}
	if t.HostKey != "" {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(t.HostKey))
		if err != nil {
			return nil, fmt.Errorf("read the key that %s is to have: %w", t, err)
		}
		h.pinned = key
		return h, nil
	}
	for _, file := range t.KnownHosts {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		h.files = append(h.files, file)
	}
	var err error
	if h.known, err = knownhosts.New(h.files...); err != nil {
		return nil, fmt.Errorf("read the known hosts: %w", err)
	}
	return h, nil
}

// check is what the SSH library calls with the key that the host shows.
func (h *hostKeys) check(name string, from net.Addr, key ssh.PublicKey) error {
	shown := &HostKeyError{Host: h.shortName(), Type: key.Type(), Fingerprint: ssh.FingerprintSHA256(key), File: h.first()}
	if h.pinned != nil {
		if bytes.Equal(h.pinned.Marshal(), key.Marshal()) {
			return nil
		}
		shown.Pinned = true
		return shown
	}
	err := h.known(name, from, key)
	fault, ok := errors.AsType[*knownhosts.KeyError](err)
	if !ok {
		return err // nil, or a key that was revoked
	}
	for _, known := range fault.Want {
		shown.Known = append(shown.Known, fmt.Sprintf("%s:%d", known.Filename, known.Line))
	}
	switch {
	case len(fault.Want) > 0 || h.target.Trust == TrustKnown:
		return shown
	case h.target.Trust == TrustNew:
		return h.note(key)
	}
	return nil
}

func (h *hostKeys) shortName() string {
	if h.target.HostKeyAlias != "" {
		return h.target.HostKeyAlias
	}
	return h.name
}

func (h *hostKeys) first() string {
	if len(h.target.KnownHosts) == 0 {
		return "~/.ssh/known_hosts"
	}
	return h.target.KnownHosts[0]
}

// note adds the host's key to the first file of known hosts, in one write so that lines of several programs do not mix.
func (h *hostKeys) note(key ssh.PublicKey) error {
	if len(h.target.KnownHosts) == 0 {
		return nil
	}
	file := h.first()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("note the key of %s: %w", h.name, err)
	}
	out, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("note the key of %s: %w", h.name, err)
	}
	_, err = out.WriteString(knownhosts.Line([]string{h.name}, key) + "\n")
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("note the key of %s: %w", h.name, err)
	}
	return nil
}

// algorithms returns what to ask the host for: the types of key that are known of it first, so that it does not show
// another of its keys, which would look like a change.
func (h *hostKeys) algorithms() []string {
	all := ssh.SupportedAlgorithms().HostKeys
	certificates := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !strings.Contains(name, "-cert-") })
	plain := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return strings.Contains(name, "-cert-") })
	var first []string
	if h.hasAuthorities() {
		first = certificates
	}
	for _, kind := range h.knownTypes() {
		if kind == ssh.KeyAlgoRSA {
			first = append(first, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			first = append(first, kind)
		}
	}
	var order []string
	for _, name := range slices.Concat(first, plain, certificates) {
		if !slices.Contains(order, name) && slices.Contains(all, name) {
			order = append(order, name)
		}
	}
	return order
}

// hasAuthorities says whether the files know authorities that sign host keys.
func (h *hostKeys) hasAuthorities() bool {
	return slices.ContainsFunc(h.files, func(file string) bool {
		content, err := os.ReadFile(file)
		return err == nil && bytes.Contains(content, []byte("@cert-authority"))
	})
}

// knownTypes returns the types of the keys that are known of the host, by asking for a key that nobody has.
func (h *hostKeys) knownTypes() []string {
	if h.pinned != nil {
		return []string{h.pinned.Type()}
	}
	fault, _ := errors.AsType[*knownhosts.KeyError](h.known(h.name, &net.TCPAddr{IP: net.IPv4zero}, nobodys{}))
	if fault == nil {
		return nil
	}
	types := make([]string, 0, len(fault.Want))
	for _, known := range fault.Want {
		types = append(types, known.Key.Type())
	}
	return types
}

// nobodys is a public key that is in no file.
type nobodys struct{}

func (nobodys) Type() string                        { return "none" }
func (nobodys) Marshal() []byte                     { return []byte("none") }
func (nobodys) Verify([]byte, *ssh.Signature) error { return errors.ErrUnsupported }
