package pipeline

import (
	"cmp"
	"slices"
	"strings"
)

const (
	maxReferences = 10
	// maxTree bounds the configuration after references and extends, where a small file can stand for a huge tree.
	maxTree = 2_000_000
)

// references resolves !reference tags.
type references struct {
	root    *value
	report  *report
	lost    *lost
	done    map[*value]resolved
	deepest int    // levels of references below the value that is being resolved
	gone    string // what the value refers to and may be in an include that cannot be had
}

type resolved struct {
	v     *value
	depth int
	gone  string
}

// resolveReferences returns the configuration with every !reference replaced by what it refers to.
func resolveReferences(root *value, r *report, l *lost) *value {
	rs := &references{root: root, report: r, lost: l, done: map[*value]resolved{}}
	out := newHash(root.at)
	for _, p := range root.pairs {
		rs.gone = ""
		out.set(p.key, p.at, rs.resolve(p.val, nil))
		if rs.gone == "" {
			continue
		}
		l.key(p.key, rs.gone+" is not there: it may be in "+l.among())
		if reserved(p.key) {
			r.warnf(p.at, "a part of %s is left out: %s", p.key, l.keys[p.key])
		}
	}
	if treeSize(out, map[*value]int{}) > maxTree {
		r.errorf(root.at, "", "the configuration is too big once references are resolved")
		return newHash(root.at)
	}
	return out
}

// resolve returns v itself when there is no reference in it. A value is resolved once, however often it is referred to.
func (rs *references) resolve(v *value, chain []string) *value {
	if v == nil || v.kind != list && v.kind != hash && v.kind != reference {
		return v
	}
	if d, ok := rs.done[v]; ok {
		if d.depth > 0 && len(chain)+d.depth > maxReferences {
			rs.tooDeep(v)
		}
		rs.deepest = max(rs.deepest, d.depth)
		rs.gone = cmp.Or(rs.gone, d.gone)
		return d.v
	}
	outer, gone := rs.deepest, rs.gone
	rs.deepest, rs.gone = 0, ""
	var out *value
	switch v.kind {
	case reference:
		out = rs.follow(v, chain)
	case list:
		out = rs.resolveList(v, chain)
	default:
		out = rs.resolveHash(v, chain)
	}
	rs.done[v] = resolved{v: out, depth: rs.deepest, gone: rs.gone}
	rs.deepest = max(outer, rs.deepest)
	rs.gone = cmp.Or(gone, rs.gone)
	return out
}

func (rs *references) resolveList(v *value, chain []string) *value {
	out := v
	for i, item := range v.items {
		n := rs.resolve(item, chain)
		if n != item && out == v {
			out = &value{kind: list, at: v.at, items: slices.Clone(v.items[:i])}
		}
		if out != v && (!n.isNull() || rs.done[item].gone == "") {
			out.items = append(out.items, n)
		}
	}
	return out
}

func (rs *references) resolveHash(v *value, chain []string) *value {
	out := v
	for _, p := range v.pairs {
		n := rs.resolve(p.val, chain)
		if n != p.val && out == v {
			out = v.copyHash()
		}
		if out != v {
			out.set(p.key, p.at, n)
		}
	}
	return out
}

func (rs *references) tooDeep(v *value) {
	rs.report.errorf(v.at, "", "!reference is nested too deeply: at most %d levels of references", maxReferences)
}

func (rs *references) follow(ref *value, chain []string) *value {
	none := &value{kind: null, at: ref.at}
	keys := make([]string, 0, len(ref.items))
	for _, item := range ref.items {
		if !item.scalar() {
			rs.report.errorf(item.at, "", "!reference needs an array of strings such as [job, script]")
			return none
		}
		keys = append(keys, item.text)
	}
	shown := "!reference [\"" + strings.Join(keys, "\", \"") + "\"]"
	name := strings.Join(keys, "\x00")
	switch {
	case len(keys) == 0:
		rs.report.errorf(ref.at, "", "!reference needs an array such as [job, script]")
		return none
	case slices.Contains(chain, name):
		rs.report.errorf(ref.at, "", "%s is part of a circular chain", shown)
		return none
	case len(chain) >= maxReferences:
		rs.tooDeep(ref)
		return none
	}
	chain = append(slices.Clip(chain), name)
	target := rs.root
	for _, k := range keys {
		if target.is(reference) {
			target = rs.resolve(target, chain)
		}
		if target = target.get(k); target != nil {
			continue
		}
		if rs.lost.any() {
			rs.gone = shown
		} else {
			rs.report.errorf(ref.at, "", "%s could not be found", shown)
		}
		return none
	}
	out := rs.resolve(target, chain)
	rs.deepest++
	return out
}

// treeSize counts the values of a tree, shared ones each time; it never exceeds maxTree by more than one.
func treeSize(v *value, memo map[*value]int) int {
	if v == nil {
		return 0
	}
	if v.kind != list && v.kind != hash && v.kind != reference {
		return 1
	}
	if n, ok := memo[v]; ok {
		return n
	}
	n := 1
	for _, item := range v.items {
		n = min(n+treeSize(item, memo), maxTree+1)
	}
	for _, p := range v.pairs {
		n = min(n+treeSize(p.val, memo), maxTree+1)
	}
	memo[v] = n
	return n
}
