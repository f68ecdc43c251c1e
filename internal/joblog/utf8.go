package joblog

import (
	"io"
	"unicode/utf8"
)

// validUTF8 replaces invalid UTF-8 in a stream by U+FFFD. Bytes that may be the beginning of a rune wait for the rest, so
// that neither the end of a write nor what another stream writes meanwhile tears one apart.
type validUTF8 struct {
	dst  io.Writer
	held []byte
	out  []byte
}

// Write implements io.Writer.
func (v *validUTF8) Write(p []byte) (int, error) {
	if out := v.convert(p); len(out) > 0 {
		if _, err := v.dst.Write(out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// convert returns what is certain of the bytes held and p. The result is valid until the next call.
func (v *validUTF8) convert(p []byte) []byte {
	if len(v.held) == 0 {
		whole := len(p) - unfinished(p)
		if utf8.Valid(p[:whole]) {
			v.held = append(v.held, p[whole:]...)
			return p[:whole]
		}
	}
	v.out = v.out[:0]
	for len(v.held) > 0 && len(p) > 0 { // at most three bytes more
		v.held, p = append(v.held, p[0]), p[1:]
		v.held = v.held[:copy(v.held, v.replace(v.held))]
	}
	rest := v.replace(p)
	v.held = append(v.held, rest...)
	return v.out
}

// replace appends p to what goes out, with invalid bytes replaced, and returns what may be the beginning of a rune.
func (v *validUTF8) replace(p []byte) (rest []byte) {
	from, at := 0, 0 // p[from:at] is valid
	for at < len(p) {
		r, size := utf8.DecodeRune(p[at:])
		if r == utf8.RuneError && size == 1 {
			v.out = append(v.out, p[from:at]...)
			if !utf8.FullRune(p[at:]) {
				return p[at:]
			}
			v.out = utf8.AppendRune(v.out, utf8.RuneError)
			from = at + 1
		}
		at += size
	}
	v.out = append(v.out, p[from:]...)
	return nil
}

// unfinished returns the number of bytes at the end of p that may be the beginning of a rune.
func unfinished(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if last := p[len(p)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}

// finish writes what stands for the bytes still held.
func (v *validUTF8) finish() {
	if len(v.held) > 0 {
		v.held = v.held[:0]
		_, _ = v.dst.Write([]byte(string(utf8.RuneError))) // the stamper cannot fail
	}
}

// trimRune returns p without an incomplete rune at its end, in memory of its own.
func trimRune(p []byte) []byte { return append([]byte(nil), p[:len(p)-unfinished(p)]...) }
