package config

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
)

// Files are texts in TOML that belong together, such as a file and what it includes. Values of all of them can be put into
// one table and be read as one: a problem names the file in which the value stands.
type Files struct {
	data   []byte // one behind the other
	parts  []filePart
	broken bool // has lines that could not be read
	tables map[tableKey]*table
}

type tableKey struct {
	typ  reflect.Type
	path string
}

// table is tableOf, which takes its time, once for each.
func (f *Files) table(like any, path string) *table {
	typ, ok := like.(reflect.Type)
	if !ok {
		typ = reflect.TypeOf(like)
	}
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	key := tableKey{typ, path}
	if f.tables == nil {
		f.tables = map[tableKey]*table{}
	}
	if f.tables[key] == nil {
		f.tables[key] = tableOf(typ, path, true)
	}
	return f.tables[key]
}

// filePart is the place of one file in the bytes of all.
type filePart struct {
	name       string
	start, end int
}

// Add reads a file and returns its tree, as far as it can be understood, and what is wrong with it as TOML.
func (f *Files) Add(name string, data []byte) (Value, []Problem) {
	doc, faults := parseTOML(data)
	d := newDecoder(Source{Name: name, Data: data}, faults)
	base := len(f.data)
	f.data = append(append(f.data, data...), '\n')
	f.parts = append(f.parts, filePart{name, base, len(f.data)})
	f.broken = f.broken || len(faults) > 0
	doc.root.move(base)
	sortProblems(d.problems)
	return Value{doc.root}, d.problems
}

// move makes the places of a tree those of a file that begins at base.
func (n *node) move(base int) {
	n.at += base
	if n.valueEnd > 0 {
		n.valueAt += base
		n.valueEnd += base
	}
	for _, c := range n.list {
		c.move(base)
	}
}

// Sort puts problems into the order of the files, and leaves out what is said twice of a place.
func (f *Files) Sort(problems []Problem) []Problem {
	sortProblems(problems)
	order := func(p Problem) int {
		return slices.IndexFunc(f.parts, func(part filePart) bool { return part.name == p.File })
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(order(a), order(b)) })
	var out []Problem
	for _, p := range problems {
		if !slices.ContainsFunc(out, func(o Problem) bool { o.Key = p.Key; return o == p }) {
			out = append(out, p)
		}
	}
	return out
}

// Place returns where a value stands: that of its key, or of the header of a section.
func (f *Files) Place(v Value) (file string, line, column int) {
	at := 0
	if v.node != nil {
		at = v.node.at
	}
	return f.decoder().place(at)
}

// Problem returns a problem at a value's key.
func (f *Files) Problem(severity Severity, v Value, key, text, hint string) Problem {
	p := Problem{Severity: severity, Key: key, Text: text, Hint: hint}
	p.File, p.Line, p.Column = f.Place(v)
	return p
}

// ProblemInText returns a problem at the character c of a text, the nth one from 0, if it can be found in the file as it
// stands there, and at the beginning of the value if not.
func (f *Files) ProblemInText(v Value, c byte, nth int, p Problem) Problem {
	at, n := v.node.valueAt, v.node
	text, _ := n.scalar.(string)
	if raw := f.data[at:max(at, n.valueEnd)]; strings.Count(string(raw), string(c)) == strings.Count(text, string(c)) {
		for i := range raw {
			if raw[i] != c {
				continue
			}
			if nth == 0 {
				at += i
				break
			}
			nth--
		}
	}
	p.File, p.Line, p.Column = f.decoder().place(at)
	return p
}

// config is Default.
func (f *Files) config() Config {
	var c Config
	setDefaults(f.table(c, ""), reflect.ValueOf(&c).Elem())
	return c
}

func (f *Files) decoder() *decoder {
	return &decoder{findings: findings{data: f.data, parts: f.parts}, schema: f.table(Config{}, "")}
}

// Decode reads a table into a struct whose fields have the tags that those of Config have. path is the name of the table,
// for messages; whole is a value of a struct for the whole file, in which the place of misplaced keys is looked for.
func (f *Files) Decode(v Value, path string, whole, into any) []Problem {
	d := f.decoder()
	d.whole = f.table(whole, "")
	target := reflect.ValueOf(into).Elem()
	t := f.table(target.Type(), path)
	setDefaults(t, target)
	d.table(t, v.node, target, -1)
	return d.problems
}

// Rewrite returns a table that is to be read into a struct of the type of like, with change applied to each value that is to
// be read as a text: single ones, those in lists and tables, and durations. Values of other kinds are passed to change where
// a text should stand, so that it can put one there. path leads to the value, through tables but not into lists.
func (f *Files) Rewrite(v Value, like any, change func(path string, v Value) Value) Value {
	return Value{rewriteTable(f.table(like, ""), v.node, func(path string, n *node) *node { return change(path, Value{n}).node })}
}

func rewriteTable(t *table, n *node, change func(string, *node) *node) *node {
	return n.mapped(func(c *node) *node {
		f := t.field(c.key)
		switch {
		case f == nil && t.rest >= 0:
			return rewriteValue(reflect.TypeFor[any](), t.path+"."+c.key, c, change)
		case f == nil || f.sub != nil && c.kind != kindTable && c.kind != kindArray:
			return c
		case f.many:
			return c.mapped(func(item *node) *node {
				if item.kind == kindTable {
					return rewriteTable(f.sub, item, change)
				}
				return rewriteValue(reflect.TypeFor[string](), f.path, item, change)
			})
		case f.sub != nil:
			return rewriteTable(f.sub, c, change)
		}
		return rewriteValue(f.typ, f.path, c, change)
	})
}

func rewriteValue(typ reflect.Type, path string, n *node, change func(string, *node) *node) *node {
	below := func(typ reflect.Type) *node {
		return n.mapped(func(c *node) *node { return rewriteValue(typ, path, c, change) })
	}
	switch typ.Kind() {
	case reflect.Slice:
		if n.kind == kindArray {
			return below(typ.Elem())
		}
		return change(path, n)
	case reflect.Map:
		return below(typ.Elem())
	case reflect.Interface:
		if n.kind == kindTable || n.kind == kindArray {
			return below(typ)
		}
		return change(path, n)
	case reflect.String, reflect.Int64:
		return change(path, n)
	default:
		return n
	}
}

// mapped returns a table or list with each of its items changed.
func (n *node) mapped(change func(*node) *node) *node {
	if n.kind != kindTable && n.kind != kindArray {
		return n
	}
	out := *n
	out.list = make([]*node, len(n.list))
	for i, c := range n.list {
		out.list[i] = change(c)
	}
	return &out
}

// Runner reads a table as a [[runners]] section named path, and checks it as that. Where the server and the token come from
// is no matter of it: they need not be given.
func (f *Files) Runner(v Value, path string, whole any) (Runner, []Problem) {
	d := &checker{decoder: f.decoder(), damaged: f.broken}
	d.whole = f.table(whole, "")
	c := f.config()
	var r Runner
	setDefaults(f.table(Runner{}, path), reflect.ValueOf(&r).Elem())
	_, r.Line, _ = f.Place(v)
	d.table(f.table(Runner{}, path), v.node, reflect.ValueOf(&r).Elem(), 0)
	d.checkSettings(&c, &r, v.node)
	c.Runners = []Runner{r}
	d.reportUnbuilt(&c)
	return r, d.renamed(path)
}

// Global reads a table named path as the top of a configuration.
func (f *Files) Global(v Value, path string, whole any) (Config, []Problem) {
	d := &checker{decoder: f.decoder(), damaged: f.broken}
	d.whole = f.table(whole, "")
	c := f.config()
	d.table(f.table(Config{}, path), v.node, reflect.ValueOf(&c).Elem(), -1)
	d.checkConfig(&c, v.node)
	checkView(d, &c, v.node)
	d.reportUnbuilt(&c)
	for i := range d.problems {
		if key := d.problems[i].Key; !strings.HasPrefix(key, path+".") {
			d.problems[i].Key = path + "." + key
		}
	}
	return c, d.problems
}

// renamed returns the problems with the section of a runner called as it is in the file.
func (d *checker) renamed(path string) []Problem {
	for i := range d.problems {
		p := &d.problems[i]
		if rest, ok := strings.CutPrefix(p.Key, "runners."); ok {
			p.Key = path + "." + rest
		}
		for _, text := range []*string{&p.Text, &p.Hint} {
			*text = strings.NewReplacer("[[runners]]", "["+path+"]", "[runners.", "["+path+".").Replace(*text)
		}
	}
	return d.problems
}

// ForGitLabRunner returns a table of a configuration, such as "runners" or "" for its top, without what GitLab Runner does
// not know (the table of keys says of what it does not).
func (f *Files) ForGitLabRunner(v Value, path string) Value {
	t := f.table(Config{}, "")
	if path != "" {
		t = t.field(path).sub
	}
	return Value{t.foreign(v.node)}
}
