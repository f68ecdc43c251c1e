package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/remote"
	"github.com/tranter-ci/tranter/internal/remote/sshtest"
)

// sshHost is a host on a real SSH server.
type sshHost struct {
	*remote.Conn

	environment []string
}

func (h sshHost) Check(context.Context) error { return nil }
func (h sshHost) Environment() []string       { return h.environment }

func (h sshHost) Shell(ctx context.Context, command string, pty *remote.PTY, stdin io.Reader, stdout, stderr io.Writer) error {
	return h.Conn.Shell(ctx, command, pty, remote.Streams{In: stdin, Out: stdout, Err: stderr})
}

// tlsHost is one whose engine wants certificates.
type tlsHost struct {
	sshHost

	key string
}

func (h tlsHost) Certificates() (authority, certificate, key string) { return "ca", "cert", h.key }

// bareHost is one that nobody can be let into.
type bareHost struct{}

func (bareHost) Check(context.Context) error { return nil }
func (bareHost) Close() error                { return nil }

// hosted has a manager whose machine runner-t1-a is a real SSH server.
func hosted(t *testing.T, environment ...string) (machineHarness, *fakePool, *sshtest.Server) {
	t.Helper()
	server := sshtest.Start(t)
	target, _, err := remote.Find(server.URL(""), server.Env)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := remote.Dial(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	builders, _ := twoPools()
	builders.hosts = map[string]pool.Host{"runner-t1-a": sshHost{Conn: conn, environment: environment}, "runner-t1-b": bareHost{}}
	return managed(t, fleetOf(builders)), builders, server
}

func TestACommandOnAMachineHasItsStreamsAndItsExitCode(t *testing.T) {
	t.Parallel()
	h, _, _ := hosted(t)
	for name, c := range map[string]struct {
		args      []string
		in        string
		out, errs string
		code      int
	}{
		"streams apart":      {args: []string{"tr a-z A-Z; echo oops >&2"}, in: "hello", out: "HELLO", errs: "oops\n"},
		"words":              {args: []string{"printf", "%s.", "a b", "$HOME", "it's"}, out: "a b.$HOME.it's."},
		"flags are its own":  {args: []string{"expr", "--version", "-f"}, out: "", code: 2, errs: "expr: syntax error"},
		"its exit code":      {args: []string{"exit 7"}, code: 7},
		"a signal":           {args: []string{"kill -9 $$"}, code: 255},
		"reads no input":     {args: []string{"echo done"}, in: strings.Repeat("x", 1<<20), out: "done\n"},
		"a shell of a pipe":  {in: "echo $((6*7))\nexit 3\n", out: "42\n", code: 3},
		"the end is no line": {args: []string{"cat"}, in: "no end", out: "no end"},
	} {
		var out, errs bytes.Buffer
		code := h.streams(streams{in: strings.NewReader(c.in), out: &out, err: &errs}, append([]string{"ssh", "runner-t1-a"}, c.args...)...)
		if name == "flags are its own" { // the text is expr's
			c.errs = errs.String()
		}
		if code != c.code || !strings.HasSuffix(out.String(), c.out) || c.out == "" && out.Len() > 0 || errs.String() != c.errs {
			t.Errorf("%s: code %d, out %q, err %q", name, code, out.String(), errs.String())
		}
	}
	// Bytes of any value and number come through.
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	var out, errs bytes.Buffer
	if code := h.streams(streams{in: bytes.NewReader(data), out: &out, err: &errs}, "ssh", "t1-a", "cat"); code != 0 || !bytes.Equal(out.Bytes(), data) || errs.Len() > 0 {
		t.Errorf("code %d, %d of %d bytes, %s", code, out.Len(), len(data), errs.String())
	}
}

// A machine that is lost meanwhile is told from a command that fails.
func TestAMachineThatIsLostUnderACommandIsTold(t *testing.T) {
	t.Parallel()
	h, _, server := hosted(t)
	shown, out := io.Pipe()
	go func() {
		_, _ = io.ReadFull(shown, make([]byte, 5))
		server.Kick(t)
		_, _ = io.Copy(io.Discard, shown)
	}()
	defer out.Close()
	input, typing := io.Pipe()
	defer typing.Close()
	var errs bytes.Buffer
	if code := h.streams(streams{in: input, out: out, err: &errs}, "ssh", "runner-t1-a", "echo here; cat"); code != 1 || !strings.Contains(errs.String(), "connection was lost") {
		t.Errorf("code %d, %s", code, errs.String())
	}
}

func TestAShellInAWindowHasItsSize(t *testing.T) {
	t.Parallel()
	h, _, _ := hosted(t)
	c := &machineClient{controlClient: newControlClient(h.state)}
	shell, err := c.shell(t.Context(), "runner-t1-a", "stty size; read x; stty size; tty >/dev/null && echo tty $TERM", &remote.PTY{Term: "vt100", Size: remote.Size{Columns: 101, Rows: 33}})
	if err != nil {
		t.Fatal(err)
	}
	defer shell.Close()
	seen := make([]byte, 0, 100)
	one := make([]byte, 1)
	for !bytes.Contains(seen, []byte("\n")) {
		if _, err := shell.Read(one); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, one...)
	}
	if err := shell.Resize(55, 22); err != nil {
		t.Fatal(err)
	}
	// The size and what is typed go different ways: it is typed once the size is known to have come.
	time.AfterFunc(200*time.Millisecond, func() { _, _ = shell.Write([]byte("\n")) })
	rest, err := io.ReadAll(shell)
	code, ok := shell.ExitCode()
	if err != nil || !ok || code != 0 || !strings.Contains(string(seen), "33 101") || !strings.Contains(string(rest), "22 55") || !strings.Contains(string(rest), "tty vt100") {
		t.Errorf("%q, %q, code %d, %v, %v", seen, rest, code, ok, err)
	}
}

func TestAUserWhoLeavesEndsTheCommand(t *testing.T) {
	t.Parallel()
	h, _, _ := hosted(t)
	mark := filepath.Join(h.state, "mark")
	c := &machineClient{controlClient: newControlClient(h.state)}
	shell, err := c.shell(t.Context(), "runner-t1-a", "echo here; cat; echo ended > "+mark, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(shell, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if err := shell.Close(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(mark); err == nil {
			return // its input has ended, as that of a closed window does
		}
		select {
		case <-t.Context().Done():
			t.Fatal("it goes on")
		case <-tick.C:
		}
	}
}

func TestMachinesThatNobodyCanBeLetInto(t *testing.T) {
	t.Parallel()
	h, _, _ := hosted(t)
	for name, want := range map[string]string{
		"runner-t1-b": "machine runner-t1-b has no shell", "runner-t1-c": "reach machine runner-t1-c, which is removing: it does not answer", "other": `there is no machine "other"`,
	} {
		for _, command := range []string{"ssh", "env"} {
			if out, code := h.run(command, name); code != 1 || !strings.Contains(out, want) {
				t.Errorf("%s %s: code %d, %s", command, name, code, out)
			}
		}
	}
	c := &machineClient{controlClient: newControlClient(h.state)}
	for _, query := range []string{"columns=x&rows=1", "columns=1", "columns=70000&rows=1"} {
		if _, err := c.terminal(t.Context(), machinePath("runner-t1-a", "/shell?"+query)); err == nil || !strings.Contains(err.Error(), "of the window") {
			t.Errorf("%s: %v", query, err)
		}
	}
}

func TestTheEnvironmentOfAMachineIsForAnyShell(t *testing.T) {
	t.Parallel()
	h, builders, _ := hosted(t, "DOCKER_HOST=ssh://root@10.0.0.1:2222")
	for shell, want := range map[string]string{
		"sh":         "export DOCKER_HOST=ssh://root@10.0.0.1:2222\nexport DOCKER_MACHINE_NAME=runner-t1-a\n# The key of the machine: ssh-add '/keys/a b'\n# To use it: eval \"$(tranter machine env runner-t1-a)\"\n",
		"fish":       "set -gx DOCKER_HOST 'ssh://root@10.0.0.1:2222';\nset -gx DOCKER_MACHINE_NAME 'runner-t1-a';\n",
		"powershell": "$Env:DOCKER_HOST = 'ssh://root@10.0.0.1:2222'\n$Env:DOCKER_MACHINE_NAME = 'runner-t1-a'\n",
	} {
		if out, code := h.run("env", "t1-a", "--shell", shell); code != 0 || !strings.HasPrefix(out, want) {
			t.Errorf("%s: code %d, %s", shell, code, out)
		}
	}
	if out, code := h.run("env", "--unset"); code != 0 || !strings.Contains(out, "unset DOCKER_HOST\n") || !strings.Contains(out, "unset DOCKER_CERT_PATH\n") {
		t.Errorf("code %d, %s", code, out)
	}
	for _, c := range [][]string{{"env"}, {"env", "t1-a", "--shell", "csh"}} {
		if out, code := h.run(c...); code != 1 || !strings.Contains(out, "tranter: ") {
			t.Errorf("%q: code %d, %s", c, code, out)
		}
	}
	host := builders.hosts["runner-t1-a"].(sshHost)
	host.environment = []string{"DOCKER_HOST=tcp://10.0.0.1:2376", "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=/elsewhere", "DOCKER_MACHINE_NAME=runner-t1-a"}
	builders.hosts["runner-t1-a"] = tlsHost{host, "key"}
	if out, code := h.run("env", "t1-a"); code != 1 || !strings.Contains(out, "--dir") {
		t.Errorf("code %d, %s", code, out)
	}
	dir := filepath.Join(h.state, "it's", "certs")
	put(t, filepath.Join(dir, "key.pem"), "an old one that all may read")
	out, code := h.run("env", "t1-a", "--dir", dir)
	want := "export DOCKER_HOST=tcp://10.0.0.1:2376\nexport DOCKER_TLS_VERIFY=1\nexport DOCKER_CERT_PATH=" + shellWord(dir) + "\nexport DOCKER_MACHINE_NAME=runner-t1-a\n"
	if code != 0 || !strings.HasPrefix(out, want) {
		t.Errorf("code %d, got\n%swant\n%s", code, out, want)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		data, err2 := os.ReadFile(filepath.Join(dir, e.Name()))
		if err := errors.Join(err, err2); err != nil || info.Mode().Perm() != 0o600 || string(data)+".pem" != e.Name() {
			t.Errorf("%s: mode %v, %q, %v", e.Name(), info.Mode(), data, err)
		}
	}
	builders.hosts["runner-t1-a"] = tlsHost{host, ""} // through SSH
	if out, code := h.run("env", "t1-a"); code != 0 || strings.Contains(out, "CERT_PATH") {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestLinesForShellsAreQuoted(t *testing.T) {
	for shell, want := range map[string]string{
		"sh": `export N='a'\''b\c$d'`, "fish": `set -gx N 'a\'b\\c$d';`, "powershell": `$Env:N = 'a''b\c$d'`,
	} {
		if got := shellSyntaxes()[shell].set("N", `a'b\c$d`); got != want {
			t.Errorf("%s: %s, want %s", shell, got, want)
		}
	}
}
