package joblog

import (
	"bytes"
	"time"
)

// maxLine is the length in bytes from which an unfinished line is written out.
const maxLine = 8 << 10

// stamper puts a header before every line (runner contract, section 4.2): time, stream number, kind, and whether the
// line continues the one before it.
type stamper struct {
	number, kind byte
	out          func([]byte)
	now          func() time.Time
	enabled      bool

	line      []byte // header and what has come of the line
	started   bool
	continues bool
}

// Write implements io.Writer; it cannot fail, the log keeps errors.
func (s *stamper) Write(p []byte) (int, error) {
	n := len(p)
	if !s.enabled {
		s.out(p)
		return n, nil
	}
	sawCR := false
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			sawCR = bytes.IndexByte(p, '\r') >= 0
			s.add(p)
			break
		}
		s.add(p[:end+1])
		s.emit(false)
		p = p[end+1:]
	}
	if s.started && (sawCR || len(s.line) > maxLine+headerSize) {
		s.line = append(s.line, '\n')
		s.emit(true)
	}
	return n, nil
}

// headerSize is the length of a line's header in bytes.
const headerSize = 32

const hexDigits = "0123456789abcdef"

// add appends to the current line, after its header.
func (s *stamper) add(p []byte) {
	if !s.started {
		s.started = true
		s.line = s.now().UTC().AppendFormat(s.line[:0], "2006-01-02T15:04:05.000000Z")
		mark := byte(' ')
		if s.continues {
			mark = '+'
		}
		s.line = append(s.line, ' ', hexDigits[s.number>>4], hexDigits[s.number&15], s.kind, mark)
	}
	s.line = append(s.line, p...)
}

// emit writes the current line out; the next one continues it or begins anew.
func (s *stamper) emit(continues bool) {
	s.out(s.line)
	s.line, s.started, s.continues = s.line[:0], false, continues
}

// flush writes out an unfinished line.
func (s *stamper) flush() {
	if s.started {
		s.line = append(s.line, '\n')
		s.emit(false)
	}
}
