package config

import (
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Default returns the configuration of an empty file.
func Default() Config {
	var c Config
	setDefaults(schema(), reflect.ValueOf(&c).Elem())
	return c
}

// DefaultRunner returns a runner of which nothing is given.
func DefaultRunner() Runner {
	var r Runner
	setDefaults(schema().field("runners").sub, reflect.ValueOf(&r).Elem())
	return r
}

// setDefaults fills in the defaults of a section and of those below it.
func setDefaults(t *table, v reflect.Value) {
	for _, f := range t.fields {
		switch {
		case f.many:
		case f.sub != nil:
			setDefaults(f.sub, v.Field(f.index))
		default:
			if d, ok := f.fallback(); ok {
				v.Field(f.index).Set(d)
			}
		}
	}
}

// fallback returns the default of the field. It is false if that is the zero value.
func (f *field) fallback() (reflect.Value, bool) {
	text, ok := f.tag.Lookup("default")
	if !ok {
		return reflect.Value{}, false
	}
	v := reflect.New(f.typ).Elem()
	switch {
	case f.typ == reflect.TypeFor[time.Duration]():
		if f.seconds() {
			text += "s"
		}
		d, _ := time.ParseDuration(text) // a test reads all defaults
		v.SetInt(int64(d))
	case f.typ.Kind() == reflect.Slice:
		v.Set(reflect.Append(v, reflect.ValueOf(text)))
	case f.typ.Kind() == reflect.String:
		v.SetString(text)
	case f.typ.Kind() == reflect.Bool:
		v.SetBool(text == "true")
	case f.typ.Kind() == reflect.Float64:
		x, _ := strconv.ParseFloat(text, 64)
		v.SetFloat(x)
	default:
		n, _ := strconv.ParseInt(text, 10, 64)
		v.SetInt(n)
	}
	return v, true
}

// asksForDefault tells whether a given value stands for the default.
func (f *field) asksForDefault(v reflect.Value) bool {
	switch f.tag.Get("zero") {
	case "default":
		return v.IsZero()
	case "below":
		return v.Int() <= 0
	}
	return false
}

// isDefault tells whether v is what the field has when it is not given, or is empty.
func (f *field) isDefault(v reflect.Value) bool {
	if isEmpty(v) {
		return true
	}
	d, ok := f.fallback()
	return ok && reflect.DeepEqual(d.Interface(), v.Interface())
}

func isEmpty(v reflect.Value) bool {
	return v.IsZero() || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0
}

// sameAsDefault tells whether v, a key or a whole section, says no more than if it were not there.
func (f *field) sameAsDefault(v reflect.Value) bool {
	if f.sub == nil {
		return f.isDefault(v)
	}
	if f.many {
		return v.Len() == 0
	}
	for _, sub := range f.sub.fields {
		if !sub.sameAsDefault(v.Field(sub.index)) {
			return false
		}
	}
	return f.sub.rest < 0 || v.Field(f.sub.rest).Len() == 0
}

// showDefault is the default in words, for the documentation.
func (f *field) showDefault() string {
	text, ok := f.tag.Lookup("default")
	switch {
	case ok && (f.typ.Kind() == reflect.String || f.typ.Kind() == reflect.Slice):
		return strconv.Quote(text)
	case ok:
		return text
	case f.sub != nil:
		return ""
	case strings.Contains(f.tag.Get("about"), "unless given"):
		return "see the description"
	}
	switch f.typ.Kind() {
	case reflect.Bool:
		return "false"
	case reflect.Int, reflect.Int64, reflect.Float64:
		return "0"
	default:
		return "none"
	}
}
