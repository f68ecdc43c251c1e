package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// Flag is an option of register and run-single that sets a key of the runner (contract 12.3).
type Flag struct {
	Name   string // without dashes
	Alias  string // second name; may be empty
	Short  string // one letter; may be empty
	Env    string // environment variable; may be empty
	Key    string // full name of the key
	Type   string // as in Doc
	About  string
	List   bool // may be given several times
	Bool   bool // needs no value
	Secret bool // the value must not be shown
	// NotBuilt marks a flag whose key has no effect yet.
	NotBuilt bool
}

// Flags returns all flags that set keys of a runner.
func Flags() []Flag {
	var out []Flag
	eachFlag(schema().field("runners").sub, "", func(_ *field, flag Flag) { out = append(out, flag) })
	return out
}

func eachFlag(t *table, prefix string, visit func(*field, Flag)) {
	for _, f := range t.fields {
		if f.sub != nil && !f.many {
			below := prefix
			if p := f.tag.Get("prefix"); p != "" {
				below += p + "-"
			}
			eachFlag(f.sub, below, visit)
			continue
		}
		name, ok := f.tag.Lookup("flag")
		if !ok {
			continue
		}
		name, alias, _ := strings.Cut(name, ",")
		flag := Flag{
			Name: prefix + name, Alias: alias, Short: f.tag.Get("short"), Env: f.tag.Get("env"), Key: f.path, Type: f.typeName(),
			About: f.tag.Get("about"), Secret: f.secret(), Bool: f.typ.Kind() == reflect.Bool,
			List: f.typ.Kind() == reflect.Slice || f.typ.Kind() == reflect.Map, NotBuilt: !f.built,
		}
		switch flag.Env {
		case "":
			flag.Env = strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
		case "-":
			flag.Env = ""
		}
		visit(f, flag)
	}
}

// Apply turns the values of flags, by name, into a [[runners]] section in the order of the reference. A list is the
// values of a repeated flag; tables take KEY=VALUE or KEY:VALUE each, or a JSON object. A wrong value is a problem of
// the file "--NAME".
func Apply(values map[string][]string) (Section, []Problem) {
	s := Section{}
	var problems []Problem
	known := map[string]bool{}
	eachFlag(schema().field("runners").sub, "", func(f *field, flag Flag) {
		known[flag.Name], known[flag.Alias] = true, true
		texts, ok := values[flag.Name]
		if alias, given := values[flag.Alias]; !ok && flag.Alias != "" {
			texts, ok = alias, given
		}
		if !ok || len(texts) == 0 {
			return
		}
		value, fault := parseFlag(f, texts)
		if fault != nil {
			problems = append(problems, Problem{File: "--" + flag.Name, Key: f.path, Text: fault.text, Hint: fault.hint, Severity: Error, Found: foundFlag(flag, texts)})
			return
		}
		s = s.put(strings.Split(f.path, ".")[1:], value)
	})
	for _, name := range slices.Sorted(mapKeys(values)) {
		if !known[name] {
			problems = append(problems, Problem{File: "--" + name, Text: "is not a flag of a runner", Severity: Error})
		}
	}
	return s, problems
}

func mapKeys(m map[string][]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

func foundFlag(flag Flag, texts []string) string {
	if flag.Secret || secretName(flag.Name) {
		return ""
	}
	return hidden(strings.Join(texts, " "))
}

// put sets a value under a path of sections.
func (s Section) put(path []string, value any) Section {
	if len(path) == 1 {
		return s.With(path[0], value)
	}
	below, _ := s.Get(path[0]).(Section)
	return s.With(path[0], below.put(path[1:], value))
}

// parseFlag reads the texts of a flag as a value of the field, or says what is wrong.
func parseFlag(f *field, texts []string) (any, *mismatch) {
	switch f.typ.Kind() {
	case reflect.Slice:
		return parseFlagList(f, texts)
	case reflect.Map:
		return parseFlagTable(f, texts)
	default:
		return parseFlagText(f, texts[len(texts)-1])
	}
}

// parseFlagText reads a single value by writing it as a value of a file and reading that.
func parseFlagText(f *field, text string) (any, *mismatch) {
	n := &node{kind: kindString, scalar: text}
	switch f.typ.Kind() {
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, &mismatch{text: "must be true or false"}
		}
		n = &node{kind: kindBool, scalar: b}
	case reflect.Int, reflect.Int64:
		if i, err := strconv.ParseInt(text, 10, 64); err == nil && (f.typ != reflect.TypeFor[time.Duration]() || f.seconds()) {
			n = &node{kind: kindInteger, scalar: i}
		}
	case reflect.Float64:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, &mismatch{text: "must be a number"}
		}
		n = &node{kind: kindFloat, scalar: x}
	default:
	}
	v, fault := f.convert(n)
	if fault != nil {
		return nil, fault
	}
	d := &decoder{}
	d.checkValue(f, n, v)
	for _, p := range d.problems {
		if p.Severity == Error {
			return nil, &mismatch{text: p.Text, hint: p.Hint}
		}
	}
	return plainValue(f, v), nil
}

// plainValue returns a value as a Section holds it.
func plainValue(f *field, v reflect.Value) any {
	switch x := v.Interface().(type) {
	case time.Duration:
		if f.seconds() {
			return int64(x / time.Second)
		}
		return x
	case tranter.Secret, string, bool, int, int64, float64:
		return x
	default:
		return v.Interface()
	}
}

func parseFlagList(f *field, texts []string) (any, *mismatch) {
	one := *f
	one.typ = reflect.TypeFor[string]()
	for _, text := range texts {
		if _, fault := parseFlagText(&one, text); fault != nil {
			return nil, fault
		}
	}
	if f.typ == reflect.TypeFor[OneOrMany]() && len(texts) == 1 {
		return texts[0], nil
	}
	return slices.Clone(texts), nil
}

func parseFlagTable(f *field, texts []string) (any, *mismatch) {
	out := Section{}
	for _, text := range texts {
		if strings.HasPrefix(strings.TrimSpace(text), "{") {
			var object map[string]any
			if err := json.Unmarshal([]byte(text), &object); err != nil {
				return nil, &mismatch{text: "is not a JSON object: " + err.Error()}
			}
			for _, e := range sectionFromMap(object) {
				out = out.With(e.Key, e.Value)
			}
			continue
		}
		i := strings.IndexAny(text, "=:")
		if i <= 0 {
			return nil, &mismatch{text: "must be KEY=VALUE, or a JSON object"}
		}
		out = out.With(text[:i], text[i+1:])
	}
	for i, e := range out {
		text, isText := e.Value.(string)
		if f.typ.Elem().Kind() == reflect.Bool && isText {
			b, err := strconv.ParseBool(text)
			if err != nil {
				return nil, &mismatch{text: e.Key + " must be true or false"}
			}
			out[i].Value = b
		}
		if f.typ.Elem().Kind() == reflect.Slice && isText {
			out[i].Value = []string{text}
		}
	}
	return out, nil
}
