package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFaults bounds the faults of one file: after that many, it is not TOML.
const maxFaults = 20

// parser builds the tree of a file. It goes on after a fault at the next line, so that all faults are found at once.
type parser struct {
	doc     *document
	toml    unstable.Parser
	base    int // offset in the file of what toml sees
	current *node
	section []string
	faults  []fault
}

// parseTOML returns the tree of data, as far as it can be understood, and what is wrong with it.
func parseTOML(data []byte) (*document, []fault) {
	p := &parser{doc: &document{data: data, root: &node{kind: kindTable, origin: byHeader}}}
	p.current = p.doc.root
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		p.base = 3 // byte order mark of Windows editors
	}
	p.reset()
	for len(p.faults) < maxFaults {
		if p.toml.NextExpression() {
			p.expression(p.toml.Expression())
			continue
		}
		if err := p.toml.Error(); err == nil || !p.skip(err) {
			break
		}
	}
	return p.doc, p.faults
}

func (p *parser) reset() {
	// A capacity of its own, because toml finds positions by capacity.
	p.toml.Reset(p.doc.data[p.base:len(p.doc.data):len(p.doc.data)])
}

// skip notes a syntax error and goes to the next line. It returns false when there is none.
func (p *parser) skip(err error) bool {
	at := len(p.doc.data)
	text := err.Error()
	if detail, ok := errors.AsType[*unstable.ParserError](err); ok {
		if cap(detail.Highlight) <= cap(p.toml.Data()) && detail.Highlight != nil {
			at = p.base + int(p.toml.Range(detail.Highlight).Offset)
		}
		text = detail.Message
	}
	if strings.HasPrefix(text, "expected keyword") || strings.Contains(text, "at start of value") {
		text = "this is not a value"
	}
	if line := bytes.TrimSpace(lineAt(p.doc.data, at)); bytes.HasPrefix(line, []byte("[")) {
		// The keys below belong to a section that nobody knows, not to the one above.
		p.section, p.current = nil, &node{kind: kindTable, origin: byHeader, at: at}
	}
	p.faults = append(p.faults, fault{at: at, text: text, found: lineFound(p.doc.data, at), hint: syntaxHint(p.doc.data, at)})
	next := bytes.IndexByte(p.doc.data[at:], '\n')
	if next < 0 {
		return false
	}
	p.base = at + next + 1
	p.reset()
	return true
}

// lineFound returns the word of the file at an offset, unless its line may hold a secret.
func lineFound(data []byte, at int) string {
	line := lineAt(data, at)
	if secretName(string(line)) {
		return ""
	}
	rest, _, _ := bytes.Cut(data[at:], []byte("\n"))
	word, _, _ := strings.Cut(strings.TrimRight(string(rest), "\r"), " ")
	if len(word) > 30 {
		word = word[:30]
	}
	return strings.ToValidUTF8(word, "?")
}

func lineAt(data []byte, at int) []byte {
	start := bytes.LastIndexByte(data[:at], '\n') + 1
	line, _, _ := bytes.Cut(data[start:], []byte("\n"))
	return line
}

// syntaxHint guesses what was meant on the line of a syntax error.
func syntaxHint(data []byte, at int) string {
	line := strings.TrimSpace(string(lineAt(data, at)))
	_, value, assigned := strings.Cut(line, "=")
	value = strings.TrimSpace(value)
	switch {
	case strings.HasPrefix(line, "["):
		return "A section is written as [name] or [[runners]], alone on its line."
	case !assigned:
		return "A setting is written as key = value."
	case value == "":
		return "Give a value, or put # before the line."
	case strings.EqualFold(value, "true") || strings.EqualFold(value, "false"):
		return "Write true or false in small letters."
	case strings.ContainsAny(value[:1], `"'[{`):
		return "Check quotes, brackets and commas; a backslash in \"...\" is doubled, or write '...'."
	default:
		return "Text stands in quotes: key = \"text\"."
	}
}

func (p *parser) fault(at int, key, text, hint string) {
	p.faults = append(p.faults, fault{at: at, key: key, text: text, hint: hint})
}

func (p *parser) expression(e *unstable.Node) {
	switch e.Kind {
	case unstable.Table, unstable.ArrayTable:
		p.header(e)
	case unstable.KeyValue:
		p.keyValue(e)
	default: // comments are not kept
	}
}

// part is one part of a dotted key.
type part struct {
	name       string
	start, end int
}

func (p *parser) key(it unstable.Iterator) []part {
	var parts []part
	for it.Next() {
		n := it.Node()
		start := p.base + int(n.Raw.Offset)
		parts = append(parts, part{string(n.Data), start, start + int(n.Raw.Length)})
	}
	return parts
}

func names(parts []part) []string {
	out := make([]string, len(parts))
	for i, part := range parts {
		out[i] = part.name
	}
	return out
}

// full returns the whole name of a key in the current section.
func (p *parser) full(parts []part) string {
	return strings.Join(append(slices.Clone(p.section), names(parts)...), ".")
}

// header opens the table of [a.b] or adds an element to the list of [[a.b]].
func (p *parser) header(e *unstable.Node) {
	parts := p.key(e.Key())
	last := parts[len(parts)-1]
	array := e.Kind == unstable.ArrayTable
	p.section = names(parts)
	// After a fault, the keys below still belong to something, that is read and thrown away.
	start := bytes.LastIndexByte(p.doc.data[:parts[0].start], '\n') + 1
	at := start + bytes.IndexByte(p.doc.data[start:], '[')
	p.current = &node{key: last.name, kind: kindTable, origin: byHeader, at: at}
	parent := p.descend(parts[:len(parts)-1])
	if parent != nil {
		p.open(parent, last, at, array)
	}
	p.doc.statements = append(p.doc.statements, statement{
		start: start, end: lineEnd(p.doc.data, last.end), header: p.section, array: array, section: p.section, target: p.current,
	})
}

// descend follows the first parts of a header from the root, making tables that are not there yet.
func (p *parser) descend(parts []part) *node {
	n := p.doc.root
	for _, part := range parts {
		next := n.child(part.name)
		switch {
		case next == nil:
			next = &node{key: part.name, kind: kindTable, origin: byPath, at: part.start}
			n.list = append(n.list, next)
		case next.kind == kindArray && next.origin == byArray:
			next = next.list[len(next.list)-1]
		case next.kind != kindTable || next.origin == byValue:
			p.fault(part.start, strings.Join(p.section, "."), p.firstAt(part.name, next)+", so nothing can be put below it", "Remove one of the two.")
			return nil
		}
		n = next
	}
	return n
}

func (p *parser) firstAt(name string, n *node) string {
	line, _ := position(p.doc.data, n.at)
	what := n.kind.String()
	if n.kind == kindTable && n.origin != byValue {
		what = "a section"
	}
	return fmt.Sprintf("%s is %s already, in line %d", name, what, line)
}

// open makes what a header stands for the current table.
func (p *parser) open(parent *node, last part, at int, array bool) {
	old := parent.child(last.name)
	switch {
	case old == nil && array:
		p.current.origin = byArray
		parent.list = append(parent.list, &node{key: last.name, kind: kindArray, origin: byArray, at: at, list: []*node{p.current}})
	case old == nil:
		parent.list = append(parent.list, p.current)
	case array && old.origin == byArray && old.kind == kindArray:
		p.current.origin = byArray
		old.list = append(old.list, p.current)
	case !array && old.kind == kindTable && old.origin == byPath:
		old.origin, old.at = byHeader, at
		p.current = old
	case array:
		p.fault(last.start, strings.Join(p.section, "."), p.firstAt(last.name, old)+", so it cannot be a list of sections", "Write all of them as [[...]].")
	case old.origin == byArray:
		p.fault(last.start, strings.Join(p.section, "."), p.firstAt(last.name, old), "Write one more of its sections with double brackets: [[...]].")
	default:
		p.fault(last.start, strings.Join(p.section, "."), p.firstAt(last.name, old), "Put the keys of both sections into one.")
	}
}

// lineEnd returns the offset behind the line break of the line that at is in.
func lineEnd(data []byte, at int) int {
	if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(data)
}

// keyValue adds key = value to the current table.
func (p *parser) keyValue(e *unstable.Node) {
	parts := p.key(e.Key())
	value := p.value(e)
	p.assign(p.current, parts, value)
	start := bytes.LastIndexByte(p.doc.data[:parts[0].start], '\n') + 1
	p.doc.statements = append(p.doc.statements, statement{
		start: start, end: lineEnd(p.doc.data, value.valueEnd), section: p.section, target: value, simple: len(parts) == 1,
	})
}

// assign puts a value under a dotted key into a table.
func (p *parser) assign(table *node, parts []part, value *node) {
	for _, part := range parts[:len(parts)-1] {
		next := table.child(part.name)
		if next == nil {
			next = &node{key: part.name, kind: kindTable, origin: byDots, at: part.start}
			table.list = append(table.list, next)
		}
		if next.kind != kindTable || next.origin != byDots {
			p.fault(part.start, p.full(parts), p.firstAt(part.name, next), "Put the key into that section.")
			return
		}
		table = next
	}
	last := parts[len(parts)-1]
	value.key, value.at = last.name, last.start
	if old := table.child(last.name); old != nil {
		line, _ := position(p.doc.data, old.at)
		p.fault(last.start, p.full(parts), fmt.Sprintf("%s is given twice, first in line %d", last.name, line), "Remove one of the two.")
		return
	}
	table.list = append(table.list, value)
}
