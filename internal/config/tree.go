package config

import (
	"slices"
	"strings"
)

// kind is the kind of a value in a TOML file.
type kind int

const (
	kindTable kind = iota
	kindArray
	kindString
	kindInteger
	kindFloat
	kindBool
	kindTime
)

func (k kind) String() string {
	return [...]string{"a table", "a list", "a string", "an integer", "a number", "true or false", "a date and time"}[k]
}

// origin tells how a table came to be, which decides what may be added to it.
type origin int

const (
	byPath   origin = iota // named on the way to a deeper table
	byHeader               // [a.b]
	byDots                 // a.b = 1
	byValue                // a = { ... }, a = [ ... ]: complete as it stands
	byArray                // [[a.b]]
)

// node is a key of the file with its value, or an element of a list.
type node struct {
	key      string
	kind     kind
	origin   origin
	at       int // byte offset of the key, or of the header
	valueAt  int // byte offsets of the value; 0 for tables with a header
	valueEnd int
	scalar   any     // string, int64, float64, bool, time.Time
	list     []*node // children of a table in the file's order, or elements of a list
}

// child returns the child with exactly this key.
func (n *node) child(key string) *node {
	for _, c := range n.list {
		if n.kind == kindTable && c.key == key {
			return c
		}
	}
	return nil
}

// find follows a path of keys, whatever their case, and returns nil if it leads nowhere.
func (n *node) find(path ...string) *node {
	for _, key := range path {
		if n == nil || n.kind != kindTable {
			return nil
		}
		i := slices.IndexFunc(n.list, func(c *node) bool { return strings.EqualFold(c.key, key) })
		if i < 0 {
			return nil
		}
		n = n.list[i]
	}
	return n
}

// nearest follows the path as far as it leads.
func (n *node) nearest(path ...string) *node {
	for _, key := range path {
		next := n.find(key)
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// plain returns the value as Go values: map[string]any, []any, and scalars.
func (n *node) plain() any {
	switch n.kind {
	case kindTable:
		m := make(map[string]any, len(n.list))
		for _, c := range n.list {
			m[c.key] = c.plain()
		}
		return m
	case kindArray:
		l := make([]any, len(n.list))
		for i, c := range n.list {
			l[i] = c.plain()
		}
		return l
	default:
		return n.scalar
	}
}

// leaves counts the scalar values and lists of scalars below n.
func (n *node) leaves() int {
	if n.kind != kindTable && (n.kind != kindArray || len(n.list) == 0 || n.list[0].kind != kindTable) {
		return 1
	}
	count := 0
	for _, c := range n.list {
		count += c.leaves()
	}
	return count
}

// statement is one line, or one construct of several lines, of the file: a header or a key with its value.
type statement struct {
	start, end int      // from the first byte of its first line to the end of its last, line break included
	header     []string // path of a header; nil for key = value
	array      bool     // [[...]]
	section    []string // path of the header above
	target     *node    // the table that a header opens, or the value
	simple     bool     // the key has no dots
}

// document is a file as a tree.
type document struct {
	data       []byte
	root       *node
	statements []statement
}

// fault is something wrong with the file as TOML.
type fault struct {
	at    int
	key   string
	found string
	text  string
	hint  string
}
