package custom

import (
	"bytes"
	"errors"
	"sync"
)

// maxLine is how long a line may be before it is broken, in bytes.
const maxLine = 64 << 10

// lines cuts what is written to it into lines.
type lines struct {
	each func(line string)

	mu   sync.Mutex
	rest []byte
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		switch {
		case i >= 0:
			l.each(string(bytes.TrimSuffix(l.rest[:i], []byte("\r"))))
			l.rest = l.rest[i+1:]
		case len(l.rest) >= maxLine:
			l.each(string(l.rest))
			l.rest = nil
		default:
			return len(p), nil
		}
	}
}

// flush gives out a last line that has no end.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) > 0 {
		l.each(string(l.rest))
		l.rest = nil
	}
}

var errTooMuch = errors.New("the output is too long")

// limited is a buffer that takes only so much.
type limited struct {
	buffer *bytes.Buffer
	left   int
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errTooMuch
	}
	return l.buffer.Write(p)
}
