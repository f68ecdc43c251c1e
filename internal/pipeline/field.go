package pipeline

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// field is a keyword while it is read: its value, and its path as messages give it, such as jobs:test:artifacts.
type field struct {
	report *report
	v      *value
	job    string
	path   string
}

func (f field) errorf(format string, args ...any) {
	f.report.errorf(f.v.at, f.job, "%s %s", f.path, fmt.Sprintf(format, args...))
}

// warnOnce reports a keyword that has no effect here; job by job would be noise.
func (f field) warnOnce(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if !slices.ContainsFunc(f.report.problems, func(p Problem) bool { return p.Warning && p.Text == s }) {
		f.report.warnf(f.v.at, "%s", s)
	}
}

// sub returns the field below a key; ok is false when it is not there or null.
func (f field) sub(key string) (s field, ok bool) {
	v := f.v.get(key)
	return field{report: f.report, v: v, job: f.job, path: f.path + ":" + key}, !v.isNull()
}

// isHash checks that the value is a hash with none but the given keys.
func (f field) isHash(keys ...string) bool {
	if !f.v.is(hash) {
		f.errorf("config should be a hash")
		return false
	}
	f.known(keys)
	return true
}

// known reports the keys that do not belong here, each at its place.
func (f field) known(keys []string) {
	for _, p := range f.v.pairs {
		if slices.Contains(keys, p.key) {
			continue
		}
		f.report.errorf(p.at, f.job, "%s config contains unknown keys: %s%s", f.path, p.key, unknownHint(p, keys))
	}
}

const tooFar = " (a job: it is indented too far)"

// unknownHint guesses why a key is where it is not known.
func unknownHint(p pair, keys []string) string {
	switch {
	case p.key == "include" || p.key == "workflow":
		return " (" + p.key + ": belongs to the top level of the file)"
	case p.key == "true" || p.key == "false":
		return "" // a word such as on became this, of which there is a warning
	case p.val.has("script") || p.val.has("trigger") || p.val.has("extends"):
		return tooFar
	}
	return nearest(p.key, keys)
}

// text returns a string below a key.
func (f field) text(key string) string {
	s, ok := f.sub(key)
	if !ok {
		return ""
	}
	if !s.v.is(text) {
		s.errorf("should be a string%s", quotesHint(s.v))
		return ""
	}
	return s.v.text
}

// quotesHint says that a number or a boolean is a string when it is in quotes.
func quotesHint(v *value) string {
	return ifText(v.scalar() && !v.is(text), " (put it in quotes)")
}

// listHint says how a single value is written as a list of one.
func listHint(v *value) string {
	return ifText(v.is(text) && !strings.ContainsAny(v.text, "\n,"), " (write ["+v.text+"])")
}

// texts returns an array of strings below a key; single admits a string as well.
func (f field) texts(key string, single bool) []string {
	s, ok := f.sub(key)
	if !ok {
		return nil
	}
	return s.strings(single)
}

func (f field) strings(single bool) []string {
	if single && f.v.is(text) {
		return []string{f.v.text}
	}
	if !f.v.is(list) {
		hint := listHint(f.v)
		if single {
			hint = quotesHint(f.v)
		}
		f.errorf("config should be an array of strings%s%s", ifText(single, " or a string"), hint)
		return nil
	}
	out := make([]string, 0, len(f.v.items))
	for _, item := range f.v.items {
		if !item.is(text) {
			f.report.errorf(item.at, f.job, "%s config should be an array of strings%s: %s is %s%s", f.path, ifText(single, " or a string"),
				item.inspect(), item.kind, quotesHint(item))
			continue
		}
		out = append(out, item.text)
	}
	return out
}

func ifText(cond bool, s string) string {
	if cond {
		return s
	}
	return ""
}

// flag returns a boolean below a key, and whether it was given.
func (f field) flag(key string) (value, given bool) {
	s, ok := f.sub(key)
	if !ok {
		return false, false
	}
	if !s.v.is(boolean) {
		word, _ := scalarOf(cmp.Or(s.v.text, "~"), s.v.at)
		s.errorf("should be a boolean value%s", ifText(s.v.is(text) && word.is(boolean), " (without quotes)"))
		return false, false
	}
	return s.v.isTrue(), true
}

// choice returns a string below a key that must be one of those given.
func (f field) choice(key string, allowed ...string) string {
	s, ok := f.sub(key)
	if !ok {
		return ""
	}
	if !s.v.is(text) || !slices.Contains(allowed, s.v.text) {
		s.errorf("should be one of: %s%s", strings.Join(allowed, ", "), nearest(s.v.text, allowed))
		return ""
	}
	return s.v.text
}

// duration returns a human duration below a key; limit 0 means none.
func (f field) duration(key string, limit time.Duration) time.Duration {
	s, ok := f.sub(key)
	if !ok {
		return 0
	}
	d, ok := time.Duration(0), s.v.is(text)
	if ok {
		d, ok = parseDuration(s.v.text)
	}
	switch {
	case !ok && (s.v.is(integer) || s.v.is(float)):
		s.errorf("should be a duration: a number alone needs quotes")
	case !ok:
		s.errorf("should be a duration, such as 1h 30m or 2 weeks")
	case limit > 0 && d > limit:
		s.errorf("should not exceed the limit of %d days", limit/day)
	}
	return d
}

// numbers returns one integer or an array of them.
func (f field) numbers(key string) []int {
	s, ok := f.sub(key)
	if !ok {
		return nil
	}
	out := []int{}
	for _, item := range asList(s.v) {
		n, ok := item.number()
		if !ok {
			s.errorf("should be an array of integers or an integer")
			return nil
		}
		out = append(out, n)
	}
	return out
}

// commands returns the lines of a script: a string or arrays of strings in each other.
func (f field) commands() []string {
	if f.v.is(text) {
		return []string{f.v.text}
	}
	if !f.v.is(list) {
		f.errorf("config should be a string or a nested array of strings up to %d levels deep%s", maxNesting, quotesHint(f.v))
		return nil
	}
	return f.flatCommands(f.v, 1, []string{})
}

const maxNesting = 10

func (f field) flatCommands(v *value, level int, out []string) []string {
	if level > maxNesting+1 {
		f.report.errorf(v.at, f.job, "%s config should be a string or a nested array of strings up to %d levels deep", f.path, maxNesting)
		return out
	}
	for _, item := range v.items {
		switch {
		case item.is(text):
			out = append(out, item.text)
		case item.is(list):
			out = f.flatCommands(item, level+1, out)
		default:
			hint := " (put the line in quotes)"
			if item.is(hash) {
				hint = " (a line with a colon and a space needs quotes)"
			}
			f.report.errorf(item.at, f.job, "%s config should be a string or a nested array of strings up to %d levels deep: this line is %s%s",
				f.path, maxNesting, item.kind, ifText(!item.isNull(), hint))
		}
	}
	return out
}
