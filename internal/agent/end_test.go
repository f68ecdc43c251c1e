package agent_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
)

func (p *play) cancel(t *testing.T, abort bool, grace time.Duration) {
	t.Helper()
	if err := agent.Cancel(p.dir, abort, grace); err != nil {
		t.Error(err)
	}
}

func TestGracefulCancel(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript(`trap 'echo tidied; exit 1' TERM`, "echo ready", "sleep 100 & wait", "echo not reached"), afterScript(`echo "status=$CI_JOB_STATUS"`), onFailure(), cleanup())
	p.start(t)
	p.await(t, "\nready")
	p.cancel(t, false, 20*time.Second)
	p.cancel(t, false, 20*time.Second)
	started := time.Now()
	r := p.end(t)
	if r.Status != tranter.PhaseCanceled || r.Reason != tranter.JobCanceled || !r.ScriptReached {
		t.Errorf("result %+v", r)
	}
	if d := time.Since(started); d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
	inOrder(t, p.log.String(), "ready", "tidied", "status=canceled", "On failure", "Cleaning up")
	without(t, p.log.String(), "not reached\n")
}

func TestCancelBeforeTheScript(t *testing.T) {
	t.Parallel()
	hook := tranter.Step{Name: "get_sources", When: tranter.OnSuccess, Sources: &tranter.SourcesStep{Strategy: "fetch", PreScripts: []string{"echo ready; sleep 100"}}}
	p := newPlay(t, hook, userScript("echo not reached"), afterScript("echo after"), cleanup())
	p.start(t)
	p.await(t, "\nready")
	p.cancel(t, false, time.Second)
	if r := p.end(t); r.Status != tranter.PhaseCanceled || r.ScriptReached {
		t.Errorf("result %+v", r)
	}
	without(t, p.log.String(), "not reached", "Running after_script")
	inOrder(t, p.log.String(), "Cleaning up")
}

func TestAbort(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("echo ready", "sleep 100"), afterScript("echo after"), onFailure(), cleanup())
	p.start(t)
	p.await(t, "\nready")
	p.cancel(t, true, time.Second)
	p.cancel(t, false, time.Hour) // does not take it back
	if r := p.end(t); r.Status != tranter.PhaseAborted {
		t.Errorf("result %+v", r)
	}
	without(t, p.log.String(), "Running after_script", "On failure")
	inOrder(t, p.log.String(), "Cleaning up")
}

func TestJobTimeout(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("echo ready", "sleep 100"), afterScript("echo after"), onFailure(), cleanup())
	p.phase.Deadline, p.phase.Timeout = time.Now().Add(2*time.Second), time.Hour
	r := p.run(t)
	if r.Status != tranter.PhaseTimedOut || r.Reason != tranter.JobExecutionTimeout || r.Message != "execution took longer than 1h0m0s seconds" {
		t.Errorf("result %+v", r)
	}
	without(t, p.log.String(), "Running after_script", "On failure")
	inOrder(t, p.log.String(), "ready", "Cleaning up")
}

func TestScriptTimeout(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("sleep 0.1"), userScript("echo ready", "sleep 100"), afterScript(`echo "status=$CI_JOB_STATUS"`), onFailure())
	p.phase.ScriptTimeout = time.Second
	r := p.run(t)
	if r.Status != tranter.PhaseTimedOut || r.Reason != tranter.JobExecutionTimeout || !strings.Contains(r.Message, "longer than 1s") {
		t.Errorf("result %+v", r)
	}
	inOrder(t, p.log.String(), "ready", "timeout was exceeded", "status=timedout", "On failure")
}

func TestStartIsIdempotent(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("echo ran >>times", "sleep 0.3"))
	var all sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		all.Go(func() {
			wait, err := agent.Start(p.dir, p.launch, p.phase)
			if errs[i] = err; err == nil {
				wait()
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	p.start(t)
	p.end(t)
	p.start(t)
	if data, err := os.ReadFile(p.file("times")); err != nil || string(data) != "ran\n" {
		t.Errorf("the script ran: %q, %v", data, err)
	}
}

func TestAgentThatCannotStart(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("true"))
	p.launch.Argv = []string{"/bin/sh", "-c", "echo no luck >&2; exit 3"}
	if _, err := agent.Start(p.dir, p.launch, p.phase); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("error %v", err)
	}
	p.launch.Argv = []string{"/nowhere/agent"}
	if _, err := agent.Start(p.dir, p.launch, p.phase); err == nil || !strings.Contains(err.Error(), "/nowhere/agent") {
		t.Errorf("error %v", err)
	}
}

// part takes up to n bytes and then fails.
type part struct {
	w    io.Writer
	left int64
}

var errEnough = errors.New("enough")

func (p *part) Write(b []byte) (int, error) {
	n, err := p.w.Write(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	if err == nil && p.left <= 0 {
		err = errEnough
	}
	return n, err
}

// However often the connection breaks, and wherever, what has come is the whole log: nothing twice, nothing lost.
func TestAttachPieces(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("seq 3000"), afterScript("echo after"))
	p.run(t)
	whole := p.log.String()
	rapid.Check(t, func(t *rapid.T) {
		var got strings.Builder
		for {
			n := rapid.Int64Range(1, int64(len(whole))+100).Draw(t, "n")
			before := int64(got.Len())
			_, err := agent.Attach(context.Background(), p.dir, before, &part{&got, n})
			if err == nil {
				break
			}
			if !errors.Is(err, errEnough) {
				t.Fatal(err)
			}
		}
		if got.String() != whole {
			t.Fatalf("got %d bytes of %d", got.Len(), len(whole))
		}
	})
}

// The same while the job is still writing.
func TestAttachPiecesOfAGrowingJournal(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("for i in $(seq 200); do echo line $i; if test $((i % 50)) = 0; then sleep 0.05; fi; done"))
	p.start(t)
	var got strings.Builder
	for n := int64(1); ; n = n%97 + 13 {
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		_, err := agent.Attach(ctx, p.dir, int64(got.Len()), &part{&got, n})
		stop()
		if err == nil {
			break
		}
		if !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
	}
	p.end(t)
	if got.String() != p.log.String() {
		t.Errorf("got %d bytes of %d", got.Len(), len(p.log.String()))
	}
}

func TestAttachEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("echo ready", "sleep 100"))
	p.start(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnough)
	if _, err := agent.Attach(ctx, p.dir, 0, io.Discard); !errors.Is(err, errEnough) {
		t.Errorf("error %v", err)
	}
}

func TestServeAttach(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("echo hello", "exit 3"))
	p.run(t)
	var out strings.Builder
	if err := agent.ServeAttach(t.Context(), p.dir, 5, &out); err != nil {
		t.Fatal(err)
	}
	journal, result, ok := strings.Cut(out.String(), "\n{")
	if !ok || journal != p.log.String()[5:] || !strings.Contains(result, `"exit_code":3`) || !strings.HasSuffix(result, "}\n") {
		t.Errorf("served %q", out.String())
	}
}

func TestUnknownPhase(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "none")
	if _, err := agent.Attach(t.Context(), dir, 0, io.Discard); !errors.Is(err, tranter.ErrAgentLost) {
		t.Errorf("attach: %v", err)
	}
	if err := agent.Cancel(dir, true, 0); !errors.Is(err, tranter.ErrNotFound) {
		t.Errorf("cancel: %v", err)
	}
	if err := agent.End(dir); err != nil {
		t.Errorf("end: %v", err)
	}
}
