package config

import (
	"fmt"
	"slices"
	"strings"
)

// Doc documents one key or section.
type Doc struct {
	Key     string // full name, such as runners.docker.image
	Section string // as it stands in a file, such as [runners.docker]
	Type    string
	Default string // in words; empty for sections
	About   string
	Example string
	Allowed []string // all allowed values, if they are few
	Old     []string // older spellings that are read
	Flag    string   // of register and run-single, with its dashes; may be empty
	Env     string   // environment variable of the flag; may be empty
	Built   bool     // false: known, and without effect so far
	Keys    []string // of a section: its keys
	Also    []string // full names of other keys that the question could have meant
}

// String returns the documentation as text of several lines.
func (d Doc) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)\n  %s\n", d.Key, d.Type, d.About)
	line := func(label, text string) {
		if text != "" {
			fmt.Fprintf(&b, "  %-12s%s\n", label, text)
		}
	}
	line("Default:", d.Default)
	line("Allowed:", strings.Join(d.Allowed, ", "))
	line("Section:", d.Section)
	line("Keys:", strings.Join(d.Keys, ", "))
	line("Flag:", d.Flag)
	line("Variable:", d.Env)
	line("Old names:", strings.Join(d.Old, ", "))
	line("Example:", strings.ReplaceAll(d.Example, "\n", "\n"+strings.Repeat(" ", 14)))
	if !d.Built {
		b.WriteString("  Known, but not built yet: it has no effect.\n")
	}
	line("See also:", strings.Join(d.Also, ", "))
	return b.String()
}

// Keys documents all keys and sections, in the order of the reference.
func Keys() []Doc {
	var docs []Doc
	flags := map[string]Flag{}
	for _, f := range Flags() {
		flags[f.Key] = f
	}
	schema().walk(func(f *field) { docs = append(docs, f.doc(flags)) })
	return docs
}

func (f *field) doc(flags map[string]Flag) Doc {
	d := Doc{
		Key: f.path, Section: header(f.section), Type: f.typeName(), Default: f.showDefault(), About: f.tag.Get("about"),
		Example: f.tag.Get("example"), Old: f.old(), Built: f.built,
		Allowed: slices.DeleteFunc(f.enum(), func(s string) bool { return s == "" }),
	}
	if flag, ok := flags[f.path]; ok {
		d.Flag, d.Env = "--"+flag.Name, flag.Env
	}
	if f.sub != nil {
		for _, sub := range f.sub.fields {
			d.Keys = append(d.Keys, sub.name)
		}
	} else if d.Example == "" {
		d.Example = f.name + " = " + f.sample()
	}
	return d
}

// sample is a value for an example.
func (f *field) sample() string {
	if text := map[string]string{"size": `"512m"`, "rational": `"1.5"`, "memory": `"4g"`, "ip": `["10.0.0.2"]`}[f.tag.Get("check")]; text != "" {
		return text
	}
	text, given := f.tag.Lookup("default")
	if e := f.enum(); len(e) > 0 {
		text, given = e[len(e)-1], true
	}
	typ := f.typeName()
	switch {
	case typ == "boolean" && text == "true":
		return "false"
	case given && (strings.HasPrefix(typ, "integer") || typ == "number"):
		return text
	case given && strings.HasPrefix(typ, "list"):
		return "[" + quote(text) + "]"
	case given && typ != "boolean":
		return quote(text)
	}
	return samples()[typ]
}

// samples returns an invented value for each type.
func samples() map[string]string {
	return map[string]string{
		"string":                       `"..."`,
		"boolean":                      "true",
		"integer":                      "10",
		"integer, seconds":             "10",
		"number":                       "1.5",
		"duration":                     `"5m"`,
		"date and time":                "2026-01-31T12:00:00Z",
		"string or list of strings":    `"..."`,
		"list of strings":              `["..."]`,
		"list of numbers":              "[1, 5, 30]",
		"table of strings":             `{ name = "value" }`,
		"table of booleans":            "{ NAME = true }",
		"table of any values":          `{ name = "value" }`,
		"table of lists of strings":    `{ "pattern*" = ["..."] }`,
		"list of tables of any values": `[{ name = "value" }]`,
	}
}

// Explain documents a key. The key may be its full name or the end of it (image, docker.image), in any case, with or
// without brackets. An unknown key is an error that names the nearest known one.
func Explain(key string) (Doc, error) {
	want := strings.ToLower(strings.Trim(key, "[] \t."))
	var found []Doc
	all := Keys()
	for _, d := range all {
		full := strings.ToLower(d.Key)
		old := slices.ContainsFunc(d.Old, func(o string) bool {
			return strings.HasSuffix("."+strings.ToLower(parent(d.Key)+"."+o), "."+want)
		})
		if full == want {
			found = slices.Insert(found, 0, d)
		} else if strings.HasSuffix(full, "."+want) || old {
			found = append(found, d)
		}
	}
	if len(found) == 0 || want == "" {
		return Doc{}, fmt.Errorf("there is no key %q%s", key, nearestKey(want, all))
	}
	if strings.ToLower(found[0].Key) != want {
		slices.SortStableFunc(found, func(a, b Doc) int { return rank(a) - rank(b) })
	}
	doc := found[0]
	for _, other := range found[1:] {
		doc.Also = append(doc.Also, other.Key)
	}
	return doc, nil
}

// rank puts what people ask for first: keys that work, keys near the top, and kubernetes behind docker.
func rank(d Doc) int {
	r := strings.Count(d.Key, ".")
	if !d.Built {
		r += 10
	}
	return r
}

func parent(key string) string { return key[:max(0, strings.LastIndexByte(key, '.'))] }

func nearestKey(want string, all []Doc) string {
	last := want[strings.LastIndexByte(want, '.')+1:]
	var full, ends []string
	for _, d := range all {
		full = append(full, d.Key)
		ends = append(ends, d.Key[strings.LastIndexByte(d.Key, '.')+1:])
	}
	near := ""
	if want != last {
		near = nearest(want, full)
	}
	if near == "" {
		if end := nearest(last, ends); end != "" {
			near = full[slices.Index(ends, end)]
		}
	}
	if near == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", near)
}
