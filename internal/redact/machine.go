package redact

import "bytes"

// machine is an Aho-Corasick automaton over the bytes of its patterns. State 0 is the start. It is never changed once
// made, so many writers share one.
type machine struct {
	class   [256]uint16 // of a byte; 0: in no pattern
	classes int
	table   []int32 // state*classes + class: the next state
	depth   []int32 // length of the longest beginning of a pattern that the state stands for
	longest []int32 // length of the longest pattern that ends in the state; 0: none
	begins  [256]bool
	first   []byte // the only byte that begins a pattern, or nil
}

// newMachine builds the automaton for patterns, none of them empty; without patterns it returns nil.
func newMachine(patterns [][]byte) *machine {
	if len(patterns) == 0 {
		return nil
	}
	m := &machine{classes: 1}
	for _, p := range patterns {
		m.begins[p[0]] = true
		for _, b := range p {
			if m.class[b] == 0 {
				m.class[b] = uint16(m.classes)
				m.classes++
			}
		}
	}
	for b, begins := range m.begins {
		if begins {
			m.first = append(m.first, byte(b))
		}
	}
	if len(m.first) != 1 {
		m.first = nil
	}
	m.addState(0)
	for _, p := range patterns {
		m.insert(p)
	}
	m.link()
	return m
}

func (m *machine) addState(depth int32) int32 {
	m.table = append(m.table, make([]int32, m.classes)...)
	m.depth = append(m.depth, depth)
	m.longest = append(m.longest, 0)
	return int32(len(m.depth) - 1)
}

func (m *machine) insert(pattern []byte) {
	state := int32(0)
	for _, b := range pattern {
		at := int(state)*m.classes + int(m.class[b])
		if m.table[at] == 0 {
			next := m.addState(m.depth[state] + 1)
			m.table[at] = next
		}
		state = m.table[at]
	}
	m.longest[state] = int32(len(pattern))
}

// link turns the trie into an automaton: missing transitions follow the longest suffix that is a beginning too.
func (m *machine) link() {
	fail := make([]int32, len(m.depth))
	var queue []int32
	for c := range m.classes {
		if s := m.table[c]; s != 0 {
			queue = append(queue, s)
		}
	}
	for len(queue) > 0 {
		state := queue[0]
		queue = queue[1:]
		m.longest[state] = max(m.longest[state], m.longest[fail[state]])
		for c := range m.classes {
			at := int(state)*m.classes + c
			back := m.table[int(fail[state])*m.classes+c]
			if next := m.table[at]; next != 0 {
				fail[next] = back
				queue = append(queue, next)
			} else {
				m.table[at] = back
			}
		}
	}
}

func (m *machine) next(state int32, b byte) int32 {
	return m.table[int(state)*m.classes+int(m.class[b])]
}

// skip returns the number of leading bytes of p that begin no pattern.
func (m *machine) skip(p []byte) int {
	if m.first != nil {
		if i := bytes.IndexByte(p, m.first[0]); i >= 0 {
			return i
		}
		return len(p)
	}
	for i, b := range p {
		if m.begins[b] {
			return i
		}
	}
	return len(p)
}
