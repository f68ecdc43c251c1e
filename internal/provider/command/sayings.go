package command

import (
	"bytes"
	"strings"
	"unicode"
)

const (
	maxLine  = 1024
	maxLines = 1000 // that are logged of one run
	lastOnes = 5    // lines that become part of an error
)

// sayings takes a program's error output: it logs it by lines and keeps the last ones.
type sayings struct {
	mask    func(text string) string
	log     func(line string)
	rest    []byte
	skip    bool // the rest of a line that is too long
	last    []string
	printed int
}

func (s *sayings) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, after, ended := bytes.Cut(p, []byte("\n"))
		if room := 2*maxLine - len(s.rest); !s.skip {
			s.skip = len(line) > room
			s.rest = append(s.rest, line[:min(room, len(line))]...)
		}
		if ended {
			s.flush()
		}
		p = after
	}
	return n, nil
}

// flush takes what there is as a line.
func (s *sayings) flush() {
	text := strings.TrimSpace(string(s.rest))
	s.rest, s.skip = s.rest[:0], false
	if text == "" {
		return
	}
	if s.last = append(s.last, text); len(s.last) > lastOnes {
		s.last = s.last[1:]
	}
	switch s.printed++; {
	case s.printed <= maxLines:
		s.log(s.line(text))
	case s.printed == maxLines+1:
		s.log("(more, which is not logged)")
	}
}

// line is a text as it may be shown. It is masked before it is cut, so that no half of a secret is left.
func (s *sayings) line(text string) string {
	text = s.mask(text)
	if len(text) > maxLine {
		text = strings.ToValidUTF8(text[:maxLine], "") + "..."
	}
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, text))
}

// tail is what the last lines are, as one.
func (s *sayings) tail() string {
	lines := make([]string, len(s.last))
	for i, text := range s.last {
		lines[i] = s.line(text)
	}
	text := strings.Join(lines, "; ")
	if len(text) > maxLine {
		text = "..." + strings.ToValidUTF8(text[len(text)-maxLine:], "")
	}
	return text
}
