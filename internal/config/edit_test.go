package config

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
)

const twoRunners = `# My runners.
concurrent = 2 # two cores

# The first one.
[[runners]]
  name = "one"   # don't touch
  token = "$ONE"
  mystery = 1
  [runners.cache]
    Type = "directory"
  # limit = 5

[session_server]
  session_timeout = 5

# About the cache of runner one.
[runners.cache.directory]
Path = "/c"

# The second one.
[[runners]]
	name = "two"
	token = "b"
`

func edit(t testing.TB, data string) *Editor {
	t.Helper()
	e, err := Edit([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEdits(t *testing.T) {
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	tests := []struct {
		name string
		do   func(*Editor) error
		old  string
		want string // in place of old
	}{
		{"replace", func(e *Editor) error { return e.Set(0, "name", "uno") }, `"one"   # don't`, `"uno"   # don't`},
		{"replace whatever the case", func(e *Editor) error { return e.Set(0, "NAME", "uno") }, `"one"   # don't`, `"uno"   # don't`},
		{"add", func(e *Editor) error { return e.Set(0, "token_expires_at", when) }, "  mystery = 1\n", "  mystery = 1\n  token_expires_at = 2026-01-02T02:04:05Z\n"},
		{"add with the indentation of the others", func(e *Editor) error { return e.Set(1, "id", int64(7)) }, "\ttoken = \"b\"\n", "\ttoken = \"b\"\n\tid = 7\n"},
		{"secret", func(e *Editor) error { return e.Set(1, "token", tranter.Secret("glrt-x")) }, `"b"`, `"glrt-x"`},
		{"global", func(e *Editor) error { return e.SetGlobal("concurrent", 8) }, "= 2 #", "= 8 #"},
		{"new global", func(e *Editor) error { return e.SetGlobal("log_level", "debug") }, "two cores\n", "two cores\nlog_level = \"debug\"\n"},
		{"unset", func(e *Editor) error { return e.Unset(0, "mystery") }, "  mystery = 1\n", ""},
		{"unset what is not there", func(e *Editor) error { return e.Unset(0, "limit") }, "", ""},
		{"remove the last", func(e *Editor) error { return e.RemoveRunner(1) }, twoRunners[strings.Index(twoRunners, "\n# The second"):], ""},
		{"append", func(e *Editor) error {
			return e.AppendRunner(Section{{"name", "c"}, {"limit", 3}, {"docker", Section{{"volumes", []string{"/cache"}}, {"sysctls", map[string]string{"a.b": "1"}}}}})
		}, "\ttoken = \"b\"\n", "\ttoken = \"b\"\n\n[[runners]]\n  name = \"c\"\n  limit = 3\n  [runners.docker]\n    volumes = [\"/cache\"]\n    sysctls = { \"a.b\" = \"1\" }\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, newline := range []string{"\n", "\r\n"} {
				convert := func(s string) string { return strings.ReplaceAll(s, "\n", newline) }
				e := edit(t, convert(twoRunners))
				if err := test.do(e); err != nil {
					t.Fatal(err)
				}
				want := convert(strings.Replace(twoRunners, test.old, test.want, 1))
				if diff := cmp.Diff(want, string(e.Bytes())); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			}
		})
	}
}

// Adding a runner and removing it again leaves the file as it was.
func TestAddedAndRemoved(t *testing.T) {
	for _, file := range []string{twoRunners, strings.ReplaceAll(twoRunners, "\n", "\r\n"), "concurrent = 1\n", "[[runners]]\n"} {
		e := edit(t, file)
		n := e.Runners()
		if err := e.AppendRunner(Section{{"name", "c"}, {"docker", Section{{"image", "x"}}}}); err != nil {
			t.Fatal(err)
		}
		if err := e.RemoveRunner(n); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(file, string(e.Bytes())); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

func TestRemoveRunnerTakesAllItsParts(t *testing.T) {
	e := edit(t, twoRunners)
	if err := e.RemoveRunner(0); err != nil {
		t.Fatal(err)
	}
	want := `# My runners.
concurrent = 2 # two cores

[session_server]
  session_timeout = 5

# The second one.
[[runners]]
	name = "two"
	token = "b"
`
	if diff := cmp.Diff(want, string(e.Bytes())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestEditEmptyFile(t *testing.T) {
	for _, data := range []string{"", "\n \n"} {
		e := edit(t, data)
		if err := e.AppendRunner(Section{{"name", "first"}, {"url", "https://gitlab.example.com"}, {"token", "t"}, {"executor", "shell"}}); err != nil {
			t.Fatal(err)
		}
		c, problems := Parse(Source{Name: "c", Data: e.Bytes()})
		if len(problems) > 0 || c.Concurrent != 1 || len(c.Runners) != 1 || c.Runners[0].Name != "first" {
			t.Errorf("%v: %s", problems, e.Bytes())
		}
	}
}

func TestSetGlobalWithoutGlobals(t *testing.T) {
	for data, want := range map[string]string{
		"# head\n\n# a\n[[runners]]\n": "# head\n\nconcurrent = 3\n\n# a\n[[runners]]\n",
		"[[runners]]\n":                "concurrent = 3\n\n[[runners]]\n",
		"\xef\xbb\xbf[[runners]]\n":    "\xef\xbb\xbfconcurrent = 3\n\n[[runners]]\n",
		"# only this":                  "# only this\nconcurrent = 3\n",
	} {
		e := edit(t, data)
		if err := e.SetGlobal("concurrent", 3); err != nil {
			t.Fatal(err)
		}
		if got := string(e.Bytes()); got != want {
			t.Errorf("%q became %q, want %q", data, got, want)
		}
	}
}

func TestNotEditable(t *testing.T) {
	if _, err := Edit([]byte("concurrent = \n")); !errors.Is(err, ErrNotEditable) {
		t.Errorf("broken file: %v", err)
	}
	e := edit(t, "runners = [{ name = \"a\" }]\n")
	before := e.Bytes()
	for name, do := range map[string]func() error{
		"append": func() error { return e.AppendRunner(Section{{"name", "b"}}) },
		"remove": func() error { return e.RemoveRunner(0) },
		"set":    func() error { return e.Set(0, "name", "b") },
	} {
		if err := do(); !errors.Is(err, ErrNotEditable) {
			t.Errorf("%s in an inline list: %v", name, err)
		}
	}
	if !bytes.Equal(before, e.Bytes()) {
		t.Error("a failed edit changed the file")
	}
	e = edit(t, twoRunners)
	if err := e.RemoveRunner(2); !errors.Is(err, ErrNotEditable) {
		t.Errorf("no such runner: %v", err)
	}
	if err := e.Set(0, "cache", "x"); !errors.Is(err, ErrNotEditable) {
		t.Errorf("set a section: %v", err)
	}
	if err := e.Set(0, "x", struct{}{}); err == nil {
		t.Error("a value that TOML does not have was accepted")
	}
}

// fileGenerator draws a configuration file in one of many layouts.
func fileGenerator(t *rapid.T) string {
	var b strings.Builder
	filler := func() string {
		return rapid.SampledFrom([]string{"", "\n", "# note\n", "\n# note [[runners]]\n\n", "  # token = \"old\"\n"}).Draw(t, "filler")
	}
	b.WriteString(filler() + rapid.SampledFrom([]string{"", "concurrent = 3\n", "unknown = [\n 1, # x\n]\n"}).Draw(t, "global"))
	for range rapid.IntRange(0, 4).Draw(t, "runners") {
		b.WriteString(filler() + rapid.SampledFrom([]string{"[[runners]]\n", "  [[ runners ]] # r\n", "[[\"runners\"]]\n"}).Draw(t, "header"))
		for _, line := range []string{"name = \"n\"", "token = 't' # secret", "weird.key = \"\"\"\n[[runners]]\n\"\"\"", "id=5"} {
			if rapid.Bool().Draw(t, "line") {
				b.WriteString(filler() + "  " + line + "\n")
			}
		}
		for _, section := range []string{"[runners.docker]\n  image = \"x\"\n", "[[runners.docker.services]]\nname='a'\n", "[machine]\nx = 1\n"} {
			if rapid.Bool().Draw(t, "section") && (section[1] != 'm' || !strings.Contains(b.String(), "[machine]")) {
				b.WriteString(filler() + section)
			}
		}
	}
	return b.String() + filler()
}

// Whatever is set is read back, and all else stays.
func TestEditProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		file := fileGenerator(t)
		e, err := Edit([]byte(file))
		if err != nil {
			t.Fatalf("%v:\n%s", err, file)
		}
		text := rapid.String().Draw(t, "text")
		before := e.Bytes()
		n := e.Runners()
		if n == 0 {
			if err := e.AppendRunner(Section{{"name", text}}); err != nil {
				t.Fatal(err)
			}
			n = 1
		} else if err := e.Set(rapid.IntRange(0, n-1).Draw(t, "i"), "name", text); err != nil {
			t.Fatal(err)
		}
		c, _ := Parse(Source{Name: "c", Data: e.Bytes()})
		want := strings.ToValidUTF8(text, "\ufffd")
		found := 0
		for _, r := range c.Runners {
			if r.Name == want {
				found++
			}
		}
		if found == 0 || len(c.Runners) != n {
			t.Fatalf("%q is not there:\n%s", text, e.Bytes())
		}
		removeInsertion(t, before, e.Bytes())

		for e.Runners() > 0 {
			left := e.Runners()
			if err := e.RemoveRunner(rapid.IntRange(0, left-1).Draw(t, "remove")); err != nil {
				t.Fatal(err)
			}
			if e.Runners() != left-1 {
				t.Fatalf("%d runners are left of %d:\n%s", e.Runners(), left, e.Bytes())
			}
		}
		if c, _ := Parse(Source{Name: "c", Data: e.Bytes()}); len(c.Runners) != 0 || bytes.Contains(e.Bytes(), []byte("\n[runners.")) {
			t.Fatalf("parts of runners are left:\n%s", e.Bytes())
		}
		for _, other := range []string{"concurrent = 3", "unknown = [\n 1, # x\n]", "[machine]\nx = 1"} {
			if strings.Contains(file, other) != strings.Contains(string(e.Bytes()), other) && file != "" && strings.TrimSpace(file) != "" {
				t.Fatalf("%q was lost:\n%s", other, e.Bytes())
			}
		}
	})
}

// removeInsertion checks that after differs from before in one place only, of one line or an added section at the end.
func removeInsertion(t *rapid.T, before, after []byte) {
	start := 0
	for start < len(before) && start < len(after) && before[start] == after[start] {
		start++
	}
	end := 0
	for end < len(before)-start && end < len(after)-start && before[len(before)-1-end] == after[len(after)-1-end] {
		end++
	}
	if lost := before[start : len(before)-end]; bytes.Contains(lost, []byte("\n")) {
		t.Fatalf("%q was lost:\n%s", lost, after)
	}
}

func TestSamplesSurviveEdits(t *testing.T) {
	for _, path := range files(t, "testdata/samples/*.toml") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		e := edit(t, string(data))
		for i := range e.Runners() {
			if err := e.Set(i, "token", tranter.Secret("glrt-new")); err != nil {
				t.Fatal(err)
			}
			if err := e.Set(i, "token_obtained_at", time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)); err != nil {
				t.Fatal(err)
			}
		}
		c, _ := Parse(Source{Name: path, Data: e.Bytes()})
		for _, r := range c.Runners {
			if r.Token != "glrt-new" || r.TokenObtainedAt.Month() != 2 {
				t.Errorf("%s: runner %s has not got its new token", path, r.Name)
			}
		}
		if got, want := bytes.Count(e.Bytes(), []byte("#")), bytes.Count(data, []byte("#")); got != want {
			t.Errorf("%s: %d comments, had %d", path, got, want)
		}
	}
}
