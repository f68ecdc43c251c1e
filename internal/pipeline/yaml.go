package pipeline

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// Limits of one file, as GitLab has them: they keep alias bombs and endless nesting out.
const (
	maxFileBytes = 2 << 20
	maxDepth     = 100
	maxNodes     = 200_000
)

// reader turns the bytes of one file into values.
type reader struct {
	report *report
	file   string
	nodes  int // values made so far, those of aliases counted each time
	open   map[*yaml.Node]bool
	over   bool
	lines  []string // of a file in which a ! stands alone
}

// versionLine is a directive that Ruby accepts and reads as it reads any other file.
var versionLine = lazy.Regexp(`(?m)^%YAML 1\.2\b`)

// readFile reads the documents of a file: none for an empty one.
func readFile(r *report, file string, data []byte) (docs []*value, ok bool) {
	at := position{file: file, line: 1, column: 1}
	if len(data) > maxFileBytes {
		r.errorf(at, "", "the file is larger than %d bytes", maxFileBytes)
		return nil, false
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(data) {
		r.errorf(at, "", "Invalid configuration format: the file is not valid UTF-8")
		return nil, false
	}
	if line, deep := tooDeep(data); deep {
		r.errorf(position{file: file, line: line, column: 1}, "", "The parsed YAML is too deep: at most %d levels", maxDepth)
		return nil, false
	}
	data = versionLine().ReplaceAll(data, []byte("%YAML 1.1"))
	nodes, read, err := parseDocuments(data)
	if err != nil {
		reportSyntax(r, file, data, read, err)
		return nil, false
	}
	rd := reader{report: r, file: file, open: map[*yaml.Node]bool{}}
	if bytes.Contains(data, []byte("! ")) {
		rd.lines = strings.Split(string(data), "\n")
	}
	for _, n := range nodes {
		docs = append(docs, rd.convert(n, 0))
		if rd.over {
			return nil, false
		}
	}
	return docs, true
}

// tooDeep finds brackets nested so deeply that the parser should not see them.
func tooDeep(data []byte) (line int, deep bool) {
	depth, line := 0, 1
	for _, c := range data {
		switch c {
		case '\n':
			line++
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		}
		if depth > 50*maxDepth {
			return line, true
		}
	}
	return 0, false
}

func (rd *reader) place(n *yaml.Node) position {
	return position{file: rd.file, line: n.Line, column: n.Column}
}

func (rd *reader) convert(n *yaml.Node, depth int) *value {
	at := rd.place(n)
	rd.nodes++
	switch {
	case rd.over:
		return &value{kind: null, at: at}
	case depth > maxDepth:
		return rd.stop(at, fmt.Sprintf("The parsed YAML is too deep: at most %d levels", maxDepth))
	case rd.nodes > maxNodes:
		return rd.stop(at, fmt.Sprintf("The parsed YAML is too big: more than %d values, aliases counted", maxNodes))
	}
	switch n.Kind {
	case yaml.AliasNode:
		return rd.alias(n, depth)
	case yaml.SequenceNode:
		return rd.sequence(n, depth)
	case yaml.MappingNode:
		return rd.mapping(n, depth)
	default:
		return rd.scalar(n)
	}
}

func (rd *reader) stop(at position, message string) *value {
	rd.over = true
	rd.report.errorf(at, "", "%s", message)
	return &value{kind: null, at: at}
}

func (rd *reader) alias(n *yaml.Node, depth int) *value {
	if n.Alias == nil || rd.open[n.Alias] {
		return rd.stop(rd.place(n), fmt.Sprintf("the alias *%s is inside the value that it stands for", n.Value))
	}
	return rd.convert(n.Alias, depth+1)
}

func (rd *reader) sequence(n *yaml.Node, depth int) *value {
	rd.open[n] = true
	defer delete(rd.open, n)
	v := &value{kind: list, at: rd.place(n)}
	if n.Tag == "!reference" {
		v.kind = reference
	}
	for _, item := range n.Content {
		v.items = append(v.items, rd.convert(item, depth+1))
	}
	return v
}

func (rd *reader) mapping(n *yaml.Node, depth int) *value {
	rd.open[n] = true
	defer delete(rd.open, n)
	v := newHash(rd.place(n))
	own := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, at := n.Content[i], rd.place(n.Content[i])
		val := rd.convert(n.Content[i+1], depth+1)
		if isMergeKey(k) {
			rd.mergeInto(v, val, own)
			continue
		}
		key, ok := rd.key(k, depth)
		if !ok {
			continue
		}
		if own[key] {
			rd.report.warnf(at, "the key %q is in this hash twice: the last one counts", key)
		}
		own[key] = true
		v.set(key, at, val)
	}
	return v
}

func isMergeKey(k *yaml.Node) bool {
	return k.Kind == yaml.ScalarNode && k.Value == "<<" && k.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0
}

// mergeInto carries out a merge key in Ruby's way: what is merged in overrides the keys above the merge key, and the keys
// below it override what was merged in.
func (rd *reader) mergeInto(v, from *value, own map[string]bool) {
	sources := []*value{from}
	if from.is(list) {
		sources = nil
		for _, item := range slices.Backward(from.items) { // the first of a list has the last word
			sources = append(sources, item)
		}
	}
	for _, s := range sources {
		if s.isNull() {
			continue
		}
		if !s.is(hash) {
			rd.report.errorf(s.at, "", "a merge key (<<) needs a hash or an array of hashes, not %s", s.kind)
			continue
		}
		for _, p := range s.pairs {
			if own[p.key] {
				rd.report.warnf(v.keyAt(p.key), "the key %q is overridden by the merge key (<<) below it, as GitLab does: put << first", p.key)
			}
			v.set(p.key, p.at, p.val)
		}
	}
}

// key returns a key as text. Ruby reads keys as it reads values: without quotes, "on" is the boolean true.
func (rd *reader) key(k *yaml.Node, depth int) (key string, ok bool) {
	for k.Kind == yaml.AliasNode && k.Alias != nil {
		k = k.Alias
	}
	if k.Kind != yaml.ScalarNode {
		rd.report.errorf(rd.place(k), "", "a key must be a string, not an array or a hash (a text that starts with { needs quotes)")
		return "", false
	}
	v := rd.scalar(k)
	switch {
	case depth == 0 && (v.is(integer) || v.is(float)):
		rd.report.errorf(v.at, "", "jobs:%s name should be a symbol (put it in quotes)", v.text)
	case v.is(boolean) && k.Value != v.text:
		rd.report.warnf(v.at, "the key %s is read as the boolean %s: it needs quotes", k.Value, v.text)
	}
	return v.text, true
}

func (rd *reader) scalar(n *yaml.Node) *value {
	at := rd.place(n)
	switch tag := n.Tag; {
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 && n.Style&yaml.TaggedStyle == 0:
		return newText(n.Value, at)
	case n.Style&yaml.TaggedStyle != 0 && tag == "!!binary":
		decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err != nil {
			rd.report.errorf(at, "", "a !!binary value is not valid base64")
		}
		return newText(string(decoded), at)
	case n.Style&yaml.TaggedStyle != 0 && tag == "!!str":
		return newText(n.Value, at)
	case tag == "!reference":
		rd.report.errorf(at, "", "!reference needs an array such as [job, script]")
	case n.Style&yaml.TaggedStyle != 0:
		rd.warnTag(tag, n.Value, at)
	}
	if rd.afterBang(n) {
		rd.warnTag("!", n.Value, at)
		return newText(n.Value, at)
	}
	v, class := scalarOf(n.Value, at)
	if class != "" {
		rd.report.errorf(at, "", "Tried to load unspecified class: %s: %s needs quotes", class, n.Value)
	}
	return v
}

// afterBang reports whether a ! and a space stand before a value: then it is a string, and the library does not tell.
func (rd *reader) afterBang(n *yaml.Node) bool {
	if n.Line > len(rd.lines) || n.Line == 0 {
		return false
	}
	line := []rune(rd.lines[n.Line-1])
	return n.Column > 0 && n.Column < len(line) && line[n.Column-1] == '!' && line[n.Column] == ' '
}

// warnTag reports a ! that YAML takes for itself where a text was meant, such as if: !$DRAFT.
func (rd *reader) warnTag(tag, value string, at position) {
	if !strings.HasPrefix(tag, "!!") && !strings.HasPrefix(tag, "tag:") {
		rd.report.warnf(at, "YAML drops the %s at the start of this value, what is left is %q: to keep it, put the value in quotes", tag, value)
	}
}
