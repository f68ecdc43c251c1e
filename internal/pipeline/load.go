package pipeline

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Limits of includes, GitLab's defaults.
const (
	maxIncludes     = 150
	maxIncludeDepth = 100
)

// origin is where a file comes from: what include:local inside it refers to.
type origin struct {
	kind string         // "" for the project itself
	spec map[string]any // of the include that fetched it
}

// source is one file to load.
type source struct {
	name   string // as shown to the user
	data   []byte
	origin origin
	inputs *value // given by the include; nil: none
	at     position
	parent *source
}

func (s *source) depth() int {
	n := 0
	for p := s.parent; p != nil; p = p.parent {
		n++
	}
	return n
}

// loader reads the root file and what it includes into one hash.
type loader struct {
	in         *Input
	report     *report
	lost       *lost
	scope      *scope
	conditions *world // evaluates include:rules
	included   int
	stopped    bool
}

func (l *loader) loadRoot() *value {
	data := l.in.Content
	at := position{file: l.in.File}
	if data == nil {
		if l.in.Read == nil {
			l.report.errorf(at, "", "there is no such file")
			return nil
		}
		var err error
		if data, err = l.in.Read(strings.TrimPrefix(l.in.File, "/")); err != nil {
			l.report.errorf(at, "", "cannot read the file: %v", err)
			return nil
		}
	}
	return l.load(&source{name: l.in.File, data: data, inputs: givenInputs(l.in.Inputs, at), at: at})
}

// load reads one file: header, inputs, includes. It returns nil when there is nothing to go on with.
func (l *loader) load(s *source) *value {
	docs, ok := readFile(l.report, s.name, s.data)
	if !ok {
		return nil
	}
	at := position{file: s.name, line: 1, column: 1}
	header, content := l.split(docs)
	if content.isNull() {
		if s.parent != nil {
			l.report.errorf(s.at, "", "Included file `%s` is empty!", s.name)
		} else {
			l.report.errorf(at, "", "Please provide content of .gitlab-ci.yml")
		}
		return nil
	}
	if !content.is(hash) {
		l.report.errorf(content.at, "", "Invalid configuration format: a hash of jobs and keywords is needed, not %s", content.kind)
		return nil
	}
	content, ok = l.interpolateFile(s, header, content)
	if !ok {
		return nil
	}
	return l.expandIncludes(s, content)
}

// split tells the header document, with spec:, from the content.
func (l *loader) split(docs []*value) (header, content *value) {
	for len(docs) > 1 && docs[len(docs)-1].isNull() {
		docs = docs[:len(docs)-1]
	}
	if len(docs) > 1 && docs[0].has("spec") {
		header, docs = docs[0], docs[1:]
	}
	switch {
	case len(docs) == 0:
		return header, nil
	case len(docs) > 1:
		l.report.warnf(docs[1].at, "only the first document counts: what follows this --- is ignored")
	case header == nil && docs[0].get("spec").has("inputs") && !docs[0].get("spec").has("script"):
		l.report.errorf(docs[0].keyAt("spec"), "", "spec: is a header: a line with --- must follow it, then the jobs")
	}
	return header, docs[0]
}

func (l *loader) interpolateFile(s *source, header, content *value) (*value, bool) {
	if header == nil {
		if s.inputs != nil && len(s.inputs.pairs) > 0 {
			l.report.errorf(s.at, "", "%s: Given inputs not defined in the `spec` section of the included configuration file", s.name)
			return nil, false
		}
		return content, true
	}
	for _, p := range header.pairs {
		if p.key != "spec" {
			l.report.errorf(p.at, "", "header config contains unknown keys: %s", p.key)
		}
	}
	before := len(l.report.problems)
	inputs := l.readInputs(s, header.get("spec"))
	if Failed(l.report.problems[before:]) {
		return nil, false
	}
	ip := &interpolator{report: l.report, inputs: inputs, scope: l.scope, component: s.origin.spec}
	out := ip.apply(content)
	return out, !Failed(l.report.problems[before:])
}

// expandIncludes merges what the file includes, in order, and puts the file itself on top.
func (l *loader) expandIncludes(s *source, content *value) *value {
	include := content.get("include")
	if include == nil {
		return content
	}
	l.warnTooEarly(include, content.get("variables"))
	base := newHash(content.at)
	for _, item := range asList(include) {
		for _, f := range l.resolveInclude(s, item) {
			if l.stopped {
				return nil
			}
			if f = l.admit(f); f == nil {
				continue
			}
			if part := l.load(f); part != nil {
				base = merged(base, part)
			}
		}
	}
	own := newHash(content.at)
	for _, p := range content.pairs {
		if p.key != "include" {
			own.set(p.key, p.at, p.val)
		}
	}
	return merged(base, own)
}

// admit counts a file against the limits.
func (l *loader) admit(f *source) *source {
	l.included++
	if l.included <= maxIncludes && f.depth() <= maxIncludeDepth {
		return f
	}
	loop := ""
	for p := f.parent; p != nil; p = p.parent {
		if p.name == f.name {
			loop = fmt.Sprintf(" (%s includes itself)", f.name)
		}
	}
	l.stopped = true
	l.report.errorf(f.at, "", "Maximum of %d nested includes are allowed!%s", maxIncludes, loop)
	return nil
}

// asList returns the items of a list, one level deep, or the value itself as the only one.
func asList(v *value) []*value {
	switch {
	case v.isNull():
		return nil
	case v.is(list):
		return v.items
	default:
		return []*value{v}
	}
}

// localPath checks the path of include:local and returns it without its leading slash.
func localPath(p string) (string, error) {
	clean := strings.TrimLeft(p, "/")
	switch {
	case clean == "":
		return "", fmt.Errorf("the path is empty")
	case slices.Contains(strings.Split(clean, "/"), ".."):
		return "", fmt.Errorf("the path climbs out with '..': paths start at the root of the project")
	case strings.HasPrefix(clean, "./") || strings.Contains(clean, "/./"):
		return "", fmt.Errorf("the path is relative: paths start at the root of the project")
	case strings.Contains(clean, "\\") || strings.Contains(clean, "\x00"):
		return "", fmt.Errorf("the path has a character that no path in a repository has")
	case !hasYAMLExtension(clean):
		return "", errNoYAML
	}
	return path.Clean(clean), nil
}

func hasYAMLExtension(p string) bool {
	p = strings.ToLower(p)
	return strings.HasSuffix(p, ".yml") || strings.HasSuffix(p, ".yaml")
}

// sortedKeys is for messages and for input that comes as a map.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
