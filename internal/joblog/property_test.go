package joblog_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/joblog"
	"github.com/tranter-ci/tranter/internal/redact"
)

// unstamped takes a log with time stamps apart into the text of each stream, "01O" for example, as GitLab does: a line
// that is marked with + continues the one before it in its stream.
func unstamped(t interface{ Fatalf(string, ...any) }, log string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(log) {
		if len(line) < 33 || line[:28] != stamp+" " || !strings.HasSuffix(line, "\n") {
			t.Fatalf("not a line with a header: %q", line)
		}
		stream, mark := line[28:31], line[31]
		switch mark {
		case '+':
			out[stream] = strings.TrimSuffix(out[stream], "\n")
		case ' ':
		default:
			t.Fatalf("unknown mark in %q", line)
		}
		out[stream] += line[32:]
	}
	return out
}

// What two streams write at the same time comes out of each as it was, but for secrets and invalid bytes.
func TestStreamsComeOutWhole(t *testing.T) {
	const secret = "s3cr3t\nvalue"
	rules := redact.Rules{Phrases: []string{secret}}
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.OneOf(
			rapid.SampledFrom([]string{"s3cr3t\n", "value", "s3cr3t\nvalue", "\n", "\r", "\r\n", "é", "\xc3", "\xa9", "\xff", "\x00", "x", "50%\r", "日本"}),
			rapid.Just(strings.Repeat("日本", 3000)),
		)
		texts := map[string]*strings.Builder{"01O": {}, "01E": {}}
		var out bytes.Buffer
		l := joblog.New(&out, tranter.LogFormat{Timestamps: true, Phrases: []tranter.Secret{secret}}, at)
		streams := map[string]io.WriteCloser{"01O": l.Stdout(), "01E": l.Stderr()}
		for range rapid.IntRange(0, 20).Draw(t, "writes") {
			name := rapid.SampledFrom([]string{"01O", "01E"}).Draw(t, "stream")
			p := piece.Draw(t, "piece")
			texts[name].WriteString(p)
			fmt.Fprint(streams[name], p)
		}
		for _, s := range streams {
			if err := s.Close(); err != nil {
				t.Fatalf("%v", err)
			}
		}
		if !utf8.ValidString(out.String()) {
			t.Fatalf("invalid UTF-8: %q", out.String())
		}
		got := unstamped(t, out.String())
		for name, text := range texts {
			want := valid(redact.String(text.String(), rules))
			if got[name] != want && got[name] != want+"\n" { // a log ends with a newline whatever the stream does
				t.Fatalf("%s: %q, want %q", name, got[name], want)
			}
		}
	})
}

// valid replaces each invalid byte.
func valid(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteRune(r)
	}
	return b.String()
}

func TestARuneIsNotTornApart(t *testing.T) {
	var out bytes.Buffer
	l := joblog.New(&out, tranter.LogFormat{Timestamps: true}, at)
	s := l.Stdout()
	for text := strings.Repeat("日本", 5000); text != ""; { // a line of 30,000 bytes in writes that end within a rune
		n := min(4096, len(text))
		fmt.Fprint(s, text[:n])
		text = text[n:]
	}
	_ = s.Close()
	if strings.Contains(out.String(), "\uFFFD") {
		t.Error("a long line has lost characters")
	}
	out.Reset()
	l = joblog.New(&out, tranter.LogFormat{}, at)
	a, b := l.Stdout(), l.Stderr()
	fmt.Fprint(a, "\xe6\x97")
	fmt.Fprint(b, "err\n")
	fmt.Fprint(a, "\xa5\n")
	if got, want := out.String(), "err\n日\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A secret that one stream has begun is not given away by what the other prints in between.
func TestMaskingOfTwoStreams(t *testing.T) {
	var out bytes.Buffer
	l := joblog.New(&out, tranter.LogFormat{Timestamps: true, Phrases: []tranter.Secret{"hunter2-and-more", "line one\nline two"}}, at)
	so, se := l.Stdout(), l.Stderr()
	fmt.Fprint(so, "a hunter2-a")
	fmt.Fprint(se, "oops\nhunter2-")
	l.Plain("meanwhile")
	fmt.Fprint(so, "nd-more b\nline one\n")
	fmt.Fprint(se, "and-more")
	fmt.Fprint(so, "line two.\nhunter2-and-mor")
	_ = so.Close()
	_ = se.Close()
	want := strings.Join([]string{
		stamp + " 01E oops",
		stamp + " 00O \x1b[0Kmeanwhile\x1b[0;m",
		stamp + " 01O a [MASKED] b",
		stamp + " 01O [MASKED].",
		stamp + " 01O [MASKED]",
		stamp + " 01E [MASKED]",
		"",
	}, "\n")
	if out.String() != want {
		t.Errorf("log:\n%q\nwant\n%q", out.String(), want)
	}
}

// The exact bytes of carriage returns, empty lines and lines without an end (GitLab's pages count on them).
func TestTimestampsExactly(t *testing.T) {
	for name, c := range map[string]struct {
		writes []string
		want   []string
	}{
		"empty lines":           {[]string{"\n\n"}, []string{" 01O ", " 01O "}},
		"no end":                {[]string{"a", "b"}, []string{" 01O ab"}},
		"progress":              {[]string{"10%\r", "20%\r", "done\n", "next\n"}, []string{" 01O 10%\r", " 01O+20%\r", " 01O+done", " 01O next"}},
		"return of its own":     {[]string{"abc", "\r", "def\n"}, []string{" 01O abc\r", " 01O+def"}},
		"Windows":               {[]string{"a\r\nb\r\n"}, []string{" 01O a\r", " 01O b\r"}},
		"return after the line": {[]string{"a\n10%\r"}, []string{" 01O a", " 01O 10%\r"}},
		"long":                  {[]string{strings.Repeat("x", 9000), "y\n", "z\n"}, []string{" 01O " + strings.Repeat("x", 9000), " 01O+y", " 01O z"}},
		"zero bytes":            {[]string{"a\x00b\n"}, []string{" 01O a\x00b"}},
	} {
		var out bytes.Buffer
		l := joblog.New(&out, tranter.LogFormat{Timestamps: true}, at)
		s := l.Stdout()
		for _, w := range c.writes {
			fmt.Fprint(s, w)
		}
		_ = s.Close()
		var want strings.Builder
		for _, line := range c.want {
			want.WriteString(stamp + line + "\n")
		}
		if out.String() != want.String() {
			t.Errorf("%s: %q, want %q", name, out.String(), want.String())
		}
	}
}

func TestNoSectionsUnlessTheServerWantsThem(t *testing.T) {
	var out bytes.Buffer
	l := joblog.New(&out, tranter.LogFormat{}, at)
	l.SectionStart("x")
	l.SectionEnd("x")
	if out.Len() != 0 {
		t.Errorf("%q", out.String())
	}
	l = joblog.New(&out, tranter.LogFormat{Sections: true}, at)
	l.SectionStart("x", "collapsed=true")
	l.SectionEnd("x")
	if got, want := out.String(), "section_start:1767323045:x[collapsed=true]\r\x1b[0Ksection_end:1767323045:x\r\x1b[0K"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The message names the limit that the user has set, not what this phase had left of it.
func TestTheLimitOfTheWholeLogIsNamed(t *testing.T) {
	var out bytes.Buffer
	l := joblog.New(&out, tranter.LogFormat{LimitBytes: 10, LimitWhole: 4 << 20}, at)
	l.Plain("more than ten bytes")
	if !strings.Contains(out.String(), "Job's log exceeded limit of 4194304 bytes.\n") {
		t.Errorf("%q", out.String())
	}
}

func TestFewTokens(t *testing.T) {
	for few, want := range map[bool]string{false: "glrt-[MASKED] glpat-[MASKED] corp-[MASKED]", true: "glrt-abc glpat-[MASKED] corp-[MASKED]"} {
		var out bytes.Buffer
		l := joblog.New(&out, tranter.LogFormat{TokenPrefixes: []string{"corp-"}, FewTokens: few}, at)
		l.Plain("glrt-abc glpat-abc corp-abc")
		if !strings.Contains(out.String(), want) {
			t.Errorf("%v: %q", few, out.String())
		}
	}
}
