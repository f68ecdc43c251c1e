package executortest

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
)

// terminals checks those of executors that have them: they are in the job's environment, as the job's user, and all that
// was started in one is gone after Close.
func terminals(t *testing.T, s Subject) {
	j := Open(t, s)
	session, ok := j.Session.(tranter.TerminalSession)
	if !ok {
		return
	}
	j.Start(j.Phase("1", []string{`echo "job=$(id -u):$PWD:$LEVEL"`, "echo ready", "sleep 1000"}))
	log := j.Await("1", "\nready")
	j.terminalEnds(j.terminal(session), after(log, "\njob="))
	j.terminalIsEnded(j.terminal(session))
	if _, err := session.Terminal(j.context(), "1"); err == nil {
		t.Error("a terminal can be opened after close")
	}
	j.noSecretsLeft()
}

// terminal opens a terminal of phase 1.
func (j *Job) terminal(session tranter.TerminalSession) tranter.Terminal {
	j.t.Helper()
	term, err := session.Terminal(j.context(), "1")
	if err != nil {
		j.t.Fatalf("open a terminal: %v", err)
	}
	return term
}

// terminalEnds checks one whose shell ends by itself, and that it is where the job is.
func (j *Job) terminalEnds(term tranter.Terminal, place string) {
	j.t.Helper()
	typed(j.t, term, `echo "job=$(id -u):$PWD:$LEVEL"; exit 3`)
	shown, err := io.ReadAll(term)
	if code, known := term.ExitCode(); err != nil || code != 3 || !known {
		j.t.Errorf("exit code %d, known: %v, %v\n%s", code, known, err, shown)
	}
	if place == "" || !strings.Contains(string(shown), "job="+place) {
		j.t.Errorf("the terminal is elsewhere than the job, at %q:\n%s", place, shown)
	}
	if err := errors.Join(term.Close(), term.Close()); err != nil {
		j.t.Errorf("close: %v", err)
	}
}

// terminalIsEnded closes the session, and checks that the terminal ends with all that was started in it.
func (j *Job) terminalIsEnded(term tranter.Terminal) {
	j.t.Helper()
	typed(j.t, term, `(trap "" HUP TERM; setsid sleep 1000 & echo pid=$!; wait) & sleep 1000`)
	pid, alive := j.shownPID(term), j.subject.Alive
	if alive != nil && !alive(pid) {
		j.t.Fatalf("no process %d", pid)
	}
	if err := j.Session.Close(j.context()); err != nil {
		j.t.Errorf("close with an open terminal: %v", err)
	}
	if alive != nil && alive(pid) {
		j.t.Error("a process of the terminal is left after close")
	}
	if rest, err := io.ReadAll(term); err == nil {
		if _, known := term.ExitCode(); !known {
			j.t.Errorf("a terminal that was killed reads as one whose shell has ended: %s", rest)
		}
	}
	if err := term.Close(); err != nil {
		j.t.Errorf("close after the session: %v", err)
	}
}

// shownPID reads what the terminal shows until a process id was in it.
func (j *Job) shownPID(term tranter.Terminal) int {
	j.t.Helper()
	defer context.AfterFunc(j.context(), func() { _ = term.Close() })()
	var seen strings.Builder
	for buffer := make([]byte, 1024); ; {
		n, err := term.Read(buffer)
		if err != nil {
			j.t.Fatalf("read: %v\n%s", err, seen.String())
		}
		seen.Write(buffer[:n])
		_, rest, _ := strings.Cut(seen.String()[max(0, strings.LastIndex(seen.String(), "pid=")):], "pid=")
		digits, _, whole := strings.Cut(rest, "\r")
		if pid, err := strconv.Atoi(digits); err == nil && whole { // else it is what was typed, as yet
			return pid
		}
	}
}

func typed(t *testing.T, term tranter.Terminal, line string) {
	t.Helper()
	if _, err := io.WriteString(term, line+"\n"); err != nil {
		t.Fatalf("type: %v", err)
	}
}

// after is the rest of the line that begins with start, or all of the text after it if no other line follows.
func after(text, start string) string {
	_, rest, _ := strings.Cut(text, start)
	line, _, _ := strings.Cut(rest, "\n")
	return line
}
