package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/tranter-ci/tranter/internal/view"
)

// topServer answers on a control socket as a manager does.
type topServer struct {
	mu       sync.Mutex
	snapshot view.Snapshot
	paused   []string
}

func (s *topServer) serve(t *testing.T, dir string) {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(dir, controlSocket))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /snapshot", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(s.snapshot)
	})
	mux.HandleFunc("GET /events", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("POST /runners/{name}/pause", func(_ http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.paused = append(s.paused, r.PathValue("name"))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	var owned sync.WaitGroup
	owned.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		_ = server.Close()
		owned.Wait()
	})
}

// topScreen is what a terminal got.
type topScreen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *topScreen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *topScreen) got() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits for a text after the first so many bytes.
func (s *topScreen) await(t *testing.T, from int, text string) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(s.got()[from:], text) {
		select {
		case <-deadline.C:
			t.Fatalf("%q did not come:\n%q", text, s.got()[from:])
		case <-tick.C:
		}
	}
}

func TestTopRunsInATerminal(t *testing.T) {
	dir := shortDir(t)
	server := &topServer{snapshot: topScene().snapshot}
	server.serve(t, dir)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "top", "--state-dir", dir, "-c", filepath.Join(dir, "none.toml"))
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "NO_COLOR=1")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	screen := &topScreen{}
	var owned sync.WaitGroup
	owned.Go(func() { _, _ = io.Copy(screen, terminal) })
	defer owned.Wait()
	defer terminal.Close()

	screen.await(t, 0, "2 of 10 possible jobs")
	screen.await(t, 0, "q quit")
	if got := screen.got(); strings.Contains(got, "\x1b[31m") || strings.Contains(got, "\x9b") || strings.Contains(got, "rspec \x1b[2J") {
		t.Errorf("colours in spite of NO_COLOR, or a job's name is obeyed: %q", got)
	}
	// What stands still costs nothing.
	still := len(screen.got())
	quiet := time.NewTimer(2500 * time.Millisecond)
	<-quiet.C
	if n := len(screen.got()) - still; n > 200 {
		t.Errorf("%d bytes in 2.5 s though nothing has changed", n)
	}
	from := len(screen.got())
	press(t, terminal, "4p")
	screen.await(t, from, "Pause runner builders")
	press(t, terminal, "y")
	screen.await(t, from, "Done")
	server.mu.Lock()
	if len(server.paused) != 1 || server.paused[0] != "t1" {
		t.Errorf("paused %v", server.paused)
	}
	server.mu.Unlock()
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 30, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	press(t, terminal, "q")
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	screen.await(t, from, "\x1b[?1049l") // the terminal is as it was before
}

func press(t *testing.T, terminal io.Writer, keys string) {
	t.Helper()
	for _, key := range keys {
		if _, err := io.WriteString(terminal, string(key)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTopPrintsOnceWhereThereIsNoTerminal(t *testing.T) {
	dir := shortDir(t)
	none := filepath.Join(dir, "none.toml")
	if code, _, errs := command(t.Context(), "top", "--once", "--state-dir", dir, "-c", none); code != 1 || !strings.Contains(errs, "no manager is running") {
		t.Errorf("without a manager: code %d, %s", code, errs)
	}
	server := &topServer{snapshot: topScene().snapshot}
	server.serve(t, dir)
	for args, want := range map[string]string{
		"top":                      "Jobs: 2\nJOB  NAME",
		"job why 8":                "Job 8 (build of group/app). It was taken 20m00s ago",
		"job why 9":                "It has waited in GitLab for ",
		"runner ls --output wide":  "RUNNER  NAME      EXECUTOR        JOBS  LAST ANSWER",
		"runner pause builders":    "Runner builders takes no more jobs.\n",
		"__complete job cancel":    "",
		"__complete runner pause ": "builders\tdocker+machine at https://gitlab.example.com",
		"job inspect 8":            `"key": "8-k"`,
	} {
		words := strings.Split(args, " ")
		if words[0] == "__complete" {
			words = append(words[:3:3], "--state-dir", dir, "-c", none, "")
		} else {
			words = append(words, "--state-dir", dir, "-c", none)
		}
		code, out, errs := command(t.Context(), words...)
		if code != 0 || !strings.Contains(strings.ReplaceAll(out, "It was taken "+view.Since(topScene().snapshot.Jobs[1].Times.Taken, time.Now()), "It was taken 20m00s"), want) {
			t.Errorf("%s: code %d, got %s%s", args, code, out, errs)
		}
	}
}
