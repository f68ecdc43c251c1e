package sizing

import (
	"errors"
	"strings"
)

// Words splits text into words as a shell does, with quotes and backslashes, and nothing else: no variables, no commands,
// no patterns.
func Words(text string) ([]string, error) {
	var s splitter
	for _, c := range text {
		s.next(c)
	}
	switch {
	case s.quote != 0:
		return nil, errors.New("a quote is not closed")
	case s.escaped:
		return nil, errors.New("nothing follows the backslash at the end")
	}
	s.end()
	return s.words, nil
}

// splitter is how far Words has come.
type splitter struct {
	words   []string
	word    strings.Builder
	inside  bool // a word
	escaped bool // the next one is
	quote   rune // inside of these
}

func (s *splitter) end() {
	if s.inside {
		s.words = append(s.words, s.word.String())
	}
	s.word.Reset()
	s.inside = false
}

func (s *splitter) next(c rune) {
	switch {
	case s.escaped:
		if s.quote == '"' && c != '"' && c != '\\' {
			s.word.WriteRune('\\')
		}
		s.word.WriteRune(c)
		s.escaped = false
	case c == '\\' && s.quote != '\'':
		s.escaped, s.inside = true, true
	case s.quote != 0:
		s.quoted(c)
	case c == '\'' || c == '"':
		s.quote, s.inside = c, true
	case strings.ContainsRune(" \t\r\n", c):
		s.end()
	default:
		s.word.WriteRune(c)
		s.inside = true
	}
}

func (s *splitter) quoted(c rune) {
	if c == s.quote {
		s.quote = 0
		return
	}
	s.word.WriteRune(c)
}
