package config

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Severity says what a problem means for the use of the configuration.
type Severity int

const (
	// Note tells of something known that has no effect, or of a risk that many accept.
	Note Severity = iota
	// Warning tells of something that is probably not meant like that.
	Warning
	// Error makes the configuration unusable.
	Error
)

func (s Severity) String() string { return [...]string{"note", "warning", "error"}[s] }

// Problem is something wrong with a configuration file, with its place.
type Problem struct {
	File         string
	Line, Column int    // from 1; columns count characters. 0: it has no place
	Key          string // full key, such as runners.docker.image; may be empty
	Found        string // the offending text; empty or stars for secrets
	Text         string // what is wrong
	Hint         string // what to do
	Severity     Severity
	Section      int // number of the [[runners]] section that it is in, from 1; 0: it is in none
	// Unknown marks a key that nobody knows: a Warning that a strict check treats as an Error.
	Unknown bool
	// NotBuilt marks something that GitLab Runner does and this program does not do yet.
	NotBuilt bool
}

// String returns "FILE:LINE:COLUMN: severity: key: text (found ...). hint"; what has no place has no numbers.
func (p Problem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "%s:%d:%d: %s: ", p.File, p.Line, p.Column, p.Severity)
	} else {
		fmt.Fprintf(&b, "%s: %s: ", p.File, p.Severity)
	}
	if p.Key != "" {
		fmt.Fprintf(&b, "%s: ", p.Key)
	}
	b.WriteString(p.Text)
	if p.Found != "" && !strings.HasSuffix(p.Key, p.Found) {
		fmt.Fprintf(&b, " (found %s)", p.Found)
	}
	if p.Hint != "" {
		fmt.Fprintf(&b, ". %s", p.Hint)
	}
	return b.String()
}

// Failed tells whether one of the problems is an Error; strict counts unknown keys as well.
func Failed(problems []Problem, strict bool) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity == Error || strict && p.Unknown })
}

// position returns line and column of a byte offset, both from 1.
func position(data []byte, at int) (line, column int) {
	at = min(at, len(data))
	start := bytes.LastIndexByte(data[:at], '\n') + 1
	return bytes.Count(data[:at], []byte("\n")) + 1, utf8.RuneCount(data[start:at]) + 1
}

// sortProblems puts problems into the order of the file, the worst of a place first.
func sortProblems(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(b.Severity, a.Severity))
	})
}
