package config

import (
	"slices"
	"strings"
)

// Value is a value of a file with its place. It does not change: what changes it returns another one. The zero Value is one
// that is not there.
type Value struct{ node *node }

// Exists tells whether there is such a value.
func (v Value) Exists() bool { return v.node != nil }

// Key is the key under which the value stands.
func (v Value) Key() string { return v.node.key }

// Kind is the kind of the value in words, with an article.
func (v Value) Kind() string { return v.node.kind.String() }

// IsTable tells whether the value is a table.
func (v Value) IsTable() bool { return v.node != nil && v.node.kind == kindTable }

// IsList tells whether the value is a list.
func (v Value) IsList() bool { return v.node != nil && v.node.kind == kindArray }

// Text returns a string.
func (v Value) Text() (text string, ok bool) {
	if v.node == nil || v.node.kind != kindString {
		return "", false
	}
	return v.node.scalar.(string), true
}

// Bool returns true or false.
func (v Value) Bool() (value, ok bool) {
	if v.node == nil || v.node.kind != kindBool {
		return false, false
	}
	return v.node.scalar.(bool), true
}

// Items returns what is in a table, in the order of the file, or in a list.
func (v Value) Items() []Value {
	if v.node == nil {
		return nil
	}
	items := make([]Value, len(v.node.list))
	for i, n := range v.node.list {
		items[i] = Value{n}
	}
	return items
}

// Find follows a path of keys, whatever their case.
func (v Value) Find(path ...string) Value {
	if v.node == nil {
		return v
	}
	return Value{v.node.find(path...)}
}

// With returns a table with a value under a key, in the place of the one that is there.
func (v Value) With(key string, item Value) Value {
	n := *v.node
	c := *item.node
	c.key = key
	n.list = slices.Clone(n.list)
	if i := slices.IndexFunc(n.list, func(old *node) bool { return strings.EqualFold(old.key, key) }); i >= 0 {
		n.list[i] = &c
	} else {
		n.list = append(n.list, &c)
	}
	return Value{&n}
}

// Without returns a table without some keys.
func (v Value) Without(keys ...string) Value {
	n := *v.node
	n.list = slices.DeleteFunc(slices.Clone(n.list), func(c *node) bool {
		return slices.ContainsFunc(keys, func(key string) bool { return strings.EqualFold(key, c.key) })
	})
	return Value{&n}
}

// WithText returns a string in the place of the value.
func (v Value) WithText(text string) Value {
	n := *v.node
	n.kind, n.scalar, n.list = kindString, text, nil
	return Value{&n}
}

// AsList returns a list with the value alone in it, unless it is one.
func (v Value) AsList() Value {
	if v.node.kind == kindArray {
		return v
	}
	n := *v.node
	n.kind, n.scalar, n.list = kindArray, nil, []*node{v.node}
	return Value{&n}
}

// Empty returns a table without keys in the place of the value.
func (v Value) Empty() Value {
	return Value{&node{key: v.node.key, kind: kindTable, at: v.node.at}}
}

// Over returns a table with the keys of two: those of v, and those of under that v does not have. Tables in both are put
// together in the same way. The place is that of v.
func (v Value) Over(under Value) Value {
	switch {
	case !v.IsTable() && v.Exists() || !under.Exists():
		return v
	case !v.Exists() || !under.IsTable():
		if v.Exists() {
			return v
		}
		return under
	}
	out := v
	for _, c := range under.Items() {
		mine := v.Find(c.Key())
		switch {
		case !mine.Exists():
			out = out.With(c.Key(), c)
		case mine.IsTable() && c.IsTable():
			out = out.With(mine.Key(), mine.Over(c))
		}
	}
	return out
}

// Section returns a table as a Section.
func (v Value) Section() Section {
	if !v.IsTable() {
		return nil
	}
	return sectionOf(v.node)
}

// Nearest returns the name that may have been meant by word, or nothing.
func Nearest(word string, names []string) string { return nearest(word, names) }

// SecretName tells whether something of this name is likely to be secret.
func SecretName(name string) bool { return secretName(name) }

// foreign returns a table without what GitLab Runner does not know.
func (t *table) foreign(n *node) *node {
	out := *n
	out.list = nil
	for _, c := range n.list {
		f := t.field(c.key)
		switch {
		case f == nil || strings.Contains(f.tag.Get("about"), "of GitLab Runner") && strings.Contains(f.tag.Get("about"), "Not a "):
		case f.many && c.kind == kindArray:
			out.list = append(out.list, c.mapped(func(item *node) *node {
				if item.kind != kindTable {
					return item
				}
				return f.sub.foreign(item)
			}))
		case f.sub != nil && c.kind == kindTable:
			out.list = append(out.list, f.sub.foreign(c))
		default:
			out.list = append(out.list, c)
		}
	}
	return &out
}

// ExecutorSections returns the names of the sections that an executor uses, and of those that some executor uses.
func ExecutorSections(executor string) (uses, all []string) {
	return executorSections(executor), allExecutorSections()
}

// Write writes a section as the text of a file, texts of several lines as such.
func Write(s Section) ([]byte, error) {
	w := &writer{newline: "\n", lines: true}
	if err := w.section(nil, s); err != nil {
		return nil, err
	}
	return []byte(w.String()), nil
}

// Effective returns what Render shows, as a Section.
func Effective(c Config) Section { return effective(c) }

// WithList returns a list of strings in the place of the value.
func (v Value) WithList(texts []string) Value {
	n := *v.node
	n.kind, n.scalar, n.list = kindArray, nil, nil
	for _, text := range texts {
		n.list = append(n.list, &node{kind: kindString, at: n.at, valueAt: n.valueAt, valueEnd: n.valueEnd, scalar: text})
	}
	return Value{&n}
}
