package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// findings collects the problems of a file.
type findings struct {
	file     string
	data     []byte
	parts    []filePart // of several files; nil: one
	problems []Problem
}

// place returns file, line and column of an offset.
func (d *findings) place(at int) (file string, line, column int) {
	for _, part := range d.parts {
		if at < part.end {
			line, column = position(d.data[part.start:part.end], at-part.start)
			return part.name, line, column
		}
	}
	line, column = position(d.data, at)
	return d.file, line, column
}

// decoder fills the settings from the tree.
type decoder struct {
	findings
	schema  *table
	whole   *table // of a file of another kind, where misplaced keys are looked for; nil: schema
	unbuilt []unbuilt
}

// newDecoder begins with what is wrong with the file as TOML.
func newDecoder(s Source, faults []fault) *decoder {
	d := &decoder{findings: findings{file: s.Name, data: s.Data}, schema: schema()}
	for _, f := range faults {
		d.reportAt(Error, f.at, Problem{Key: f.key, Text: f.text, Hint: f.hint, Found: f.found})
	}
	return d
}

// unbuilt is a key that is given and whose feature does not exist yet.
type unbuilt struct {
	field  *field
	node   *node
	runner int // index of the section, or -1
}

// report adds a problem at a node's key.
func (d *findings) report(severity Severity, n *node, key, text, hint string) {
	d.reportAt(severity, n.at, Problem{Key: key, Text: text, Hint: hint})
}

// reportValue adds a problem at a node's value, and shows the value.
func (d *findings) reportValue(severity Severity, n *node, f *field, text, hint string) {
	at := n.valueAt
	if at == 0 {
		at = n.at
	}
	found := d.text(n)
	if f.secret() || secretName(f.name) && f.typ.Kind() == reflect.String {
		found = ""
	}
	d.reportAt(severity, at, Problem{Key: f.path, Text: text, Hint: hint, Found: starredText("", found)})
}

func (d *findings) reportAt(severity Severity, at int, p Problem) {
	p.Severity = severity
	p.File, p.Line, p.Column = d.place(at)
	d.problems = append(d.problems, p)
}

// text returns a value as it stands in the file, shortened.
func (d *findings) text(n *node) string {
	if n.valueEnd <= n.valueAt || n.valueEnd > len(d.data) {
		return ""
	}
	text, rest, _ := strings.Cut(string(d.data[n.valueAt:n.valueEnd]), "\n")
	if len(text) > 60 || rest != "" {
		text = strings.ToValidUTF8(text[:min(len(text), 60)], "") + "..."
	}
	return text
}

// table decodes a section.
func (d *decoder) table(t *table, n *node, v reflect.Value, runner int) {
	seen := map[*field]*node{}
	for _, child := range n.list {
		f := t.field(child.key)
		if f == nil {
			d.other(t, child, v)
			continue
		}
		if first := seen[f]; first != nil {
			_, line, _ := d.place(first.at)
			d.report(Error, child, f.path, fmt.Sprintf("%s is given twice, first as %s in line %d", child.key, first.key, line), "Remove one of the two.")
			continue
		}
		seen[f] = child
		d.field(f, child, v.Field(f.index), runner)
		if t.built && !f.built && !f.sameAsDefault(v.Field(f.index)) {
			d.unbuilt = append(d.unbuilt, unbuilt{f, child, runner})
		}
	}
}

// other handles a key that the section's table does not have.
func (d *decoder) other(t *table, n *node, v reflect.Value) {
	if t.rest >= 0 {
		more := v.Field(t.rest)
		if more.IsNil() {
			more.Set(reflect.ValueOf(map[string]any{}))
		}
		more.SetMapIndex(reflect.ValueOf(n.key), reflect.ValueOf(n.plain()))
		return
	}
	d.reportAt(Warning, n.at, Problem{
		Key: strings.TrimPrefix(t.path+"."+n.key, "."), Text: "unknown key, without effect", Found: n.key, Hint: d.suggest(t, n.key), Unknown: true,
	})
}

// field decodes one key.
func (d *decoder) field(f *field, n *node, v reflect.Value, runner int) {
	switch {
	case f.many:
		d.sections(f, n, v, runner)
		return
	case f.sub != nil && n.kind != kindTable:
		d.reportValue(Error, n, f, "must be a section, not "+n.kind.String(), fmt.Sprintf("Write [%s] and its keys below.", f.path))
		return
	case f.sub != nil:
		d.table(f.sub, n, v, runner)
		return
	}
	value, fault := f.convert(n)
	if fault != nil {
		place := *fault.at
		if place.valueEnd == 0 {
			place.valueAt, place.valueEnd = n.valueAt, n.valueEnd
		}
		d.reportValue(Error, &place, f, fault.text, fault.hint)
		return
	}
	d.checkValue(f, n, value)
	if f.asksForDefault(value) {
		return
	}
	if _, ok := isOptional(v.Type()); ok {
		v.Field(0).Set(value)
		v.Field(1).SetBool(true)
		return
	}
	v.Set(value)
}

// sections decodes [[...]], or a list of tables.
func (d *decoder) sections(f *field, n *node, v reflect.Value, runner int) {
	if n.kind == kindTable {
		d.report(Error, n, f.path, "must be a list of sections", fmt.Sprintf("Write double brackets: [[%s]].", f.path))
		return
	}
	if n.kind != kindArray {
		d.reportValue(Error, n, f, "must be a list of sections, not "+n.kind.String(), fmt.Sprintf("Write [[%s]] and its keys below.", f.path))
		return
	}
	for i, item := range n.list {
		if only := f.tag.Get("strings"); only != "" && item.kind == kindString {
			item = &node{kind: kindTable, at: item.at, list: []*node{{key: only, kind: kindString, at: item.at, valueAt: item.valueAt, valueEnd: item.valueEnd, scalar: item.scalar}}}
		}
		if item.kind != kindTable {
			d.reportValue(Error, item, f, "must be a section, not "+item.kind.String(), "")
			continue
		}
		element := reflect.New(f.typ.Elem()).Elem()
		setDefaults(f.sub, element)
		if r, ok := reflect.TypeAssert[*Runner](element.Addr()); ok {
			runner = i
			r.Index = i
			_, r.Line, _ = d.place(item.at)
		}
		d.table(f.sub, item, element, runner)
		v.Set(reflect.Append(v, element))
	}
}

// checkValue checks what can be told from the value alone.
func (d *decoder) checkValue(f *field, n *node, v reflect.Value) {
	if hint := f.tag.Get("gone"); hint != "" {
		d.report(Warning, n, f.path, "this key has no effect any more", strings.ToUpper(hint[:1])+hint[1:]+".")
		return
	}
	if slices.ContainsFunc(f.old(), func(old string) bool { return strings.EqualFold(old, n.key) }) {
		d.report(Warning, n, f.path, n.key+" is an old spelling", "Write "+f.name+".")
	}
	d.checkNanoseconds(f, n, v)
	eachString(n, v, func(n *node, text string) {
		d.checkEnum(f, n, text)
		if strings.ContainsAny(text, "\a\b\f\v\x00") {
			d.reportValue(Warning, n, f, "holds a control character", "In \"...\" a backslash is doubled; or write '...'.")
		}
		if check := checks()[f.tag.Get("check")]; check != nil && text != "" {
			if text, hint := check(text); text != "" {
				d.reportValue(Error, n, f, text, hint)
			}
		}
	})
}

// checkNanoseconds warns of a bare number that was meant as seconds.
func (d *decoder) checkNanoseconds(f *field, n *node, v reflect.Value) {
	if f.typ != reflect.TypeFor[time.Duration]() || f.seconds() || n.kind != kindInteger {
		return
	}
	if x := v.Int(); x > 0 && x < int64(time.Millisecond) {
		d.reportValue(Warning, n, f, fmt.Sprintf("a bare number is in nanoseconds here: this is %v", time.Duration(x)), fmt.Sprintf("Write \"%ds\" for seconds.", x))
	}
}

// eachString calls visit for a string, or for each string of a list or table, with its place.
func eachString(n *node, v reflect.Value, visit func(*node, string)) {
	switch v.Kind() {
	case reflect.String:
		visit(n, v.String())
	case reflect.Slice:
		for i := range v.Len() {
			place := n
			if n.kind == kindArray && i < len(n.list) {
				place = n.list[i]
			}
			eachString(place, v.Index(i), visit)
		}
	case reflect.Map:
		for _, c := range n.list {
			eachString(c, v.MapIndex(reflect.ValueOf(c.key)), visit)
		}
	default:
	}
}

func (d *decoder) checkEnum(f *field, n *node, text string) {
	allowed := f.enum()
	if allowed == nil || slices.Contains(allowed, text) {
		return
	}
	if f.tag.Get("case") == "any" && slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, text) }) {
		return
	}
	if text == "" && !slices.Contains(allowed, "") && f.typ.Kind() == reflect.String {
		return // an empty string is as good as no key
	}
	hint := "Write one of: " + strings.TrimPrefix(strings.Join(allowed, ", "), ", ") + "."
	if near := nearest(text, allowed); near != "" {
		hint = fmt.Sprintf("Did you mean %q? %s", near, hint)
	}
	d.reportValue(Error, n, f, "is not a known value", hint)
}
