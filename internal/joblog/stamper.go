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
	out          *output
	now          func() time.Time
	enabled      bool

	header    header
	line      []byte // header and what has come of a line without an end
	started   bool
	continues bool
}

// Write implements io.Writer; it cannot fail, the log keeps errors. Lines that begin in it all bear the time at which it
// came.
func (s *stamper) Write(p []byte) (int, error) {
	n := len(p)
	if !s.enabled {
		s.out.emit(p)
		return n, nil
	}
	dated, sawCR := false, false
	for len(p) > 0 {
		if !s.started && !dated {
			s.header.set(s.now())
			dated = true
		}
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			sawCR = bytes.IndexByte(p, '\r') >= 0
			if !s.started {
				s.started = true
				s.line = append(s.line[:0], s.mark()...)
			}
			s.line = append(s.line, p...)
			break
		}
		if s.started {
			s.emit(p[:end+1], false)
		} else {
			s.out.add(s.mark(), p[:end+1])
			s.continues = false
		}
		p = p[end+1:]
	}
	if s.started && (sawCR || len(s.line) > maxLine+headerSize) {
		s.emit([]byte{'\n'}, true)
	}
	return n, nil
}

// mark returns the header of a line that begins now.
func (s *stamper) mark() []byte {
	mark := byte(' ')
	if s.continues {
		mark = '+'
	}
	s.header.text[headerSize-4], s.header.text[headerSize-3] = hexDigits[s.number>>4], hexDigits[s.number&15]
	s.header.text[headerSize-2], s.header.text[headerSize-1] = s.kind, mark
	return s.header.text[:]
}

// emit writes the line that has begun out, with its end; the next one continues it or begins anew.
func (s *stamper) emit(end []byte, continues bool) {
	s.out.add(s.line, end)
	s.line, s.started, s.continues = s.line[:0], false, continues
}

// flush writes out an unfinished line.
func (s *stamper) flush() {
	if s.started {
		s.emit([]byte{'\n'}, false)
	}
}

// headerSize is the length of a line's header in bytes.
const headerSize = 32

const hexDigits = "0123456789abcdef"

// header is the text before a line. Within a second only the digits of its fraction are made anew.
type header struct {
	text   [headerSize]byte
	second int64
}

// fraction is where the six digits of a time's fraction are in a header.
const fraction = len("2006-01-02T15:04:05.")

// set puts the time t into the header.
func (h *header) set(t time.Time) {
	if second := t.Unix(); second != h.second || h.text[0] == 0 {
		copy(h.text[:], t.UTC().AppendFormat(make([]byte, 0, headerSize), "2006-01-02T15:04:05.000000Z "))
		h.second = second
		return
	}
	micros := t.Nanosecond() / 1000
	for i := fraction + 5; i >= fraction; i-- {
		h.text[i] = byte('0' + micros%10)
		micros /= 10
	}
}
