package pipeline_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter/internal/pipeline"
)

// TestSyntax gives files with the mistakes in YAML that people make: the message has the place of the mistake, not that of
// the list or hash around it, and says what to do.
func TestSyntax(t *testing.T) {
	t.Parallel()
	const before = "one:\n  script: [x]\njob:\n" // line 4 and on are those of the case, below job:
	for name, c := range map[string]struct{ yaml, want string }{
		"item less indented":    {"  script:\n    - a\n   - b\n  stage: test\n", "6:4: % did not find expected key (check the indentation of this line)"},
		"key less indented":     {"   stage: test\n  script: x\n", "5:3: % did not find expected key (check the indentation of this line)"},
		"key more indented":     {"  stage: test\n   tags: [x]\n", "5:4: % mapping values are not allowed in this context (check the indentation of this line, and the one above"},
		"tab":                   {"\tscript: x\n", "4:1: % found character that cannot start any token (YAML is indented with spaces, not tabs)"},
		"colon in a value":      {"  script: echo: hi\n", "4:3: % mapping values are not allowed in this context (a value with a colon and a space needs quotes)"},
		"key without a colon":   {"  stage test\n  script: x\n", "5:3: % mapping values are not allowed in this context (check the indentation of this line, and the one above: a key has"},
		"name without a colon":  {"  script: x\ntwo\n  script: x\n", "5:1: % could not find expected ':' (a key needs a colon and a space after it)"},
		"quote never closed":    {"  script:\n    - 'echo\ntwo:\n  script: x\n", "5:5: % found unexpected end of stream (a quote is not closed)"},
		"quote closed later":    {"  script:\n    - 'echo\ntwo:\n  script: 'x'\nthree:\n  script: x\n", "5:5: %"},
		"text after a quote":    {"  script:\n    - \"$A\" == b\n", "5:5: % did not find expected '-' indicator (text follows the closing quote: put the whole value in quotes)"},
		"quoted half of an if":  {"  rules:\n    - if: \"$A\" == \"b\"\n", "5:5: % did not find expected key (text follows the closing quote: put the whole value in quotes)"},
		"bracket not closed":    {"  tags: [a, b\n  script: x\n", "4:3: % did not find expected ',' or ']' (a list in brackets needs commas and its closing bracket"},
		"test in brackets":      {"  script:\n    - [ -f x ] && echo\n", "5:5: % did not find expected alphabetic or numeric character (a text that starts with [ needs quotes"},
		"glob":                  {"  artifacts:\n    paths:\n      - *.log\n", "6:7: % did not find expected alphabetic or numeric character (a value that starts with * needs quotes)"},
		"at sign":               {"  script:\n    - @echo hi\n", "5:5: % found character that cannot start any token (a value that starts with @ needs quotes)"},
		"backslash":             {"  script:\n    - \"C:\\path\"\n", "5:5: % found unknown escape character (between double quotes a backslash is written twice"},
		"merge conflict":        {"  script: x\n<<<<<<< HEAD\n", "5:1: % could not find expected ':' (this is a mark of a merge conflict)"},
		"value missing":         {"  variables: {A: b,, C: d}\n", "4:3: % did not find expected node content (a value is missing here)"},
		"unknown alias":         {"  script:\n    - *gone\n", "5:7: % Unknown alias: gone (an anchor is known in its own file"},
		"unknown alias, merged": {"  <<: *gone\n  script: x\n", "4:7: % Unknown alias: gone"},
		"template braces":       {"  image: {{ image }}\n  script: x\n", "4:11: a key must be a string, not an array or a hash (a text that starts with { needs quotes)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, got := compile(t, before+c.yaml)
			want := ".gitlab-ci.yml:" + strings.Replace(c.want, "%", "Invalid configuration format:", 1)
			if p != nil || !strings.Contains(got, want) {
				t.Errorf("%s\n got %s\nwant %s", before+c.yaml, got, want)
			}
		})
	}
}

// TestSyntaxPlace breaks one line of a valid file: it is the one that is named, wherever it is.
func TestSyntaxPlace(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var lines []string
		var items []int // the lines of script that can be broken
		for job := range rapid.IntRange(1, 20).Draw(t, "jobs") {
			lines = append(lines, fmt.Sprintf("job-%d:", job), "  variables: {A: [b,", "    c]}", "  script:", "    - first")
			for range rapid.IntRange(1, 30).Draw(t, "lines") {
				items = append(items, len(lines))
				lines = append(lines, "    - "+rapid.SampledFrom([]string{"make", "'a: b'", "\"two\n\n      lines\"", "[a, b]", "|\n      text: here"}).Draw(t, "line"))
			}
		}
		broken := rapid.SampledFrom(items).Draw(t, "broken")
		lines[broken] = rapid.SampledFrom([]string{"   - x", "    - @x", "    - \"a\" b", "    - *.x", "    - a: b: c", "\t- x", "    - 'x"}).Draw(t, "mistake")
		place := 1
		for _, l := range lines[:broken] {
			place += 1 + strings.Count(l, "\n")
		}
		_, problems := pipeline.Compile(pipeline.Input{Content: []byte(strings.Join(lines, "\n") + "\n")})
		if len(problems) != 1 || problems[0].Line != place {
			t.Fatalf("problems %v, want one in line %d", problems, place)
		}
	})
}

// TestSyntaxBigFile breaks the end of a file of the largest size: the search for the place stays short.
func TestSyntaxBigFile(t *testing.T) {
	t.Parallel()
	start := time.Now()
	body := "job:\n  script:\n" + strings.Repeat("    - echo one two three four\n", 5_000)
	for _, last := range []string{"   - x\n", "    - 'x\n" + strings.Repeat("    - y\n", 500)} {
		if _, problems := compile(t, body+last); !strings.Contains(problems, "Invalid configuration format") {
			t.Errorf("problems: %.300s", problems)
		}
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestExclamationMark warns of a ! that YAML takes for itself: the command runs without it, on GitLab as here.
func TestExclamationMark(t *testing.T) {
	t.Parallel()
	p, got := compile(t, "job:\n  script:\n    - ! test -f x\n    - '! test -f y'\n    - if ! test; then true; fi\n    - !!str 5\n  rules:\n    - if: !$NO\n")
	if p == nil || strings.Join(p.Jobs[0].Script, "|") != "test -f x|! test -f y|if ! test; then true; fi|5" {
		t.Fatalf("pipeline %v: %s", p, got)
	}
	want := `.gitlab-ci.yml:3:7: warning: YAML drops the ! at the start of this value, what is left is "test -f x": to keep it, put the value in quotes
.gitlab-ci.yml:8:11: warning: YAML drops the !$NO at the start of this value, what is left is "": to keep it, put the value in quotes
`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
