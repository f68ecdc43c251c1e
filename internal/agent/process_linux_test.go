package agent_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
)

// pid reads a process id that a script has written down.
func (p *play) pid(t *testing.T, name string) int {
	t.Helper()
	data, err := os.ReadFile(p.file(name))
	if err != nil {
		t.Fatalf("%v\n%s", err, p.log)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		t.Fatalf("process id %q", data)
	}
	return pid
}

// alive says whether the process runs; one that has ended and is not waited for does not.
func alive(pid int) bool {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

func (p *play) gone(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if pid := p.pid(t, name); alive(pid) {
			t.Errorf("process %s (%d) is still there", name, pid)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func TestDaemonsAreEnded(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript(
		`setsid sh -c 'setsid sh -c "echo \$\$ >daemon; exec sleep 1000" >/dev/null 2>&1 & exit 0' &`,
		`(trap "" TERM; echo $BASHPID >stubborn; while :; do sleep 1; done) >/dev/null 2>&1 &`,
		`env -i sleep 1000 >/dev/null 2>&1 & echo $! >bare`,
		`while ! test -s daemon -a -s stubborn -a -s bare; do sleep 0.01; done`))
	r := p.run(t)
	if r.Status != tranter.PhaseSucceeded {
		t.Errorf("result %+v", r)
	}
	p.gone(t, "daemon", "stubborn", "bare")
	inOrder(t, p.log.String(), "WARNING: ended processes that the job had left behind: ")
}

// A server that the script has started is there for after_script to stop.
func TestBackgroundProcessLivesUntilAfterScript(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript(`sleep 1000 >/dev/null 2>&1 & echo $! >server`), afterScript(`kill -0 $(cat server) && echo "still there"`))
	p.run(t)
	inOrder(t, p.log.String(), "\nstill there")
	p.gone(t, "server")
}

func TestBackgroundProcessHoldsOutput(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript(`sleep 1000 & echo $! >server; echo done`))
	started := time.Now()
	if r := p.run(t); r.Status != tranter.PhaseSucceeded {
		t.Errorf("result %+v", r)
	}
	if d := time.Since(started); d > 15*time.Second {
		t.Errorf("it took %v", d)
	}
	p.gone(t, "server")
	inOrder(t, p.log.String(), "\ndone")
}

func TestScriptThatIgnoresTheSignalIsKilled(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *play){
		"cancel": func(t *testing.T, p *play) { p.cancel(t, false, 300*time.Millisecond) },
		"abort":  func(t *testing.T, p *play) { p.cancel(t, true, 300*time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlay(t, userScript(`trap "" TERM`, `echo $BASHPID >own`, `bash -c 'trap "" TERM; echo $$ >child; echo ready; while :; do sleep 0.2; done'`), cleanup())
			p.start(t)
			p.await(t, "\nready")
			started := time.Now()
			end(t, p)
			r := p.end(t)
			if r.Status != tranter.PhaseCanceled && r.Status != tranter.PhaseAborted {
				t.Errorf("result %+v", r)
			}
			if d := time.Since(started); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
			p.gone(t, "own", "child")
		})
	}
}

// agentID returns the agent's process id.
func (p *play) agentID(t *testing.T) int {
	t.Helper()
	lock, err := os.ReadFile(filepath.Join(p.dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(lock))
	if err != nil || pid <= 1 {
		t.Fatalf("the lock says %q", lock)
	}
	return pid
}

// Another manager has started an agent a moment ago, which has not come to its journal yet: ours finds it at work and
// leaves.
func TestStartWhileAnotherAgentStarts(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("true"))
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	other, err := os.OpenFile(filepath.Join(p.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	p.launch.Argv = []string{"/bin/sh", "-c", `"` + os.Args[0] + `" "$@" || exit; (sleep 0.3; : >journal) & exit 0`, "sh"}
	wait, err := agent.Start(p.dir, p.launch, p.phase)
	if err != nil {
		t.Fatal(err)
	}
	wait()
}

// When its machine shuts down, the agent says so and cleans up.
func TestAgentThatIsStopped(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("sleep 1000 & echo $! >child; echo ready", "wait"), afterScript("echo after"), onFailure(), cleanup())
	p.start(t)
	p.await(t, "\nready")
	if err := unix.Kill(p.agentID(t), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if r := p.end(t); r.Status != tranter.PhaseAborted || r.Reason != tranter.RunnerInterrupted {
		t.Errorf("result %+v", r)
	}
	without(t, p.log.String(), "Running after_script", "On failure")
	inOrder(t, p.log.String(), "Cleaning up")
	p.gone(t, "child")
}

func TestAgentThatIsKilled(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("echo ran >>times; echo $$ >script; sleep 1000 & echo $! >child", "echo ready", "wait"))
	p.start(t)
	p.await(t, "\nready")
	if err := unix.Kill(p.agentID(t), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	if _, err := agent.Attach(t.Context(), p.dir, 0, &log); !errors.Is(err, tranter.ErrAgentLost) || !strings.Contains(log.String(), "\nready") {
		t.Errorf("error %v after:\n%s", err, log.String())
	}

	// Nothing runs twice, whoever tries again.
	p.start(t)
	if err := agent.Run(t.Context(), p.dir, agent.Work{}); !errors.Is(err, tranter.ErrAgentLost) {
		t.Errorf("run again: %v", err)
	}
	if _, err := agent.Attach(t.Context(), p.dir, 0, io.Discard); !errors.Is(err, tranter.ErrAgentLost) {
		t.Errorf("error %v", err)
	}
	if err := agent.End(p.dir); err != nil {
		t.Error(err)
	}
	p.gone(t, "script", "child")
	if data, err := os.ReadFile(p.file("times")); err != nil || string(data) != "ran\n" {
		t.Errorf("the script ran: %q, %v", data, err)
	}
}

// The agent outlives the one who has started it, and its terminal.
func TestAgentIsDetached(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript(`ps -o sid= -p $PPID >session; echo $PPID >agent`))
	p.run(t)
	own, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	if sid := p.pid(t, "session"); sid == own || sid != p.pid(t, "agent") {
		t.Errorf("the agent %d is in session %d, we are in %d", p.pid(t, "agent"), sid, own)
	}
}

// A job has all power over its phase's directory. What it puts there must not make the manager, which may be root, read
// something else.
func TestJournalReplacedByTheJob(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of the manager"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, command := range map[string]string{
		"link": "rm -f journal agent.log; ln -s " + secret + " journal; ln -s " + secret + " agent.log",
		"pipe": "rm -f journal agent.log; mkfifo journal agent.log",
		"dir":  "rm -f journal agent.log; mkdir journal agent.log",
	} {
		p := newPlay(t, userScript(`cd "$TRANTER_PHASE_DIR"`, command, "touch ready"))
		p.start(t)
		var log strings.Builder
		_, err := agent.Attach(t.Context(), p.dir, 0, &log) // its file may have been opened before
		if _, again := agent.Attach(t.Context(), p.dir, 0, &log); again == nil {
			t.Errorf("%s: attached to what the job has put there (first %v)", name, err)
		} else if strings.Contains(log.String()+again.Error(), "of the manager") {
			t.Errorf("%s: the manager's file is in the log", name)
		}
	}
}

// What an agent that was killed could not clean up is not there any more when the next job's script runs.
func TestFileVariablesOfAKilledAgent(t *testing.T) {
	t.Parallel()
	first := newPlay(t, userScript(`test -s "$PROTECTED" -a -s "$BOTH"`, `echo rea""dy`, "sleep 1000"), cleanup())
	first.phase.Variables = []tranter.Variable{{Key: "PROTECTED", Value: "secret", File: true}, {Key: "BOTH", Value: "first", File: true}}
	first.start(t)
	first.await(t, "ready")
	if err := unix.Kill(first.agentID(t), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := agent.End(first.dir); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(first.phase.Dirs.Temp, "PROTECTED")
	if _, err := os.Stat(left); err != nil {
		t.Fatalf("nothing is left for this test: %v", err)
	}

	prepare := tranter.Step{Name: "prepare_script", When: tranter.OnSuccess, Prepare: &tranter.PrepareStep{Greeting: "on %s"}}
	second := newPlay(t, prepare, userScript(`cat "$BOTH"`, `ls "$(dirname "$BOTH")"`), cleanup())
	second.phase.Dirs = first.phase.Dirs
	second.phase.Variables = []tranter.Variable{{Key: "BOTH", Value: "second", File: true}}
	if r := second.run(t); r.Status != tranter.PhaseSucceeded || strings.Contains(second.log.String(), "PROTECTED") {
		t.Errorf("result %+v; log:\n%s", r, second.log)
	}
	inOrder(t, second.log.String(), "second")
	if _, err := os.Stat(second.phase.Dirs.Temp); err == nil {
		t.Error("the temporary directory is still there")
	}
}
