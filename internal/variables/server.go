package variables

import (
	"strings"
)

// SortAndExpand expands a list as the server does before it sends a job (server contract, section 2.3): in the order
// of references, so that A=$B, B=$C, C=x gives x for all; references are $VAR, ${VAR} and %VAR%; $$ and %% stay as they
// are; unknown names, and references to file and raw variables, are kept as text for the runner. Raw values are not
// looked at. A cycle leaves the whole list as it was. The order of the list stays.
func SortAndExpand(l List) List {
	s := sorter{list: l, last: make(map[string]int, len(l)), state: make([]visit, len(l)), out: make(List, len(l))}
	copy(s.out, l)
	for i, v := range l {
		s.last[v.Key] = i
	}
	for i := range l {
		if !s.resolve(i) {
			return l
		}
	}
	return s.out
}

// Cycle returns the keys of a cycle of references in l, first key repeated at the end, or nil.
func Cycle(l List) []string {
	s := sorter{list: l, last: make(map[string]int, len(l)), state: make([]visit, len(l)), out: make(List, len(l))}
	copy(s.out, l)
	for i, v := range l {
		s.last[v.Key] = i
	}
	for i := range l {
		if !s.resolve(i) {
			return s.cycle
		}
	}
	return nil
}

type visit int8

const (
	unseen visit = iota
	open
	done
)

type sorter struct {
	list  List
	out   List
	last  map[string]int
	state []visit
	path  []string
	cycle []string
}

// resolve expands entry i after all that it refers to. It is false when that leads back to i.
func (s *sorter) resolve(i int) bool {
	switch s.state[i] {
	case done:
		return true
	case open:
		s.cycle = append(s.cycle, s.fromFirst(s.list[i].Key)...)
		return false
	case unseen:
	}
	s.state[i] = open
	s.path = append(s.path, s.list[i].Key)
	if !s.list[i].Raw {
		ok := true
		value := References(s.list[i].Value, func(name, text string) string {
			j, known := s.last[name]
			if !ok || !known || s.list[j].Raw || s.list[j].File {
				return text
			}
			// An earlier entry of the same name may refer to the one that replaces it, but not to itself.
			if ok = s.resolve(j); !ok {
				return text
			}
			return s.out[j].Value
		})
		if !ok {
			return false
		}
		s.out[i].Value = value
	}
	s.path = s.path[:len(s.path)-1]
	s.state[i] = done
	return true
}

func (s *sorter) fromFirst(key string) []string {
	for i, k := range s.path {
		if k == key {
			return append(append([]string(nil), s.path[i:]...), key)
		}
	}
	return []string{key, key}
}

// References replaces every reference to a variable in s, $VAR, ${VAR} or %VAR%, by what f makes of its name and its
// text as written. $$ and %% are kept.
func References(s string, f func(name, text string) string) string {
	if !strings.ContainsAny(s, "$%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		name, text := reference(s[i:])
		if text == "" {
			b.WriteByte(s[i])
			i++
			continue
		}
		if name == "" {
			b.WriteString(text)
		} else {
			b.WriteString(f(name, text))
		}
		i += len(text)
	}
	return b.String()
}

// reference returns the reference at the start of s. Text without a name is to be kept; no text: there is none.
func reference(s string) (name, text string) {
	switch {
	case strings.HasPrefix(s, "$$"), strings.HasPrefix(s, "%%"):
		return "", s[:2]
	case strings.HasPrefix(s, "${"):
		n := nameLength(s[2:])
		if n > 0 && len(s) > 2+n && s[2+n] == '}' {
			return s[2 : 2+n], s[:3+n]
		}
	case s[0] == '$':
		if n := nameLength(s[1:]); n > 0 {
			return s[1 : 1+n], s[:1+n]
		}
	case s[0] == '%':
		n := nameLength(s[1:])
		if n > 0 && len(s) > 1+n && s[1+n] == '%' {
			return s[1 : 1+n], s[:2+n]
		}
	}
	return "", ""
}

// nameLength returns how many bytes at the start of s make the name of a variable.
func nameLength(s string) int {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}
