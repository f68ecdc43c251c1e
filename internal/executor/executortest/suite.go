package executortest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

// Run checks that the executor keeps to what tranter.Executor and tranter.Session promise.
func Run(t *testing.T, s Subject) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Subject){
		"exit codes arrive":              exitCodes,
		"output is complete":             output,
		"large output":                   largeOutput,
		"starting again changes nothing": startAgain,
		"phases share the environment":   phases,
		"attach goes on at an offset":    attachOffset,
		"attach ends with its context":   attachContext,
		"attach ends with its writer":    attachWriter,
		"graceful cancel":                cancel,
		"abort":                          abort,
		"unknown phase":                  unknownPhase,
		"close ends what runs":           closeRunning,
		"close twice":                    closeTwice,
		"failed open":                    failedOpen,
		"reopen":                         reopen,
		"reopen of nonsense":             reopenNonsense,
		"secrets in process lists":       processLists,
		"file variables are private":     fileVariables,
		"terminals":                      terminals,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

func exitCodes(t *testing.T, s Subject) {
	for _, code := range []int{0, 1, 7, 137, 255} {
		j := Open(t, s)
		r, log := j.Run(fmt.Sprintf("(exit %d)", code), "echo went on")
		failed := code != 0
		if r.ExitCode != code || (r.Status == tranter.PhaseFailed) != failed || (r.Reason == tranter.ScriptFailure) != failed {
			t.Errorf("exit code %d: result %+v\n%s", code, r, log)
		}
		if strings.Contains(log, "\nwent on") == failed {
			t.Errorf("exit code %d: log\n%s", code, log)
		}
	}
}

func output(t *testing.T, s Subject) {
	var want strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	_, log := Open(t, s).Run(`i=0; while test $i -lt 5000; do echo "line $i"; i=$((i+1)); done`)
	if !strings.Contains(log, want.String()) {
		t.Errorf("the lines are not all there, in order, in a log of %d bytes", len(log))
	}
}

func largeOutput(t *testing.T, s Subject) {
	const size = 50_000_000
	j := Open(t, s)
	j.Start(j.Phase("1", []string{fmt.Sprintf("head -c %d /dev/zero | tr '\\0' '\\001'; echo; echo end", size)}))
	var n counter
	r, err := j.Session.Attach(j.context(), "1", 0, &n)
	if err != nil || r.Status != tranter.PhaseSucceeded || n.ones != size || r.LogBytes != n.all {
		t.Errorf("result %+v, %v: %d bytes of the output, %d in all", r, err, n.ones, n.all)
	}
}

// counter counts what is written to it.
type counter struct{ ones, all int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.all += int64(len(p))
	c.ones += int64(bytes.Count(p, []byte{1}))
	return len(p), nil
}

func startAgain(t *testing.T, s Subject) {
	j := Open(t, s)
	p := j.Phase("1", []string{"echo ran >>times", "echo ready", "sleep 0.2", "cat times"})
	j.Start(p)
	j.Start(p)
	if _, log := j.End("1"); strings.Count(log, "\nran") != 1 {
		t.Errorf("log:\n%s", log)
	}
	j.Start(p)
	j.Start(j.Phase("2", []string{"cat times"}))
	if _, log := j.End("2"); strings.Count(log, "\nran") != 1 {
		t.Errorf("after all, log:\n%s", log)
	}
}

func phases(t *testing.T, s Subject) {
	j := Open(t, s)
	j.Start(j.Phase("first", []string{"echo content >file", "exit 3"}))
	first, _ := j.End("first")
	second := j.Phase("second", []string{"touch not-wanted"}, "cat file; ls")
	second.Prior = first
	j.Start(second)
	r, log := j.End("second")
	if r.ExitCode != 3 || !strings.Contains(log, "\ncontent\n") || strings.Contains(log, "not-wanted") {
		t.Errorf("result %+v\n%s", r, log)
	}
}

func attachOffset(t *testing.T, s Subject) {
	j := Open(t, s)
	_, whole := j.Run("echo one; echo two; echo three")
	for offset := 0; offset <= len(whole); offset += 7 {
		var part strings.Builder
		if r, err := j.Session.Attach(j.context(), "1", int64(offset), &part); err != nil || part.String() != whole[offset:] || r.Status != tranter.PhaseSucceeded {
			t.Fatalf("from %d: %q, %+v, %v", offset, part.String(), r, err)
		}
	}
}

func attachContext(t *testing.T, s Subject) {
	j := Open(t, s)
	j.Start(j.Phase("1", []string{"echo ready", "while ! test -e go-on; do sleep 0.05; done", "echo end"}))
	before := j.Await("1", "\nready") // by which an attach has ended while the job runs
	j.goOn()
	var rest strings.Builder
	r, err := j.Session.Attach(j.context(), "1", int64(len(before)), &rest)
	if err != nil || r.Status != tranter.PhaseSucceeded || !strings.HasSuffix(before+rest.String(), "\nend\n") {
		t.Errorf("result %+v, %v, log:\n%s|%s", r, err, before, rest.String())
	}
}

func attachWriter(t *testing.T, s Subject) {
	j := Open(t, s)
	j.Start(j.Phase("1", []string{"echo one", "exit 4"}))
	full := errors.New("full")
	if _, err := j.Session.Attach(j.context(), "1", 0, failing{full}); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
	if r, log := j.End("1"); r.ExitCode != 4 || !strings.Contains(log, "\none") {
		t.Errorf("result %+v\n%s", r, log)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func cancel(t *testing.T, s Subject) {
	j := Open(t, s)
	j.Start(j.Phase("1", []string{"sleep 1000 & echo $! >child", "echo $$ >own", "echo ready", "sleep 1000"}, `echo "status=$CI_JOB_STATUS"`))
	j.Await("1", "\nready")
	for range 2 {
		if err := j.Session.Cancel(j.context(), "1", false, 5*time.Second); err != nil {
			t.Errorf("cancel: %v", err)
		}
	}
	r, log := j.End("1")
	if r.Status != tranter.PhaseCanceled || !strings.Contains(log, "\nstatus=canceled") {
		t.Errorf("result %+v\n%s", r, log)
	}
	j.nothingLeft("own", "child")
}

func abort(t *testing.T, s Subject) {
	j := Open(t, s)
	j.Start(j.Phase("1", []string{`(trap "" TERM; while :; do sleep 0.1; done) & echo $! >child`, "echo ready", "sleep 1000"}, "echo after"))
	j.Await("1", "\nready")
	if err := j.Session.Cancel(j.context(), "1", true, 200*time.Millisecond); err != nil {
		t.Errorf("abort: %v", err)
	}
	r, log := j.End("1")
	if r.Status != tranter.PhaseAborted || strings.Contains(log, "\nafter") {
		t.Errorf("result %+v\n%s", r, log)
	}
	j.nothingLeft("child")
}

// nothingLeft checks, from a phase of its own, that the processes are gone whose ids are in the files.
func (j *Job) nothingLeft(files ...string) {
	j.t.Helper()
	if j.subject.Apart {
		return
	}
	var look []string
	for _, f := range files {
		look = append(look, fmt.Sprintf(`test -s %[1]s; if kill -0 "$(cat %[1]s)" 2>/dev/null; then echo "%[1]s lives"; exit 9; fi`, f))
	}
	j.Start(j.Phase("look", look))
	if r, log := j.End("look"); r.Status != tranter.PhaseSucceeded {
		j.t.Errorf("processes are left: %+v\n%s", r, log)
	}
}

func unknownPhase(t *testing.T, s Subject) {
	j := Open(t, s)
	if _, err := j.Session.Attach(j.context(), "never", 0, io.Discard); !errors.Is(err, tranter.ErrAgentLost) {
		t.Errorf("attach: %v", err)
	}
}

func closeRunning(t *testing.T, s Subject) {
	j := Open(t, s)
	j.Start(j.Phase("1", []string{"sleep 1000 & echo pid=$!", "echo ready", "sleep 1000"}))
	log := j.Await("1", "\nready")
	attached := make(chan error, 1)
	ctx := j.context()
	go func() {
		_, err := j.Session.Attach(ctx, "1", 0, io.Discard)
		attached <- err
	}()
	if err := j.Session.Close(j.context()); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := <-attached; err == nil || errors.Is(err, errImpatient) {
		t.Errorf("attach during close: %v", err)
	}
	_, rest, _ := strings.Cut(log, "\npid=")
	digits, _, _ := strings.Cut(rest, "\n")
	pid, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatalf("no process id in:\n%s", log)
	}
	if s.Alive != nil && s.Alive(pid) {
		t.Error("a process of the job is left after close")
	}
	j.noSecretsLeft()
}

// noSecretsLeft checks that the job's token is in no file of the directory that the session was given.
func (j *Job) noSecretsLeft() {
	j.t.Helper()
	err := filepath.WalkDir(j.Spec.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("glcbt-token")) {
			j.t.Errorf("the job's token is left in %s", path)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		j.t.Error(err)
	}
}

func closeTwice(t *testing.T, s Subject) {
	j := Open(t, s)
	j.Run("true")
	for range 2 {
		if err := j.Session.Close(j.context()); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	unused := Open(t, s)
	if err := unused.Session.Close(unused.context()); err != nil {
		t.Errorf("close of an environment that was never used: %v", err)
	}
}

func failedOpen(t *testing.T, s Subject) {
	j := prepare(t, s)
	bad := j.Spec
	if s.Spoil != nil {
		s.Spoil(&bad)
	} else {
		file := filepath.Join(filepath.Dir(bad.Dir), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		bad.Dir = filepath.Join(file, "job")
	}
	executor := s.New(t)
	session, err := executor.Open(j.context(), bad)
	if err == nil || session != nil {
		t.Errorf("opened with %+v: %v, %v", bad, session, err)
	}
	if j.Session, err = executor.Open(j.context(), j.Spec); err != nil {
		t.Fatalf("a second try: %v", err)
	}
	if r, log := j.Run("true"); r.Status != tranter.PhaseSucceeded {
		t.Errorf("result %+v\n%s", r, log)
	}
	if err := j.Session.Close(j.context()); err != nil {
		t.Errorf("close: %v", err)
	}
}

// goOn lets a script go on that waits for the file go-on.
func (j *Job) goOn() {
	j.t.Helper()
	if err := os.WriteFile(filepath.Join(j.Spec.Dirs.Project, "go-on"), nil, 0o600); err != nil {
		j.t.Fatal(err)
	}
}

func reopen(t *testing.T, s Subject) {
	j := Open(t, s)
	j.Start(j.Phase("1", []string{"echo ready", "while ! test -e go-on; do sleep 0.05; done", "echo end"}))
	before := j.Await("1", "\nready")
	data, err := json.Marshal(j.Session.Ref()) // as it is stored
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.New(t).Reopen(j.context(), data)
	if err != nil {
		t.Fatalf("reopen: %v", err)
	}
	first := j.Session
	j.Session = again
	j.goOn()
	var rest strings.Builder
	r, err := again.Attach(j.context(), "1", int64(len(before)), &rest)
	if err != nil || r.Status != tranter.PhaseSucceeded || !strings.HasSuffix(before+rest.String(), "\nend\n") {
		t.Errorf("result %+v, %v, log:\n%s|%s", r, err, before, rest.String())
	}
	for name, session := range map[string]tranter.Session{"the reopened": again, "the first": first} {
		if err := session.Close(j.context()); err != nil {
			t.Errorf("close %s session: %v", name, err)
		}
	}
	j.noSecretsLeft()
}

func reopenNonsense(t *testing.T, s Subject) {
	ctx, stop := context.WithTimeoutCause(t.Context(), patience, errImpatient)
	defer stop()
	for _, ref := range []string{``, `null`, `{}`, `[]`, `"x"`, `{"dir":"/nowhere/at/all"}`} {
		if session, err := s.New(t).Reopen(ctx, json.RawMessage(ref)); err == nil || session != nil {
			t.Errorf("reopened %q: %v", ref, session)
		}
	}
}

// The script looks at all command lines that it can see; it can use no program for that which gets the secret as an
// argument.
func processLists(t *testing.T, s Subject) {
	const secret, inline = "S3cret-value-of-a-variable", "S3cret-in-the-script"
	j := Open(t, s)
	p := j.Phase("1", []string{
		": " + inline,
		`cut=S3cret; n=0; for f in /proc/[0-9]*/cmdline; do n=$((n+1)); case "$(tr '\0' ' ' <"$f" 2>/dev/null)" in *"$cut-"*|*"$TOKEN"*) echo "seen in $f"; exit 9;; esac; done; echo "looked at $n"`,
	}, "echo "+inline)
	p.Variables = []tranter.Variable{{Key: "HIDDEN", Value: secret}, {Key: "FILE", Value: secret, File: true}, {Key: "TOKEN", Value: "glcbt-token"}}
	j.Start(p)
	if r, log := j.End("1"); r.Status != tranter.PhaseSucceeded || !strings.Contains(log, "\nlooked at ") {
		t.Errorf("result %+v\n%s", r, log)
	}
}

func fileVariables(t *testing.T, s Subject) {
	j := Open(t, s)
	p := j.Phase("1", []string{`cat "$FILE"`, `stat -c "mode %a" "$FILE"`, `test "$(stat -c %u "$FILE")" = "$(id -u)"`})
	p.Variables = []tranter.Variable{{Key: "FILE", Value: "the content", File: true}}
	j.Start(p)
	if r, log := j.End("1"); r.Status != tranter.PhaseSucceeded || !strings.Contains(log, "\nthe content") || !strings.Contains(log, "\nmode 600") {
		t.Errorf("result %+v\n%s", r, log)
	}
}
