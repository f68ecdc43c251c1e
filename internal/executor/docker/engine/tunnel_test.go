package engine_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	tranter "github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/remote"
	"github.com/tranter-ci/tranter/internal/remote/sshtest"
)

func socketOf(t testing.TB) string {
	t.Helper()
	return strings.TrimPrefix(enginetest.Host(t), "unix://")
}

func overSSH(t testing.TB, s *sshtest.Server, socket string) *engine.Engine {
	t.Helper()
	e, err := engine.OpenWith(t.Context(), engine.Options{Host: s.URL(socket)}, s.Env)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.Log())
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// speak runs a program in a container and checks that it hears and is heard.
func speak(t testing.TB, e *engine.Engine, id string) {
	t.Helper()
	s, err := e.Exec(t.Context(), id, []string{"sh", "-c", "cat; echo problem >&2"}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, errs := both(s, func() {
		fmt.Fprint(s.Stdin, "over SSH")
		s.Stdin.Close()
	})
	if out != "over SSH" || errs != "problem\n" {
		t.Errorf("stdout %q, stderr %q", out, errs)
	}
}

func TestAnEngineBehindSSH(t *testing.T) {
	s := sshtest.Start(t)
	e := overSSH(t, s, socketOf(t))
	if e.Facts().Local || engine.UsesStdio(e) {
		t.Errorf("%+v, stdio %v", e.Facts(), engine.UsesStdio(e))
	}
	id := mustCreate(t, e, "sleep", "1000")
	start(t, e, id)
	speak(t, e, id)

	// The connection is lost: a stream ends, and the next request makes a new connection.
	open, err := e.Exec(t.Context(), id, []string{"sleep", "1000"}, "")
	if err != nil {
		t.Fatal(err)
	}
	s.Kick(t)
	both(open, func() {})
	open.Close()
	speakAfterALoss(t, e, id)
	if n := strings.Count(s.Log(), "Accepted publickey"); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}

	s.Stop()
	_, err = e.Refresh(t.Context())
	if !engine.Gone(err) {
		t.Errorf("without a server: error %v", err)
	}
}

// speakAfterALoss speaks; a request or two may still go out over a connection that was lost.
func speakAfterALoss(t testing.TB, e *engine.Engine, id string) {
	t.Helper()
	for range 5 {
		s, err := e.Exec(t.Context(), id, []string{"true"}, "")
		if err == nil {
			s.Close()
			break
		}
		if !engine.Gone(err) {
			t.Fatal(err)
		}
	}
	speak(t, e, id)
}

func TestAMachineThatForwardsToNoSocket(t *testing.T) {
	s := sshtest.Start(t, "AllowStreamLocalForwarding no")
	e := overSSH(t, s, "")
	if !engine.UsesStdio(e) {
		t.Fatal("not by docker system dial-stdio")
	}
	id := mustCreate(t, e, "sleep", "1000")
	start(t, e, id)
	// More at a time than one SSH connection has sessions for.
	for range 10 {
		st, err := e.Attach(t.Context(), id, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
	}
	speak(t, e, id)
	s.Kick(t)
	speakAfterALoss(t, e, id)
	if n := strings.Count(s.Log(), "Accepted publickey"); n < 3 {
		t.Errorf("%d logins", n)
	}
}

func TestASocketOfItsOwnOnAMachineThatForwardsToNone(t *testing.T) {
	e := overSSH(t, sshtest.Start(t, "AllowStreamLocalForwarding no"), socketOf(t))
	if !engine.UsesStdio(e) || e.Facts().ID != local(t).Facts().ID {
		t.Errorf("stdio %v, %+v", engine.UsesStdio(e), e.Facts())
	}
}

func TestFaultsOfSSH(t *testing.T) {
	s := sshtest.Start(t)
	_, err := engine.OpenWith(t.Context(), engine.Options{Host: s.URL("/no/such.sock")}, s.Env)
	if !engine.Gone(err) || !errors.Is(err, remote.ErrForwarding) || !strings.Contains(err.Error(), "check that the engine runs on that machine") {
		t.Errorf("no such socket: error %v", err)
	}
	sshtest.Write(t, s.KnownHosts, "")
	_, err = engine.OpenWith(t.Context(), engine.Options{Host: s.URL("")}, s.Env)
	if _, ok := errors.AsType[*remote.HostKeyError](err); !ok || engine.Gone(err) || !strings.Contains(err.Error(), "ssh-keyscan") {
		t.Errorf("an unknown host: error %v", err)
	}
	sshtest.Write(t, s.KnownHosts, s.KnownHostLine(t))
	sshtest.Keygen(t, s.Home+"/.ssh/id_rsa")
	sshtest.Write(t, s.Identity, sshtest.Read(t, s.Home+"/.ssh/id_rsa"))
	_, err = engine.OpenWith(t.Context(), engine.Options{Host: s.URL("")}, s.Env)
	if _, ok := errors.AsType[*remote.AuthError](err); !ok || engine.Gone(err) {
		t.Errorf("a stranger's key: error %v", err)
	}
	sshtest.Write(t, s.Home+"/.ssh/config", "ProxyCommand nc %h %p\n")
	_, err = engine.OpenWith(t.Context(), engine.Options{Host: s.URL("")}, s.Env)
	if _, ok := errors.AsType[*tranter.ConfigError](err); !ok {
		t.Errorf("a configuration that cannot be followed: error %v", err)
	}
}
