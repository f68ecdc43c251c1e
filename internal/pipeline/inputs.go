package pipeline

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// plain returns the value as Go has it: nil, bool, int, float64, string, []any, map[string]any.
func (v *value) plain() any {
	if v.isNull() {
		return nil
	}
	switch v.kind {
	case boolean:
		return v.text == "true"
	case integer:
		if n, err := strconv.Atoi(v.text); err == nil {
			return n
		}
		return v.text
	case float:
		if f, err := strconv.ParseFloat(v.text, 64); err == nil {
			return f
		}
		return v.text
	case list, reference:
		out := make([]any, 0, len(v.items))
		for _, item := range v.items {
			out = append(out, item.plain())
		}
		return out
	case hash:
		out := map[string]any{}
		for _, p := range v.pairs {
			out[p.key] = p.val.plain()
		}
		return out
	default:
		return v.text
	}
}

// valueOf is the reverse of plain, for inputs that the caller gives.
func valueOf(x any, at position) *value {
	switch x := x.(type) {
	case nil:
		return &value{kind: null, at: at}
	case bool:
		return &value{kind: boolean, text: strconv.FormatBool(x), at: at}
	case int:
		return &value{kind: integer, text: strconv.Itoa(x), at: at}
	case int64:
		return &value{kind: integer, text: strconv.FormatInt(x, 10), at: at}
	case float64:
		if x == float64(int64(x)) {
			return &value{kind: integer, text: strconv.FormatInt(int64(x), 10), at: at}
		}
		return &value{kind: float, text: rubyFloatText(x), at: at}
	case json.Number:
		v, _ := scalarOf(x.String(), at)
		return v
	case []any, []string, map[string]any:
		return collectionOf(x, at)
	default:
		return newText(fmt.Sprint(x), at)
	}
}

func collectionOf(x any, at position) *value {
	out := &value{kind: list, at: at}
	switch x := x.(type) {
	case []any:
		for _, item := range x {
			out.items = append(out.items, valueOf(item, at))
		}
	case []string:
		for _, item := range x {
			out.items = append(out.items, newText(item, at))
		}
	case map[string]any:
		out = newHash(at)
		for _, k := range sortedKeys(x) {
			out.set(k, at, valueOf(x[k], at))
		}
	}
	return out
}

func givenInputs(in map[string]any, at position) *value {
	if len(in) == 0 {
		return nil
	}
	return valueOf(in, at)
}

// readInputs checks the inputs of a file against its header and returns the value of each.
func (l *loader) readInputs(s *source, spec *value) map[string]*value {
	defined := l.inputDefinitions(s, spec)
	inputs := map[string]*value{}
	if s.inputs != nil {
		var unknown []string
		for _, p := range s.inputs.pairs {
			if !defined.has(p.key) {
				unknown = append(unknown, p.key)
			}
		}
		if unknown != nil {
			l.report.errorf(s.at, "", "%s: unknown input arguments: %s", s.name, strings.Join(unknown, ", "))
		}
	}
	for _, p := range defined.pairs {
		c := inputCheck{report: l.report, name: p.key, def: p.val, at: p.at}
		given := s.inputs.get(p.key)
		if given != nil {
			c.at = s.at
			if given.at.line > 0 {
				c.at = given.at
			}
		}
		inputs[p.key] = c.value(given, inputs, l.scope)
	}
	return inputs
}

// inputDefinitions collects spec:inputs and those of spec:include.
func (l *loader) inputDefinitions(s *source, spec *value) *value {
	out := newHash(spec.keyAt("inputs"))
	if spec.isNull() {
		return out
	}
	if !spec.is(hash) {
		l.report.errorf(spec.at, "", "header:spec config should be a hash")
		return out
	}
	for _, p := range spec.pairs {
		switch p.key {
		case "inputs":
		case "include":
			for _, item := range asList(p.val) {
				out = merged(out, l.includedInputs(s, item))
			}
		case "component", "description":
		default:
			l.report.errorf(p.at, "", "header:spec config contains unknown keys: %s", p.key)
		}
	}
	inputs := spec.get("inputs")
	if inputs.isNull() {
		return out
	}
	if !inputs.is(hash) {
		l.report.errorf(inputs.at, "", "header:spec:inputs config should be a hash")
		return out
	}
	return merged(out, inputs)
}

func (l *loader) includedInputs(s *source, item *value) *value {
	out := newHash(item.at)
	for _, f := range l.resolveInclude(s, item) {
		if f = l.admit(f); f == nil {
			continue
		}
		docs, ok := readFile(l.report, f.name, f.data)
		if !ok || len(docs) == 0 || !docs[0].get("inputs").is(hash) {
			l.report.errorf(item.at, "", "spec:include `%s` has no inputs", f.name)
			continue
		}
		out = merged(out, docs[0].get("inputs"))
	}
	return out
}

// inputCheck checks one input.
type inputCheck struct {
	report *report
	name   string
	def    *value
	at     position
}

func inputKeys() []string {
	return []string{"type", "default", "description", "options", "regex", "rules"}
}

func (c inputCheck) errorf(format string, args ...any) {
	c.report.errorf(c.at, "", "`%s` input: %s", c.name, fmt.Sprintf(format, args...))
}

func (c inputCheck) value(given *value, others map[string]*value, vars *scope) *value {
	if !c.def.isNull() && !c.def.is(hash) {
		c.errorf("config should be a hash")
		return given
	}
	if c.def.is(hash) {
		for _, p := range c.def.pairs {
			if !slices.Contains(inputKeys(), p.key) {
				c.report.errorf(p.at, "", "header:spec:inputs:%s config contains unknown keys: %s%s", c.name, p.key, nearest(p.key, inputKeys()))
			}
		}
	}
	fallback, options := c.def.get("default"), c.def.get("options")
	if rules := c.def.get("rules"); rules.is(list) {
		if r := c.matchingRule(rules, others, vars); r != nil {
			if r.has("default") {
				fallback = r.get("default")
			}
			options = r.get("options")
		}
	}
	what := "provided"
	if given == nil {
		if fallback == nil {
			c.errorf("required value has not been provided")
			return &value{kind: null, at: c.at}
		}
		given, what = fallback, "default"
		if fallback.isNull() {
			return newText("", c.at)
		}
	}
	c.check(given, options, what)
	return given
}

func (c inputCheck) matchingRule(rules *value, others map[string]*value, vars *scope) *value {
	v := values{variable: vars.lookup, input: func(name string) (string, bool) {
		in := others[name]
		if in.isNull() {
			return "", false
		}
		return in.plainText(), true
	}}
	for _, r := range rules.items {
		cond := r.get("if")
		if cond == nil {
			return r
		}
		e, err := parseExpression(cond.text)
		if err != nil {
			c.report.errorf(cond.at, "", "`%s` input: rules:if invalid expression syntax: %v", c.name, err)
			continue
		}
		if e.passes(v) {
			return r
		}
	}
	return nil
}

const maxOptions = 50

func (c inputCheck) check(v, options *value, what string) {
	kindName := "string"
	if t := c.def.get("type"); t != nil {
		kindName = t.text
	}
	ok := false
	switch kindName {
	case "string":
		ok = v.is(text)
	case "number":
		ok = v.is(integer) || v.is(float)
	case "boolean":
		ok = v.is(boolean)
	case "array":
		ok = v.is(list)
	default:
		c.report.errorf(c.def.get("type").at, "", "header:spec:inputs:%s input type unknown value: %s (string, number, boolean and array are possible)", c.name, kindName)
		return
	}
	if !ok {
		c.errorf("%s value is not a %s", what, kindName)
		return
	}
	if options.is(list) && len(options.items) > maxOptions {
		c.errorf("options cannot have more than %d entries", maxOptions)
	}
	if options.is(list) && !slices.ContainsFunc(options.items, func(o *value) bool { return o.plainText() == v.plainText() }) {
		c.errorf("`%s` cannot be used because it is not in the list of allowed options", v.plainText())
	}
	c.checkRegex(v, what)
}

func (c inputCheck) checkRegex(v *value, what string) {
	re := c.def.get("regex")
	if re == nil || !v.is(text) {
		return
	}
	source := re.text
	if m := patternShape().FindStringSubmatch(source); m != nil {
		source = m[1]
	}
	compiled, err := regexp.Compile(source)
	switch {
	case err != nil:
		c.errorf("the regular expression `%s` is invalid: %v", re.text, err)
	case !compiled.MatchString(v.text):
		c.errorf("%s value does not match required RegEx pattern `%s`", what, re.text)
	}
}

// plainText is the form of a value inside a longer text.
func (v *value) plainText() string {
	switch {
	case v.isNull():
		return ""
	case v.scalar():
		return v.text
	default:
		return string(v.json())
	}
}
