//go:build unix

package worker

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
)

func TestPlacesShareProcessors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfNDistinct(rapid.IntRange(0, 500), 1, 40, rapid.ID[int]).Draw(t, "processors")
		places := rapid.IntRange(1, 20).Draw(t, "places")
		s := newShares(all, places)
		var got []int
		for range places {
			p := s.take()
			if mine := s.of(p); (len(mine) > 0) != (places > 1 && len(all) >= places) {
				t.Fatalf("place %d has %v", p, mine)
			} else {
				got = append(got, mine...)
			}
		}
		if s.take() != -1 || s.of(-1) != nil {
			t.Fatal("there are more places than there are")
		}
		if places > 1 && len(all) >= places && !slices.Equal(got, all) {
			t.Fatalf("of %v the places have %v", all, got)
		}
		s.give(0)
		if s.take() != 0 {
			t.Fatal("a place that was given back is not free")
		}
	})
}

// Whatever comes in, lines come out that are JSON, the same ones however it is cut.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{}\n\n{\"a\":1}\n{\"b\n[1]\n"), 3)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		collect := func(parts ...[]byte) (out []string) {
			l := lines{most: 1 << 20}
			for _, p := range parts {
				if err := l.add(p, func(line []byte) { out = append(out, string(line)) }); err != nil {
					t.Fatal(err)
				}
			}
			return out
		}
		cut = max(0, min(cut, len(data)))
		if a, b := collect(data), collect(data[:cut], data[cut:]); !slices.Equal(a, b) {
			t.Errorf("%q: %q, cut at %d: %q", data, a, cut, b)
		}
	})
}

func TestNamesHaveNoWayOut(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "../a", "-x", ".x", "a\n", "a b", "a'b", strings.Repeat("x", 201), "\x00"} {
		if checkName("job", name) == nil {
			t.Errorf("%q is taken", name)
		}
	}
	for _, name := range []string{"a", "tranter-1", "job_7.x", "1-2-3", "TestX"} {
		if err := checkName("job", name); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatAWorkerSaysIsBriefAndInOneLine(t *testing.T) {
	for in, want := range map[string]string{"a\nb": "a b", "\x1b[31mx": " [31mx", "\u009bx": " x", "ä": "ä"} {
		if got := brief(in, 10); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if got := brief(strings.Repeat("ä", 5000), 10); got != strings.Repeat("ä", 10) {
		t.Errorf("%q", got)
	}
	long := failureOf(&tranter.ConfigError{Err: &classed{strings.Repeat("x", 1<<20), tranter.ErrNotFound}})
	if len(long.Text) > maxText+3 || long.Kind != "config" {
		t.Errorf("%d bytes of class %s", len(long.Text), long.Kind)
	}
}
