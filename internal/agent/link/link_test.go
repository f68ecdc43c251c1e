package link_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/link"
)

func TestAPhaseFromStartToEnd(t *testing.T) {
	noLeaks(t)
	p := serve(t)
	for range 2 { // repeating it is harmless
		if h := p.enter(t); h.UID != os.Getuid() || h.GID != os.Getgid() || h.Host == "" || h.Room.Bytes == 0 || len(h.Trouble) > 0 {
			t.Errorf("%+v", h)
		}
	}
	if info, err := os.Stat(p.root + "/open"); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("the directory is not open: %v, %v", info, err)
	}
	r, log := p.play(t, "script", "echo here $$", "umask", "env | grep ^TRANTER_ || :")
	if r.Status != tranter.PhaseSucceeded || !r.ScriptReached || !strings.Contains(log, "here ") || !strings.Contains(log, "0000\n") || strings.Contains(log, "TRANTER_WORK") {
		t.Errorf("%+v\n%s", r, log)
	}
	if err := p.client.Start(soon(t), p.phase("script", "touch again")); err != nil { // changes nothing
		t.Error(err)
	}
	if _, again := p.follow(t, "script"); again != log || exists(p.file("again"))() {
		t.Errorf("another log: %s", again)
	}
	r, log = p.play(t, "finish", "exit 3")
	if r.Status != tranter.PhaseFailed || r.ExitCode != 3 || r.Message != "exit code 3" {
		t.Errorf("%+v\n%s", r, log)
	}
}

func TestWhatIsWrongWithARequest(t *testing.T) {
	noLeaks(t)
	p := serve(t)
	if err := p.client.Start(soon(t), p.phase("../x")); err == nil || !strings.Contains(err.Error(), "can't be the id") {
		t.Error(err)
	}
	if _, err := p.client.Attach(soon(t), "none", 0, io.Discard); !errors.Is(err, tranter.ErrAgentLost) {
		t.Error(err)
	}
	if err := p.client.Cancel(soon(t), "none", true, 0); !errors.Is(err, tranter.ErrNotFound) {
		t.Error(err)
	}
	if err := p.client.Note(soon(t), "nobody"); err == nil || !strings.Contains(err.Error(), "no phase runs") {
		t.Error(err)
	}
	p.begin(t, "one", "touch begun; while ! test -e go; do sleep 0.01; done")
	if err := p.client.Start(soon(t), p.phase("two")); err == nil || !strings.Contains(err.Error(), "phase one has ended") {
		t.Error(err)
	}
	eventually(t, "the script has begun", exists(p.file("begun")))
	if err := p.client.Note(soon(t), "a word\x00 of a service"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(p.file("go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, log := p.follow(t, "one"); !strings.Contains(log, "of a service") {
		t.Error(log)
	}
	if _, log := p.play(t, "two", "echo fine"); !strings.Contains(log, "fine") {
		t.Error(log)
	}
}

func TestCancelAndAbort(t *testing.T) {
	noLeaks(t)
	p := serve(t)
	for id, abort := range map[string]bool{"a": true, "c": false} {
		p.begin(t, id, "touch begun-"+id, "sleep 1000")
		eventually(t, "the script has begun", exists(p.file("begun-"+id)))
		if err := p.client.Cancel(soon(t), id, abort, time.Second); err != nil {
			t.Fatal(err)
		}
		want := tranter.PhaseCanceled
		if abort {
			want = tranter.PhaseAborted
		}
		if r, _ := p.follow(t, id); r.Status != want {
			t.Errorf("abort %v: %+v", abort, r)
		}
	}
}

func TestAStreamThatBreaksIsTakenUpWhereItEnded(t *testing.T) {
	noLeaks(t)
	p := serve(t)
	p.begin(t, "script", "seq 1 200000", "touch half", "while ! test -e go; do sleep 0.01; done", "seq 200000 400000")
	var got bytes.Buffer
	broken, stop := context.WithCancel(soon(t))
	first := p.connect(t)
	eventually(t, "half of it is there", exists(p.file("half")))
	limited := writerFunc(func(b []byte) (int, error) {
		n, _ := got.Write(b)
		if got.Len() > 300000 {
			go first.Close()
		}
		return n, nil
	})
	_, err := first.Attach(broken, "script", 0, limited)
	stop()
	if !errors.Is(err, link.ErrBroken) {
		t.Fatal(err)
	}
	if _, err := first.Enter(soon(t), nil); !errors.Is(err, link.ErrBroken) {
		t.Error(err)
	}
	if err := os.WriteFile(p.file("go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	second := p.connect(t)
	r, err := second.Attach(soon(t), "script", int64(got.Len()), &got)
	if err != nil || r.LogBytes != int64(got.Len()) {
		t.Fatalf("%+v, %v, %d bytes", r, err, got.Len())
	}
	if _, whole := p.follow(t, "script"); whole != got.String() {
		t.Error("the parts are not the whole")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestAnAttachmentThatIsGivenUpLeavesTheConnectionUsable(t *testing.T) {
	noLeaks(t)
	p := serve(t)
	p.begin(t, "script", "seq 1 300000", "while ! test -e go; do sleep 0.01; done", "echo the end")
	wrong := errors.New("no room")
	count := 0
	_, err := p.client.Attach(soon(t), "script", 0, writerFunc(func(b []byte) (int, error) {
		if count += len(b); count > 100000 {
			return 0, wrong
		}
		return len(b), nil
	}))
	if !errors.Is(err, wrong) {
		t.Error(err)
	}
	ctx, stop := context.WithCancelCause(soon(t))
	why := errors.New("enough")
	if _, err := p.client.Attach(ctx, "script", 0, &gate{text: "200000", seen: func() { stop(why) }}); !errors.Is(err, why) {
		t.Error(err)
	}
	if err := os.WriteFile(p.file("go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, log := p.follow(t, "script"); r.Status != tranter.PhaseSucceeded || !strings.HasSuffix(strings.TrimSpace(log), "the end") {
		t.Errorf("%+v", r)
	}
}

func TestTwoClientsFollowTheSamePhase(t *testing.T) {
	noLeaks(t)
	p := serve(t)
	p.begin(t, "script", "touch begun; while ! test -e go; do sleep 0.01; done; seq 1 50000")
	other := p.connect(t)
	type end struct {
		log string
		err error
	}
	ends := make(chan end, 2)
	for _, c := range []*link.Client{p.client, other} {
		go func() {
			var b bytes.Buffer
			_, err := c.Attach(soon(t), "script", 0, &b)
			ends <- end{b.String(), err}
		}()
	}
	eventually(t, "the script has begun", exists(p.file("begun")))
	if err := os.WriteFile(p.file("go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a, b := <-ends, <-ends
	if a.err != nil || b.err != nil || a.log != b.log || !strings.Contains(a.log, "\n50000\n") {
		t.Errorf("%v, %v, %d and %d bytes", a.err, b.err, len(a.log), len(b.log))
	}
}

func TestTheEndOfTheAgentEndsAPhaseInAnOrderlyWay(t *testing.T) {
	noLeaks(t)
	for _, entrypoint := range [][]string{nil, {"/bin/sh", "-c", `exec "$0"`}} {
		p := serve(t, entrypoint...)
		p.enter(t)
		p.begin(t, "script", "touch begun; sleep 1000")
		eventually(t, "the script has begun", exists(p.file("begun")))
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		r, log := p.follow(t, "script")
		if r.Status != tranter.PhaseAborted || r.Reason != tranter.RunnerInterrupted {
			t.Errorf("%+v\n%s", r, log)
		}
		<-p.ended
		_, err := p.client.Enter(soon(t), nil)
		if _, ok := errors.AsType[*link.EndedError](err); !ok || !errors.Is(err, link.ErrBroken) {
			t.Error(err)
		}
	}
}

func TestTheLastWordsOfAnAgentThatCannotStart(t *testing.T) {
	noLeaks(t)
	_, _, c := program(t, nil, "agent", "connect", "/nowhere")
	_, err := c.Enter(soon(t), nil)
	ended, ok := errors.AsType[*link.EndedError](err)
	if !ok || !strings.Contains(ended.Said, "reach the agent") {
		t.Error(err)
	}
}

func TestProbe(t *testing.T) {
	noLeaks(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	open, _ := strconv.Atoi(port)
	p := serve(t)
	probed, err := p.client.Probe(soon(t), []link.Target{
		{Name: "127.0.0.1", Ports: []int{1, open}}, {Name: "closed", Address: "127.0.0.1", Ports: []int{1}}, {Name: "portless"},
	}, 300*time.Millisecond)
	if err != nil || len(probed) != 3 || probed[0].Err != "" || !strings.Contains(probed[1].Err, "300ms") || !strings.Contains(probed[1].Err, "refused") || probed[2].Err == "" {
		t.Errorf("%+v, %v", probed, err)
	}
}

func TestOwn(t *testing.T) {
	noLeaks(t)
	p := serve(t)
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/file", nil, 0o600), os.Symlink("/etc/passwd", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	if err := p.client.Own(soon(t), []string{dir, dir + "/missing"}, 1234, 1235); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, dir + "/file", dir + "/link"} {
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 1234 || st.Gid != 1235 {
			t.Errorf("%s is %d:%d", name, st.Uid, st.Gid)
		}
	}
	if info, _ := os.Stat("/etc/passwd"); info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Error("a link was followed")
	}
}
