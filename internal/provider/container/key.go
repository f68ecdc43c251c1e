package container

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	tranter "github.com/tranter-ci/tranter"
)

// key is what opens the machines of a provider.
type key struct {
	path   string // of the private key
	public string // as authorized_keys has it
}

// Key returns the file of the private key that opens the machines of a provider with that Dir, and the public key as
// authorized_keys has it. Where there is none yet, it makes them.
func Key(dir string) (path, public string, err error) {
	k, err := openKey(dir)
	if err != nil {
		return "", "", err
	}
	return k.path, k.public, nil
}

const keyName = "id_ed25519"

// openKey reads the key in a directory. Where there is none yet, it makes both.
func openKey(dir string) (*key, error) {
	if dir == "" {
		return nil, &tranter.ConfigError{Err: errors.New("there is no directory for the key of the machines")}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory for the key of the machines: %w", err)
	}
	path := filepath.Join(dir, keyName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(path); err != nil {
			return nil, fmt.Errorf("make the key of the machines: %w", err)
		}
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key of the machines: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("read the key of the machines: %s is no private key: remove it, then a new one is made", path)
	}
	return &key{path: path, public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))}, nil
}

// makeKey writes a new key. If another process is first, its key stays.
func makeKey(path string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "tranter machines")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), keyName+"-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(pem.EncodeToMemory(block))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
