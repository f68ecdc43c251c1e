package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// Render returns the effective configuration as TOML: what is given, and all defaults that are more than nothing.
// Tokens are shortened, other secrets are stars.
func Render(c Config) ([]byte, error) {
	w := &writer{newline: "\n"}
	if err := w.section(nil, effective(c)); err != nil {
		return nil, err
	}
	return []byte(w.String()), nil
}

// RenderRunner returns the effective settings of one runner in the same way, as its section of the file, for whoever may look at the
// runner, who need not be allowed to read the file: of variables only the names are shown, and nothing of scripts and arguments, since no
// name tells what is secret in them.
func RenderRunner(r Runner) ([]byte, error) {
	all := effective(Config{Runners: []Runner{r}})
	all = slices.DeleteFunc(all, func(e Entry) bool { return e.Key != "runners" })
	unseen(all)
	w := &writer{newline: "\n"}
	if err := w.section(nil, all); err != nil {
		return nil, err
	}
	return []byte(w.String()), nil
}

// unseen replaces what only readers of the file may see by stars.
func unseen(s Section) {
	for i := range s {
		switch v := s[i].Value.(type) {
		case Section:
			unseen(v)
		case []Section:
			for _, below := range v {
				unseen(below)
			}
		case string:
			if strings.HasSuffix(s[i].Key, "_script") {
				s[i].Value = tranter.Secret(v).String()
			}
		case []string:
			if s[i].Key == "environment" || strings.HasSuffix(s[i].Key, "_args") {
				s[i].Value = unseenValues(v)
			}
		}
	}
}

// unseenValues returns NAME=VALUE with stars for the value, and stars for what is no such pair.
func unseenValues(pairs []string) []string {
	out := make([]string, len(pairs))
	for i, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if out[i] = tranter.Secret(pair).String(); ok {
			out[i] = name + "=" + tranter.Secret(value).String()
		}
	}
	return out
}

// RenderJSON returns the same as Render as JSON, with the keys of the file.
func RenderJSON(c Config) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(effective(c)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// MarshalJSON writes a section as an object with its keys in order.
func (s Section) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, e := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		value := e.Value
		if d, ok := value.(time.Duration); ok {
			value = shortDuration(d)
		}
		key, err := json.Marshal(e.Key)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(text)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func effective(c Config) Section { return settings(schema(), reflect.ValueOf(c)) }

// settings returns a section of the settings with all values that say something.
func settings(t *table, v reflect.Value) Section {
	s := Section{}
	for _, f := range t.fields {
		if r, ok := reflect.TypeAssert[Runner](v); ok && !usesSection(r.Executor, f.name) && f.sameAsDefault(v.Field(f.index)) {
			continue // of another executor
		}
		if f.tag.Get("shown") == "given" && f.sameAsDefault(v.Field(f.index)) {
			continue
		}
		if shown := f.shown(t, v.Field(f.index)); shown != nil {
			s = append(s, Entry{f.name, shown})
		}
	}
	if t.rest >= 0 {
		for _, e := range sectionFromMap(v.Field(t.rest).Interface().(map[string]any)) {
			s = append(s, Entry{e.Key, starred(e.Key, e.Value)})
		}
	}
	return s
}

// shown returns the value of a key or section of t as it may be shown, or nil if there is nothing to show.
func (f *field) shown(t *table, v reflect.Value) any {
	switch {
	case !f.built && (t.built || f.sub != nil) && f.sameAsDefault(v):
		return nil
	case f.many && v.Len() > 0:
		all := make([]Section, v.Len())
		for i := range all {
			all[i] = settings(f.sub, v.Index(i))
		}
		return all
	case f.many:
		return nil
	case f.sub != nil:
		if below := settings(f.sub, v); len(below) > 0 {
			return below
		}
		return nil
	}
	return f.shownValue(v)
}

func (f *field) shownValue(v reflect.Value) any {
	if _, ok := isOptional(v.Type()); ok {
		if v.Field(1).Bool() {
			return v.Field(0).Interface()
		}
		return nil
	}
	_, hasDefault := f.fallback()
	if isEmpty(v) && (!hasDefault || v.Kind() == reflect.Slice || v.Kind() == reflect.String) {
		return nil
	}
	switch x := v.Interface().(type) {
	case tranter.Secret:
		if f.tag.Get("shown") == "short" {
			return x.Short() + "..."
		}
		return x.String()
	case time.Duration:
		if f.seconds() {
			return int64(x / time.Second)
		}
		return x
	default:
		return starred(f.name, x)
	}
}

// credentials are a name and password in an address.
var credentials = lazy.Regexp(`(://[^/@\s:]*):[^/@\s]+@`)

// starred returns a value with the secrets in it replaced by stars. What is secret is guessed from names.
func starred(key string, v any) any {
	switch v := v.(type) {
	case string:
		return starredText(key, v)
	case OneOrMany:
		return []string(v)
	case []string:
		out := make([]string, len(v))
		for i, item := range v {
			out[i] = starredText("", item)
		}
		return out
	case map[string]string:
		out := make(map[string]string, len(v))
		for name, item := range v {
			out[name] = starredText(name, item)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, item := range v {
			out[name] = starred(name, item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = starred(key, item)
		}
		return out
	}
	return v
}

func starredText(key, text string) string {
	if secretName(key) && !strings.HasSuffix(strings.ToLower(key), "file") {
		return tranter.Secret(text).String()
	}
	return credentials().ReplaceAllString(hidden(text), "$1:"+tranter.Secret("x").String()+"@")
}
