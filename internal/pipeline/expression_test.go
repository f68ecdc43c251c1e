package pipeline

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func testValues() values {
	vars := map[string]string{
		"A": "abc", "EMPTY": "", "BLANK": " \t", "FALSE": "false", "ZERO": "0", "PATTERN": "/^ab/", "IPATTERN": "/^AB/i", "SUB": "xxabcxx",
		"SLASH": "a/b", "LINES": "one\ntwo", "1A": "digit",
	}
	return values{
		variable: func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
		input:    func(name string) (string, bool) { return "given", name == "in" },
	}
}

func TestExpressions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want bool
	}{
		// What is present.
		{`$A`, true},
		{`$UNSET`, false},
		{`$EMPTY`, false},
		{`$BLANK`, false},
		{`$FALSE`, true},
		{`$ZERO`, true},
		{`$1A`, true},
		{`"text"`, true},
		{`""`, false},
		{`null`, false},
		{`true`, true},
		{`false`, false},
		{`$[[ inputs.in ]]`, true},
		{`$[[inputs.other]]`, false},
		// Equality.
		{`$A == "abc"`, true},
		{`$A == 'abc'`, true},
		{`$A != "abc"`, false},
		{`$A=="abc"`, true},
		{`"abc" == $A`, true},
		{`$UNSET == null`, true},
		{`$UNSET == ""`, false},
		{`$EMPTY == ""`, true},
		{`$EMPTY == null`, false},
		{`$UNSET != null`, false},
		{`$FALSE == false`, true},
		{`$A == $SUB`, false},
		{`$UNSET == $OTHER`, true},
		// Patterns.
		{`$A =~ /^ab/`, true},
		{`$A =~ /^AB/`, false},
		{`$A =~ /^AB/i`, true},
		{`$A !~ /^ab/`, false},
		{`$A =~ /bc$/`, true},
		{`$A =~ $PATTERN`, true},
		{`$A =~ $IPATTERN`, true},
		{`$A =~ "/^x/"`, false},
		{`$A =~ $SUB`, true},
		{`$SUB =~ $A`, false},
		{`$A =~ $UNSET`, false},
		{`$A !~ $UNSET`, true},
		{`$UNSET =~ /^$/`, true},
		{`$SLASH =~ /a\/b/`, true},
		{`$LINES =~ /^two$/m`, true},
		{`$LINES =~ /one.two/s`, true},
		{`$LINES =~ /one.two/`, false},
		{`$A =~ /[[:alpha:]]{3}/`, true},
		{`"a.b" =~ /a\.b/`, true},
		// Precedence and operands.
		{`$A && $EMPTY`, false},
		{`$EMPTY || $A`, false},
		{`$UNSET || $A`, true},
		{`$UNSET && $A || $A`, true},
		{`$A || $UNSET && $UNSET`, true},
		{`($A || $UNSET) && $UNSET`, false},
		{`$A == "abc" && $SUB =~ /abc/`, true},
		{`!$UNSET`, true},
		{`!$A`, false},
		{`!($A == "x")`, true},
		{`!$UNSET && $A`, true},
		{"$A ==\n  \"abc\"", true},
		{`$A == "abc" == true`, true},
	} {
		e, err := parseExpression(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := e.passes(testValues()); got != c.want {
			t.Errorf("%s = %v, want %v", c.text, got, c.want)
		}
	}
}

func TestExpressionMistakes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`${A}`:                          "write $NAME",
		`%A%`:                           "write $NAME",
		`$A = "x"`:                      "the operators are",
		`$A & $B`:                       "the operators are",
		`$A == abc`:                     "strings need quotes",
		`$A == "abc`:                    "not closed",
		`$A =~ /a/`:                     "at least two characters",
		`($A`:                           "not closed",
		`$A)`:                           "unexpected",
		`$A $B`:                         "unexpected",
		`$A ==`:                         "ends where",
		``:                              "ends where",
		`$A =~ /(?=x)/`:                 "not valid RE2",
		strings.Repeat("$A || ", 60):    "too many tokens",
		`$A == "x" and $B`:              "unknown text",
		strings.Repeat("(", 99) + "$A":  "not closed",
		strings.Repeat("!", 1000) + "A": "too many tokens",
	} {
		_, err := parseExpression(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %q in it", text, err, want)
		}
	}
}

// TestExpressionLaws holds for all expressions: what is written with more parentheses or twice negated says the same.
func TestExpressionLaws(t *testing.T) {
	t.Parallel()
	leaf := rapid.SampledFrom([]string{"$A", "$UNSET", "$EMPTY", `"x"`, "null", `$A == "abc"`, "$A =~ /^ab/", "true", "false"})
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := leaf.Draw(t, "a"), leaf.Draw(t, "b"), leaf.Draw(t, "c")
		eval := func(s string) bool {
			e, err := parseExpression(s)
			if err != nil {
				t.Fatalf("%s: %v", s, err)
			}
			return e.passes(testValues())
		}
		for _, pair := range [][2]string{
			{a + " && " + b + " || " + c, "((" + a + ") && (" + b + ")) || (" + c + ")"},
			{a + " || " + b + " && " + c, "(" + a + ") || ((" + b + ") && (" + c + "))"},
			{"!!(" + a + ")", a},
			{"!(" + a + ") && !(" + b + ")", "!(" + b + ") && !(" + a + ")"},
		} {
			if eval(pair[0]) != eval(pair[1]) {
				t.Fatalf("%s and %s differ", pair[0], pair[1])
			}
		}
	})
}

func TestGlobs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		glob, path string
		want       bool
	}{
		{"*.go", "a.go", true},
		{"*.go", "d/a.go", false},
		{"**/*.go", "a.go", true},
		{"**/*.go", "d/e/a.go", true},
		{"d/**/*", "d/e/f", true},
		{"d/*", "d/e/f", false},
		{"d/**", "d/e", true},
		{"d/**", "d/e/f", false},
		{"*.{go,c}", "x.c", true},
		{"{a,b/c}/*", "b/c/d", true},
		{"[ab].x", "b.x", true},
		{"[!ab].x", "b.x", false},
		{"?.x", "ä.x", true},
		{"*", ".hidden", true},
		{`\*`, "*", true},
		{`\*`, "a", false},
		{"a*b*c", "aXbYc", true},
		{"[", "[", true},
		{"**/**/x", "x", true},
		{"d/", "d", false},
	} {
		if got := newFnmatch(c.glob).match(c.path); got != c.want {
			t.Errorf("%s on %s: %v, want %v", c.glob, c.path, got, c.want)
		}
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"3600": "1h0m0s", "1h 30m": "1h30m0s", "90 minutes": "1h30m0s", "2 weeks and 3 days": "408h0m0s", "1:30": "1m30s", "12:30:00": "12h30m0s",
		"one day": "24h0m0s", "1.5 hours": "1h30m0s", "1h30m": "1h30m0s", "10 mins 20 secs": "10m20s",
	} {
		if d, ok := parseDuration(text); !ok || d.String() != want {
			t.Errorf("%s: %v %v, want %s", text, d, ok, want)
		}
	}
	for _, text := range []string{"", "soon", "-1h", "0", "1 fortnight", "h", "1e400 days", "999999999999999 years"} {
		if d, ok := parseDuration(text); ok {
			t.Errorf("%q: %v, want none", text, d)
		}
	}
}

func FuzzExpression(f *testing.F) {
	for _, s := range []string{
		`$A == "abc" && ($B =~ /^x\/y/i || !$C)`, `$[[ inputs.x ]] != null`, `true && false`, `"/x/" =~ $A`, `((((`, `!!!`, `/ab/ =~ /ab/`, "$A ==\n'b'", `$A =~ /(/`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseExpression(s)
		if err != nil {
			return
		}
		negated, err := parseExpression("!(" + s + ")")
		if err == nil && e.passes(testValues()) == negated.passes(testValues()) {
			t.Error("an expression and its opposite say the same")
		}
	})
}
