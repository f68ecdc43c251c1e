package pipeline

import (
	"fmt"
	"slices"
	"strings"
)

// instance is one of the jobs that parallel: makes of a definition.
type instance struct {
	name      string
	variables []variable // of the matrix
	index     int        // from 1; 0 when the job is not parallel
}

func (i instance) value(key string) (string, bool) {
	for _, v := range i.variables {
		if v.key == key {
			return v.value, true
		}
	}
	return "", false
}

// resolve replaces $[[ matrix.NAME ]] by the instance's own values.
func (i instance) resolve(s string) string {
	if !strings.Contains(s, "$[[") {
		return s
	}
	return interpolation().ReplaceAllStringFunc(s, func(block string) string {
		name := strings.TrimPrefix(strings.TrimSpace(block[3:len(block)-2]), "matrix.")
		v, _ := i.value(name)
		return v
	})
}

const maxParallel = 200

// readParallel returns the instances of a job: one without parallel:.
func readParallel(f field, name string) (instances []instance, matrix bool) {
	s, ok := f.sub("parallel")
	if !ok {
		return []instance{{name: name}}, false
	}
	if n, isNumber := s.v.number(); isNumber {
		if n < 1 || n > maxParallel {
			s.errorf("config must be an integer from 1 to %d", maxParallel)
			n = 1
		}
		for i := 1; i <= n; i++ {
			instances = append(instances, instance{name: fmt.Sprintf("%s %d/%d", name, i, n), index: i})
		}
		return instances, false
	}
	if !s.v.is(hash) {
		s.errorf("should be an integer or a hash")
		return []instance{{name: name}}, false
	}
	s.known([]string{"matrix"})
	m, ok := s.sub("matrix")
	if !ok {
		s.errorf("config should have matrix")
		return []instance{{name: name}}, false
	}
	instances, total := explode(readSelectors(m), name)
	if total > maxParallel {
		m.errorf("config generates too many jobs (maximum is %d)", maxParallel)
		instances = instances[:0]
	} else if total == 0 && m.v.is(list) {
		m.errorf("config should generate at least one job")
	}
	if len(instances) == 0 {
		return []instance{{name: name}}, true
	}
	return instances, true
}

// explode makes the product of each entry of a matrix, one after the other; it gives up above the limit.
func explode(entries []selector, name string) (out []instance, total int) {
	for _, s := range entries {
		size := 1
		for _, key := range s.keys {
			size = min(size*len(s.values[key]), maxParallel+1)
		}
		if total += size; total > maxParallel {
			return nil, total
		}
		combos := [][]variable{nil}
		for _, key := range s.keys {
			var next [][]variable
			for _, c := range combos {
				for _, v := range s.values[key] {
					next = append(next, append(slices.Clip(c), variable{key: key, value: v}))
				}
			}
			combos = next
		}
		for _, vars := range combos {
			shown := make([]string, 0, len(vars))
			for _, v := range vars {
				shown = append(shown, v.value)
			}
			out = append(out, instance{name: name + ": [" + strings.Join(shown, ", ") + "]", variables: vars, index: len(out) + 1})
		}
	}
	return out, total
}
