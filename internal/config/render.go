package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
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
		value := v.Field(f.index)
		switch {
		case f.many:
			var all []Section
			for i := range value.Len() {
				all = append(all, settings(f.sub, value.Index(i)))
			}
			if len(all) > 0 {
				s = append(s, Entry{f.name, all})
			}
		case f.sub != nil:
			below := settings(f.sub, value)
			if len(below) > 0 && (f.built || !f.sameAsDefault(value)) {
				s = append(s, Entry{f.name, below})
			}
		default:
			if t.built && !f.built && f.isDefault(value) {
				continue
			}
			if shown, ok := f.shown(value); ok {
				s = append(s, Entry{f.name, shown})
			}
		}
	}
	if t.rest >= 0 {
		for _, e := range sectionFromMap(v.Field(t.rest).Interface().(map[string]any)) {
			s = append(s, Entry{e.Key, starred(e.Key, e.Value)})
		}
	}
	return s
}

// shown returns the value of a key as it may be shown. It is false if there is nothing to show.
func (f *field) shown(v reflect.Value) (any, bool) {
	if _, ok := isOptional(v.Type()); ok {
		return v.Field(0).Interface(), v.Field(1).Bool()
	}
	if empty := v.IsZero() || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0; empty {
		_, hasDefault := f.fallback()
		if !hasDefault || v.Kind() == reflect.Slice || v.Kind() == reflect.String {
			return nil, false
		}
	}
	switch x := v.Interface().(type) {
	case tranter.Secret:
		if f.tag.Get("shown") == "short" {
			return x.Short() + "...", true
		}
		return x.String(), true
	case time.Duration:
		if f.seconds() {
			return int64(x / time.Second), true
		}
		return x, true
	default:
		return starred(f.name, x), true
	}
}

// credentials are a name and password in an address.
var credentials = regexp.MustCompile(`(://[^/@\s:]*):[^/@\s]+@`)

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
	return credentials.ReplaceAllString(hidden(text), "$1:"+tranter.Secret("x").String()+"@")
}
