package remote

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/kevinburke/ssh_config"
)

// Find reads ssh://[user@]host[:port][/path] and completes it from the user's and the machine's SSH configuration:
// HostName, User, Port, IdentityFile, IdentitiesOnly, IdentityAgent, UserKnownHostsFile, GlobalKnownHostsFile,
// HostKeyAlias, StrictHostKeyChecking and ProxyJump count. What the address says goes before. The environment gives HOME,
// USER and SSH_AUTH_SOCK. It returns the target and the path.
func Find(text string, env func(string) string) (Target, string, error) {
	t, path, err := Parse(text)
	if err != nil {
		return Target{}, "", err
	}
	f, err := newFinder(env)
	if err != nil {
		return Target{}, "", err
	}
	found, err := f.complete(t, 0)
	if err != nil {
		return Target{}, "", fmt.Errorf("find out how to reach %s: %w", t.Host, err)
	}
	return found, path, nil
}

// finder completes targets.
type finder struct {
	env     func(string) string
	home    string
	user    string
	configs []*ssh_config.Config // the user's before the machine's
}

func newFinder(env func(string) string) (*finder, error) {
	f := &finder{env: env, home: env("HOME"), user: env("USER")}
	if f.home == "" {
		f.home = env("USERPROFILE")
	}
	if f.user == "" {
		if who, err := user.Current(); err == nil {
			f.user = who.Username
		}
	}
	for _, file := range []string{f.inHome("config"), filepath.Join("/", "etc", "ssh", "ssh_config")} {
		content, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the SSH configuration: %w", err)
		}
		config, err := ssh_config.DecodeBytes(content)
		if err != nil {
			return nil, fmt.Errorf("read the SSH configuration %s: %w", file, err)
		}
		f.configs = append(f.configs, config)
	}
	return f, nil
}

func (f *finder) inHome(name string) string { return filepath.Join(f.home, ".ssh", name) }

// get returns the first value of a key for a host; empty if there is none.
func (f *finder) get(host, key string) (string, error) {
	for _, config := range f.configs {
		value, err := config.Get(host, key)
		if err != nil {
			return "", fmt.Errorf("read %s of the SSH configuration: %w", key, err)
		}
		if value != "" {
			return unquote(value), nil
		}
	}
	return "", nil
}

// all returns all values of a key for a host.
func (f *finder) all(host, key string) ([]string, error) {
	var values []string
	for _, config := range f.configs {
		more, err := config.GetAll(host, key)
		if err != nil {
			return nil, fmt.Errorf("read %s of the SSH configuration: %w", key, err)
		}
		values = append(values, more...)
	}
	return values, nil
}

func unquote(value string) string {
	if len(value) > 1 && strings.HasPrefix(value, `"`) && strings.HasSuffix(value, `"`) {
		return value[1 : len(value)-1]
	}
	return value
}

// maxJumps is how many machines may be on the way to another; more is a configuration that goes in circles.
const maxJumps = 8

func (f *finder) complete(t Target, jumps int) (Target, error) {
	if jumps > maxJumps {
		return Target{}, fmt.Errorf("more than %d machines are on the way: ProxyJump may go in a circle", maxJumps)
	}
	alias := t.Host
	command, err := f.get(alias, "ProxyCommand")
	if err != nil {
		return Target{}, err
	}
	if command != "" && command != "none" {
		return Target{}, fmt.Errorf("the SSH configuration has ProxyCommand for it, which is not supported: use ProxyJump")
	}
	for _, fill := range []func(*Target, string) error{f.whereTo, f.whoAmI, f.whoIsIt} {
		if err := fill(&t, alias); err != nil {
			return Target{}, err
		}
	}
	jump, err := f.get(alias, "ProxyJump")
	if err != nil || jump == "" || jump == "none" {
		return t, err
	}
	t.Jump, err = f.jump(jump, jumps)
	return t, err
}

// whereTo fills in host, port and user.
func (f *finder) whereTo(t *Target, alias string) error {
	name, err := f.get(alias, "HostName")
	if err != nil {
		return err
	}
	if name != "" {
		t.Host = strings.NewReplacer("%h", alias, "%%", "%").Replace(name)
		if err := checkHost(t.Host); err != nil {
			return fmt.Errorf("the HostName of the SSH configuration: %w", err)
		}
	}
	if t.User == "" {
		if t.User, err = f.get(alias, "User"); err != nil {
			return err
		}
	}
	if t.User == "" {
		t.User = f.user
	}
	if t.Port != 0 {
		return nil
	}
	port, err := f.get(alias, "Port")
	if err != nil {
		return err
	}
	if t.Port, err = parsePort(port); err != nil {
		return fmt.Errorf("the port of the SSH configuration: %w", err)
	}
	return nil
}

// whoAmI fills in what to log in with.
func (f *finder) whoAmI(t *Target, alias string) error {
	files, err := f.all(alias, "IdentityFile")
	if err != nil {
		return err
	}
	for _, file := range files {
		t.Identities = append(t.Identities, f.expand(unquote(file), t))
	}
	if len(files) == 0 {
		for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			t.Identities = append(t.Identities, f.inHome(name))
		}
	}
	only, err := f.get(alias, "IdentitiesOnly")
	if err != nil {
		return err
	}
	t.IdentitiesOnly = strings.EqualFold(only, "yes")
	socket, err := f.get(alias, "IdentityAgent")
	switch {
	case err != nil:
		return err
	case socket == "" || socket == "SSH_AUTH_SOCK":
		t.Agent = f.env("SSH_AUTH_SOCK")
	case strings.HasPrefix(socket, "$"):
		t.Agent = f.env(strings.Trim(socket, "${}"))
	case socket != "none":
		t.Agent = f.expand(socket, t)
	}
	return nil
}

// whoIsIt fills in how the host is told from others.
func (f *finder) whoIsIt(t *Target, alias string) error {
	for _, files := range []struct {
		key   string
		usual []string
	}{
		{"UserKnownHostsFile", []string{f.inHome("known_hosts"), f.inHome("known_hosts2")}},
		{"GlobalKnownHostsFile", []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}},
	} {
		value, err := f.get(alias, files.key)
		if err != nil {
			return err
		}
		if value == "" {
			t.KnownHosts = append(t.KnownHosts, files.usual...)
			continue
		}
		for file := range strings.FieldsSeq(value) {
			if file != "none" {
				t.KnownHosts = append(t.KnownHosts, f.expand(unquote(file), t))
			}
		}
	}
	var err error
	if t.HostKeyAlias, err = f.get(alias, "HostKeyAlias"); err != nil {
		return err
	}
	strict, err := f.get(alias, "StrictHostKeyChecking")
	if err != nil {
		return err
	}
	switch strings.ToLower(strict) {
	case "accept-new":
		t.Trust = TrustNew
	case "no", "off":
		t.Trust = TrustAny
	}
	return nil
}

// expand replaces ~ and the tokens that the configuration of SSH has for files.
func (f *finder) expand(file string, t *Target) string {
	if rest, found := strings.CutPrefix(file, "~/"); found {
		file = filepath.Join(f.home, rest)
	}
	return strings.NewReplacer("%d", f.home, "%h", t.Host, "%r", t.User, "%u", f.user, "%%", "%").Replace(file)
}

// jump reads ProxyJump: [user@]host[:port] or ssh://..., several divided by commas, the first being the first to go to.
func (f *finder) jump(text string, jumps int) (*Target, error) {
	before, last := "", text
	if i := strings.LastIndexByte(text, ','); i >= 0 {
		before, last = text[:i], text[i+1:]
	}
	t, err := parseJump(strings.TrimSpace(last))
	if err != nil {
		return nil, fmt.Errorf("the ProxyJump of the SSH configuration: %w", err)
	}
	completed, err := f.complete(t, jumps+1)
	if err != nil {
		return nil, err
	}
	if before != "" {
		if completed.Jump, err = f.jump(before, jumps+1); err != nil {
			return nil, err
		}
	}
	return &completed, nil
}

func parseJump(text string) (Target, error) {
	if !strings.HasPrefix(text, "ssh://") {
		if ip := net.ParseIP(text); ip != nil && strings.Contains(text, ":") {
			text = "[" + text + "]"
		}
		text = "ssh://" + text
	}
	t, path, err := Parse(text)
	if err == nil && path != "" {
		err = fmt.Errorf("%q has a path", text)
	}
	return t, err
}
