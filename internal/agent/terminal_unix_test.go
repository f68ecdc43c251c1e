//go:build unix

package agent_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
)

// screen is an open terminal and what it has shown.
type screen struct {
	tranter.Terminal
	shown watched
	ended chan error
}

// openScreen opens a terminal beside the phase, and reads what it shows.
func openScreen(t *testing.T, p *play) *screen {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	term, err := agent.OpenTerminal(ctx, p.dir, p.launch)
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{Terminal: term, ended: make(chan error, 1)}
	go func() {
		_, err := io.Copy(&s.shown, term)
		s.ended <- err
	}()
	t.Cleanup(func() { _ = term.Close() })
	return s
}

func (s *screen) typed(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(s, text); err != nil {
		t.Fatal(err)
	}
}

// see waits until a text was shown.
func (s *screen) see(t *testing.T, text string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(s.shown.String(), text) {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%q was not shown, but:\n%s", text, s.shown.String())
		}
	}
}

// exit waits for the shell's end and returns its exit code.
func (s *screen) exit(t *testing.T) int {
	t.Helper()
	select {
	case err := <-s.ended:
		code, ok := s.ExitCode()
		if err != nil || !ok {
			t.Fatalf("it ended by %v, exit code known: %v; shown:\n%s", err, ok, s.shown.String())
		}
		return code
	case <-time.After(20 * time.Second):
		t.Fatalf("the shell does not end; shown:\n%s", s.shown.String())
	}
	return 0
}

// until is a script that goes on until the file is there.
func until(p *play, name string) string {
	return "until test -e " + p.file(name) + "; do sleep 0.02; done"
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestATerminalIsWhereTheJobIs(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("true"), afterScript("true"))
	p.phase.Steps[0].Script.Commands = []string{"echo FROM_THE_JOB=yes >> $GITLAB_ENV", "unset HUGE", until(p, "go")}
	p.phase.Variables = []tranter.Variable{
		{Key: "PLAIN", Value: "a 'b' $c"}, {Key: "PAPER", Value: "in the file", File: true}, {Key: "HUGE", Value: strings.Repeat("x", 200<<10)},
	}
	p.start(t)
	s := openScreen(t, p)
	s.typed(t, "test -t 0 && test -t 1 && echo is-a-'tty'; echo \"<$PLAIN>\"; cat $PAPER; echo \"=$PWD=\"\n")
	s.see(t, "is-a-tty")
	s.see(t, "<a 'b' $c>")
	s.see(t, "in the file")
	s.see(t, "="+p.phase.Dirs.Project+"=")
	if err := s.Resize(91, 17); err != nil {
		t.Fatal(err)
	}
	s.typed(t, "stty size; exit 3\n")
	if code := s.exit(t); code != 3 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(s.shown.String(), "17 91") {
		t.Errorf("the size of the window is not that of the user's:\n%s", s.shown.String())
	}
	touch(t, p.file("go"))
	if r := p.end(t); r.Status != tranter.PhaseSucceeded {
		t.Errorf("the job ended with %+v", r)
	}
	without(t, p.log.String(), "is-a-tty", "left behind")
}

// What a user does in a terminal is neither counted nor ended by the running job, and gone after it.
func TestProcessesOfATerminal(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("true"), afterScript("true"))
	p.phase.Steps[0].Script.Commands = []string{until(p, "go")}
	p.start(t)
	s := openScreen(t, p)
	pidFile := p.file("pid")
	s.typed(t, "(trap '' HUP TERM; setsid sh -c 'echo $$ > "+pidFile+".tmp; mv "+pidFile+".tmp "+pidFile+"; exec sleep 1000') &\n")
	pid := ""
	s.see(t, "sleep 1000")
	for deadline := time.Now().Add(10 * time.Second); pid == "" && time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		data, _ := os.ReadFile(pidFile)
		pid = strings.TrimSpace(string(data))
	}
	alive := func() bool {
		stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		return err == nil && !strings.Contains(string(stat), ") Z ")
	}
	touch(t, p.file("go"))
	if r := p.end(t); r.Status != tranter.PhaseSucceeded {
		t.Errorf("the job ended with %+v", r)
	}
	without(t, p.log.String(), "left behind")
	if pid == "" || !alive() {
		t.Fatal("the job's end took a process of the terminal along")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := agent.End(p.dir); err != nil {
		t.Fatal(err)
	}
	if alive() {
		t.Error("a process of the terminal is left")
	}
}

func TestATerminalWaitsForTheSources(t *testing.T) {
	t.Parallel()
	repo := t.TempDir()
	git := func(args ...string) string {
		out, err := exec.Command("git", append([]string{"-C", repo}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main")
	git("-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "--allow-empty", "-m", "first")
	p := newPlay(t, tranter.Step{Name: "get_sources", When: tranter.OnSuccess, Sources: &tranter.SourcesStep{
		Strategy: "fetch", RepoURL: "file://" + repo, Ref: "main", SHA: git("rev-parse", "HEAD"), Refspecs: []string{"+refs/heads/*:refs/remotes/origin/*"},
	}}, userScript("true"))
	p.phase.Steps[0].Sources.PreScripts = []string{until(p, "sources")}
	p.phase.Steps[1].Script.Commands = []string{until(p, "go")}
	p.start(t)
	brief, stop := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("waited"))
	defer stop()
	if term, err := agent.OpenTerminal(brief, p.dir, p.launch); err == nil || !strings.Contains(err.Error(), "waited") {
		t.Errorf("while the sources are fetched: %v, %v", term, err)
		if term != nil {
			_ = term.Close()
		}
	}
	touch(t, p.file("sources"))
	s := openScreen(t, p)
	s.typed(t, "exit\n")
	s.exit(t)
	touch(t, p.file("go"))
	p.end(t)
	if _, err := agent.OpenTerminal(t.Context(), p.dir, p.launch); !errors.Is(err, tranter.ErrJobEnded) {
		t.Errorf("after the end of the job: %v", err)
	}
}

func TestHowATerminalEnds(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("true"))
	p.phase.Steps[0].Script.Commands = []string{until(p, "go")}
	p.start(t)

	s := openScreen(t, p) // there is no more input, and a program in between reads what there is
	s.typed(t, "cat\nline for the cat\n")
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if code := s.exit(t); code != 0 {
		t.Errorf("end of input: exit code %d", code)
	}

	s = openScreen(t, p)
	s.typed(t, "kill -KILL $$\n")
	if code := s.exit(t); code != 137 {
		t.Errorf("a killed shell: exit code %d", code)
	}

	s = openScreen(t, p) // a background process holds the terminal
	s.typed(t, "(trap '' HUP; sleep 600) & exit 5\n")
	if code := s.exit(t); code != 5 {
		t.Errorf("with a process in the background: exit code %d", code)
	}

	s = openScreen(t, p) // nobody reads what is typed, and the user goes
	s.typed(t, "stty raw; trap '' HUP; sleep 600\n")
	go func() { _, _ = s.Write([]byte(strings.Repeat("x", 1<<20))) }()
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("hanging up took %v", took)
	}
	touch(t, p.file("go"))
	p.end(t)
}
