package site

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter/internal/config"
)

const (
	maxFiles = 1000    // that may be included
	maxFile  = 4 << 20 // bytes of one of them
)

// loader reads a site file and what it includes into one table.
type loader struct {
	source   Source
	files    config.Files
	names    []string
	from     map[string]config.Value // the entry of include by which a file came in
	problems []config.Problem
}

func (l *loader) report(severity config.Severity, at config.Value, key, text, hint string) {
	l.problems = append(l.problems, l.files.Problem(severity, at, key, text, hint))
}

// where is the place of a value as it stands in a message.
func (l *loader) where(v config.Value) string {
	file, line, _ := l.files.Place(v)
	if file == l.source.Name {
		return fmt.Sprintf("line %d", line)
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// load reads the file and all that it includes.
func (l *loader) load() config.Value {
	l.from = map[string]config.Value{}
	return l.file(filepath.Clean(l.source.Name), l.source.Name, l.source.Data, nil)
}

// file reads one file and what it includes. above are the files that lead to it.
func (l *loader) file(path, name string, data []byte, above []string) config.Value {
	root, problems := l.files.Add(name, data)
	l.problems = append(l.problems, problems...)
	l.names = append(l.names, name)
	above = append(slices.Clone(above), path)
	include := root.Find("include")
	if !include.IsList() {
		if include.Exists() {
			l.report(config.Error, include, "include", "must be a list of files, not "+include.Kind(), "Write include = [\"runners.d/*.toml\"].")
		}
		return root.Without("include")
	}
	root = root.Without("include")
	for _, entry := range include.Items() {
		for _, found := range l.included(entry, filepath.Dir(path)) {
			root = l.join(root, l.enter(entry, found, above))
		}
	}
	return root
}

// included returns the files that an entry of include stands for.
func (l *loader) included(entry config.Value, dir string) []string {
	pattern, ok := entry.Text()
	if !ok || pattern == "" {
		l.report(config.Error, entry, "include", "an entry must be the path of a file", "Put it in quotes.")
		return nil
	}
	pattern = home(pattern, l.source.Home)
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(dir, pattern)
	}
	if !strings.ContainsAny(pattern, "*?[") {
		return []string{filepath.Clean(pattern)}
	}
	if l.source.List == nil {
		l.report(config.Error, entry, "include", "files can't be looked for here", "Name each file.")
		return nil
	}
	found, err := l.source.List(pattern)
	switch {
	case err != nil:
		l.report(config.Error, entry, "include", "cannot be read: "+err.Error(), "The path is relative to the file that it stands in.")
	case len(found) == 0:
		l.report(config.Warning, entry, "include", "no file matches "+pattern, "The path is relative to the file that it stands in.")
	}
	for i := range found {
		found[i] = filepath.Clean(found[i])
	}
	return found
}

// enter reads a file that is included.
func (l *loader) enter(entry config.Value, path string, above []string) config.Value {
	var none config.Value
	if slices.Contains(above, path) {
		l.report(config.Error, entry, "include", path+" includes itself"+l.way(above, path), "Remove one of the entries.")
		return none
	}
	if first, ok := l.from[path]; ok {
		l.report(config.Error, entry, "include", path+" is included already, by "+l.where(first), "Remove one of the two.")
		return none
	}
	l.from[path] = entry
	if len(l.names) > maxFiles {
		l.report(config.Error, entry, "include", fmt.Sprintf("more than %d files are included", maxFiles), "")
		return none
	}
	data, ok := l.read(entry, "include", path)
	if !ok {
		return none
	}
	return l.file(path, path, data, above)
}

// way tells by which entries a file has led to itself.
func (l *loader) way(above []string, path string) string {
	var steps []string
	for _, file := range above[slices.Index(above, path)+1:] {
		steps = append(steps, l.where(l.from[file]))
	}
	if len(steps) == 0 {
		return ""
	}
	return ", by " + strings.Join(steps, " and ") + " and this"
}

// read reads a file that at names.
func (l *loader) read(at config.Value, key, path string) ([]byte, bool) {
	if l.source.Read == nil {
		l.report(config.Error, at, key, "files can't be read here", "")
		return nil, false
	}
	data, err := l.source.Read(path)
	if err != nil {
		l.report(config.Error, at, key, "cannot be read: "+err.Error(), "The path is relative to the file that it stands in.")
		return nil, false
	}
	if len(data) > maxFile {
		l.report(config.Error, at, key, path+" is larger than 4 MiB", "")
		return nil, false
	}
	return data, true
}

// join puts what an included file says into a table. Sections of runners and shards are put together; all else may be given
// in one file only.
func (l *loader) join(root, more config.Value) config.Value {
	for _, v := range more.Items() {
		old := root.Find(v.Key())
		switch {
		case !old.Exists():
			root = root.With(v.Key(), v)
		case old.IsTable() && v.IsTable() && (strings.EqualFold(v.Key(), "runners") || strings.EqualFold(v.Key(), "shards")):
			root = root.With(v.Key(), l.joinNames(strings.ToLower(v.Key()), old, v))
		default:
			l.twice(v.Key(), v, old)
		}
	}
	return root
}

func (l *loader) joinNames(section string, old, more config.Value) config.Value {
	for _, v := range more.Items() {
		if first := old.Find(v.Key()); first.Exists() {
			l.twice(section+"."+v.Key(), v, first)
			continue
		}
		old = old.With(v.Key(), v)
	}
	return old
}

func (l *loader) twice(key string, v, first config.Value) {
	l.report(config.Error, v, key, "is given twice, first in "+l.where(first), "Remove one of the two.")
}
