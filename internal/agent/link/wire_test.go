package link_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/link"
)

// wire is the other end of a client, played by a test.
type wire struct {
	client   *link.Client
	requests *json.Decoder
	stdout   *os.File
	stderr   *os.File
	stdin    *os.File
}

type asked struct {
	ID, Op, Mark, Of string
}

func newWire(t *testing.T) *wire {
	t.Helper()
	var ends [3][2]*os.File
	for i := range ends {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = [2]*os.File{r, w}
		t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	}
	w := &wire{client: link.New(ends[0][1], ends[1][0], ends[2][0]), requests: json.NewDecoder(ends[0][0]), stdin: ends[0][0], stdout: ends[1][1], stderr: ends[2][1]}
	t.Cleanup(func() { _ = w.client.Close() })
	return w
}

func (w *wire) next(t *testing.T) asked {
	t.Helper()
	var r asked
	if err := w.requests.Decode(&r); err != nil {
		t.Error(err)
	}
	return r
}

func (w *wire) answer(t *testing.T, e map[string]any) {
	t.Helper()
	e["tranter_link"] = 1
	line, err := json.Marshal(e)
	if err != nil {
		t.Error(err)
	}
	if _, err := w.stderr.Write(append(line, '\n')); err != nil {
		t.Error(err)
	}
}

func TestGarbageAroundAJournalIsLeftOut(t *testing.T) {
	noLeaks(t)
	w := newWire(t)
	journal := strings.Repeat("a line of the journal\n", 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = w.stdout.WriteString("what is this\x00")
		r := w.next(t)
		_, _ = w.stderr.WriteString("garbage\n{\"id\":\"" + r.ID + "\"}\n{\"tranter_link\":1,\"id\":\"unknown\"}\n[]\n\n" + strings.Repeat("x", 9<<20) + "\n")
		w.answer(t, map[string]any{"id": r.ID, "result": tranter.PhaseResult{Status: tranter.PhaseSucceeded}, "sent": len(journal)})
		whole := "\x00" + r.Mark[:5] + "\x00" + r.Mark + "\n" + journal
		for len(whole) > 0 { // in pieces that part the mark
			n := min(7, len(whole))
			if len(whole) < 15000 {
				n = len(whole)
			}
			_, _ = w.stdout.WriteString(whole[:n])
			whole = whole[n:]
		}
	}()
	var got bytes.Buffer
	r, err := w.client.Attach(soon(t), "x", 0, &got)
	<-done
	if err != nil || r.Status != tranter.PhaseSucceeded || got.String() != journal {
		t.Errorf("%+v, %v, %d bytes", r, err, got.Len())
	}
	_ = w.stderr.Close()
	_, err = w.client.Enter(soon(t), nil)
	ended, ok := errors.AsType[*link.EndedError](err)
	if !ok || len(ended.Said) > 4<<10 || !errors.Is(err, link.ErrBroken) {
		t.Errorf("%.200v", err)
	}
}

func TestAnAnswerThatCountsWrongIsABrokenStream(t *testing.T) {
	noLeaks(t)
	for name, play := range map[string]func(w *wire, mark string){
		"fewer bytes have come than there are": func(w *wire, mark string) {
			_, _ = w.stdout.WriteString("\x00" + mark + "\nabc")
			_ = w.stdout.Close()
		},
		"nothing has come": func(w *wire, _ string) { _ = w.stdout.Close() },
	} {
		w := newWire(t)
		go func() {
			r := w.next(t)
			play(w, r.Mark)
			w.answer(t, map[string]any{"id": r.ID, "result": tranter.PhaseResult{}, "sent": 5})
		}()
		if _, err := w.client.Attach(soon(t), "x", 0, io.Discard); !errors.Is(err, link.ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAStreamThatEndsWithoutAWordIsBroken(t *testing.T) {
	noLeaks(t)
	w := newWire(t)
	go func() {
		w.next(t)
		_ = w.stderr.Close()
	}()
	_, err := w.client.Enter(soon(t), nil)
	if _, ok := errors.AsType[*link.EndedError](err); ok || !errors.Is(err, link.ErrBroken) {
		t.Error(err)
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	noLeaks(t)
	w := newWire(t)
	go func() {
		w.next(t)
		_ = w.client.Close()
	}()
	if _, err := w.client.Enter(soon(t), nil); !errors.Is(err, link.ErrBroken) {
		t.Error(err)
	}
	if err := w.client.Note(soon(t), "x"); !errors.Is(err, link.ErrBroken) {
		t.Error(err)
	}
}

// A log of hundreds of megabytes must not wait for this line.
func TestALargeJournalComesQuickly(t *testing.T) {
	noLeaks(t)
	p := serve(t)
	p.begin(t, "script", "head -c 100000000 /dev/zero | tr '\\0' 'a\\n' | fold -w 99", "touch written")
	eventually(t, "it is written", exists(p.file("written")))
	c := p.connect(t)
	for name, client := range map[string]*link.Client{"pipes": p.client, "socket": c} {
		began := time.Now()
		count := 0
		if _, err := client.Attach(soon(t), "script", 0, writerFunc(func(b []byte) (int, error) { count += len(b); return len(b), nil })); err != nil {
			t.Fatal(err)
		}
		rate := float64(count) / 1e6 / time.Since(began).Seconds()
		t.Logf("%s: %d bytes, %.0f MB/s", name, count, rate)
		if count < 100000000 || rate < 30 { // a slow machine with the race detector
			t.Errorf("%s: %d bytes, %.0f MB/s", name, count, rate)
		}
	}
}
