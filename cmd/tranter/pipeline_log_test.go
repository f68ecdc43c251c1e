package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/joblog"
)

// sampleLog is a log as a job writes it.
func sampleLog(timestamps bool) []byte {
	var b bytes.Buffer
	l := joblog.New(&b, tranter.LogFormat{Timestamps: timestamps, Sections: true}, func() time.Time { return time.Unix(1_700_000_000, 0) })
	l.Plain("Running")
	l.SectionStart("get_sources")
	l.Headline("Getting source")
	l.SectionEnd("get_sources")
	l.SectionStart("step_script", "collapsed=true")
	l.Headline("Executing")
	out := l.Stdout()
	_, _ = out.Write([]byte("10%\r50%\r100%\nplain\n\n\x1b[31mred\x1b[0m\n" + strings.Repeat("x", 20_000) + "\nlast\n"))
	_ = out.Close()
	l.SectionEnd("step_script")
	l.FinalError("Job failed: exit status 1")
	_ = l.Close()
	return b.Bytes()
}

func texts(lines []logLine) []string {
	out := []string{}
	for _, l := range lines {
		out = append(out, l.text)
	}
	return out
}

func TestReadLogShowsWhatPeopleRead(t *testing.T) {
	want := []string{
		"Running", "Getting source", "Executing", "100%", "plain", "", "red", strings.Repeat("x", 20_000), "last", "ERROR: Job failed: exit status 1",
	}
	for _, timestamps := range []bool{true, false} {
		lines, err := readLog(bytes.NewReader(sampleLog(timestamps)), false)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, texts(lines)); d != "" {
			t.Errorf("timestamps %v: %s", timestamps, d)
		}
		tail, cut := telling(lines, 3)
		if d := cmp.Diff(want[7:], texts(tail)); d != "" || cut != 5 {
			t.Errorf("timestamps %v: %d lines left out; %s", timestamps, cut, d)
		}
	}
	lines, _ := readLog(bytes.NewReader(sampleLog(true)), true)
	if got := lines[6].text; got != "\x1b[31mred\x1b[0m" {
		t.Errorf("with colours: %q", got)
	}
}

// A log that holds what commands a terminal, as of a program that expects one, or of a binary file, commands none here.
func TestReadLogCommandsNoTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b": "ab",
		"a\x1bcb\x1b7\x1b8\x1b=\x1b(0q":            "abq",
		"\x1bPq#0~\x1b\\a\x1b]never ended":         "anever ended",
		"\x00\x01a\x07\x08\x0eb\x7f\tc\x1b":        "ab\tc",
		"\u009b31ma \xff b é":                      "31ma \xff b é",
		"\x1b[2J\x1b[?1049h\x1b[1;31mred\x1b[m":    "\x1b[1;31mred\x1b[m",
	} {
		lines, err := readLog(strings.NewReader(in+"\n"), true)
		if d := cmp.Diff([]string{want}, texts(lines)); d != "" || err != nil {
			t.Errorf("%q: %v, %s", in, err, d)
		}
	}
}

// However a log arrives, its lines are the same.
func TestLogInPieces(t *testing.T) {
	data := sampleLog(true)
	whole, _ := readLog(bytes.NewReader(data), false)
	rapid.Check(t, func(t *rapid.T) {
		var lines []logLine
		r := &logReader{emit: func(l logLine) { lines = append(lines, l) }}
		for rest := data; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			if _, err := r.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		r.end()
		if d := cmp.Diff(texts(whole), texts(lines)); d != "" {
			t.Error(d)
		}
	})
}

func FuzzReadLog(f *testing.F) {
	f.Add(sampleLog(true))
	f.Add([]byte("section_start:1:a\r\x1b[0Ksection_end:1:a\r\x1b[0K\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines, err := readLog(bytes.NewReader(data), false)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			if strings.ContainsAny(l.text, "\r\n") {
				t.Errorf("a line has a line end: %q", l.text)
			}
		}
	})
}
