package redact_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter/internal/redact"
)

func TestMasks(t *testing.T) {
	for name, c := range map[string]struct {
		phrases, prefixes []string
		in, want          string
		few               bool
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
		"JSON, HTML escaped":    {phrases: []string{"a<b>&\"cd\""}, in: `"a\u003cb\u003e\u0026\"cd\""`, want: `"[MASKED]"`},
		"JSON, not HTML":        {phrases: []string{"a<b>&\"cd\""}, in: `"a<b>&\"cd\""`, want: `"[MASKED]"`},
		"base64 of a key":       {phrases: []string{strings.Repeat("MIIEpAIBAAKCAQEA\n", 200)}, in: base64.StdEncoding.EncodeToString([]byte(strings.Repeat("MIIEpAIBAAKCAQEA\n", 200))), want: "[MASKED]g=="},
		"curl":                  {phrases: []string{"p&ss w(rd?"}, in: "q=p%26ss%20w%28rd%3F", want: "q=[MASKED]"},
		"small hex digits":      {phrases: []string{"pass/word?"}, in: "q=pass%2fword%3f", want: "q=[MASKED]"},
		"encodeURIComponent":    {phrases: []string{"p&ss w(rd!"}, in: "q=p%26ss%20w(rd!", want: "q=[MASKED]"},
		"a slash in a path":     {phrases: []string{"top/secret?"}, in: "/top/secret%3F/", want: "/[MASKED]/"},
		"many lines":            {phrases: []string{"one\ntwo\nthree"}, in: "x\none\ntwo\nthree\ny", want: "x\n[MASKED]\ny"},
		"no carriage returns":   {phrases: []string{"one\r\ntwo"}, in: "one\ntwo one\r\ntwo", want: "[MASKED] [MASKED]"},
		"most of a phrase":      {phrases: []string{"correct-horse"}, in: "correct-hor", want: "[MASKED]"},
		"less than half":        {phrases: []string{"correct-horse-battery"}, in: "correct-h", want: "correct-h"},
		"most of a shorter one": {phrases: []string{"xcorrect-horse-battery-staple-0", "correct-horse"}, in: "xcorrect-hor", want: "x[MASKED]"},
		"carriage returns":      {phrases: []string{"one\ntwo"}, in: "one\r\ntwo", want: "[MASKED]"},
		"token":                 {in: "use glpat-abc.DEF_123 now", want: "use glpat-[MASKED] now"},
		"token, other case":     {in: "GLPAT-abc", want: "GLPAT-abc"},
		"few tokens":            {few: true, in: "glrt-abc glpat-abc", want: "glrt-abc glpat-[MASKED]"},
		"all tokens":            {in: "glrt-abc glcbt-64_x _gitlab_session=y", want: "glrt-[MASKED] glcbt-[MASKED] _gitlab_session=[MASKED]"},
		"own prefix":            {prefixes: []string{"corp-"}, in: "corp-1234 x", want: "corp-[MASKED] x"},
		"bare prefix":           {in: "glpat- x", want: "glpat- x"},
		"query parameter":       {in: "GET /x?a=1&Private_Token=abc&b=2", want: "GET /x?a=1&Private_Token=[MASKED]&b=2"},
		"query, end of line":    {in: "?rss_token=a/b%20c\nnext", want: "?rss_token=[MASKED]\nnext"},
		"a phrase in the token": {phrases: []string{"abc"}, in: "glpat-abcdef abc", want: "glpat-[MASKED] [MASKED]"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := redact.String(c.in, redact.Rules{Phrases: c.phrases, TokenPrefixes: c.prefixes, FewTokens: c.few}); got != c.want {
				t.Errorf("masked %q to %q, want %q", c.in, got, c.want)
			}
		})
	}
}

// check writes text in pieces and fails unless the output is that of one write and no phrase is in it.
func check(t interface{ Fatalf(string, ...any) }, rules redact.Rules, text string, size func(rest int) int) {
	want := redact.String(text, rules)
	var out bytes.Buffer
	w := redact.NewWriter(&out, rules)
	for rest := text; rest != ""; {
		n := size(len(rest))
		if _, err := io.WriteString(w, rest[:n]); err != nil {
			t.Fatalf("%v", err)
		}
		rest = rest[n:]
	}
	if err := w.Flush(); err != nil {
		t.Fatalf("%v", err)
	}
	if out.String() != want {
		t.Fatalf("split: %q, whole: %q", out.String(), want)
	}
	for visible := range strings.SplitSeq(want, redact.Mask) {
		for _, p := range rules.Phrases {
			if p != "" && strings.Contains(visible, p) {
				t.Fatalf("phrase %q is in %q", p, want)
			}
		}
	}
}

// Whatever the boundaries of writes, the output is that of one write, and no phrase is in it.
func TestBoundariesDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := redact.Rules{
			Phrases:   rapid.SliceOfN(rapid.StringMatching(`[abc]{1,6}|[ab]{8,20}`), 1, 4).Draw(t, "phrases"),
			FewTokens: rapid.Bool().Draw(t, "few"),
		}
		text := rapid.StringMatching(`([abc ]|[ab]{6}|glpat-|glrt-|\?private_token=|[&=x]){0,40}`).Draw(t, "text")
		check(t, rules, text, func(rest int) int { return rapid.IntRange(1, rest).Draw(t, "n") })
	})
}

// The automaton finds what a search for each phrase finds: nothing more, nothing less.
func TestMasksExactlyThePhrases(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		phrases := rapid.SliceOfN(rapid.StringMatching(`[abc]{1,6}`), 0, 8).Draw(t, "phrases")
		text := rapid.StringMatching(`[abcd]{0,60}`).Draw(t, "text")
		hidden := make([]bool, len(text))
		starts := make([]bool, len(text)+1) // where a match begins that no other one reaches
		for _, p := range phrases {
			for i := range text {
				if strings.HasPrefix(text[i:], p) {
					for j := i; j < i+len(p); j++ {
						hidden[j] = true
					}
				}
			}
		}
		for i := range text {
			starts[i] = hidden[i]
			for _, p := range phrases {
				for j := max(0, i-len(p)+1); j < i; j++ {
					if strings.HasPrefix(text[j:], p) {
						starts[i] = false
					}
				}
			}
		}
		var want strings.Builder
		for i := range text {
			switch {
			case starts[i]:
				want.WriteString(redact.Mask)
			case !hidden[i]:
				want.WriteByte(text[i])
			}
		}
		if got := redact.String(text, redact.Rules{Phrases: phrases}); got != want.String() {
			t.Fatalf("got %q, want %q", got, want.String())
		}
	})
}

// A process that stops in the middle of a secret has not shown it: it is either printed to the end or not.
func TestNothingOfASecretBeforeItIsCertain(t *testing.T) {
	const secret = "s3cr3t-value-of-some-length"
	var out bytes.Buffer
	w := redact.NewWriter(&out, redact.Rules{Phrases: []string{secret}})
	for i := range secret {
		_, _ = w.Write([]byte{secret[i]})
		if got := out.String(); got != "" && got != redact.Mask {
			t.Fatalf("after %d bytes: %q", i+1, got)
		}
	}
}

// Thousands of secrets are masked, and take memory for their length, not for their number times an alphabet.
func TestThousandsOfSecrets(t *testing.T) {
	all := secrets(1000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m := redact.Compile(redact.Rules{Phrases: all})
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 100<<20 {
		t.Errorf("%d MB for 1000 secrets", grown>>20)
	}
	var out bytes.Buffer
	w := m.NewWriter(&out)
	for _, s := range all {
		_, _ = io.WriteString(w, s+"\n"+base64.StdEncoding.EncodeToString([]byte("xx"+s+"yy"))+"\n")
	}
	_ = w.Flush()
	if n := strings.Count(out.String(), redact.Mask); n != 2*len(all) {
		t.Errorf("%d masks for %d secrets, each twice", n, len(all))
	}
}

// Whole files as secrets do not fill the memory.
func TestLongSecrets(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	long := make([]string, 60)
	for i := range long {
		b := make([]byte, 10_000)
		random.Read(b)
		long[i] = string(b)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m := redact.Compile(redact.Rules{Phrases: append(long, "short-secret")})
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 200<<20 {
		t.Errorf("%d MB for 600 KB of secrets", grown>>20)
	}
	var out bytes.Buffer
	w := m.NewWriter(&out)
	for _, s := range append(long, base64.StdEncoding.EncodeToString([]byte("short-secret"))) {
		_, _ = io.WriteString(w, s+"\n")
	}
	_ = w.Flush()
	if n := strings.Count(out.String(), redact.Mask); n != len(long)+1 {
		t.Errorf("%d masks for %d secrets", n, len(long)+1)
	}
}

// An endless line is passed on as it comes.
func TestEndlessLine(t *testing.T) {
	var n counter
	w := redact.NewWriter(&n, redact.Rules{Phrases: []string{"x", "a-secret"}})
	block := bytes.Repeat([]byte("xy"), 1<<17)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 8 {
		_, _ = w.Write(block)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 2<<20 || n == 0 {
		t.Errorf("%d MB allocated for 2 MB on one line", grown>>20)
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// What a shell shows of a variable when it traces commands or lists variables is masked, however it quotes.
func TestShellsDoNotTell(t *testing.T) {
	for _, secret := range []string{"it's a secret", `a"b$c` + "`d\\efgh", "line one\nline 'two'\ttab", "-----BEGIN KEY-----\nMIIE\\x\n-----END KEY-----"} {
		for _, shell := range []string{"bash", "sh"} {
			cmd := exec.Command(shell, "-c", `set -x; export COPY="$SECRET"; : "$SECRET"; export -p; set`)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SECRET=" + secret}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			masked := redact.String(string(out), redact.Rules{Phrases: []string{secret}})
			for line := range strings.Lines(masked) {
				if strings.Contains(line, "COPY=") && !strings.Contains(line, redact.Mask) && !strings.Contains(line, "$SECRET") {
					t.Errorf("%s tells %q: %s", shell, secret, line)
				}
			}
			if n := strings.Count(masked, redact.Mask); n < 6 {
				t.Errorf("%s: %q was masked %d times in:\n%s", shell, secret, n, masked)
			}
		}
	}
}

func FuzzWriter(f *testing.F) {
	f.Add("secret", "a secret glpat-x ?private_token=y", 3)
	f.Add("aab\nab", "aaaab", 1)
	f.Add("correct-horse\nhorse-battery", "correct-horse-battery correct-hor", 2)
	f.Add("glpat-\nx\xff", "glpat-glpat-x\xff&PRIVATE_token=a", 5)
	f.Fuzz(func(t *testing.T, phrases, text string, n int) {
		n = max(1, n%16)
		check(t, redact.Rules{Phrases: strings.Split(phrases, "\n")}, text, func(rest int) int { return min(n, rest) })
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
