//go:build linux

package conformance

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// systemdSocket is what systemd is to a service: a socket that hears what it says.
type systemdSocket struct {
	conn *net.UnixConn
	path string
}

func listen(t *testing.T) systemdSocket {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return systemdSocket{conn, path}
}

// hear returns the first message that has a line which begins with want, and fails when there is none in time.
func (l systemdSocket) hear(t *testing.T, want string) string {
	t.Helper()
	_ = l.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	var all []string
	buf := make([]byte, 4096)
	for {
		n, err := l.conn.Read(buf)
		if err != nil {
			t.Fatalf("nothing says %q: %v; heard %q", want, err, all)
		}
		message := string(buf[:n])
		all = append(all, message)
		for line := range strings.Lines(message) {
			if strings.HasPrefix(line, want) {
				return message
			}
		}
	}
}

// startNotifying starts the built program as systemd does.
func startNotifying(t *testing.T, l systemdSocket, environ ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, []byte("concurrent = 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "run", "--config", config, "--state-dir", filepath.Join(dir, "state"))
	cmd.Env = append(os.Environ(), append(environ, "NOTIFY_SOCKET="+l.path)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

func TestSystemdHearsOfTheWholeLifeOfAManager(t *testing.T) {
	l := listen(t)
	cmd := startNotifying(t, l, "WATCHDOG_USEC=300000")
	if got := l.hear(t, "READY=1"); !strings.Contains(got, "STATUS=running: 0 of 3 jobs, 0 runners") {
		t.Errorf("ready, but: %q", got)
	}
	l.hear(t, "WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if got := l.hear(t, "RELOADING=1"); !strings.Contains(got, "MONOTONIC_USEC=") {
		t.Errorf("no time is told: %q", got)
	}
	l.hear(t, "READY=1")
	// A manager that becomes another version is the same process, and goes on telling.
	if err := cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	l.hear(t, "READY=1")
	l.hear(t, "WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the manager: %v", err)
	}
}

func TestAManagerThatHangsGivesNoSignOfLife(t *testing.T) {
	l := listen(t)
	cmd := startNotifying(t, l, "WATCHDOG_USEC=300000")
	l.hear(t, "WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	_ = l.conn.SetReadDeadline(time.Now().Add(400 * time.Millisecond))
	heard := 0
	for {
		if _, err := l.conn.Read(buf); err != nil {
			break
		}
		heard++
	}
	if heard > 2 { // of what was sent before it was stopped
		t.Errorf("a stopped process has said %d things", heard)
	}
}
