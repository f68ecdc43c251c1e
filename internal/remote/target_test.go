package remote

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	for text, want := range map[string]struct {
		target Target
		path   string
	}{
		"ssh://host":                         {Target{Host: "host"}, ""},
		"ssh://host/":                        {Target{Host: "host"}, ""},
		"ssh://me@host:2222/run/docker.sock": {Target{User: "me", Host: "host", Port: 2222}, "/run/docker.sock"},
		"ssh://me@[::1]:22":                  {Target{User: "me", Host: "::1", Port: 22}, ""},
		"ssh://a%40b@host":                   {Target{User: "a@b", Host: "host"}, ""},
	} {
		target, path, err := Parse(text)
		if err != nil || path != want.path || !reflect.DeepEqual(target, want.target) {
			t.Errorf("%s: %+v, path %q, error %v", text, target, path, err)
		}
	}
}

func TestAddressesThatAreNone(t *testing.T) {
	for text, says := range map[string]string{
		"":                         "must start with ssh://",
		"host":                     "must start with ssh://",
		"tcp://host":               "must start with ssh://",
		"ssh://":                   "names no host",
		"ssh:///path":              "names no host",
		"ssh://-oProxyCommand=x":   "no name of a host",
		"ssh://me:hunter2@host":    "has a password",
		"ssh://me:hunter2@host:xx": "malformed",
		"ssh://host:0":             "is no port",
		"ssh://host:65536":         "is no port",
		"ssh://host/?a=b":          "more than user, host, port and path",
		"ssh://host/a\nb":          "control characters",
		"ssh://host/a%0ab":         "control characters",
		"ssh://a%0a@host":          "control characters",
	} {
		_, _, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %v, want %q", text, err, says)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %q says the password", text, err)
		}
	}
}

func config(t testing.TB, content string) func(string) string {
	t.Helper()
	home := t.TempDir()
	write(t, filepath.Join(home, ".ssh", "config"), content)
	return func(name string) string {
		return map[string]string{"HOME": home, "USER": "me", "SSH_AUTH_SOCK": "/agent"}[name]
	}
}

func TestTheConfigurationOfSSH(t *testing.T) {
	env := config(t, `
Host build
  HostName %h.example.org
  User runner
  Port 2200
  IdentityFile ~/.ssh/%h
  IdentityFile "/keys/%r"
  UserKnownHostsFile /a %d/b
  GlobalKnownHostsFile none
  HostKeyAlias alias
  StrictHostKeyChecking accept-new
  IdentityAgent none
  ProxyJump one,two@second:3
Host one
  User first
Host loop
  ProxyJump loop
Host command
  ProxyCommand nc %h %p
Host port
  Port many
Host dash
  HostName -x
Host badjump
  ProxyJump ssh://x/path
Host nojump
  ProxyJump none
`)
	home := env("HOME")
	target, path, err := Find("ssh://build/socket", env)
	if err != nil {
		t.Fatal(err)
	}
	usual := func(user, host string, port int) Target {
		in := func(name string) string { return filepath.Join(home, ".ssh", name) }
		return Target{
			User: user, Host: host, Port: port, Agent: "/agent", Identities: []string{in("id_ed25519"), in("id_ecdsa"), in("id_rsa")},
			KnownHosts: []string{in("known_hosts"), in("known_hosts2"), "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"},
		}
	}
	one, second := usual("first", "one", 0), usual("two", "second", 3)
	second.Jump = &one
	want := Target{
		User: "runner", Host: "build.example.org", Port: 2200,
		Identities: []string{filepath.Join(home, ".ssh", "build.example.org"), "/keys/runner"},
		KnownHosts: []string{"/a", filepath.Join(home, "b")}, HostKeyAlias: "alias", Trust: TrustNew, Jump: &second,
	}
	if path != "/socket" || !reflect.DeepEqual(target, want) {
		t.Errorf("got  %+v %+v\nwant %+v", target, target.Jump, want)
	}
	if target, _, err = Find("ssh://you@build:1", env); err != nil || target.User != "you" || target.Port != 1 {
		t.Errorf("what the address says does not go before: %+v, error %v", target, err)
	}
	if target, _, err = Find("ssh://nojump", env); err != nil || !reflect.DeepEqual(target, usual("me", "nojump", 0)) {
		t.Errorf("without a jump: %+v, error %v", target, err)
	}
	for host, says := range map[string]string{
		"loop": "in a circle", "command": "use ProxyJump", "port": "is no port", "dash": "no name of a host", "badjump": "has a path",
	} {
		if _, _, err := Find("ssh://"+host, env); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want %q", host, err, says)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"ssh://me@host:22/path", "ssh://[::1]", "ssh://a:b@c", "ssh://%41", "x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		target, path, err := Parse(text)
		if err != nil {
			return
		}
		again, _, err := Parse(target.String())
		if target.Port == 0 {
			target.Port = 22
		}
		if err != nil || !reflect.DeepEqual(again, target) {
			t.Errorf("%q is %+v, and its text %q is %+v, error %v", text, target, target, again, err)
		}
		if path != "" && !strings.HasPrefix(path, "/") {
			t.Errorf("path %q", path)
		}
	})
}

func FuzzTheConfigurationOfSSH(f *testing.F) {
	f.Add("Host a\n ProxyJump b,c\n", "ssh://a")
	f.Add("IdentityFile ~/x\nPort 3\n", "ssh://b")
	f.Fuzz(func(t *testing.T, content, address string) {
		if strings.Contains(strings.ToLower(content), "include") {
			return // it would read files of this machine
		}
		target, _, err := Find(address, config(t, content))
		if err == nil && target.Host == "" {
			t.Errorf("%q with %q: no host", address, content)
		}
	})
}

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
