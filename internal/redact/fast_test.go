package redact

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// simple masks a whole text the obvious way: it looks for every form of every phrase at every place, then for prefixes in
// what is visible. Of what a text ends with it masks nothing that is not whole.
func simple(text string, r Rules) string {
	hidden := make([]bool, len(text)) // part of a phrase
	joined := make([]bool, len(text)) // within a phrase, not its first byte
	for _, form := range forms(r.Phrases) {
		for at := 0; ; at++ {
			i := strings.Index(text[at:], string(form))
			if i < 0 {
				break
			}
			at += i
			for j := range form {
				hidden[at+j] = true
				joined[at+j] = joined[at+j] || j > 0
			}
		}
	}
	rules := newTokenRules(r)
	patterns := slices.Collect(maps.Keys(rules.exact))
	for _, q := range queryParameters() {
		patterns = append(patterns, "?"+q+"=", "&"+q+"=")
	}
	slices.SortFunc(patterns, func(a, b string) int { return len(b) - len(a) })
	t := &tokenWriter{rules: rules}
	var out, seen []byte
	put := func(b byte) {
		out, seen = append(out, b), append(seen, b)
		for _, p := range patterns {
			if !strings.HasSuffix(strings.ToLower(string(seen)), strings.ToLower(p)) {
				continue
			}
			switch {
			case p[0] == '?' || p[0] == '&':
				t.mode, t.masked = inParameter, false
			case rules.exact[string(seen[len(seen)-len(p):])]:
				t.mode, t.masked = inToken, false
			}
			break
		}
		seen = seen[max(0, len(seen)-rules.longest):]
	}
	mask := func() {
		if t.mode == outside || !t.masked {
			out = append(out, Mask...)
		}
		t.masked = true
	}
	for i := range len(text) {
		switch {
		case hidden[i] && joined[i]:
		case hidden[i]:
			mask()
			if t.mode == outside {
				seen = nil
			}
		case t.mode != outside && t.covers(text[i]):
			mask()
		default:
			if t.mode != outside {
				t.mode, seen = outside, nil
			}
			put(text[i])
		}
	}
	return string(out)
}

// Whatever is passed over and whatever the sizes of writes, the output is that of a search everywhere.
func TestTheFastWayIsTheSimpleWay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		phrase := rapid.OneOf(
			rapid.StringMatching(`[abc]{2,7}`), rapid.StringMatching(`[a-c/+]{8,30}`), rapid.SampledFrom([]string{"x", "hunter2-and-more", "one\ntwo three", "glpat", "&rss"}),
		)
		rules := Rules{
			Phrases:       rapid.SliceOfN(phrase, 0, 5).Draw(t, "phrases"),
			TokenPrefixes: rapid.SliceOfN(rapid.SampledFrom([]string{"corp-", "Ab", "q", "glrt-x"}), 0, 2).Draw(t, "prefixes"),
			FewTokens:     rapid.Bool().Draw(t, "few"),
		}
		pieces := []string{
			"\n", " ", "a", "b", "abc", "glrt-", "GLRT-", "glpat-abc ", "&rss_token=a ", "?PRIVATE_token=", "Ab", "[ 42%] Building CXX object ", strings.Repeat("-=", 50),
			strings.Repeat("all is well here, go on\n", 40),
		}
		for _, f := range forms(rules.Phrases) {
			pieces = append(pieces, string(f), string(f[:len(f)/2]))
		}
		piece := rapid.SampledFrom(pieces)
		text := strings.Join(rapid.SliceOfN(piece, 0, 40).Draw(t, "text"), "") + "\n!" // not the beginning of a phrase
		text = strings.Repeat(text, rapid.SampledFrom([]int{1, 1, 1, 4}).Draw(t, "times"))
		m := Compile(rules)
		var out bytes.Buffer
		w := m.NewWriter(&out)
		most := rapid.SampledFrom([]int{1, 3, 100, 5000, 1 << 20}).Draw(t, "most")
		for rest := text; rest != ""; {
			n := min(len(rest), rapid.IntRange(1, most).Draw(t, "n"))
			if most < 100 { // few decisions, many writes
				n = min(len(rest), most)
			}
			_, _ = w.Write([]byte(rest[:n]))
			rest = rest[n:]
		}
		_ = w.Flush()
		if want := simple(text, rules); out.String() != want {
			t.Fatalf("got  %q\nwant %q", out.String(), want)
		}
	})
}

// What is passed over begins nothing, and what is held back is not more than that.
func TestSkip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		fold := rapid.Bool().Draw(t, "fold")
		patterns := [][]byte{}
		for _, p := range rapid.SliceOfN(rapid.StringMatching(`[a-d]{2,9}`), 1, 400).Draw(t, "patterns") {
			patterns = append(patterns, []byte(p))
		}
		text := rapid.StringMatching(`[a-eA-D]{0,40}`).Draw(t, "text")
		s := newSkipper(patterns, fold)
		n := s.skip([]byte(text))
		if n > len(text) || n == len(text) && n > 0 {
			t.Fatalf("%d of %d", n, len(text))
		}
		if fold {
			text = strings.ToLower(text)
		}
		for i := range n {
			for _, p := range patterns {
				if rest := text[i:]; strings.HasPrefix(rest, string(p)) || strings.HasPrefix(string(p), rest) {
					t.Fatalf("skipped %d of %q, and %q begins at %d", n, text, p, i)
				}
			}
		}
	})
}

// A stream without candidates is looked at in large steps: of a table's entries only few are read.
func TestLongWindowsForLongPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		patterns []string
		window   int
	}{{[]string{"x"}, 0}, {[]string{"ab", "abcdef"}, 2}, {[]string{"abcdefgh", "ijklmnopqrst"}, 8}, {[]string{strings.Repeat("a", 1000)}, maxWindow}} {
		var patterns [][]byte
		for _, p := range c.patterns {
			patterns = append(patterns, []byte(p))
		}
		if got := newSkipper(patterns, false).window; got != c.window {
			t.Errorf("%v: %d, want %d", fmt.Sprintf("%.20q", c.patterns), got, c.window)
		}
	}
}
