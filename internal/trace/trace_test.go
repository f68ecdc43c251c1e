package trace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
)

// server is a coordinator's side of a log: it takes chunks that fit and checks the final state. Faults are used up one
// per call.
type server struct {
	mu      sync.Mutex
	log     []byte
	calls   []string
	faults  []error
	answers []tranter.Answer // added to the next answers
	final   *tranter.Update
	called  func(string)
}

func (s *server) next() (tranter.Answer, error) {
	var a tranter.Answer
	if len(s.faults) > 0 {
		err := s.faults[0]
		s.faults = s.faults[1:]
		if err != nil {
			return a, err
		}
	}
	if len(s.answers) > 0 {
		a = s.answers[0]
		s.answers = s.answers[1:]
	}
	return a, nil
}

func (s *server) Append(_ context.Context, _ tranter.JobRef, offset int64, p []byte) (tranter.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf("append %d+%d", offset, len(p)))
	if s.called != nil {
		s.called(s.calls[len(s.calls)-1])
	}
	a, err := s.next()
	if err != nil {
		return a, err
	}
	if offset == int64(len(s.log)) {
		s.log = append(s.log, p...)
	}
	a.Next = int64(len(s.log))
	return a, nil
}

func (s *server) Update(_ context.Context, _ tranter.JobRef, u tranter.Update) (tranter.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "update "+string(u.State))
	a, err := s.next()
	if err != nil {
		return a, err
	}
	if u.State != tranter.JobRunning && a.Verdict == tranter.Accepted && u.Checksum != fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE(s.log)) {
		a.Verdict = tranter.Resend
	}
	if a.Verdict == tranter.Resend {
		s.log = nil
	}
	if u.State != tranter.JobRunning && a.Verdict == tranter.Accepted {
		s.final = &u
	}
	return a, nil
}

func open(t testing.TB, s *server, path string) *Trace {
	t.Helper()
	tr, err := Open(Options{Reporter: s, Path: path, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func spool(t testing.TB) string { return filepath.Join(t.TempDir(), "trace.log") }

var success = tranter.Result{State: tranter.JobSuccess}

func TestReportsAtTheInterval(t *testing.T) {
	path := spool(t)
	synctest.Test(t, func(t *testing.T) {
		s := &server{answers: []tranter.Answer{{Interval: 10 * time.Second}}}
		tr := open(t, s, path)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); tr.Run(ctx) }()
		write(t, tr, "one")
		time.Sleep(4 * time.Second)
		write(t, tr, "two")
		time.Sleep(5 * time.Second) // 9 s: not yet
		time.Sleep(5 * time.Second) // 14 s: the new interval of 10 s has passed
		time.Sleep(60 * time.Second)
		stop()
		<-done
		want := []string{"append 0+3", "append 3+3", "update running", "update running"}
		if d := cmp.Diff(want, s.calls); d != "" {
			t.Error(d)
		}
		if err := tr.Finish(t.Context(), success, nil); err != nil || s.final == nil {
			t.Fatalf("finish: %v, %v", err, s.final)
		}
		if sum := fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE([]byte("onetwo"))); s.final.Checksum != sum || s.final.LogBytes != 6 {
			t.Errorf("final report %+v, want %s", s.final, sum)
		}
	})
}

// When somebody opens the job's page GitLab asks for reports each 3 s instead of each 60 s: the watcher sees what the job
// had printed until then within a second, and what follows at the new interval. Before that nothing is sent more often.
func TestAWatcherSeesTheLogAtOnce(t *testing.T) {
	path := spool(t)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var seen []string
		s := &server{answers: []tranter.Answer{{Interval: time.Minute}, {}, {Interval: 3 * time.Second}}}
		tr := open(t, s, path)
		s.called = func(call string) {
			seen = append(seen, fmt.Sprintf("%v %s", time.Since(began), call))
			if len(seen) == 3 {
				write(t, tr, "w") // while the answer is on its way
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); tr.Run(ctx) }()
		time.Sleep(100 * time.Millisecond)
		for range 125 { // a line each second; the third answer says that there is a watcher
			write(t, tr, ".")
			time.Sleep(time.Second)
		}
		time.Sleep(4 * time.Second)
		stop()
		<-done
		want := []string{"3s append 0+3", "1m3s append 3+60", "2m3s append 63+60", "2m3s append 123+1", "2m3.5s append 124+1", "2m6.5s append 125+1"}
		if d := cmp.Diff(want, seen); d != "" {
			t.Error(d)
		}
	})
}

func write(t testing.TB, tr *Trace, text string) {
	t.Helper()
	if _, err := tr.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestStopsComeOnceEach(t *testing.T) {
	path := spool(t)
	synctest.Test(t, func(t *testing.T) {
		s := &server{answers: []tranter.Answer{{Stop: tranter.StopCancel}, {Stop: tranter.StopCancel}, {Stop: tranter.StopAbort}, {Verdict: tranter.Gone}}}
		tr := open(t, s, path)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); tr.Run(ctx) }()
		for range 5 {
			write(t, tr, "x")
			time.Sleep(3100 * time.Millisecond)
		}
		stop()
		<-done
		if a, b := <-tr.Stops(), <-tr.Stops(); a != tranter.StopCancel || b != tranter.StopAbort || len(tr.Stops()) != 0 {
			t.Errorf("%v, %v, and %d more", a, b, len(tr.Stops()))
		}
	})
}

func TestFinishGoesOnUntilAccepted(t *testing.T) {
	path := spool(t)
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("connection refused")
		var faults []error
		for range 25 {
			faults = append(faults, down)
		}
		s := &server{faults: faults, answers: []tranter.Answer{{}, {Verdict: tranter.NotYet}, {Verdict: tranter.Resend}}}
		tr := open(t, s, path)
		write(t, tr, "log")
		if err := tr.Finish(t.Context(), tranter.Result{State: tranter.JobFailed, Reason: tranter.ImagePullFailure, ExitCode: 3}, nil); err != nil {
			t.Fatal(err)
		}
		if string(s.log) != "log" || s.final == nil || s.final.Reason != tranter.RunnerSystemFailure || s.final.ExitCode != 3 {
			t.Errorf("log %q, final %+v", s.log, s.final)
		}
	})
}

func TestFinishEndsWithItsContextAndCanBeRepeated(t *testing.T) {
	s := &server{faults: []error{errors.New("down")}}
	path := spool(t)
	tr := open(t, s, path)
	write(t, tr, "first")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := tr.Finish(ctx, success, nil); err == nil {
		t.Fatal("no error")
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, s, path)
	write(t, again, " second")
	if err := again.Finish(t.Context(), success, nil); err != nil || string(s.log) != "first second" {
		t.Fatalf("%v, log %q", err, s.log)
	}
	if err := again.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the spool is still there: %v", err)
	}
}

func TestARestartSendsNothingTwice(t *testing.T) {
	s := &server{}
	path := spool(t)
	tr := open(t, s, path)
	write(t, tr, strings.Repeat("x", 100_000))
	if err := tr.send(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = tr.Close()
	s.calls = nil
	again := open(t, s, path)
	write(t, again, "new")
	if err := again.send(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"append 0+1", "append 100000+3"}, s.calls); d != "" {
		t.Error(d)
	}
}

func TestBigLogsGoInChunks(t *testing.T) {
	s := &server{}
	tr := open(t, s, spool(t))
	write(t, tr, strings.Repeat("y", 2*maxChunk+5))
	if err := tr.send(t.Context()); err != nil || len(s.calls) != 3 || len(s.log) != 2*maxChunk+5 {
		t.Errorf("%v: %v", err, s.calls)
	}
}

// Whatever fails in between, the coordinator has the whole log in the end, in order.
func TestTheWholeLogArrives(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		s := &server{}
		tr, err := Open(Options{Reporter: s, Path: filepath.Join(dir, fmt.Sprint(n)), Log: slog.New(slog.DiscardHandler), Interval: time.Nanosecond})
		if err != nil {
			rt.Fatal(err)
		}
		defer tr.Remove()
		var all bytes.Buffer
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			p := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(rt, "bytes")
			all.Write(p)
			if _, err := tr.Write(p); err != nil {
				rt.Fatal(err)
			}
			if rapid.Bool().Draw(rt, "fault") {
				s.faults = append(s.faults, errors.New("fault"))
			}
			if rapid.Bool().Draw(rt, "lost") && len(s.log) > 0 {
				s.log = s.log[:len(s.log)-1] // the coordinator lost a byte: it says where to go on
			}
			_ = tr.send(t.Context())
		}
		s.faults = nil
		if err := tr.Finish(t.Context(), success, nil); err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(s.log, all.Bytes()) || s.final == nil {
			rt.Fatalf("log %q, want %q", s.log, all.Bytes())
		}
	})
}
