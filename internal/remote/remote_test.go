package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/remote"
	"github.com/tranter-ci/tranter/internal/remote/sshtest"
)

func find(t testing.TB, s *sshtest.Server) remote.Target {
	t.Helper()
	target, _, err := remote.Find(s.URL(""), s.Env)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func dial(t testing.TB, target remote.Target) *remote.Conn {
	t.Helper()
	c, err := remote.Dial(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestACommandRunsOnTheMachine(t *testing.T) {
	c := dial(t, find(t, sshtest.Start(t)))
	var out, errs bytes.Buffer
	if err := c.Run(t.Context(), "tr a-z A-Z; echo oops >&2", strings.NewReader("hello"), &out, &errs); err != nil {
		t.Fatal(err)
	}
	if out.String() != "HELLO" || errs.String() != "oops\n" {
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
	for command, want := range map[string]remote.ExitError{"exit 7": {Code: 7}, "kill -9 $$": {Code: -1, Signal: "KILL"}} {
		ended, ok := errors.AsType[*remote.ExitError](c.Run(t.Context(), command, nil, nil, nil))
		if !ok || *ended != want {
			t.Errorf("%s: %+v, want %+v", command, ended, want)
		}
	}
}

func TestTheEndOfTheContextEndsACommand(t *testing.T) {
	c := dial(t, find(t, sshtest.Start(t)))
	ctx, cancel := context.WithCancel(t.Context())
	out := writerFunc(func(p []byte) (int, error) {
		cancel() // it has begun
		return len(p), nil
	})
	if err := c.Run(ctx, "echo begun; sleep 1000", nil, out, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if err := c.Run(t.Context(), "true", nil, nil, nil); err != nil {
		t.Errorf("the connection does not work any more: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestConnectionsAreMadeFromTheMachine(t *testing.T) {
	c := dial(t, find(t, sshtest.Start(t)))
	socket := filepath.Join(t.TempDir(), "s")
	for network, address := range map[string]string{"unix": socket, "tcp": "127.0.0.1:0"} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		served := make(chan struct{})
		go func() {
			defer close(served)
			conn, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			text, _ := io.ReadAll(conn) // until the other side closes its half
			conn.Write(bytes.ToUpper(text))
		}()
		conn, err := c.Dial(t.Context(), network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte("over " + network))
		conn.(interface{ CloseWrite() error }).CloseWrite()
		answer, err := io.ReadAll(conn)
		if want := "OVER " + strings.ToUpper(network); err != nil || string(answer) != want {
			t.Errorf("answer %q, error %v; want %q", answer, err, want)
		}
		conn.Close()
		<-served
	}
}

func TestWhatIsNotForwarded(t *testing.T) {
	s := sshtest.Start(t, "AllowStreamLocalForwarding no", "AllowTcpForwarding no")
	c := dial(t, find(t, s))
	for network, address := range map[string]string{"unix": "/var/run/docker.sock", "tcp": "127.0.0.1:22"} {
		if _, err := c.Dial(t.Context(), network, address); !errors.Is(err, remote.ErrForwarding) {
			t.Errorf("%s: error %v", network, err)
		}
	}
}

func TestAHostThatIsNotKnown(t *testing.T) {
	s := sshtest.Start(t)
	sshtest.Write(t, s.KnownHosts, "")
	_, err := remote.Dial(t.Context(), find(t, s))
	fault, ok := errors.AsType[*remote.HostKeyError](err)
	if !ok || len(fault.Known) != 0 {
		t.Fatalf("error %v", err)
	}
	command := fmt.Sprintf("ssh-keyscan -p %d 127.0.0.1 >> %s", s.Port, s.KnownHosts)
	if !strings.Contains(err.Error(), command) {
		t.Errorf("%q does not say %q", err, command)
	}
	// The advice works.
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dial(t, find(t, s))
}

func TestAHostWhoseKeyHasChanged(t *testing.T) {
	s := sshtest.Start(t)
	other := filepath.Join(s.Dir, "other")
	sshtest.Keygen(t, other)
	sshtest.Write(t, s.KnownHosts, fmt.Sprintf("[127.0.0.1]:%d %s", s.Port, sshtest.Read(t, other+".pub")))
	for _, strict := range []string{"yes", "accept-new", "no"} {
		sshtest.Write(t, filepath.Join(s.Home, ".ssh", "config"), "StrictHostKeyChecking "+strict+"\n")
		_, err := remote.Dial(t.Context(), find(t, s))
		fault, ok := errors.AsType[*remote.HostKeyError](err)
		if !ok || len(fault.Known) != 1 || fault.Known[0] != s.KnownHosts+":1" {
			t.Fatalf("%s: error %v", strict, err)
		}
		if !strings.Contains(err.Error(), "HAS CHANGED") {
			t.Errorf("%q is not loud", err)
		}
	}
}

func TestKnownHostsAreHashedOrOfOneTypeOfSeveral(t *testing.T) {
	dir := t.TempDir()
	rsa := filepath.Join(dir, "rsa")
	sshtest.Keygen(t, rsa, "-t", "rsa", "-b", "2048", "-N", "")
	s := sshtest.Start(t, "HostKey "+rsa)
	// Only the RSA key is known; by default the ed25519 key would be shown.
	sshtest.Write(t, s.KnownHosts, fmt.Sprintf("[127.0.0.1]:%d %s", s.Port, sshtest.Read(t, rsa+".pub")))
	dial(t, find(t, s))
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-H", "-f", s.KnownHosts).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if text := sshtest.Read(t, s.KnownHosts); !strings.HasPrefix(text, "|1|") {
		t.Fatalf("not hashed: %s", text)
	}
	dial(t, find(t, s))
}

func TestStrictHostKeyChecking(t *testing.T) {
	s := sshtest.Start(t)
	config := filepath.Join(s.Home, ".ssh", "config")
	for strict, noted := range map[string]bool{"accept-new": true, "no": false} {
		sshtest.Write(t, s.KnownHosts, "")
		sshtest.Write(t, config, "Host *\n  StrictHostKeyChecking "+strict+"\n")
		dial(t, find(t, s))
		if got := sshtest.Read(t, s.KnownHosts); (got != "") != noted {
			t.Errorf("%s: the known hosts are %q", strict, got)
		}
		if !noted {
			continue
		}
		sshtest.Write(t, config, "")
		dial(t, find(t, s))
	}
}

func TestAHostWhoseKeyAnAuthorityHasSigned(t *testing.T) {
	s := sshtest.Start(t)
	authority := filepath.Join(s.Dir, "ca")
	sshtest.Keygen(t, authority)
	sign := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-s", authority, "-I", "host", "-h", "-n", "127.0.0.1", s.HostKey+".pub")
	if out, err := sign.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	signed := sshtest.Start(t, "HostKey "+s.HostKey, "HostCertificate "+s.HostKey+"-cert.pub")
	sshtest.Write(t, signed.KnownHosts, fmt.Sprintf("@cert-authority [127.0.0.1]:%d %s", signed.Port, sshtest.Read(t, authority+".pub")))
	dial(t, find(t, signed))
}

func TestLoggingIn(t *testing.T) {
	s := sshtest.Start(t)
	locked := filepath.Join(s.Dir, "locked")
	sshtest.Keygen(t, locked, "-t", "ed25519", "-N", "secret words")
	stranger := filepath.Join(s.Dir, "stranger")
	sshtest.Keygen(t, stranger)
	for name, c := range map[string]struct {
		identities []string
		agent      string
		says       []string
	}{
		"no key at all":        {says: []string{"there is no key to log in with", "neither an agent"}},
		"a file that is not":   {identities: []string{filepath.Join(s.Dir, "nothing")}, says: []string{"there is no key to log in with"}},
		"a locked key":         {identities: []string{locked}, says: []string{"locked by a passphrase", "ssh-add " + locked}},
		"a stranger's key":     {identities: []string{stranger}, says: []string{"accepts none of our keys", "SHA256:", "authorized_keys"}},
		"a file without a key": {identities: []string{s.KnownHosts}, says: []string{"is no private key"}},
		"a file without end":   {identities: []string{"/dev/zero"}, says: []string{"/dev/zero is no private key"}},
		"no agent":             {agent: filepath.Join(s.Dir, "no.sock"), says: []string{"the SSH agent does not answer"}},
	} {
		t.Run(name, func(t *testing.T) {
			target := find(t, s)
			target.Identities, target.Agent = c.identities, c.agent
			_, err := remote.Dial(t.Context(), target)
			if _, ok := errors.AsType[*remote.AuthError](err); !ok {
				t.Fatalf("error %v", err)
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "secret words") {
				t.Errorf("%q says the passphrase", err)
			}
		})
	}
}

func TestTheAgentUnlocksAKey(t *testing.T) {
	s := sshtest.Start(t)
	socket := filepath.Join(s.Dir, "agent.sock")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		agent.Process.Kill()
		agent.Wait()
	})
	// The key is loaded before the file is locked: as if the user had typed the passphrase.
	deadline := time.Now().Add(10 * time.Second)
	for {
		add := exec.CommandContext(t.Context(), "ssh-add", "-q", s.Identity)
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		out, err := add.CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("ssh-add: %v\n%s", err, out)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-p", "-N", "secret", "-f", s.Identity).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, only := range []string{"no", "yes"} {
		sshtest.Write(t, filepath.Join(s.Home, ".ssh", "config"), "IdentityAgent "+socket+"\nIdentitiesOnly "+only+"\nIdentityFile "+s.Identity+"\n")
		dial(t, find(t, s))
	}
}

func TestAnotherMachineIsOnTheWay(t *testing.T) {
	far, near := sshtest.Start(t), sshtest.Start(t)
	home := far.Home
	sshtest.Write(t, filepath.Join(home, ".ssh", "near"), sshtest.Read(t, near.Identity))
	sshtest.Write(t, far.KnownHosts, far.KnownHostLine(t)+near.KnownHostLine(t))
	sshtest.Write(t, filepath.Join(home, ".ssh", "config"), fmt.Sprintf(`
Host far
  HostName 127.0.0.1
  Port %d
  ProxyJump %s@near
Host near
  HostName 127.0.0.1
  Port %d
  IdentityFile ~/.ssh/near
`, far.Port, near.User, near.Port))
	target, path, err := remote.Find("ssh://far/run/docker.sock", far.Env)
	if err != nil {
		t.Fatal(err)
	}
	if path != "/run/docker.sock" {
		t.Errorf("path %q", path)
	}
	var out bytes.Buffer
	if err := dial(t, target).Run(t.Context(), "echo $SSH_CONNECTION", nil, &out, nil); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), fmt.Sprint(far.Port)) {
		t.Errorf("it ran with SSH_CONNECTION=%s", &out)
	}
	if !strings.Contains(near.Log(), "Accepted publickey") {
		t.Error("the way did not go through the other machine")
	}
}

func TestAMachineThatSaysNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	s := sshtest.Start(t)
	target := find(t, s)
	target.Port = l.Addr().(*net.TCPAddr).Port
	if _, err := remote.Dial(ctx, target); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestAMachineThatIsNoSSHServer(t *testing.T) {
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	target := find(t, sshtest.Start(t))
	target.Port = web.Listener.Addr().(*net.TCPAddr).Port
	if _, err := remote.Dial(t.Context(), target); err == nil || !strings.Contains(err.Error(), "log in to ssh://") {
		t.Errorf("error %v", err)
	}
}

func TestALostConnectionIsNoticed(t *testing.T) {
	s := sshtest.Start(t)
	c := dial(t, find(t, s))
	running := make(chan error, 1)
	go func() { running <- c.Run(t.Context(), "sleep 1000", nil, nil, nil) }()
	s.Kick(t)
	select {
	case <-c.Gone():
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was noticed")
	}
	if err := <-running; err == nil {
		t.Error("a command on a lost connection succeeded")
	}
	if err := c.Run(t.Context(), "true", nil, nil, nil); err == nil {
		t.Error("a command on a lost connection succeeded")
	}
}
