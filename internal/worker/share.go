package worker

// shares says which processors of the allocation belong to which place, so that jobs side by side do not get in each other's
// way. It keeps nothing else apart: memory is the allocation's, for all jobs in it together.
type shares struct {
	all   [][]int // by place; nil: there are too few processors to share
	taken []bool
}

// newShares shares processors evenly between places.
func newShares(all []int, places int) *shares {
	s := &shares{taken: make([]bool, places)}
	if places < 2 || len(all) < places {
		return s
	}
	for i := range places {
		s.all = append(s.all, all[i*len(all)/places:(i+1)*len(all)/places])
	}
	return s
}

// take returns a place that is free, or -1 if there are more jobs than places.
func (s *shares) take() int {
	for i, taken := range s.taken {
		if !taken {
			s.taken[i] = true
			return i
		}
	}
	return -1
}

func (s *shares) give(place int) {
	if place >= 0 {
		s.taken[place] = false
	}
}

// of returns the processors of a place; nil: all.
func (s *shares) of(place int) []int {
	if place < 0 || place >= len(s.all) {
		return nil
	}
	return s.all[place]
}
