package redact_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter/internal/redact"
)

func TestMasks(t *testing.T) {
	for name, c := range map[string]struct {
		phrases, prefixes []string
		in, want          string
	}{
		"a phrase":              {phrases: []string{"secret"}, in: "a secret here", want: "a [MASKED] here"},
		"the longest first":     {phrases: []string{"sec", "secret"}, in: "secret sec", want: "[MASKED] [MASKED]"},
		"overlapping":           {phrases: []string{"abc", "cde"}, in: "xabcdex", want: "x[MASKED]x"},
		"twice in a row":        {phrases: []string{"ab"}, in: "abab", want: "[MASKED][MASKED]"},
		"a false start":         {phrases: []string{"aab"}, in: "aaab", want: "a[MASKED]"},
		"an unfinished start":   {phrases: []string{"secret"}, in: "secre", want: "secre"},
		"one byte":              {phrases: []string{"x"}, in: "axb", want: "a[MASKED]b"},
		"base64":                {phrases: []string{"s3cr3t-value"}, in: base64.StdEncoding.EncodeToString([]byte("user:s3cr3t-value\n")), want: "dXNlcjp[MASKED]UK"},
		"percent encoding":      {phrases: []string{"p&ss word?"}, in: "q=p%26ss+word%3F", want: "q=[MASKED]"},
		"JSON":                  {phrases: []string{"line\"quote\""}, in: `{"a":"line\"quote\""}`, want: `{"a":"[MASKED]"}`},
		"carriage returns":      {phrases: []string{"one\ntwo"}, in: "one\r\ntwo", want: "[MASKED]"},
		"token":                 {in: "use glpat-abc.DEF_123 now", want: "use glpat-[MASKED] now"},
		"token, other case":     {in: "GLPAT-abc", want: "GLPAT-abc"},
		"own prefix":            {prefixes: []string{"corp-"}, in: "corp-1234 x", want: "corp-[MASKED] x"},
		"bare prefix":           {in: "glpat- x", want: "glpat- x"},
		"query parameter":       {in: "GET /x?a=1&Private_Token=abc&b=2", want: "GET /x?a=1&Private_Token=[MASKED]&b=2"},
		"query, end of line":    {in: "?rss_token=a/b%20c\nnext", want: "?rss_token=[MASKED]\nnext"},
		"a phrase in the token": {phrases: []string{"abc"}, in: "glpat-abcdef", want: "glpat-[MASKED]def"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := redact.String(c.in, redact.Rules{Phrases: c.phrases, TokenPrefixes: c.prefixes}); got != c.want {
				t.Errorf("masked %q to %q, want %q", c.in, got, c.want)
			}
		})
	}
}

// Whatever the boundaries of writes, the output is that of one write, and no phrase is in it.
func TestBoundariesDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		phrases := rapid.SliceOfN(rapid.StringMatching(`[abc]{1,6}`), 1, 4).Draw(t, "phrases")
		text := rapid.StringMatching(`([abc ]|glpat-|\?private_token=|[&=x]){0,40}`).Draw(t, "text")
		rules := redact.Rules{Phrases: phrases}
		want := redact.String(text, rules)
		var out bytes.Buffer
		w := redact.NewWriter(&out, rules)
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			if _, err := io.WriteString(w, rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Fatalf("split: %q, whole: %q", out.String(), want)
		}
		plain := strings.ReplaceAll(want, redact.Mask, "\x00")
		for _, p := range phrases {
			if strings.Contains(plain, p) && !strings.Contains(p, "\x00") {
				t.Fatalf("phrase %q is in %q", p, want)
			}
		}
	})
}

func FuzzWriter(f *testing.F) {
	f.Add("secret", "a secret glpat-x ?private_token=y", 3)
	f.Add("aab", "aaaab", 1)
	f.Fuzz(func(t *testing.T, phrase, text string, n int) {
		rules := redact.Rules{Phrases: []string{phrase}}
		want := redact.String(text, rules)
		var out bytes.Buffer
		w := redact.NewWriter(&out, rules)
		n = max(1, n%16)
		for rest := []byte(text); len(rest) > 0; {
			k := min(n, len(rest))
			if _, err := w.Write(rest[:k]); err != nil {
				t.Fatal(err)
			}
			rest = rest[k:]
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("split: %q, whole: %q", out.String(), want)
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	phrases := make([]string, 20)
	for i := range phrases {
		phrases[i] = strings.Repeat(string(rune('A'+i)), 3) + "-credential-" + strings.Repeat("z", i)
	}
	line := []byte(strings.Repeat("[ 42%] Building CXX object src/module/file.cpp.o and a few words more\n", 64))
	w := redact.NewWriter(io.Discard, redact.Rules{Phrases: phrases})
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = w.Write(line)
	}
}
