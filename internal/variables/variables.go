// Package variables holds the rules for CI/CD variables: their order, their expansion, what of them is masked, and the
// feature flags among them.
//
// It is pure: values in, values out. It knows neither files nor processes; the agent writes file variables, the shell
// gets the rest. Callers are plan, pipeline and the coordinator.
package variables

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
)

// List is an ordered list of variables; of several with one key the last holds.
type List []tranter.Variable

// Lookup returns the variable called key that holds.
func (l List) Lookup(key string) (tranter.Variable, bool) {
	for _, v := range slices.Backward(l) {
		if v.Key == key {
			return v, true
		}
	}
	return tranter.Variable{}, false
}

// Get returns the value of the variable called key as it stands in the list, or "".
func (l List) Get(key string) string {
	v, _ := l.Lookup(key)
	return v.Value
}

// Bool returns what a boolean variable says, and whether it says anything: the spellings of strconv.ParseBool in any
// case, and whole numbers, of which only 1 is true (runner contract, section 5.2).
func (l List) Bool(key string) (value, set bool) {
	s := strings.ToLower(strings.TrimSpace(l.Get(key)))
	if s == "" {
		return false, false
	}
	if b, err := strconv.ParseBool(s); err == nil {
		return b, true
	}
	if n, err := strconv.Atoi(s); err == nil {
		return n == 1, true
	}
	return false, false
}

// Masked returns the values that must not be seen in a log: those of masked variables, trimmed, each once. Call it on
// an expanded list.
func (l List) Masked() []string {
	var out []string
	seen := map[string]bool{}
	for _, v := range l {
		if s := strings.TrimSpace(v.Value); v.Masked && s != "" && !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// Effective returns the list without the variables that a later one with the same key replaces, order kept by the
// place of the one that holds.
func (l List) Effective() List {
	last := make(map[string]int, len(l))
	for i, v := range l {
		last[v.Key] = i
	}
	out := make(List, 0, len(last))
	for i, v := range l {
		if last[v.Key] == i {
			out = append(out, v)
		}
	}
	return out
}

// Expand returns the list with every value expanded once against the list as it was: values that come out are not
// expanded again, raw ones stay, and a reference to a file variable gives the file's path, tempDir/KEY (runner
// contract, section 5.2).
func (l List) Expand(tempDir string) List {
	e := newExpander(l, tempDir)
	out := make(List, len(l))
	copy(out, l)
	for i := range out {
		if !out[i].Raw {
			out[i].Value = e.expand(out[i].Value)
		}
	}
	return out
}

// ExpandString expands s by the rules of Expand.
func (l List) ExpandString(s, tempDir string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	return newExpander(l, tempDir).expand(s)
}

// expander looks names up in a list without going through it each time.
type expander struct {
	values map[string]string
}

func newExpander(l List, tempDir string) expander {
	e := expander{values: make(map[string]string, len(l))}
	for _, v := range l {
		if v.File {
			e.values[v.Key] = tempDir + "/" + v.Key
		} else {
			e.values[v.Key] = v.Value
		}
	}
	return e
}

func (e expander) expand(s string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	return os.Expand(s, func(name string) string {
		if name == "$" {
			return "$"
		}
		return e.values[name] // positional and special parameters are no keys: they give nothing
	})
}
