package config

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// table is a section: its fields in the order in which they are documented.
type table struct {
	path   string
	fields []*field
	rest   int // index of the field that takes unknown keys, or -1
	built  bool
}

// field is a key: one row of the table of all keys, read from the tags of the settings.
type field struct {
	path    string
	name    string
	section string
	index   int
	typ     reflect.Type // of the value; of what is inside an Optional
	tag     reflect.StructTag
	built   bool
	many    bool // a list of sections
	sub     *table
}

// schema returns the table of all keys.
func schema() *table { return tableOf(reflect.TypeFor[Config](), "", true) }

func tableOf(typ reflect.Type, path string, built bool) *table {
	t := &table{path: path, rest: -1, built: built}
	for i := range typ.NumField() {
		sf := typ.Field(i)
		name, ok := sf.Tag.Lookup("toml")
		if !ok {
			continue
		}
		if name == ",rest" {
			t.rest = i
			continue
		}
		f := &field{name: name, section: path, path: strings.TrimPrefix(path+"."+name, "."), index: i, typ: sf.Type, tag: sf.Tag}
		f.built = built && sf.Tag.Get("built") != "no"
		if inner, ok := isOptional(sf.Type); ok {
			f.typ = inner
		}
		f.many = f.typ.Kind() == reflect.Slice && f.typ.Elem().Kind() == reflect.Struct
		switch {
		case f.many:
			f.sub = tableOf(f.typ.Elem(), f.path, f.built)
		case f.typ.Kind() == reflect.Struct && f.typ != reflect.TypeFor[time.Time]():
			f.sub = tableOf(f.typ, f.path, f.built)
		}
		t.fields = append(t.fields, f)
	}
	return t
}

// field returns the field that a key of the file means: by its name whatever the case, or by an older spelling.
func (t *table) field(key string) *field {
	for _, f := range t.fields {
		if strings.EqualFold(f.name, key) {
			return f
		}
	}
	for _, f := range t.fields {
		if slices.ContainsFunc(f.old(), func(old string) bool { return strings.EqualFold(old, key) }) {
			return f
		}
	}
	return nil
}

// walk calls visit for all fields below t, sections before their keys.
func (t *table) walk(visit func(*field)) {
	for _, f := range t.fields {
		visit(f)
		if f.sub != nil {
			f.sub.walk(visit)
		}
	}
}

func (f *field) old() []string  { return words(f.tag.Get("old")) }
func (f *field) enum() []string { return words(f.tag.Get("enum")) }

// words splits a tag at commas. An empty first word counts: it says that the empty string is allowed.
func words(tag string) []string {
	if tag == "" {
		return nil
	}
	return strings.Split(tag, ",")
}

func (f *field) seconds() bool { return f.tag.Get("unit") == "s" }

func (f *field) secret() bool { return f.typ == reflect.TypeFor[tranter.Secret]() }

// typeName is the type of the field in words.
func (f *field) typeName() string {
	switch {
	case f.many:
		return "list of sections"
	case f.sub != nil:
		return "section"
	case f.typ == reflect.TypeFor[time.Duration]() && f.seconds():
		return "integer, seconds"
	case f.typ == reflect.TypeFor[time.Duration]():
		return "duration"
	case f.typ == reflect.TypeFor[time.Time]():
		return "date and time"
	case f.typ == reflect.TypeFor[OneOrMany]():
		return "string or list of strings"
	}
	return kindName(f.typ)
}

func kindName(typ reflect.Type) string {
	switch typ.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64:
		return "integer"
	case reflect.Float64:
		return "number"
	case reflect.Slice:
		return "list of " + plural(kindName(typ.Elem()))
	case reflect.Map:
		return "table of " + plural(kindName(typ.Elem()))
	case reflect.Interface:
		return "any value"
	default:
		return "string"
	}
}

func plural(name string) string {
	if name == "any value" {
		return name + "s"
	}
	if before, after, ok := strings.Cut(name, " "); ok {
		return before + "s " + after
	}
	return name + "s"
}
