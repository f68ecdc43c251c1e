package joblog_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/joblog"
	"github.com/tranter-ci/tranter/internal/redact"
)

// simpleStream does for one stream what the runner contract says in sections 4.1 and 4.2, a rune and a line at a time.
type simpleStream struct {
	log   *simpleLog
	mask  *redact.Writer
	kind  byte
	bytes []byte // of a rune that is not whole
	line  string // with its header
	plus  bool
}

type simpleLog struct {
	out    bytes.Buffer
	format tranter.LogFormat
	now    func() time.Time
	full   bool
}

func (l *simpleLog) stream(kind byte) *simpleStream {
	s := &simpleStream{log: l, kind: kind}
	phrases := make([]string, 0, len(l.format.Phrases))
	for _, p := range l.format.Phrases {
		phrases = append(phrases, p.Reveal())
	}
	s.mask = redact.NewWriter(writerFunc(s.decode), redact.Rules{Phrases: phrases})
	return s
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func (s *simpleStream) decode(p []byte) {
	s.bytes = append(s.bytes, p...)
	var text strings.Builder
	for len(s.bytes) > 0 && utf8.FullRune(s.bytes) {
		r, size := utf8.DecodeRune(s.bytes)
		text.WriteRune(r)
		s.bytes = s.bytes[size:]
	}
	if text.Len() > 0 {
		s.stamp(text.String())
	}
}

func (s *simpleStream) stamp(text string) {
	if !s.log.format.Timestamps {
		s.log.put(text)
		return
	}
	rest := ""
	for line := range strings.Lines(text) {
		if s.line == "" {
			mark := " "
			if s.plus {
				mark = "+"
			}
			s.line = s.log.now().UTC().Format("2006-01-02T15:04:05.000000Z") + " 01" + string(s.kind) + mark
		}
		s.line += line
		if rest = line; strings.HasSuffix(line, "\n") {
			s.emit(false)
			rest = ""
		}
	}
	if s.line != "" && (strings.Contains(rest, "\r") || len(s.line) > 8192+32) {
		s.line += "\n"
		s.emit(true)
	}
}

func (s *simpleStream) emit(continues bool) {
	s.log.put(s.line)
	s.line, s.plus = "", continues
}

func (s *simpleStream) close() {
	_ = s.mask.Flush()
	if len(s.bytes) > 0 {
		s.bytes = nil
		s.stamp("\uFFFD")
	}
	if s.line != "" {
		s.line += "\n"
		s.emit(false)
	}
}

func (l *simpleLog) put(text string) {
	if l.full {
		return
	}
	if limit := int(l.format.LimitBytes); limit > 0 && l.out.Len()+len(text) >= limit {
		l.full = true
		text = text[:limit-l.out.Len()]
		for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
			if last := text[len(text)-i:]; utf8.RuneStart(last[0]) {
				if !utf8.FullRuneInString(last) {
					text = text[:len(text)-i]
				}
				break
			}
		}
		text += fmt.Sprintf("\n\x1b[33;1mJob's log exceeded limit of %d bytes.\nJob execution will continue but no more output will be collected.\x1b[0;m\n", limit)
	}
	l.out.WriteString(text)
}

// The log is, byte for byte, what a rune and a line at a time gives: whatever is written, in whatever pieces, with time
// stamps and without, up to the limit.
func TestTheLogIsThatOfTheSimpleWay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := tranter.LogFormat{Timestamps: rapid.Bool().Draw(t, "stamps"), Phrases: []tranter.Secret{"hunter2-and-more", "one\ntwo"}}
		f.LimitBytes = rapid.SampledFrom([]int64{0, 0, 100, 5000, 70_000}).Draw(t, "limit")
		// Time goes on between writes, also past the end of a second.
		current := time.Date(2026, 1, 2, 3, 4, 5, 678901999, time.UTC)
		now := func() time.Time { return current }
		simple := &simpleLog{format: f, now: now}
		var out bytes.Buffer
		l := joblog.New(&out, f, now)
		expected := []*simpleStream{simple.stream('O'), simple.stream('E')}
		streams := []io.WriteCloser{l.Stdout(), l.Stderr()}
		piece := rapid.SampledFrom([]string{
			"\n", "\r", "\r\n", "a", "word ", "日本語", "\xe6", "\xe6\x97", "\x97", "\xa5", "\xff", "\xf0\x9f\x98", "\x00", "50%\r", "one\n", "two", "hunter2-",
			"and-more", strings.Repeat("short\n", 2000), strings.Repeat("日本", 3000), strings.Repeat("x", 9000), strings.Repeat("\n", 3000), strings.Repeat("a longer line of text\n", 3000),
			strings.Repeat("\xff", 100),
		})
		for range rapid.IntRange(0, 12).Draw(t, "writes") {
			i := rapid.IntRange(0, 1).Draw(t, "stream")
			p := []byte(strings.Join(rapid.SliceOfN(piece, 1, 6).Draw(t, "pieces"), ""))
			current = current.Add(rapid.SampledFrom([]time.Duration{0, time.Microsecond, 321 * time.Millisecond, time.Hour}).Draw(t, "passed"))
			_, _ = streams[i].Write(bytes.Clone(p))
			_, _ = expected[i].mask.Write(p)
		}
		for i := range streams {
			_ = streams[i].Close()
			expected[i].close()
		}
		if l.Written() != int64(out.Len()) || l.Full() != simple.full {
			t.Fatalf("%d of %d written; full: %v, want %v", l.Written(), out.Len(), l.Full(), simple.full)
		}
		if got, want := out.String(), simple.out.String(); got != want {
			i := 0
			for i < min(len(got), len(want)) && got[i] == want[i] {
				i++
			}
			t.Fatalf("from byte %d on\n%.300q\nwant\n%.300q", i, got[i:], want[i:])
		}
	})
}

// What comes at once is written at once and in few pieces: each costs a system call.
func TestFewWrites(t *testing.T) {
	t.Parallel()
	var out counting
	l := joblog.New(&out, tranter.LogFormat{Timestamps: true}, at)
	s := l.Stdout()
	text := []byte(strings.Repeat("short line\n", 6000)) // 66 KB, 258 KB with time stamps
	_, _ = s.Write(text)
	if out.writes > 5 {
		t.Errorf("%d writes for %d bytes", out.writes, out.bytes)
	}
	out = counting{}
	_, _ = s.Write([]byte("one more\n"))
	if out.writes != 1 || out.bytes != 41 {
		t.Errorf("%d writes of %d bytes for a line", out.writes, out.bytes)
	}
}

type counting struct{ writes, bytes int }

func (c *counting) Write(p []byte) (int, error) {
	c.writes++
	c.bytes += len(p)
	return len(p), nil
}
