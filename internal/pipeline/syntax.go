package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// counting counts what the parser has taken of a file: what it complains about is not behind that.
type counting struct {
	from io.Reader
	read int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.read += n
	return n, err
}

// parseDocuments returns the documents of a file, and how many of its bytes the parser has seen.
func parseDocuments(data []byte) (nodes []*yaml.Node, read int, err error) {
	in := &counting{from: bytes.NewReader(data)}
	defer func() {
		// The library promises errors, but its parser has panicked on hostile input before.
		if p := recover(); p != nil {
			read, err = in.read, fmt.Errorf("yaml: %v", p)
		}
	}()
	dec := yaml.NewDecoder(in)
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nodes, in.read, nil
		}
		if err != nil {
			return nil, in.read, err
		}
		if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
			nodes = append(nodes, doc.Content[0])
		}
	}
}

var (
	yamlErrorLine = lazy.Regexp(`^(?:yaml: )?(?:line (\d+): )?(?s:(.*))$`)
	unknownAnchor = lazy.Regexp(`^unknown anchor '(.*)' referenced$`)
)

// reportSyntax words an error of the parser, finds its place, and adds what is most often behind it.
func reportSyntax(r *report, file string, data []byte, read int, err error) {
	at := position{file: file, line: 1, column: 1}
	m := yamlErrorLine().FindStringSubmatch(err.Error()) // the library gives the line in the text only
	if n, convErr := strconv.Atoi(m[1]); convErr == nil && n > 0 {
		at.line = n
	}
	lines := strings.Split(string(data), "\n")
	if a := unknownAnchor().FindStringSubmatch(m[2]); a != nil {
		at.line, at.column = placeOfAlias(lines, a[1])
		r.errorf(at, "", "Invalid configuration format: Unknown alias: %s (an anchor is known in its own file, below the place where it is defined)", a[1])
		return
	}
	at.line = brokenLine(data[:read], at.line)
	here := ""
	if at.line <= len(lines) {
		here = lines[at.line-1]
		at.column = 1 + len(here) - len(strings.TrimLeft(here, " "))
	}
	r.errorf(at, "", "Invalid configuration format: %s%s", m[2], syntaxHint(m[2], here))
}

func placeOfAlias(lines []string, name string) (line, column int) {
	alias := regexp.MustCompile(`(?:^|[\s\[{,])(\*` + regexp.QuoteMeta(name) + `)(?:$|[\s\]},])`)
	for i, l := range lines {
		if m := alias.FindStringSubmatchIndex(l); m != nil {
			return i + 1, m[2] + 1
		}
	}
	return 1, 1
}

// searchBytes bounds each half of the search for a mistake in the syntax, in bytes to parse.
const searchBytes = 1 << 20

// brokenLine returns the line with which a file stops being YAML: what stands above it is. The library names the line with
// the start of what it could not finish, such as a list, which may be far above, or that where a quote that is closed too
// late made no sense any more.
func brokenLine(seen []byte, named int) int {
	ends := []int{0} // of the lines, from none of them
	for i, c := range seen {
		if c == '\n' {
			ends = append(ends, i+1)
		}
	}
	last := lastGood(seen, ends)
	if last >= named || last < 0 || last+1 >= len(ends) {
		return max(last+1, named)
	}
	if _, _, err := parseDocuments(seen[:ends[last+1]]); err != nil && strings.Contains(err.Error(), "unexpected end of stream") {
		return last + 1 // a quote opens here
	}
	return named
}

// lastGood returns the largest number of lines from the start of a file that are YAML; -1: it is not found in time.
func lastGood(seen []byte, ends []int) int {
	budget := searchBytes
	parses := func(lines int) bool {
		budget -= ends[lines]
		_, _, err := parseDocuments(seen[:ends[lines]])
		return err == nil
	}
	last := len(ends) - 1
	for ; last >= 0 && budget > 0; last-- {
		if parses(last) {
			return last
		}
	}
	// It is far from where the parser gave up. Only a cut through a list or a string that is in order misleads this half.
	found := -1
	budget = searchBytes
	for low := 0; low <= last && budget > 0; {
		middle := (low + last) / 2
		if parses(middle) {
			found, low = middle, middle+1
		} else {
			last = middle - 1
		}
	}
	return found
}

// valueStart is the part of a line before its value: dashes, and a key with its colon.
var valueStart = lazy.Regexp(`^[ \t]*(?:- +)*(?:[^\s:"'\[{][^:]*: +)?`)

var closedQuote = lazy.Regexp(`^(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*[^\s#]`)

// syntaxHint says what is most often behind a message of the parser about a line; "" when there is nothing to say.
func syntaxHint(message, line string) string {
	value := line[len(valueStart().FindString(line)):]
	text := strings.TrimLeft(line, " \t")
	is := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(message, p) })
	}
	switch {
	case strings.Contains(line[:len(line)-len(text)], "\t"):
		return " (YAML is indented with spaces, not tabs)"
	case strings.HasPrefix(text, "<<<<<<<"), strings.HasPrefix(text, "======="), strings.HasPrefix(text, ">>>>>>>"):
		return " (this is a mark of a merge conflict)"
	case is("mapping values are not allowed") && (strings.Contains(value, ": ") || strings.HasSuffix(value, ":")):
		return " (a value with a colon and a space needs quotes)"
	case is("mapping values are not allowed"):
		return " (check the indentation of this line, and the one above: a key has a colon and a space after it)"
	case is("cannot start any token", "alphabetic or numeric") && value != "":
		return firstCharacterHint(value)
	case is("expected key", "expected '-' indicator") && closedQuote().MatchString(value):
		return " (text follows the closing quote: put the whole value in quotes)"
	case is("expected key", "expected '-' indicator"):
		return " (check the indentation of this line)"
	}
	return wordsHint(is)
}

func firstCharacterHint(value string) string {
	if value[0] == '[' || value[0] == '{' {
		return fmt.Sprintf(" (a text that starts with %c needs quotes, and inside a list so does one that starts with * or &)", value[0])
	}
	return fmt.Sprintf(" (a value that starts with %c needs quotes)", []rune(value)[0])
}

func wordsHint(is func(...string) bool) string {
	switch {
	case is("expected ',' or"):
		return " (a list in brackets needs commas and its closing bracket: a text that starts with [ or { needs quotes)"
	case is("unexpected end of stream"):
		return " (a quote is not closed)"
	case is("expected node content"):
		return " (a value is missing here)"
	case is("unknown escape"):
		return " (between double quotes a backslash is written twice; between single quotes it is as it is)"
	case is("could not find expected ':'"):
		return " (a key needs a colon and a space after it)"
	}
	return ""
}
