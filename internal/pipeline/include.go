package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"syscall"

	"github.com/tranter-ci/tranter/internal/variables"
)

var errNoYAML = errors.New("does not have YAML extension")

func includeKinds() []string {
	return []string{"local", "remote", "project", "template", "component"}
}

// resolveInclude turns one entry of include: into the files that it stands for.
func (l *loader) resolveInclude(s *source, item *value) []*source {
	if item.is(list) {
		var out []*source
		for _, sub := range item.items {
			if !sub.is(list) {
				out = append(out, l.resolveInclude(s, sub)...)
			}
		}
		return out
	}
	entry := l.longInclude(item)
	if !entry.is(hash) {
		l.report.errorf(item.at, "", "include config should be a string, a hash or an array of them, not %s", item.kind)
		return nil
	}
	kind := l.includeKind(entry)
	if kind == "" || !l.includeWanted(entry) {
		return nil
	}
	entry = l.expandEntry(entry)
	switch {
	case kind == "local" && s.origin.kind == "":
		return l.includeLocal(s, entry)
	case kind == "project":
		return l.includeProject(s, entry)
	case kind == "local":
		return l.fetch(s, entry, "local", l.foreignLocal(s, entry))
	default:
		return l.fetch(s, entry, kind, plainMap(entry, "rules", "inputs"))
	}
}

// warnTooEarly warns where an include refers to a variable that the file itself sets: includes are resolved before those exist.
func (l *loader) warnTooEarly(v, own *value) {
	switch {
	case v.is(text):
		variables.References(v.text, func(name, ref string) string {
			if _, known := l.scope.lookup(name); !known && own.has(name) {
				l.report.warnf(v.at, "%s has no value in include unless the pipeline is started with one: variables: of the file come after its includes", ref)
			}
			return ref
		})
	case v.is(list):
		for _, item := range v.items {
			l.warnTooEarly(item, own)
		}
	case v.is(hash):
		for _, p := range v.pairs {
			if p.key != "inputs" {
				l.warnTooEarly(p.val, own)
			}
		}
	}
}

// longInclude gives the short form of an include, a path or a URL, its long form.
func (l *loader) longInclude(item *value) *value {
	if !item.is(text) {
		return item
	}
	entry := newHash(item.at)
	kind := "local"
	if to := l.scope.expand(item.text); strings.HasPrefix(to, "http://") || strings.HasPrefix(to, "https://") {
		kind = "remote"
	}
	entry.set(kind, item.at, item)
	return entry
}

// includeKind checks the keys of an include and says which kind it is; "" after a mistake.
func (l *loader) includeKind(entry *value) string {
	kind := ""
	for _, k := range includeKinds() {
		if !entry.has(k) {
			continue
		}
		if kind != "" {
			l.report.errorf(entry.keyAt(k), "", "include config has %s and %s: each file needs an entry of its own", kind, k)
			return ""
		}
		kind = k
	}
	for _, p := range entry.pairs {
		switch p.key {
		case "local", "remote", "project", "template", "component", "rules", "inputs", "integrity", "file", "ref", "cache":
		case "artifact", "job":
			l.report.errorf(p.at, "", "include:%s is only possible below trigger:", p.key)
			return ""
		default:
			l.report.errorf(p.at, "", "include config contains unknown keys: %s%s", p.key,
				nearest(p.key, []string{"local", "remote", "project", "template", "component", "rules", "inputs", "file", "ref"}))
		}
	}
	if kind == "" {
		l.report.errorf(entry.at, "", "include config must specify the file where to fetch the config from: one of local, remote, project, template, component")
		return ""
	}
	if v := entry.get(kind); !v.is(text) || v.text == "" {
		l.report.errorf(v.at, "", "include:%s should be a string", kind)
		return ""
	}
	return kind
}

func (l *loader) includeWanted(entry *value) bool {
	v := entry.get("rules")
	if v == nil {
		return true
	}
	rules := readRules(v, ruleContext{report: l.report, prefix: "include:rules", keys: includeRuleKeys(), whens: []string{"always", "never"}})
	for _, r := range rules {
		if r.matches(l.conditions, l.scope) {
			return r.when != "never"
		}
	}
	return false
}

// expandEntry expands variables in the texts of an include.
func (l *loader) expandEntry(entry *value) *value {
	out := newHash(entry.at)
	for _, p := range entry.pairs {
		val := p.val
		if p.key != "rules" && p.key != "inputs" {
			val = l.expandTexts(val)
		}
		out.set(p.key, p.at, val)
	}
	return out
}

func (l *loader) expandTexts(v *value) *value {
	switch {
	case v.is(text):
		return newText(l.scope.expand(v.text), v.at)
	case v.is(list):
		out := &value{kind: list, at: v.at}
		for _, item := range v.items {
			out.items = append(out.items, l.expandTexts(item))
		}
		return out
	}
	return v
}

func (l *loader) includeLocal(s *source, entry *value) []*source {
	v := entry.get("local")
	p, err := localPath(v.text)
	if errors.Is(err, errNoYAML) && strings.Contains(v.text, "*") {
		l.report.errorf(v.at, "", "Included file `%s` does not have YAML extension!", v.text)
		return nil
	}
	if err != nil {
		l.report.errorf(v.at, "", "Included file `%s` is not possible: %v", v.text, err)
		return nil
	}
	if !strings.Contains(p, "*") {
		return l.readLocal(s, entry, p)
	}
	var out []*source
	pattern := wildcard(p)
	for _, f := range l.conditions.projectFiles() {
		if pattern.MatchString(f) {
			out = append(out, l.readLocal(s, entry, f)...)
		}
	}
	if out == nil {
		l.report.warnf(v.at, "no file of the project matches `%s`", v.text)
	}
	return out
}

func (l *loader) readLocal(s *source, entry *value, p string) []*source {
	at := entry.get("local").at
	if l.included > maxIncludes || l.in.Read == nil {
		l.report.errorf(at, "", "Local file `%s` cannot be read", p)
		return nil
	}
	data, err := l.in.Read(p)
	if err != nil {
		l.report.errorf(at, "", "Local file `%s` %s", p, whyNot(err))
		return nil
	}
	return []*source{{name: p, data: data, inputs: l.inputsOf(entry), at: at, parent: s}}
}

func whyNot(err error) string {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // below a file
		return "does not exist!"
	}
	return fmt.Sprintf("cannot be read: %v", err)
}

func (l *loader) inputsOf(entry *value) *value {
	v := entry.get("inputs")
	if v.isNull() {
		return nil
	}
	if !v.is(hash) {
		l.report.errorf(v.at, "", "include:inputs config should be a hash")
		return nil
	}
	return v
}

func (l *loader) includeProject(s *source, entry *value) []*source {
	files := asList(entry.get("file"))
	if len(files) == 0 {
		l.report.errorf(entry.at, "", "include:project config must specify the file where to fetch the config from")
		return nil
	}
	var out []*source
	for _, f := range files {
		if !f.is(text) {
			l.report.errorf(f.at, "", "include:file should be a string")
			continue
		}
		spec := plainMap(entry, "rules", "inputs", "file")
		spec["file"] = strings.TrimPrefix(f.text, "/")
		out = append(out, l.fetch(s, entry, "project", spec)...)
	}
	return out
}

// foreignLocal is include:local inside a file from elsewhere: the same project at the same ref.
func (l *loader) foreignLocal(s *source, entry *value) map[string]any {
	spec := map[string]any{}
	maps.Copy(spec, s.origin.spec)
	spec["local"] = entry.get("local").text
	if s.origin.kind == "project" {
		spec["file"] = strings.TrimPrefix(entry.get("local").text, "/")
	}
	return spec
}

func (l *loader) fetch(s *source, entry *value, kind string, spec map[string]any) []*source {
	shown := kind
	if kind == "local" {
		if s.origin.kind == "project" {
			kind = "project"
		} else {
			kind = s.origin.kind
		}
	}
	key := shown
	if shown == "project" {
		key = "file"
	}
	name, _ := spec[key].(string)
	at := entry.keyAt(shown)
	if project, ok := spec["project"].(string); ok {
		name = project + ":" + name
	}
	data, err := []byte(nil), ErrUnavailable
	if l.in.Fetch != nil {
		data, err = l.in.Fetch(kind, spec)
	}
	switch {
	case errors.Is(err, ErrUnavailable):
		l.lost.include(l.report, at, fmt.Sprintf("include:%s `%s`", shown, name))
		return nil
	case err != nil:
		l.report.errorf(at, "", "include:%s `%s` cannot be had: %v", shown, name, err)
		return nil
	}
	return []*source{{name: name, data: data, origin: origin{kind: kind, spec: spec}, inputs: l.inputsOf(entry), at: at, parent: s}}
}

// plainMap returns the scalar and list keys of a hash, without those named.
func plainMap(v *value, without ...string) map[string]any {
	out := map[string]any{}
	for _, p := range v.pairs {
		skip := false
		for _, w := range without {
			skip = skip || w == p.key
		}
		if !skip {
			out[p.key] = p.val.plain()
		}
	}
	return out
}
