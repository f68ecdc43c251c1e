package pipeline

import (
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/variables"
)

// scope is a set of variables in the order of the server (gitlab-server 2.3): a later one with the same key replaces an
// earlier one.
type scope struct {
	list     []tranter.Variable
	index    map[string]int
	expanded map[int]string // values that were asked for
	spent    int            // bytes in them
}

func newScope(lists ...[]tranter.Variable) *scope {
	size := 0
	for _, l := range lists {
		size += len(l)
	}
	s := &scope{index: make(map[string]int, size), list: make([]tranter.Variable, 0, size)}
	for _, l := range lists {
		for _, v := range l {
			s.set(v)
		}
	}
	return s
}

func (s *scope) set(v tranter.Variable) {
	s.expanded = nil
	if i, ok := s.index[v.Key]; ok {
		s.list[i] = v
		return
	}
	s.index[v.Key] = len(s.list)
	s.list = append(s.list, v)
}

// lookup returns the value of a variable as it is written, which is what rules:if compare.
func (s *scope) lookup(key string) (string, bool) {
	if i, ok := s.index[key]; ok {
		return s.list[i].Value, true
	}
	return "", false
}

// Limits of expansion: variables that double each other would fill the memory.
const (
	maxExpanded  = 1 << 20
	maxReference = 500 // references to references
)

// expand replaces the references in a text by the expanded values of the variables; what is not set becomes empty.
func (s *scope) expand(text string) string {
	return s.replace(text, false, 0)
}

// expandKnown replaces references to variables that are set, and leaves the others as text.
func (s *scope) expandKnown(text string) string {
	return s.replace(text, true, 0)
}

func (s *scope) replace(text string, keep bool, depth int) string {
	size := 0
	return variables.References(text, func(name, ref string) string {
		i, ok := s.index[name]
		if !ok {
			if keep {
				return ref
			}
			return ""
		}
		value := s.value(i, depth)
		if size += len(value); size > maxExpanded {
			return ""
		}
		return value
	})
}

// value returns the expanded value of a variable. In a cycle of references, the value that closes it stays as written.
func (s *scope) value(i, depth int) string {
	v := s.list[i]
	if v.Raw || v.File || depth > maxReference || s.spent > 16*maxExpanded || !strings.ContainsAny(v.Value, "$%") {
		return v.Value
	}
	if done, ok := s.expanded[i]; ok {
		return done
	}
	if s.expanded == nil {
		s.expanded = map[int]string{}
	}
	s.expanded[i] = v.Value
	out := s.replace(v.Value, true, depth+1)
	s.expanded[i] = out
	s.spent += len(out)
	return out
}
