package joblog_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/joblog"
)

func at() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC) }

const stamp = "2026-01-02T03:04:05.678901Z"

func TestFormat(t *testing.T) {
	var out bytes.Buffer
	l := joblog.New(&out, tranter.LogFormat{Timestamps: true, Sections: true, Phrases: []tranter.Secret{"hunter2"}}, at)
	l.SectionStart("get_sources", "collapsed=true", "hide_duration=true")
	l.Headline("Getting source")
	l.SectionEnd("get_sources")
	l.Plain("said %s", "hunter2")
	l.Warning("careful")
	so, se := l.Stdout(), l.Stderr()
	fmt.Fprint(so, "one\ntwo hun")
	fmt.Fprint(se, "oops\n")
	fmt.Fprint(so, "ter2\n50%\r")
	fmt.Fprint(so, "100%\nrest")
	_ = so.Close()
	_ = se.Close()
	l.FinalError("Job failed: %s", "exit status 1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		stamp + " 00O section_start:1767323045:get_sources[collapsed=true,hide_duration=true]\r\x1b[0K",
		stamp + " 00O+\x1b[36;1mGetting source\x1b[0;m",
		stamp + " 00O section_end:1767323045:get_sources\r\x1b[0K",
		stamp + " 00O+\x1b[0Ksaid [MASKED]\x1b[0;m",
		stamp + " 00O \x1b[0;33mWARNING: careful\x1b[0;m",
		stamp + " 01O one",
		stamp + " 01E oops",
		stamp + " 01O two [MASKED]",
		stamp + " 01O 50%\r",
		stamp + " 01O+100%",
		stamp + " 01O rest",
		stamp + " 00O \x1b[31;1mERROR: Job failed: exit status 1\x1b[0;m",
		"",
	}, "\n")
	if out.String() != want {
		t.Errorf("log:\n%q\nwant\n%q", out.String(), want)
	}
	if l.Written() != int64(out.Len()) {
		t.Errorf("Written() = %d, want %d", l.Written(), out.Len())
	}
}

func TestLongLinesAreSplit(t *testing.T) {
	var out bytes.Buffer
	l := joblog.New(&out, tranter.LogFormat{Timestamps: true}, at)
	s := l.Stdout()
	for range 3 {
		fmt.Fprint(s, strings.Repeat("x", 5000))
	}
	fmt.Fprint(s, "\n")
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[1], stamp+" 01O+") {
		t.Errorf("got %d lines", len(lines))
	}
}

// A log that was full before keeps nothing more, says nothing about that again, and still ends as logs do.
func TestALogThatIsFullAlready(t *testing.T) {
	var out bytes.Buffer
	l := joblog.New(&out, tranter.LogFormat{LimitBytes: 1, LimitWhole: 100, Full: true}, at)
	fmt.Fprint(l.Stdout(), "dropped")
	l.Plain("dropped too")
	if out.Len() > 0 || !l.Full() {
		t.Errorf("log %q, full: %v", out.String(), l.Full())
	}
	l.FinalInfo("Job succeeded")
	if got := out.String(); strings.Contains(got, "dropped") || strings.Contains(got, "exceeded") || !strings.Contains(got, "Job succeeded") {
		t.Errorf("log %q", got)
	}
}

func TestLimit(t *testing.T) {
	var out bytes.Buffer
	l := joblog.New(&out, tranter.LogFormat{LimitBytes: 100}, at)
	s := l.Stdout()
	fmt.Fprint(s, strings.Repeat("é", 80))
	fmt.Fprint(s, "dropped")
	l.Plain("dropped too")
	if !l.Full() {
		t.Error("the log is not full")
	}
	l.FinalInfo("Job succeeded")
	got := out.String()
	if !utf8.ValidString(got) || strings.Contains(got, "dropped") {
		t.Errorf("log %q", got)
	}
	if !strings.Contains(got, "Job's log exceeded limit of 100 bytes.") || !strings.HasSuffix(got, "Job succeeded\x1b[0;m\n") {
		t.Errorf("log %q", got)
	}
}

func TestInvalidUTF8(t *testing.T) {
	var out bytes.Buffer
	l := joblog.New(&out, tranter.LogFormat{}, at)
	s := l.Stdout()
	for _, b := range []byte("a\xffb\x00é€") {
		_, _ = s.Write([]byte{b})
	}
	_, _ = s.Write([]byte("\xe2\x82"))
	_ = l.Close()
	if got, want := out.String(), "a\uFFFDb\x00é€\uFFFD"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

type brokenWriter struct{}

var errDisk = errors.New("no space left on device")

func (brokenWriter) Write([]byte) (int, error) { return 0, errDisk }

func TestFailedWriteIsKept(t *testing.T) {
	l := joblog.New(brokenWriter{}, tranter.LogFormat{}, at)
	l.Plain("x")
	l.Plain("y")
	if !errors.Is(l.Err(), errDisk) || !errors.Is(l.Close(), errDisk) {
		t.Errorf("Err() = %v", l.Err())
	}
}

func BenchmarkLog(b *testing.B) {
	l := joblog.New(discard{}, tranter.LogFormat{Timestamps: true, Phrases: []tranter.Secret{"first-secret", "second-secret"}}, at)
	s := l.Stdout()
	line := []byte(strings.Repeat("[ 42%] Building CXX object src/module/file.cpp.o and a few words more\n", 64))
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = s.Write(line)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
