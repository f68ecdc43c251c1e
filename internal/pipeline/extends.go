package pipeline

import (
	"slices"
	"strings"
)

const maxExtends = 10

// extender resolves extends: of all jobs and templates.
type extender struct {
	root   *value
	report *report
	lost   *lost
	done   map[string]*value
	levels map[string]int // of inheritance, the job itself not counted
}

// resolveExtends returns the configuration with the parents merged into every job.
func resolveExtends(root *value, r *report, l *lost) *value {
	x := &extender{root: root, report: r, lost: l, done: map[string]*value{}, levels: map[string]int{}}
	out := newHash(root.at)
	for _, p := range root.pairs {
		out.set(p.key, p.at, x.resolve(p.key, nil))
	}
	if treeSize(out, map[*value]int{}) > maxTree {
		r.errorf(root.at, "", "the configuration is too big once extends are resolved")
		return newHash(root.at)
	}
	return out
}

func (x *extender) resolve(name string, chain []string) *value {
	v := x.root.get(name)
	if !v.is(hash) || !v.given("extends") || reserved(name) {
		return v
	}
	if done, ok := x.done[name]; ok {
		return done
	}
	extends := v.get("extends")
	parents := asList(extends)
	chain = append(slices.Clip(chain), name)
	base := newHash(v.at)
	for _, p := range parents {
		if parent := x.parent(name, p, chain); parent != nil {
			base = merged(base, parent)
			x.levels[name] = max(x.levels[name], 1+x.levels[p.text])
			if x.lost.keys[p.text] != "" {
				x.lost.key(name, "it extends "+p.text+", which is not complete: "+x.lost.keys[p.text])
			}
		}
	}
	if x.levels[name] == maxExtends+1 { // reported once, not for each job above
		x.report.errorf(extends.at, name, "%s: nesting too deep in `extends`: at most %d levels", name, maxExtends)
	}
	out := merged(base, v)
	x.done[name] = out
	return out
}

// parent returns one resolved parent, or nil after a mistake.
func (x *extender) parent(name string, p *value, chain []string) *value {
	switch {
	case !p.is(text):
		x.report.errorf(p.at, name, "jobs:%s extends should be an array of strings or a string", name)
	case slices.Contains(chain, p.text):
		loop := append(slices.Clone(chain[slices.Index(chain, p.text):]), p.text)
		x.report.errorf(p.at, name, "%s: circular dependency detected in `extends` (%s)", name, strings.Join(loop, " -> "))
	case !x.root.has(p.text) && x.lost.any():
		x.lost.key(name, "it extends "+p.text+", which may be in "+x.lost.among()+nearest(p.text, x.names(name)))
	case !x.root.has(p.text):
		x.report.errorf(p.at, name, "%s: unknown keys in `extends` (%s)%s", name, p.text, nearest(p.text, x.names(name)))
	case !x.root.get(p.text).is(hash):
		x.report.errorf(p.at, name, "%s: invalid base hashes in `extends` (%s)", name, p.text)
	case len(chain) > 1000: // too deep in any case, and reported at its end
	default:
		return x.resolve(p.text, chain)
	}
	return nil
}

// names are what a job may extend, for hints.
func (x *extender) names(job string) []string {
	var out []string
	for _, p := range x.root.pairs {
		if p.key != job && p.val.is(hash) && !reserved(p.key) {
			out = append(out, p.key)
		}
	}
	return out
}
