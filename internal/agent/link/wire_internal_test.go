package link

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
)

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"id":"1","op":"start","phase":{"id":"x","steps":[{"name":"s","script":{"commands":["true"]}}]}}`))
	f.Add([]byte(`{"id":"1","op":"attach","offset":-1}`))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseRequest(line)
		if err == nil && (r.ID == "" || r.Op == "") {
			t.Errorf("%+v", r)
		}
		if dir, err := phaseDir("/root", r.PhaseID); err == nil && (!strings.HasPrefix(dir, "/root/phase-") || strings.Contains(dir, "..") && strings.Count(dir, "/") != 2) {
			t.Errorf("directory %q", dir)
		}
	})
}

func FuzzParseEvent(f *testing.F) {
	f.Add([]byte(`{"tranter_link":1,"id":"1","error":{"kind":"entrypoint","text":"x","exit":3}}`))
	f.Add([]byte("panic: runtime error"))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, ok := parseEvent(line)
		if ok && e.Link <= 0 {
			t.Errorf("%+v", e)
		}
		if e.Error != nil && e.Error.err() == nil {
			t.Errorf("an error became none: %+v", e.Error)
		}
	})
}

// What is written in frames comes out as it was; what is no frame is an error and takes little memory.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("some bytes"), []byte("e\x00\x00\x00\x01x"))
	f.Fuzz(func(t *testing.T, payload, garbage []byte) {
		var line, out, events bytes.Buffer
		to := &framed{dst: &line}
		_, _ = frameWriter{to, channelJournals}.Write(payload)
		_, _ = frameWriter{to, channelEvents}.Write([]byte("event\n"))
		if err := unframe(&line, &out, &events); err != nil || !bytes.Equal(out.Bytes(), payload) || events.String() != "event\n" {
			t.Errorf("%q, %q, %v", out.Bytes(), events.Bytes(), err)
		}
		_ = unframe(bytes.NewReader(garbage), io.Discard, io.Discard)
	})
}

func FuzzSinkFindsTheJournal(f *testing.F) {
	f.Add([]byte("before"), []byte("journal"), 3)
	f.Fuzz(func(t *testing.T, before, journal []byte, piece int) {
		word := mark("QWERTYUIOPASDFGHJKLZXCVBNM")
		if bytes.Contains(before, word) {
			return
		}
		var got bytes.Buffer
		s := newSink(&got, word)
		all := append(append(append([]byte(nil), before...), word...), journal...)
		for len(all) > 0 {
			n := min(max(1, piece), len(all))
			s.take(all[:n])
			all = all[n:]
		}
		<-s.expect(int64(len(journal)))
		if s.outcome() != nil || !bytes.Equal(got.Bytes(), journal) {
			t.Errorf("%q, %v", got.Bytes(), s.outcome())
		}
	})
}

// What is at the other end may have anything to say.
func TestErrorsAreOfABoundedLength(t *testing.T) {
	for _, kind := range []string{"", faultLost, faultConfig, faultEntrypoint} {
		f := &fault{Kind: kind, Text: strings.Repeat("x", 3<<20), Said: strings.Repeat("y", 3<<20)}
		if got := f.err().Error(); len(got) > maxSaid+maxText {
			t.Errorf("%q: %d bytes", kind, len(got))
		}
	}
}

func TestErrorsAreTheSameOnBothEnds(t *testing.T) {
	for _, err := range []error{
		tranter.ErrAgentLost, tranter.ErrNotFound, &tranter.ConfigError{Err: errors.New("x")}, &EntrypointError{Said: "words", Exit: 3}, errors.New("other"),
	} {
		line, _ := json.Marshal(event{Link: 1, Error: faultOf(err)})
		e, ok := parseEvent(line)
		got := e.Error.err()
		_, wasConfig := errors.AsType[*tranter.ConfigError](err)
		_, isConfig := errors.AsType[*tranter.ConfigError](got)
		entrypoint, _ := errors.AsType[*EntrypointError](got)
		wanted, _ := errors.AsType[*EntrypointError](err)
		if !ok || got.Error() != err.Error() || isConfig != wasConfig || (entrypoint == nil) != (wanted == nil) || entrypoint != nil && *entrypoint != *wanted {
			t.Errorf("%v became %v", err, got)
		}
		for _, kind := range []error{tranter.ErrAgentLost, tranter.ErrNotFound} {
			if errors.Is(err, kind) != errors.Is(got, kind) {
				t.Errorf("%v became %v", err, got)
			}
		}
	}
	if faultOf(nil).err() != nil {
		t.Error("no error became one")
	}
}

func TestLinesOfABoundedLength(t *testing.T) {
	l := newLineReader(strings.NewReader("one\n\n"+strings.Repeat("x", 100000)+"\ntwo\nlast"), 50000)
	var got []string
	for {
		line, whole, err := l.next()
		if err != nil {
			break
		}
		if !whole {
			line = []byte("too long")
		}
		got = append(got, string(line))
	}
	if s := strings.Join(got, "|"); s != "one||too long|two|last" {
		t.Error(s)
	}
}
