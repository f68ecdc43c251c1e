package engine_test

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// counted is an engine to which somebody else makes the connections, and how many there were.
func counted(t testing.TB) (e *engine.Engine, dials *atomic.Int32) {
	t.Helper()
	socket := socketOf(t)
	dials = &atomic.Int32{}
	return open(t, engine.Options{Host: "machine-1", CertPath: "/no/such", Verify: true, Dial: func(ctx context.Context) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}), dials
}

func TestAnEngineToWhichSomebodyElseKnowsTheWay(t *testing.T) {
	e, dials := counted(t)
	if f := e.Facts(); f.Local || f.ID != local(t).Facts().ID || e.Host() != "machine-1" || dials.Load() == 0 {
		t.Errorf("%+v of %s after %d dials", f, e.Host(), dials.Load())
	}
	id := mustCreate(t, e, "sleep", "1000")
	start(t, e, id)
	s, err := e.Exec(t.Context(), id, []string{"sh", "-c", "cat"}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if out, _ := both(s, func() { _, _ = io.WriteString(s.Stdin, "heard"); s.Stdin.Close() }); out != "heard" {
		t.Errorf("%q", out)
	}
}

func TestAConnectionMadeBeforeItIsNeeded(t *testing.T) {
	e, dials := counted(t)
	id := mustCreate(t, e, "sh", "-c", "echo hello")
	spare := e.Spare(t.Context())
	defer spare.Close()
	s, err := e.Attach(t.Context(), id, spare)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := dials.Load()
	again, err := e.Attach(t.Context(), id, spare) // it is taken: another is made
	if err != nil || dials.Load() != before+1 {
		t.Fatalf("%v after %d dials more", err, dials.Load()-before)
	}
	again.Close()
	start(t, e, id)
	if out, _ := both(s, func() {}); out != "hello\n" {
		t.Errorf("%q", out)
	}

	unused := e.Spare(t.Context())
	unused.Close()
	unused.Close()
	if s, err = e.Attach(t.Context(), id, unused); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if local(t).Spare(t.Context()) != nil {
		t.Error("one for an engine next door")
	}
}

func TestAConnectionThatWasLostBeforeItWasNeeded(t *testing.T) {
	r := newRelay(t, "unix://"+socketOf(t))
	e := open(t, engine.Options{Host: r.host})
	id := mustCreate(t, e, "true")
	spare := e.Spare(t.Context())
	defer spare.Close()
	if _, err := e.Refresh(t.Context()); err != nil { // the relay has passed on what came before
		t.Fatal(err)
	}
	r.cut()
	r.mend()
	s, err := e.Attach(t.Context(), id, spare)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	ended, stop := context.WithCancel(t.Context())
	stop()
	if _, err := e.Attach(ended, id, e.Spare(ended)); err == nil {
		t.Error("attached after the end of the context")
	}
}
