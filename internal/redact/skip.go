package redact

import "math/bits"

// skipper finds where a pattern may begin without a look at every byte, as Wu and Manber do: only the first bytes of
// each pattern count, as many as the shortest one has. The last two of a window of that length say how far the window
// can move.
//
// What it finds is a guess that the automaton checks; what it passes over is certain.
type skipper struct {
	window int // 0: patterns are too short for it, or there are none
	shift  []uint8
	pairs  uint // bits of the hash of two bytes, of which there are at most 65536
	starts []uint64
	bits   uint // of the hash of a pattern's first bytes
	mask   uint32
}

// maxWindow keeps shifts within a byte; longer windows gain little.
const maxWindow = 64

// newSkipper prepares the search for patterns, in both cases of their letters if fold is set; they are in lower case then.
func newSkipper(patterns [][]byte, fold bool) skipper {
	window := maxWindow
	for _, p := range patterns {
		window = min(window, len(p))
	}
	if window < 2 || len(patterns) == 0 {
		return skipper{}
	}
	s := skipper{window: window, pairs: 12, mask: 1<<(8*min(window, 4)) - 1}
	if window >= 4 {
		s.mask = ^uint32(0)
	}
	if len(patterns) > 300 {
		s.pairs = 16
	}
	variants := len(patterns)
	if fold {
		variants *= 16
	}
	s.bits = uint(min(max(bits.Len(uint(32*variants)), 12), 20))
	s.shift, s.starts = make([]uint8, 1<<s.pairs), make([]uint64, 1<<s.bits/64)
	for i := range s.shift {
		s.shift[i] = uint8(window - 1)
	}
	for _, p := range patterns {
		s.add(p[:window], fold)
	}
	return s
}

// add takes in the first bytes of a pattern.
func (s *skipper) add(p []byte, fold bool) {
	for i := 1; i < len(p); i++ {
		for _, a := range cases(p[i-1], fold) {
			for _, b := range cases(p[i], fold) {
				h := s.pair(a, b)
				s.shift[h] = min(s.shift[h], uint8(len(p)-1-i))
			}
		}
	}
	heads := []uint32{0}
	for i := range min(len(p), 4) {
		var longer []uint32
		for _, b := range cases(p[i], fold) {
			for _, h := range heads {
				longer = append(longer, h|uint32(b)<<(8*i))
			}
		}
		heads = longer
	}
	for _, head := range heads {
		h := s.head(head)
		s.starts[h/64] |= 1 << (h % 64)
	}
}

// cases returns the forms of a byte that count: a letter in lower case stands for both if fold is set.
func cases(b byte, fold bool) []byte {
	if fold && b >= 'a' && b <= 'z' {
		return []byte{b, b - 'a' + 'A'}
	}
	return []byte{b}
}

// pair returns the place of two bytes in the table of shifts: of 16 bits there is one for each pair.
func (s *skipper) pair(a, b byte) uint32 {
	if s.pairs == 16 {
		return uint32(a)<<8 | uint32(b)
	}
	return (uint32(a)<<5 ^ uint32(b)) & (1<<12 - 1)
}

// head returns the place of the first bytes of a pattern in the set of those.
func (s *skipper) head(v uint32) uint32 { return v * 0x9e3779b1 >> (32 - s.bits) }

// skip returns the number of leading bytes of p that begin no pattern, also none that goes on after p. It is less than
// the length of p unless that is 0.
func (s *skipper) skip(p []byte) int {
	last := s.window - 1
	shift, wide := s.shift, s.pairs == 16
	i := last
	for i < len(p) {
		var h uint32
		if wide {
			h = uint32(p[i-1])<<8 | uint32(p[i])
		} else {
			h = (uint32(p[i-1])<<5 ^ uint32(p[i])) & (1<<12 - 1)
		}
		if d := int(shift[h]); d > 0 {
			i += d
			continue
		}
		start := i - last
		h = s.head(s.load(p[start:]))
		if s.starts[h/64]&(1<<(h%64)) != 0 {
			return start
		}
		i++
	}
	return i - last // what moved the last window beyond p lies in p
}

// load returns the first bytes of p, which has a whole window.
func (s *skipper) load(p []byte) uint32 {
	if s.window >= 4 {
		return uint32(p[0]) | uint32(p[1])<<8 | uint32(p[2])<<16 | uint32(p[3])<<24
	}
	v := uint32(p[0]) | uint32(p[1])<<8
	if s.window == 3 {
		v |= uint32(p[2]) << 16
	}
	return v
}
