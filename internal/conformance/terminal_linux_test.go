package conformance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/creack/pty"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

// freeAddress is an address that nobody listens on, which stays the same over restarts.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// access is what GitLab was told with the request that brought the last job.
func (r *rig) access() tranter.Access {
	r.t.Helper()
	var body struct {
		Session tranter.Access `json:"session"`
		Info    struct {
			Features tranter.Features `json:"features"`
		} `json:"info"`
	}
	r.eventually("a terminal is offered with the request that brings a job", func() bool {
		for _, c := range r.Calls(coordinatortest.Request) {
			if c.Status == http.StatusCreated && json.Unmarshal(c.Body, &body) != nil {
				r.t.Fatalf("a request without JSON: %s", c.Body)
			}
		}
		return body.Session.URL != ""
	})
	if !body.Info.Features.Session || !body.Info.Features.Terminal {
		r.t.Errorf("terminals are not among the features: %+v", body.Info.Features)
	}
	return body.Session
}

// dial does what GitLab does for a user who opens a job's terminal.
func dial(t *testing.T, a tranter.Access, protocol string) (*websocket.Conn, int, error) {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(a.Certificate)) {
		t.Fatalf("no certificate: %s", a.Certificate)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	t.Cleanup(client.CloseIdleConnections)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	conn, resp, err := websocket.Dial(ctx, a.URL+"/exec", &websocket.DialOptions{ //nolint:bodyclose // Dial's caller need not
		HTTPClient: client, HTTPHeader: http.Header{"Authorization": {a.Authorization.Reveal()}}, Subprotocols: []string{protocol},
	})
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	if conn != nil {
		t.Cleanup(func() { _ = conn.CloseNow() })
	}
	return conn, status, err
}

// open dials until the manager has taken the job up: GitLab knows of it a moment before.
func (r *rig) open(a tranter.Access) (conn *websocket.Conn) {
	r.t.Helper()
	r.eventually("the job has a terminal", func() bool {
		var err error
		conn, _, err = dial(r.t, a, "terminal.gitlab.com")
		return err == nil
	})
	return conn
}

// shows reads until the terminal has shown a text, or has ended.
func shows(t *testing.T, conn *websocket.Conn, text string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	shown := ""
	for !strings.Contains(shown, text) {
		kind, message, err := conn.Read(ctx)
		if err != nil {
			t.Fatalf("%q was not shown (%v), but:\n%s", text, err, shown)
		}
		if kind == websocket.MessageText {
			if message, err = base64.StdEncoding.DecodeString(string(message)); err != nil {
				t.Fatal(err)
			}
		}
		shown += string(message)
	}
	return shown
}

func TestATerminalInGitLab(t *testing.T) { onEach(t, testATerminalInGitLab) }

func testATerminalInGitLab(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, fmt.Sprintf("[session_server]\nlisten_address = %q\n", freeAddress(t)), "")
	r.start()
	id := r.Enqueue(with(script("touch started; until test -e go; do sleep 0.05; done; echo over"), "PLACE", "the job's"))
	r.Wait(id, coordinator.Running)
	a := r.access()
	conn := r.open(a)
	if got := conn.Subprotocol(); got != "terminal.gitlab.com" {
		t.Errorf("subprotocol %q", got)
	}
	if err := conn.Write(t.Context(), websocket.MessageBinary, []byte("echo \"<$PLACE>\" $((6*7)); pwd\n")); err != nil {
		t.Fatal(err)
	}
	shows(t, conn, "<the job's> 42")
	if _, status, _ := dial(t, a, "terminal.gitlab.com"); status != http.StatusLocked {
		t.Errorf("a second terminal: status %d", status)
	}
	wrong := a
	wrong.Authorization = "wrong"
	if _, status, _ := dial(t, wrong, "terminal.gitlab.com"); status != http.StatusUnauthorized {
		t.Errorf("a wrong token: status %d", status)
	}
	if out, code := r.tool("job", "attach", strconv.FormatInt(id, 10), "--config", r.path("config.toml"), "--state-dir", r.path("state")); code != 1 || !strings.Contains(out, "one at a time") {
		t.Errorf("attach while GitLab's user is in: code %d, %s", code, out)
	}

	// The manager crashes. The job, and the access to it, go on.
	r.kill()
	r.start()
	r.eventually("a terminal can be opened after a crash of the manager", func() bool {
		var err error
		conn, _, err = dial(t, a, "base64.terminal.gitlab.com")
		return err == nil
	})
	line := base64.StdEncoding.EncodeToString([]byte("echo \"<$PLACE>\" $((7*7)); pwd; touch ../go go\n"))
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(line)); err != nil {
		t.Fatal(err)
	}
	shows(t, conn, "<the job's> 49")

	// The job's script ends with the terminal attached: the environment stays, visibly, until the terminal is closed.
	r.eventually("the status shows that the job waits for the terminal", func() bool {
		out, _ := r.tool("job", "ls", "--config", r.path("config.toml"), "--state-dir", r.path("state"))
		return strings.Contains(out, "terminal open, until ") && strings.Contains(out, "attached")
	})
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(base64.StdEncoding.EncodeToString([]byte("echo still $((8*8)); exit\n")))); err != nil {
		t.Fatal(err)
	}
	shows(t, conn, "still 64")
	r.Wait(id, coordinator.Success)
	if log := r.Log(id); !strings.Contains(log, "over\n") || !strings.Contains(log, "A terminal is attached") || !strings.Contains(log, "Job succeeded") {
		t.Errorf("log:\n%s", log)
	}
	r.eventually("the session is gone with the job", func() bool {
		_, status, _ := dial(t, a, "terminal.gitlab.com")
		return status == http.StatusNotFound
	})
	info, err := os.Stat(filepath.Join(r.path("state"), "session-server.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the server's key: %v, %v", info, err)
	}
}

func TestDrainDoesNotWaitForATerminal(t *testing.T) { onEach(t, testDrainDoesNotWaitForATerminal) }

func testDrainDoesNotWaitForATerminal(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, fmt.Sprintf("[session_server]\nlisten_address = %q\n", freeAddress(t)), "")
	r.start()
	id := r.Enqueue(script("until test -e go; do sleep 0.05; done"))
	r.Wait(id, coordinator.Running)
	conn := r.open(r.access())
	if err := conn.Write(t.Context(), websocket.MessageBinary, []byte("touch go; (trap '' HUP; setsid sleep 4747) & echo $((9*9))\n")); err != nil {
		t.Fatal(err)
	}
	shows(t, conn, "81")
	r.eventually("the job waits for the terminal", func() bool {
		out, _ := r.tool("status", "--config", r.path("config.toml"), "--state-dir", r.path("state"))
		return strings.Contains(out, "terminal open, until ")
	})
	r.signal(syscall.SIGQUIT)
	if code := r.wait(20 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := r.Job(id).Status; got != coordinator.Success {
		t.Errorf("the job is %s", got)
	}
	if out, err := exec.Command("pgrep", "-f", "^sleep 4747$").Output(); err == nil {
		t.Errorf("a process of the terminal is left: %s", out)
	}
}

func TestAttachFromTheCommandLine(t *testing.T) { onEach(t, testAttachFromTheCommandLine) }

func testAttachFromTheCommandLine(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "") // no session server is needed
	attach := func(args ...string) *exec.Cmd {
		return r.command(append([]string{"job", "attach", "--config", r.path("config.toml"), "--state-dir", r.path("state")}, args...)...)
	}
	if out, err := attach("1").CombinedOutput(); err == nil || !strings.Contains(string(out), "no manager is running") {
		t.Errorf("without a manager: %v, %s", err, out)
	}
	r.start()
	r.eventually("the manager answers", func() bool {
		out, _ := attach("1").CombinedOutput()
		return strings.Contains(string(out), "no job is running")
	})
	job := with(script("until test -e go; do sleep 0.05; done"), "PLACE", "the job's")
	job.Info.Name = "rspec 1/2"
	id := r.Enqueue(job)
	r.Wait(id, coordinator.Running)
	if out, err := attach().CombinedOutput(); err == nil || !strings.Contains(string(out), "rspec 1/2") || !strings.Contains(string(out), "which job") {
		t.Errorf("without a job: %v, %s", err, out)
	}
	if out, err := attach("nothing").CombinedOutput(); err == nil || !strings.Contains(string(out), `no job "nothing"`) {
		t.Errorf("an unknown job: %v, %s", err, out)
	}
	piped := attach("rspec 1/2")
	piped.Stdin = strings.NewReader("echo \"<$PLACE>\" $((2*21))\nexit 9")
	out, err := piped.CombinedOutput()
	if code := piped.ProcessState.ExitCode(); code != 9 || !strings.Contains(string(out), "<the job's> 42") {
		t.Errorf("from a pipe: %v, code %d\n%s", err, code, out)
	}

	window := attach(strconv.FormatInt(id, 10))
	file, err := pty.StartWithSize(window, &pty.Winsize{Rows: 21, Cols: 77})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	shown := &output{}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer := make([]byte, 4096)
		for {
			n, err := file.Read(buffer)
			_, _ = shown.Write(buffer[:n])
			if err != nil {
				return
			}
		}
	}()
	typed := func(text, want string) {
		t.Helper()
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
		limit := time.After(20 * time.Second)
		for !strings.Contains(shown.String(), want) {
			select {
			case <-limit:
				t.Fatalf("%q was not shown, but:\n%s", want, shown)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	typed("stty size; echo \"<$PLACE>\" $((3*21))\r", "<the job's> 63")
	if !strings.Contains(shown.String(), "21 77") {
		t.Errorf("the size of the window did not arrive:\n%s", shown)
	}
	if err := pty.Setsize(file, &pty.Winsize{Rows: 33, Cols: 99}); err != nil {
		t.Fatal(err)
	}
	r.eventually("a change of the window's size arrives", func() bool {
		typed("stty size; echo ok-$((1+1))\r", "ok-2")
		return strings.Contains(shown.String(), "33 99")
	})
	typed("sleep 60\r", "sleep 60")
	typed("\x03", "^C")
	typed("echo after-$((4*4))\r", "after-16")
	typed("\x1d", "Detached")
	<-read
	if err := window.Wait(); err != nil {
		t.Errorf("detached: %v\n%s", err, shown)
	}
	last := attach(strconv.FormatInt(id, 10))
	last.Stdin = strings.NewReader("touch go\n")
	if out, err := last.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	r.Wait(id, coordinator.Success)
}
