package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tranter-ci/tranter"
)

// Section is the content of a section of the file, in order.
type Section []Entry

// Entry is one key of a section. Its value is a string, tranter.Secret, bool, int, int64, float64, time.Time,
// time.Duration (written as "5m"), []string, []any, map[string]string, map[string]any, a Section for a sub-section,
// or a []Section for a list of them.
type Entry struct {
	Key   string
	Value any
}

// Get returns the value of a key, whatever its case, or nil.
func (s Section) Get(key string) any {
	for _, e := range s {
		if strings.EqualFold(e.Key, key) {
			return e.Value
		}
	}
	return nil
}

// With returns s with a key set: replaced where it is, or added at the end.
func (s Section) With(key string, value any) Section {
	out := slices.Clone(s)
	for i := range out {
		if strings.EqualFold(out[i].Key, key) {
			out[i].Value = value
			return out
		}
	}
	return append(out, Entry{key, value})
}

// Without returns s without some keys.
func (s Section) Without(keys ...string) Section {
	return slices.DeleteFunc(slices.Clone(s), func(e Entry) bool {
		return slices.ContainsFunc(keys, func(key string) bool { return strings.EqualFold(key, e.Key) })
	})
}

// ForExecutor returns s, a [[runners]] section, without the sections of other executors, as register writes it
// (contract 12.4).
func (s Section) ForExecutor(executor string) Section {
	uses := executorSections(executor)
	var drop []string
	for _, name := range allExecutorSections() {
		if !slices.Contains(uses, name) {
			drop = append(drop, name)
		}
	}
	return s.Without(drop...)
}

// sectionOf returns a table of the file as a Section.
func sectionOf(n *node) Section {
	var s Section
	for _, c := range n.list {
		s = append(s, Entry{c.key, entryValue(c)})
	}
	return s
}

func entryValue(n *node) any {
	if n.kind == kindTable {
		return sectionOf(n)
	}
	if n.kind != kindArray {
		return n.scalar
	}
	if len(n.list) > 0 && !slices.ContainsFunc(n.list, func(c *node) bool { return c.kind != kindTable }) {
		sections := make([]Section, len(n.list))
		for i, c := range n.list {
			sections[i] = sectionOf(c)
		}
		return sections
	}
	list := make([]any, len(n.list))
	for i, c := range n.list {
		list[i] = entryValue(c)
	}
	return list
}

// writer writes sections as TOML, indented as GitLab Runner does it.
type writer struct {
	strings.Builder
	newline string
	lines   bool // texts of several lines are written as that
}

// header writes [path] or [[path]], two spaces deeper for each level below the first.
func (w *writer) header(path []string, list bool) {
	quoted := make([]string, len(path))
	for i, key := range path {
		quoted[i] = quoteKey(key)
	}
	if len(path) == 1 && w.Len() > 0 && !strings.HasSuffix(w.String(), w.newline+w.newline) {
		w.WriteString(w.newline)
	}
	open, shut := "[", "]"
	if list {
		open, shut = "[[", "]]"
	}
	w.WriteString(strings.Repeat("  ", len(path)-1) + open + strings.Join(quoted, ".") + shut + w.newline)
}

// section writes the keys of a section, then its sub-sections.
func (w *writer) section(path []string, s Section) error {
	indent := strings.Repeat("  ", len(path))
	for _, e := range s {
		if isSection(e.Value) {
			continue
		}
		text, err := w.value(e.Value)
		if err != nil {
			return fmt.Errorf("write %s: %w", strings.Join(append(path, e.Key), "."), err)
		}
		w.WriteString(indent + quoteKey(e.Key) + " = " + text + w.newline)
	}
	for _, e := range s {
		below := append(slices.Clone(path), e.Key)
		var err error
		switch v := e.Value.(type) {
		case Section:
			w.header(below, false)
			err = w.section(below, v)
		case []Section:
			for _, item := range v {
				w.header(below, true)
				err = w.section(below, item)
				if err != nil {
					break
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// value returns a value as it stands behind a key.
func (w *writer) value(v any) (string, error) {
	if text, ok := v.(string); ok && w.lines && isLines(text) {
		return "'''\n" + text + "'''", nil
	}
	return literal(v)
}

// isLines tells whether a text is one of several lines that can stand in a file as it is.
func isLines(text string) bool {
	return strings.Contains(text, "\n") && !strings.Contains(text, "'''") && !strings.HasSuffix(text, "'") && utf8.ValidString(text) &&
		!strings.ContainsFunc(text, func(c rune) bool { return c < ' ' && c != '\n' && c != '\t' || c == 0x7f })
}

func isSection(v any) bool {
	switch v.(type) {
	case Section, []Section:
		return true
	}
	return false
}

// literal returns a value as TOML.
func literal(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return quote(v), nil
	case tranter.Secret:
		return quote(v.Reveal()), nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		return floatLiteral(v), nil
	case time.Duration:
		return quote(shortDuration(v)), nil
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano), nil
	default:
		return composite(v)
	}
}

func floatLiteral(v float64) string {
	text := strings.ToLower(strconv.FormatFloat(v, 'g', -1, 64))
	text = strings.TrimPrefix(text, "+")
	if !strings.ContainsAny(text, ".einf") && !strings.Contains(text, "nan") {
		text += ".0"
	}
	return text
}

// composite returns lists and tables as TOML, on one line.
func composite(v any) (string, error) {
	switch v := v.(type) {
	case []string:
		return list(len(v), func(i int) any { return v[i] })
	case OneOrMany:
		return list(len(v), func(i int) any { return v[i] })
	case []float64:
		return list(len(v), func(i int) any { return v[i] })
	case []any:
		return list(len(v), func(i int) any { return v[i] })
	case Section:
		return inline(v)
	case map[string]string:
		return inline(sectionFromMap(v))
	case map[string]bool:
		return inline(sectionFromMap(v))
	case map[string][]string:
		return inline(sectionFromMap(v))
	case map[string]any:
		return inline(sectionFromMap(v))
	}
	return "", fmt.Errorf("a value of type %T has no form in TOML", v)
}

func list(n int, item func(int) any) (string, error) {
	parts := make([]string, n)
	for i := range parts {
		text, err := literal(item(i))
		if err != nil {
			return "", err
		}
		parts[i] = text
	}
	return "[" + strings.Join(parts, ", ") + "]", nil
}

func inline(s Section) (string, error) {
	parts := make([]string, len(s))
	for i, e := range s {
		text, err := literal(e.Value)
		if err != nil {
			return "", err
		}
		parts[i] = quoteKey(e.Key) + " = " + text
	}
	if len(parts) == 0 {
		return "{}", nil
	}
	return "{ " + strings.Join(parts, ", ") + " }", nil
}

// sectionFromMap returns a map as a Section, in the order of its keys.
func sectionFromMap[T any](m map[string]T) Section {
	s := Section{}
	for key, value := range m {
		s = append(s, Entry{key, value})
	}
	slices.SortFunc(s, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	return s
}

// quoteKey quotes a key that is more than letters, digits, hyphens and underscores.
func quoteKey(key string) string {
	for _, c := range key {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return quote(key)
		}
	}
	if key == "" {
		return `""`
	}
	return key
}

// quote returns a text as a TOML string.
func quote(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range strings.ToValidUTF8(text, "\ufffd") {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\r':
			b.WriteString(`\r`)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// shortDuration is d without parts that are zero: 1h, not 1h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
