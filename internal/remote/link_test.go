package remote_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/remote"
	"github.com/tranter-ci/tranter/internal/remote/sshtest"
)

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestAHostWhoseKeyIsPinned(t *testing.T) {
	s := sshtest.Start(t)
	target := find(t, s)
	target.KnownHosts, target.Trust = nil, remote.TrustAny
	shown := dial(t, target).HostKey()
	if want := strings.Join(strings.Fields(sshtest.Read(t, s.HostKey+".pub"))[:2], " "); shown != want {
		t.Fatalf("it shows %q, want %q", shown, want)
	}
	target.HostKey = shown
	dial(t, target)

	other := sshtest.Start(t)
	target.Port = other.Port
	_, err := remote.Dial(t.Context(), target)
	if e, ok := errors.AsType[*remote.HostKeyError](err); !ok || !e.Pinned || !strings.Contains(err.Error(), "HAS CHANGED") {
		t.Errorf("another host: error %v", err)
	}
	target.HostKey = "no key"
	if _, err := remote.Dial(t.Context(), target); err == nil || !strings.Contains(err.Error(), "read the key") {
		t.Errorf("a key that is none: error %v", err)
	}
}

func TestAPinnedKeyIsAskedForBeforeOthers(t *testing.T) {
	s := sshtest.Start(t)
	rsa := filepath.Join(s.Dir, "host_rsa")
	sshtest.Keygen(t, rsa, "-t", "rsa", "-b", "2048", "-N", "")
	both := sshtest.Start(t, "HostKey "+rsa)
	target := find(t, both)
	target.HostKey = strings.TrimSpace(sshtest.Read(t, rsa+".pub"))
	dial(t, target)
}

func TestALinkIsMadeAnew(t *testing.T) {
	s := sshtest.Start(t)
	c, err := remote.Dial(t.Context(), find(t, s))
	if err != nil {
		t.Fatal(err)
	}
	l := remote.Linked(c, silent())
	t.Cleanup(func() { l.Close() })
	port := sshtest.Start(t).Port // something that can be reached
	for round := range 3 {
		var out bytes.Buffer
		if err := l.Run(t.Context(), "echo $((6*7))", nil, &out, nil); err != nil || out.String() != "42\n" {
			t.Fatalf("round %d: %q, %v", round, &out, err)
		}
		conn, err := l.Dial(t.Context(), "tcp", (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String())
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		conn.Close()
		s.Kick(t)
	}
	if _, err := l.Dial(t.Context(), "tcp", "127.0.0.1:1"); !errors.Is(err, remote.ErrForwarding) {
		t.Errorf("nobody listens: error %v", err)
	}
	if n := strings.Count(s.Log(), "Accepted publickey"); n != 4 {
		t.Errorf("%d logins, want 4", n)
	}
	if l.Target().HostKey != c.HostKey() {
		t.Error("the key is not pinned")
	}
	l.Close()
	if err := l.Run(t.Context(), "true", nil, nil, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: error %v", err)
	}
}

func TestACommandThatIsCutOffIsNotRunAgain(t *testing.T) {
	s := sshtest.Start(t)
	l := remote.NewLink(find(t, s), silent())
	t.Cleanup(func() { l.Close() })
	file := filepath.Join(s.Dir, "runs")
	started, out := io.Pipe()
	result := make(chan error, 1)
	go func() { result <- l.Run(t.Context(), "echo run >> "+file+"; echo; exec sleep 1000", nil, out, nil) }()
	if _, err := started.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s.Kick(t)
	if err := <-result; !errors.Is(err, remote.ErrLost) {
		t.Errorf("error %v", err)
	}
	if got := sshtest.Read(t, file); got != "run\n" {
		t.Errorf("it ran: %q", got)
	}
}

func TestAClosedLinkGivesUpItsLogin(t *testing.T) {
	silence, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silence.Close()
	target := find(t, sshtest.Start(t))
	target.Port = silence.Addr().(*net.TCPAddr).Port
	l := remote.NewLink(target, silent())
	result := make(chan error, 1)
	go func() {
		_, err := l.Conn(t.Context())
		result <- err
	}()
	conn, err := silence.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l.Close()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestAShellWithATerminal(t *testing.T) {
	c := dial(t, find(t, sshtest.Start(t)))
	sizes := make(chan remote.Size)
	in, keys := io.Pipe()
	screen, out := io.Pipe()
	pty := &remote.PTY{Term: "vt100", Size: remote.Size{Columns: 91, Rows: 23}, Resize: sizes}
	result := make(chan error, 1)
	go func() {
		err := c.Shell(t.Context(), "stty -echo; echo $TERM; stty size; until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; stty size; read -r x; exit 3", pty, remote.Streams{In: in, Out: out})
		out.Close()
		result <- err
	}()
	text := make(chan string)
	go func() {
		defer close(text)
		var all strings.Builder
		part := make([]byte, 256)
		for {
			n, err := screen.Read(part)
			all.Write(part[:n])
			if strings.Count(all.String(), "\n") == 2 && n > 0 {
				sizes <- remote.Size{Columns: 132, Rows: 50}
			}
			if strings.Count(all.String(), "\n") == 3 && n > 0 {
				io.WriteString(keys, "end\n")
			}
			if err != nil {
				text <- all.String()
				return
			}
		}
	}()
	err := <-result
	if e, ok := errors.AsType[*remote.ExitError](err); !ok || e.Code != 3 {
		t.Errorf("error %v", err)
	}
	if got := strings.ReplaceAll(<-text, "\r", ""); got != "vt100\n23 91\n50 132\n" {
		t.Errorf("the screen has %q", got)
	}
}

func TestALoginShell(t *testing.T) {
	c := dial(t, find(t, sshtest.Start(t)))
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := c.Shell(ctx, "", nil, remote.Streams{In: strings.NewReader("echo $((40+2))\nexit 0\n"), Out: &out, Err: os.Stderr}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "42") {
		t.Errorf("it says %q", &out)
	}
}
