package redact

// machine is an Aho-Corasick automaton over the bytes of its patterns. State 0 is the start. It is never changed once
// made, so many writers share one.
//
// Most states have one way on, so only those with several have a row of the table: thousands of phrases cost some
// megabytes, not gigabytes.
type machine struct {
	class  [256]uint16 // of a byte; 0: in no pattern
	width  int         // number of classes
	states []state
	rows   []int32 // of states with several ways on: the next state by class
	begins [256]bool
	fold   bool // bytes are to be given in lower case
	search skipper
}

type state struct {
	row     int32 // where the state's row begins in the table; -1: it has none
	next    int32 // the only way on, for the byte only; 0: none
	fail    int32 // the longest suffix of the state that is a state too
	depth   int32 // length of the beginning of a pattern that the state stands for
	longest int32 // length of the longest pattern that ends in the state; 0: none
	whole   int32 // length of the shortest pattern of which it is the beginning
	only    byte
}

// edge is a way from a state to a state while the automaton is made; edges of one state form a list.
type edge struct {
	to, sibling int32
	by          byte
}

// newMachine builds the automaton for patterns, which are sorted and not empty; without patterns it returns nil. Patterns
// whose case does not matter, with fold, are in lower case.
func newMachine(patterns [][]byte, fold bool) *machine {
	if len(patterns) == 0 {
		return nil
	}
	m := &machine{width: 1, fold: fold, search: newSkipper(patterns, fold)}
	for _, p := range patterns {
		for _, b := range cases(p[0], fold) {
			m.begins[b] = true
		}
		for _, b := range p {
			if m.class[b] == 0 {
				m.class[b] = uint16(m.width)
				m.width++
			}
		}
	}
	m.link(m.grow(patterns))
	return m
}

// grow makes the states for patterns and returns the edges between them: the first edge of each state, and all edges.
func (m *machine) grow(patterns [][]byte) (first []int32, edges []edge) {
	m.states = []state{{row: -1}}
	first, edges = []int32{0}, []edge{{}} // edge 0 is none
	for _, p := range patterns {
		at := int32(0)
		for i, b := range p {
			// Patterns are sorted: an edge for b is the one that was added last, or there is none.
			if e := first[at]; e == 0 || edges[e].by != b {
				to := int32(len(m.states))
				m.states = append(m.states, state{row: -1, depth: int32(i + 1), whole: int32(len(p))})
				edges = append(edges, edge{to: to, sibling: e, by: b})
				first[at] = int32(len(edges) - 1)
				first = append(first, 0)
			}
			at = edges[first[at]].to
			m.states[at].whole = min(m.states[at].whole, int32(len(p)))
		}
		m.states[at].longest = int32(len(p))
	}
	return first, edges
}

// link gives every state its ways on and its suffix, shorter ones first.
func (m *machine) link(first []int32, edges []edge) {
	queue := make([]int32, 1, len(m.states))
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		s := &m.states[at]
		s.longest = max(s.longest, m.states[s.fail].longest)
		several := at == 0 || first[at] != 0 && edges[first[at]].sibling != 0
		row := len(m.rows)
		if several {
			m.rows = append(m.rows, make([]int32, m.width)...)
			for b, c := range m.class {
				if c != 0 && at != 0 {
					m.rows[row+int(c)] = m.next(s.fail, byte(b))
				}
			}
		}
		for e := first[at]; e != 0; e = edges[e].sibling {
			to, by := edges[e].to, edges[e].by
			if at != 0 {
				m.states[to].fail = m.next(s.fail, by)
			}
			if several {
				m.rows[row+int(m.class[by])] = to
			} else {
				s.next, s.only = to, by
			}
			queue = append(queue, to)
		}
		if several {
			s.row = int32(row)
		}
	}
}

// next returns the state after at for the byte b.
func (m *machine) next(at int32, b byte) int32 {
	c := m.class[b]
	if c == 0 {
		return 0
	}
	for {
		s := &m.states[at]
		if s.row >= 0 {
			return m.rows[int(s.row)+int(c)]
		}
		if s.next != 0 && s.only == b {
			return s.next
		}
		at = s.fail
	}
}

// find follows p from the start until a pattern ends, or to its end. It returns the number of bytes followed and the
// state after them.
func (m *machine) find(p []byte) (n int, at int32) {
	for i := 0; i < len(p); i++ {
		if at == 0 {
			if i += m.skip(p[i:]); i == len(p) {
				break
			}
		}
		at = m.next(at, p[i])
		if m.states[at].longest > 0 {
			return i + 1, at
		}
	}
	return len(p), at
}

// unfinished returns how many of the last bytes before the state at are the better part of a pattern: at least the number
// given, and half of it.
func (m *machine) unfinished(at, least int32) int {
	for ; at != 0; at = m.states[at].fail {
		if s := m.states[at]; s.depth >= least && 2*s.depth >= s.whole {
			return int(s.depth)
		}
	}
	return 0
}

// skip returns the number of leading bytes of p that begin no pattern.
func (m *machine) skip(p []byte) int {
	if m.search.window > 0 {
		return m.search.skip(p)
	}
	for i, b := range p {
		if m.begins[b] {
			return i
		}
	}
	return len(p)
}
