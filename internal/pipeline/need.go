package pipeline

import (
	"slices"
	"strings"
)

// need is one entry of needs:, before parallel jobs are resolved.
type need struct {
	job       string
	artifacts bool
	optional  bool
	matrix    []selector // of parallel:matrix; nil: all
	at        position
}

// selector is one set of matrix variables; a value may refer to the needing job's own matrix.
type selector struct {
	keys   []string
	values map[string][]string
}

const (
	maxNeeds  = 50
	maxOthers = 5 // jobs of other pipelines
)

func readNeeds(f field) []need {
	if !f.v.is(list) && !f.v.is(hash) {
		f.errorf("config can only be a hash or an array%s", listHint(f.v))
		return nil
	}
	var out []need
	others := 0
	for _, item := range flatten(f.v, maxNesting) {
		n := field{report: f.report, v: item, job: f.job, path: f.path + ":need"}
		switch {
		case item.is(text) && item.text != "":
			out = append(out, need{job: item.text, artifacts: true, at: item.at})
		case item.is(hash) && (item.has("project") || item.has("pipeline")):
			n.known([]string{"job", "project", "ref", "pipeline", "artifacts", "parallel", "optional"})
			if others++; others == maxOthers+1 {
				f.errorf("config must be less than or equal to %d jobs of other pipelines", maxOthers)
			}
			n.warnOnce("needs:project and needs:pipeline have no effect here: artifacts of other pipelines are not fetched")
		case item.is(hash):
			if parsed, ok := readNeed(n); ok {
				out = append(out, parsed)
			}
		default:
			n.errorf("config has an unsupported type: %s", item.kind)
		}
	}
	return out
}

func readNeed(f field) (need, bool) {
	f.known([]string{"job", "artifacts", "optional", "parallel"})
	n := need{job: f.text("job"), artifacts: true, at: f.v.at}
	if n.job == "" {
		f.errorf("job should be a string and can't be blank")
		return n, false
	}
	if artifacts, given := f.flag("artifacts"); given {
		n.artifacts = artifacts
	}
	n.optional, _ = f.flag("optional")
	if s, ok := f.sub("parallel"); ok && s.isHash("matrix") {
		if m, ok := s.sub("matrix"); ok {
			n.matrix = readSelectors(m)
		}
	}
	return n, true
}

// readSelectors reads a matrix: an array of hashes with scalars or arrays of them.
func readSelectors(f field) []selector {
	if !f.v.is(list) {
		f.errorf("config should be an array of hashes%s", ifText(f.v.is(hash), " (write a dash before its first key)"))
		return nil
	}
	out := []selector{}
	for _, item := range flatten(f.v, maxNesting) {
		if !item.is(hash) || len(item.pairs) == 0 {
			f.report.errorf(item.at, f.job, "%s config should be an array of hashes", f.path)
			continue
		}
		s := selector{values: map[string][]string{}}
		for _, p := range item.pairs {
			s.keys = append(s.keys, p.key)
			for _, v := range flatten(p.val, maxNesting) {
				if !v.scalar() {
					f.report.errorf(v.at, f.job, "%s:%s config should be an array of strings or numbers, not %s", f.path, p.key, v.kind)
					continue
				}
				s.values[p.key] = append(s.values[p.key], v.text)
			}
			if p.val.is(list) && len(p.val.items) == 0 {
				f.report.errorf(p.at, f.job, "%s:%s config should not be empty", f.path, p.key)
			}
		}
		out = append(out, s)
	}
	return out
}

// selects reports whether an instance of the needed job has the values that the selector asks for; own are the matrix
// variables of the job that needs it.
func (s selector) selects(i instance, own instance) bool {
	for _, key := range s.keys {
		have, ok := i.value(key)
		if !ok {
			return false
		}
		if !slices.ContainsFunc(s.values[key], func(want string) bool { return own.resolve(want) == have }) {
			return false
		}
	}
	return true
}

// unknownIdentifier returns the first name in a $[[ matrix.NAME ]] of the selector that the job's own matrix lacks.
func (s selector) unknownIdentifier(own instance) (string, bool) {
	for _, key := range s.keys {
		for _, want := range s.values[key] {
			for _, m := range interpolation().FindAllStringSubmatch(want, -1) {
				name, ok := strings.CutPrefix(strings.TrimSpace(m[1]), "matrix.")
				if !ok {
					continue
				}
				if _, has := own.value(name); !has {
					return name, true
				}
			}
		}
	}
	return "", false
}
