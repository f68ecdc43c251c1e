// Package sshtest runs a real SSH server for tests: OpenSSH's, on a loopback port, with keys and files of its own.
package sshtest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is a running sshd that lets the user of the test in.
type Server struct {
	Port       int
	User       string
	Dir        string // for files of the test
	Home       string // a home directory with .ssh, for the client
	Identity   string // file with the private key that is let in
	HostKey    string // file with the host's ed25519 key; .pub is beside it
	KnownHosts string // file that knows the host

	process *exec.Cmd
	ended   chan struct{}
	log     *logBuffer
}

// logBuffer is what sshd said; it is read while sshd writes.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Start starts a server with more lines of configuration, and stops it when the test ends.
func Start(t testing.TB, config ...string) *Server {
	t.Helper()
	dir := t.TempDir()
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		User: who.Username, Dir: dir, Home: filepath.Join(dir, "home"),
		Identity: filepath.Join(dir, "home", ".ssh", "id_ed25519"), HostKey: filepath.Join(dir, "host_ed25519"),
		KnownHosts: filepath.Join(dir, "home", ".ssh", "known_hosts"),
	}
	if err := os.MkdirAll(filepath.Join(s.Home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	Keygen(t, s.HostKey)
	Keygen(t, s.Identity)
	public := Read(t, s.Identity+".pub")
	Write(t, filepath.Join(dir, "authorized_keys"), public)
	s.start(t, config)
	Write(t, s.KnownHosts, s.KnownHostLine(t))
	return s
}

// KnownHostLine returns the line that files of known hosts have for the server.
func (s *Server) KnownHostLine(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("[127.0.0.1]:%d %s", s.Port, Read(t, s.HostKey+".pub"))
}

// URL returns the server's address with a path, which may be empty.
func (s *Server) URL(path string) string {
	return fmt.Sprintf("ssh://%s@127.0.0.1:%d%s", s.User, s.Port, path)
}

// Env is an environment whose home is the server's Home, without an agent.
func (s *Server) Env(name string) string {
	return map[string]string{"HOME": s.Home, "USER": s.User}[name]
}

// Kick ends all connections of the server, as a loss of the network does, and leaves it running.
func (s *Server) Kick(t testing.TB) {
	t.Helper()
	if err := s.kick(); err != nil {
		t.Fatal(err)
	}
}

// kick ends the children of the listener: they serve the connections.
func (s *Server) kick() error {
	pid := s.process.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return fmt.Errorf("list the connections of sshd: %w", err)
	}
	for text := range strings.FieldsSeq(string(children)) {
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("list the connections of sshd: %w", err)
		}
		if child, err := os.FindProcess(n); err == nil {
			_ = child.Kill() // it may have ended
		}
	}
	return nil
}

// Log returns what the server has logged so far.
func (s *Server) Log() string { return s.log.String() }

// attempts is how many ports are tried: between finding a free one and using it somebody else may take it.
const attempts = 5

func (s *Server) start(t testing.TB, config []string) {
	t.Helper()
	binary, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		t.Fatal("there is no /usr/sbin/sshd: install openssh-server")
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where sshd locks its less trusted half in
		t.Fatal(err)
	}
	for range attempts {
		s.Port = freePort(t)
		if s.try(t, binary, config) {
			return
		}
	}
	t.Fatalf("sshd does not start:\n%s", s.Log())
}

func (s *Server) try(t testing.TB, binary string, config []string) bool {
	t.Helper()
	file := filepath.Join(s.Dir, "sshd_config")
	lines := append([]string{
		"ListenAddress 127.0.0.1", "Port " + strconv.Itoa(s.Port), "HostKey " + s.HostKey, "PidFile none",
		"AuthorizedKeysFile " + filepath.Join(s.Dir, "authorized_keys"), "StrictModes no", "UsePAM no", "PermitRootLogin yes",
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "LogLevel VERBOSE", "PrintMotd no",
	}, config...)
	Write(t, file, strings.Join(lines, "\n")+"\n")
	s.log, s.ended = &logBuffer{}, make(chan struct{})
	s.process = exec.CommandContext(context.WithoutCancel(t.Context()), binary, "-D", "-e", "-f", file)
	s.process.Stderr = s.log
	s.process.WaitDelay = time.Second // what a user has started may hold the log open
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func(process *exec.Cmd, ended chan struct{}) {
		process.Wait() //nolint:errcheck // it is killed at the end
		close(ended)
	}(s.process, s.ended)
	t.Cleanup(s.Stop)
	return s.answers(t)
}

// Stop ends the server and its connections; the end of the test does that too.
func (s *Server) Stop() {
	_ = s.kick() // it may have ended
	_ = s.process.Process.Kill()
	<-s.ended
}

// answers waits until the server greets.
func (s *Server) answers(t testing.TB) bool {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)))
		if err == nil {
			greeting, _ := bufio.NewReader(conn).ReadString('\n')
			_ = conn.Close()
			return strings.HasPrefix(greeting, "SSH-2.0")
		}
		select {
		case <-s.ended:
			return false
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-tick.C:
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// Keygen makes a key of a kind without a passphrase, or with what the options say.
func Keygen(t testing.TB, file string, options ...string) {
	t.Helper()
	arguments := append([]string{"-q", "-f", file, "-C", "test"}, options...)
	if len(options) == 0 {
		arguments = append(arguments, "-t", "ed25519", "-N", "")
	}
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", arguments...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
}

// Read returns a file's content.
func Read(t testing.TB, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// Write writes a file that only its owner may read.
func Write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
