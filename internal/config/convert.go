package config

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// mismatch is why a value does not fit its key.
type mismatch struct {
	at         *node
	text, hint string
}

func wants(n *node, what, hint string) *mismatch {
	return &mismatch{at: n, text: fmt.Sprintf("must be %s, not %s", what, n.kind), hint: hint}
}

// convert turns a value of the file into one of the field's type.
func (f *field) convert(n *node) (reflect.Value, *mismatch) {
	v := reflect.New(f.typ).Elem()
	return v, f.into(v, n)
}

func (f *field) into(v reflect.Value, n *node) *mismatch {
	switch v.Type() {
	case reflect.TypeFor[time.Duration]():
		d, fault := f.duration(n)
		v.SetInt(int64(d))
		return fault
	case reflect.TypeFor[time.Time]():
		return instant(v, n)
	case reflect.TypeFor[OneOrMany]():
		if n.kind == kindString {
			n = &node{kind: kindArray, list: []*node{n}, at: n.at}
		}
	case reflect.TypeFor[tranter.Secret]():
		if n.kind != kindString {
			return wants(n, "a string", "Put it in quotes.")
		}
	}
	switch v.Kind() {
	case reflect.String, reflect.Bool:
		return f.simple(v, n)
	case reflect.Int, reflect.Int64, reflect.Float64:
		return f.number(v, n)
	case reflect.Slice:
		return f.slice(v, n)
	case reflect.Map:
		return f.table(v, n)
	default:
		v.Set(reflect.ValueOf(n.plain()))
		return nil
	}
}

func (f *field) simple(v reflect.Value, n *node) *mismatch {
	switch {
	case v.Kind() == reflect.Bool && n.kind == kindBool:
		v.SetBool(n.scalar.(bool))
	case v.Kind() == reflect.Bool && n.kind == kindString:
		return wants(n, "true or false", "Write it without quotes.")
	case v.Kind() == reflect.Bool:
		return wants(n, "true or false", "")
	case n.kind == kindString:
		v.SetString(n.scalar.(string))
	case n.kind == kindInteger && f.tag.Get("number") == "ok":
		v.SetString(strconv.FormatInt(n.scalar.(int64), 10))
	case n.kind == kindArray:
		return wants(n, "a string", "Write a single text in quotes.")
	default:
		return wants(n, "a string", "Put it in quotes.")
	}
	return nil
}

func (f *field) number(v reflect.Value, n *node) *mismatch {
	switch {
	case v.Kind() == reflect.Float64 && n.kind == kindInteger:
		v.SetFloat(float64(n.scalar.(int64)))
	case v.Kind() == reflect.Float64 && n.kind == kindFloat:
		x := n.scalar.(float64)
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return &mismatch{n, "must be a finite number", ""}
		}
		v.SetFloat(x)
	case v.Kind() == reflect.Float64:
		return wants(n, "a number", "Write it without quotes.")
	case n.kind == kindInteger:
		x := n.scalar.(int64)
		if v.OverflowInt(x) {
			return &mismatch{n, "is too large", ""}
		}
		v.SetInt(x)
	case n.kind == kindString:
		return wants(n, "an integer", "Write it without quotes.")
	default:
		return wants(n, "an integer", "")
	}
	return f.atLeast(n, float(n.scalar))
}

func float(x any) float64 {
	switch x := x.(type) {
	case int64:
		return float64(x)
	case float64:
		return x
	}
	return 0
}

// atLeast checks the field's minimum.
func (f *field) atLeast(n *node, x float64) *mismatch {
	minimum, err := strconv.ParseFloat(f.tag.Get("min"), 64)
	if err != nil || x >= minimum {
		return nil
	}
	return &mismatch{n, fmt.Sprintf("must not be below %v", minimum), ""}
}

func (f *field) duration(n *node) (time.Duration, *mismatch) {
	if f.seconds() {
		if n.kind != kindInteger {
			hint := "Write the number of seconds, without quotes."
			if s, ok := n.scalar.(string); ok {
				if d, err := time.ParseDuration(s); err == nil {
					hint = fmt.Sprintf("Write %d, without quotes.", int64(d.Seconds()))
				}
			}
			return 0, wants(n, "an integer (seconds)", hint)
		}
		seconds := n.scalar.(int64)
		if seconds > math.MaxInt64/int64(time.Second) || seconds < math.MinInt64/int64(time.Second) {
			return 0, &mismatch{n, "is too long", ""}
		}
		return time.Duration(seconds) * time.Second, f.atLeast(n, float64(seconds))
	}
	switch x := n.scalar.(type) {
	case int64:
		return time.Duration(x), f.atLeast(n, float64(x))
	case string:
		d, err := time.ParseDuration(x)
		if err != nil {
			hint := "Write a number with a unit: \"30s\", \"5m\", \"1h30m\"."
			if _, err := strconv.Atoi(x); err == nil {
				hint = fmt.Sprintf("Add the unit, such as \"%ss\" or \"%sm\".", x, x)
			}
			return 0, &mismatch{n, "is not a duration", hint}
		}
		return d, f.atLeast(n, float64(d))
	}
	return 0, wants(n, "a duration", "Write a number with a unit, in quotes: \"5m\".")
}

func instant(v reflect.Value, n *node) *mismatch {
	if n.kind != kindTime {
		return wants(n, "a date and time", "Write it as 2026-01-31T12:00:00Z, without quotes.")
	}
	v.Set(reflect.ValueOf(n.scalar.(time.Time).UTC()))
	return nil
}

func (f *field) slice(v reflect.Value, n *node) *mismatch {
	what := "a " + kindName(v.Type())
	if n.kind != kindArray {
		hint := ""
		if n.kind == kindString {
			hint = "Put brackets round it: [\"...\"]."
		}
		return wants(n, what, hint)
	}
	out := reflect.MakeSlice(v.Type(), len(n.list), len(n.list))
	for i, item := range n.list {
		if fault := f.into(out.Index(i), item); fault != nil {
			return fault
		}
	}
	v.Set(out)
	return nil
}

func (f *field) table(v reflect.Value, n *node) *mismatch {
	if n.kind != kindTable {
		return wants(n, "a table", fmt.Sprintf("Write { key = value }, or a section [%s].", f.path))
	}
	out := reflect.MakeMapWithSize(v.Type(), len(n.list))
	for _, item := range n.list {
		value := reflect.New(v.Type().Elem()).Elem()
		if fault := f.into(value, item); fault != nil {
			if !strings.Contains(fault.text, item.key) {
				fault.text = item.key + " " + fault.text
			}
			return fault
		}
		out.SetMapIndex(reflect.ValueOf(item.key), value)
	}
	v.Set(out)
	return nil
}
