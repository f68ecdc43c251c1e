package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// placeholder is what stands between {{ and }} in a template: a name, "list" before it, or what holds in its place after a bar.
var placeholder = lazy.Regexp(`^(list )?([A-Za-z_][A-Za-z0-9_]*)(?: \|(.*))?$`)

// plainValue is what may stand in a template without quotes: a number or a truth value.
var plainValue = lazy.Regexp(`^(true|false|[+-]?[0-9][0-9_]*(\.[0-9]+)?)$`)

// quoting is in what a position of a TOML file is.
type quoting int

const (
	bare quoting = iota
	comment
	basic       // "..."
	literal     // '...'
	longBasic   // """..."""
	longLiteral // '''...'''
)

// filler puts values into a template.
type filler struct {
	name  string // of the file, for messages
	value func(name string) (string, bool)
	used  map[string]bool

	text string
	at   int
	in   quoting
	out  strings.Builder
}

// fillTemplate replaces the placeholders {{ NAME }}, {{ NAME | default }} and {{ list NAME }} of a file in TOML. A value in
// quotes is written so that it stays one text, whatever is in it; without quotes stand numbers and truth values only, and
// lists, whose elements are separated by commas. In comments nothing is replaced. The names that were used are returned. All
// mistakes are told at once, each with its position.
func fillTemplate(name, text string, value func(string) (string, bool)) (string, map[string]bool, error) {
	f := filler{name: name, text: text, value: value, used: map[string]bool{}}
	var errs []error
	for f.at < len(f.text) {
		if err := f.step(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return "", nil, errors.Join(errs...)
	}
	return f.out.String(), f.used, nil
}

// step copies the next piece of the text.
func (f *filler) step() error {
	rest := f.text[f.at:]
	if strings.HasPrefix(rest, "{{") && f.in != comment {
		return f.replace(rest)
	}
	n := f.advance(rest)
	f.out.WriteString(rest[:n])
	f.at += n
	return nil
}

// advance says how long the next piece is, and keeps track of quotes.
func (f *filler) advance(rest string) int {
	switch f.in {
	case bare:
		for _, q := range []struct {
			open string
			in   quoting
		}{{`"""`, longBasic}, {`'''`, longLiteral}, {`"`, basic}, {`'`, literal}, {`#`, comment}} {
			if strings.HasPrefix(rest, q.open) {
				f.in = q.in
				return len(q.open)
			}
		}
	case basic, longBasic:
		if strings.HasPrefix(rest, `\`) && len(rest) > 1 {
			return 2
		}
		return f.ends(rest, map[quoting]string{basic: `"`, longBasic: `"""`}[f.in])
	case literal, longLiteral:
		return f.ends(rest, map[quoting]string{literal: `'`, longLiteral: `'''`}[f.in])
	default:
		return f.ends(rest, "\n")
	}
	return 1
}

// ends leaves a text or a comment where it ends. A line's end ends what may not go over it.
func (f *filler) ends(rest, mark string) int {
	switch {
	case strings.HasPrefix(rest, mark):
		f.in = bare
		return len(mark)
	case rest[0] == '\n' && (f.in == basic || f.in == literal):
		f.in = bare
	}
	return 1
}

// position is where the text goes on.
func (f *filler) position() string {
	before := f.text[:f.at]
	line := strings.Count(before, "\n") + 1
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf("%s:%d:%d", f.name, line, column)
}

// replace writes the value of the placeholder that the text goes on with.
func (f *filler) replace(rest string) error {
	where := f.position()
	inside, _, ok := strings.Cut(rest[2:], "}}")
	if !ok || strings.Contains(inside, "\n") {
		f.at += 2
		return fmt.Errorf("%s: a placeholder begins with {{ and has no }} on its line", where)
	}
	f.at += len(inside) + 4
	m := placeholder().FindStringSubmatch(strings.TrimSpace(inside))
	if m == nil {
		return fmt.Errorf("%s: {{%s}} is no placeholder: write {{ NAME }}, {{ NAME | default }} or {{ list NAME }}", where, inside)
	}
	value, ok := f.value(m[2])
	switch {
	case ok && value != "":
	case strings.Contains(inside, " |"):
		value = strings.TrimSpace(m[3])
	case !ok:
		return fmt.Errorf("%s: the placeholder %s is not known: it is neither one of our own nor an environment variable that is set; {{ %s | DEFAULT }} says what holds without it", where, m[2], m[2])
	}
	f.used[m[2]] = true
	text, err := f.written(value, m[1] != "")
	if err != nil {
		return fmt.Errorf("%s: %s: %w", where, m[2], err)
	}
	f.out.WriteString(text)
	return nil
}

// written is a value as it is to stand at this place.
func (f *filler) written(value string, list bool) (string, error) {
	switch {
	case !utf8.ValidString(value):
		return "", errors.New("its value is no text in UTF-8")
	case list && f.in != bare:
		return "", errors.New("a list stands without quotes: write = {{ list NAME }}")
	case list:
		return listText(value), nil
	}
	switch f.in {
	case basic, longBasic:
		quoted := tomlText(value)
		return quoted[1 : len(quoted)-1], nil
	case literal, longLiteral:
		if strings.ContainsAny(value, "'\n\r") || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return "", errors.New("its value can't stand between single quotes: use double quotes")
		}
		return value, nil
	default:
		if !plainValue().MatchString(value) {
			return "", errors.New("without quotes it has to be a number, true or false")
		}
		return value, nil
	}
}

// listText is a list of texts in TOML.
func listText(value string) string {
	var items []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, tomlText(item))
		}
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// tomlText is a text in double quotes.
func tomlText(value string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range value {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r < ' ' || r == 0x7f:
			b.WriteString(`\u` + strconv.FormatInt(0x10000+int64(r), 16)[1:])
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + `"`
}
