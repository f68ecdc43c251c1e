package site

import (
	"strings"
)

// answer says what is known of a variable.
type answer int

const (
	known   answer = iota
	unknown        // it does not exist
	later          // it gets its value later: it stays as it is written, or becomes a text that is expanded once more
)

// expander replaces variables in a text, in the manner of a shell (hpc, section 1.3): $V, ${V}, ${V:-text}, where text stands
// for a variable that does not exist or is empty, and $$ for a dollar. A dollar that nothing of this follows is one.
type expander struct {
	look func(name string) (string, answer)
	// fault is told of a variable that does not exist, or of what is none (name is empty then), by its text and by which
	// dollar of the whole text, from 0, it begins with.
	fault func(name, written string, dollar int)
	// again says that the result will be expanded once more, with the variables that were left: dollars that do not belong to
	// those are doubled.
	again bool
}

// expand returns the text with its variables replaced. A text without dollars is its own expansion.
func (e expander) expand(text string) string {
	var b strings.Builder
	e.into(&b, text, 0, len(text))
	return b.String()
}

// home replaces a leading ~ by the home directory.
func home(text, dir string) string {
	if dir != "" && (text == "~" || strings.HasPrefix(text, "~/")) {
		return dir + text[1:]
	}
	return text
}

func (e expander) literal(b *strings.Builder, text string) {
	if e.again {
		text = strings.ReplaceAll(text, "$", "$$")
	}
	b.WriteString(text)
}

// into expands a part of the text.
func (e expander) into(b *strings.Builder, text string, from, to int) {
	for from < to {
		i := strings.IndexByte(text[from:to], '$')
		if i < 0 {
			b.WriteString(text[from:to])
			return
		}
		b.WriteString(text[from : from+i])
		from += i
		switch end := from + 1 + nameLength(text[from+1:to]); {
		case end > from+1:
			e.variable(b, text, reference{from: from, to: end, name: text[from+1 : end]})
			from = end
		case strings.HasPrefix(text[from:to], "$$"):
			e.literal(b, "$")
			from += 2
		case strings.HasPrefix(text[from:to], "${"):
			from = e.braces(b, text, from, to)
		default:
			e.literal(b, "$")
			from++
		}
	}
}

// reference is a variable in a text.
type reference struct {
	from, to         int // of all of it
	name             string
	hasDefault       bool
	defFrom, defTill int
}

// braces expands what begins with ${ and returns the offset behind it.
func (e expander) braces(b *strings.Builder, text string, from, to int) int {
	end := closing(text, from+2, to)
	r := reference{from: from, to: end + 1}
	if end >= 0 {
		name := text[from+2 : end]
		if i := strings.Index(name, ":-"); i >= 0 {
			r.hasDefault, r.defFrom, r.defTill = true, from+2+i+2, end
			name = name[:i]
		}
		if name != "" && nameLength(name) == len(name) {
			r.name = name
			e.variable(b, text, r)
			return r.to
		}
	}
	written := text[from:to]
	if end >= 0 {
		written = text[from:r.to]
	}
	e.fault("", written, strings.Count(text[:from], "$"))
	return from + len(written)
}

// closing returns the offset of the brace that closes the one before from, or -1.
func closing(text string, from, to int) int {
	depth := 1
	for i := from; i < to; i++ {
		switch {
		case text[i] == '}':
			depth--
			if depth == 0 {
				return i
			}
		case strings.HasPrefix(text[i:to], "${"):
			depth++
		}
	}
	return -1
}

func (e expander) variable(b *strings.Builder, text string, r reference) {
	value, a := e.look(r.name)
	switch {
	case a == later && value == "":
		e.literal(b, text[r.from:r.to])
	case a == later:
		b.WriteString(value)
	case r.hasDefault && (a == unknown || value == ""):
		e.into(b, text, r.defFrom, r.defTill)
	case a == unknown:
		e.fault(r.name, text[r.from:r.to], strings.Count(text[:r.from], "$"))
	default:
		e.literal(b, value)
	}
}

// nameLength returns the length of the name that a text begins with.
func nameLength(text string) int {
	for i := range len(text) {
		c := text[i]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(text)
}
