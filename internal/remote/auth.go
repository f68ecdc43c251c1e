package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// AuthError means that the machine lets us not log in.
type AuthError struct {
	Target string
	Notes  []string // what was offered, and what could not be
	Err    error    // nil if there was nothing to offer
}

func (e *AuthError) Error() string {
	notes := strings.Join(e.Notes, "; ")
	if e.Err == nil {
		if notes != "" {
			notes = ": " + notes
		}
		return fmt.Sprintf("cannot log in to %s: there is no key to log in with%s. Load one into the SSH agent, or name a file with IdentityFile in ~/.ssh/config", e.Target, notes)
	}
	return fmt.Sprintf("cannot log in to %s: it accepts none of our keys: %s. Add the public key to ~/.ssh/authorized_keys of that user: %v", e.Target, notes, e.Err)
}

// Unwrap returns the cause.
func (e *AuthError) Unwrap() error { return e.Err }

// keyring is what can be offered to log in.
type keyring struct {
	signers []ssh.Signer
	notes   []string
	agent   net.Conn // nil if there is none; signers of the agent need it
}

func (k *keyring) close() {
	if k.agent != nil {
		_ = k.agent.Close()
	}
}

func (k *keyring) note(format string, args ...any) {
	k.notes = append(k.notes, fmt.Sprintf(format, args...))
}

// newKeyring gathers the keys of the agent and of the files. What cannot be used is noted.
func newKeyring(ctx context.Context, t Target) *keyring {
	k := &keyring{}
	loaded := k.ask(ctx, t.Agent)
	var wanted [][]byte // public halves of the files
	for _, file := range t.Identities {
		if public := k.add(file, loaded); public != nil {
			wanted = append(wanted, public)
		}
	}
	for _, signer := range loaded {
		public := signer.PublicKey().Marshal()
		if t.IdentitiesOnly && !slices.ContainsFunc(wanted, func(w []byte) bool { return bytes.Equal(w, public) }) {
			continue
		}
		k.signers = append(k.signers, signer)
		k.note("key %s of the agent", ssh.FingerprintSHA256(signer.PublicKey()))
	}
	if len(t.Identities) == 0 && t.Agent == "" {
		k.note("neither an agent (SSH_AUTH_SOCK) nor a file is set")
	}
	return k
}

// ask returns the keys of the agent.
func (k *keyring) ask(ctx context.Context, socket string) []ssh.Signer {
	if socket == "" {
		return nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		k.note("the SSH agent does not answer (%v)", err)
		return nil
	}
	k.agent = conn
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline) //nolint:errcheck // a socket always can
	}
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		k.note("the SSH agent does not list its keys (%v)", err)
	}
	return signers
}

// maxKeyFile is far more than any key has.
const maxKeyFile = 1 << 20

// add reads a file with a private key and returns the public half, nil if it cannot be known.
func (k *keyring) add(file string, loaded []ssh.Signer) []byte {
	info, err := os.Stat(file)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxKeyFile) { // others, such as drivers, may name it: a pipe or /dev/zero has no end
		k.note("%s is no private key", file)
		return nil
	}
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return publicHalf(file)
	}
	if err != nil {
		k.note("%v", err)
		return nil
	}
	signer, err := ssh.ParsePrivateKey(content)
	if locked, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		public := publicHalf(file)
		if public == nil && locked.PublicKey != nil {
			public = locked.PublicKey.Marshal()
		}
		if !slices.ContainsFunc(loaded, func(s ssh.Signer) bool { return bytes.Equal(s.PublicKey().Marshal(), public) }) {
			k.note("the key in %s is locked by a passphrase: load it into the SSH agent with ssh-add %s", file, quote(file))
		}
		return public
	}
	if err != nil {
		k.note("%s is no private key (%v)", file, err)
		return nil
	}
	public := signer.PublicKey().Marshal()
	if certified := certificateOf(file, signer); certified != nil {
		k.signers = append(k.signers, certified)
		k.note("the certificate of %s", file)
	}
	k.signers = append(k.signers, signer)
	k.note("key %s of %s", ssh.FingerprintSHA256(signer.PublicKey()), file)
	return public
}

// publicHalf reads the public key beside a private one; nil if there is none.
func publicHalf(file string) []byte {
	content, err := os.ReadFile(file + ".pub")
	if err != nil {
		return nil
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(content)
	if err != nil {
		return nil
	}
	return key.Marshal()
}

// certificateOf returns the signer with the certificate beside the file; nil if there is none that fits.
func certificateOf(file string, signer ssh.Signer) ssh.Signer {
	content, err := os.ReadFile(file + "-cert.pub")
	if err != nil {
		return nil
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(content)
	if err != nil {
		return nil
	}
	certificate, ok := key.(*ssh.Certificate)
	if !ok {
		return nil
	}
	certified, err := ssh.NewCertSigner(certificate, signer)
	if err != nil {
		return nil
	}
	return certified
}
