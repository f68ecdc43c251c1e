package site

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// expandWith expands a text with some variables, and returns what is said to be missing.
func expandWith(text string, vars map[string]string) (string, []string) {
	var missing []string
	e := expander{
		look: func(name string) (string, answer) {
			if strings.HasPrefix(name, "LATER") {
				return "", later
			}
			value, ok := vars[name]
			if !ok {
				return "", unknown
			}
			return value, known
		},
		fault: func(name, written string, _ int) { missing = append(missing, name+"|"+written) },
	}
	return e.expand(text), missing
}

func TestVariablesAreReplacedAsAShellDoes(t *testing.T) {
	vars := map[string]string{"A": "1", "B_2": "two", "EMPTY": "", "D": "$A"}
	for text, want := range map[string]string{
		"":                          "",
		"plain } text":              "plain } text",
		"$A":                        "1",
		"x$A-$B_2.y":                "x1-two.y",
		"${A}${B_2}":                "1two",
		"$$A":                       "$A",
		"$$$A":                      "$1",
		"$$$$":                      "$$",
		"$(date) $1 $? $":           "$(date) $1 $? $",
		"${A:-x}":                   "1",
		"${EMPTY:-x}":               "x",
		"${NO:-x y}":                "x y",
		"${NO:-}":                   "",
		"${NO:-$A}":                 "1",
		"${NO:-${ALSO:-${A}}}!":     "1!",
		"$D":                        "$A",
		"$EMPTY.":                   ".",
		"$LATER ${LATER_X:-$A} $$Z": "$LATER ${LATER_X:-$A} $Z",
		"ä$A€":                      "ä1€",
	} {
		if got, missing := expandWith(text, vars); got != want || len(missing) > 0 {
			t.Errorf("%q became %q, want %q; missing %q", text, got, want, missing)
		}
	}
}

func TestWhatIsNoVariableIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"$NO":        "NO|$NO",
		"a ${NO} b":  "NO|${NO}",
		"${A%x}":     "|${A%x}",
		"${}":        "|${}",
		"${#A}":      "|${#A}",
		"${A":        "|${A",
		"${NO:-$X}":  "X|$X",
		"${A:+x}":    "|${A:+x}",
		"${1}":       "|${1}",
		"${NO:-${X}": "|${NO:-${X}",
	} {
		if _, missing := expandWith(text, map[string]string{"A": "1"}); len(missing) != 1 || missing[0] != want {
			t.Errorf("%q: missing %q, want %q", text, missing, want)
		}
	}
}

func TestATildeIsTheHomeDirectoryAtTheBeginningOnly(t *testing.T) {
	for text, want := range map[string]string{"~": "/h", "~/x": "/h/x", "~user": "~user", "a~": "a~", " ~": " ~", "": ""} {
		if got := home(text, "/h"); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
	if got := home("~/x", ""); got != "~/x" {
		t.Errorf("without a home directory it became %q", got)
	}
}

func TestATextWithoutDollarsIsItsOwnExpansion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := strings.ReplaceAll(rapid.String().Draw(t, "text"), "$", "")
		if got, missing := expandWith(text, nil); got != text || len(missing) > 0 {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

// What is expanded in two steps comes out as in one: texts of [launch] are.
func TestTwoStepsDoTheSameAsOne(t *testing.T) {
	piece := rapid.SampledFrom([]string{"$", "$$", "$A", "${B}", "${NO:-$A}", "$CONFIG", "${CONFIG:-x}", "x", "(", "{", "}", "$(", "~", " ", "$1"})
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(piece).Draw(t, "pieces"), "")
		vars := map[string]string{"A": rapid.SampledFrom([]string{"", "1", "$B", "$", "$$"}).Draw(t, "A"), "B": "${CONFIG}"}
		var faults, faultsThen int
		one := expander{fault: func(string, string, int) { faults++ }}
		one.look = func(name string) (string, answer) {
			if name == "CONFIG" {
				return "/c", known
			}
			value, ok := vars[name]
			if !ok {
				return "", unknown
			}
			return value, known
		}
		first := expander{again: true, fault: func(string, string, int) { faultsThen++ }}
		first.look = func(name string) (string, answer) {
			if name == "CONFIG" {
				return "${CONFIG}", later
			}
			return one.look(name)
		}
		want := one.expand(text)
		half := first.expand(text)
		if faults != faultsThen {
			t.Fatalf("%q: %d and %d faults", text, faults, faultsThen)
		}
		if faults > 0 {
			return
		}
		l := Launch{Executable: half, GroupSize: 1}
		c, err := l.Command(1, "/c")
		if err != nil || c.Executable != want {
			t.Fatalf("%q became %q, then %q (%v), want %q", text, half, c.Executable, err, want)
		}
	})
}

func FuzzExpand(f *testing.F) {
	for _, text := range []string{"", "$A", "${A:-${B}}", "$$", "${", "${A:-", "$$$", "${A:-${A:-${A:-"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, missing := expandWith(text, map[string]string{"A": "value"})
		if !strings.Contains(text, "$") && (got != text || len(missing) > 0) {
			t.Fatalf("%q became %q", text, got)
		}
	})
}
