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
	if len(v.held) == 0 && utf8.Valid(p) {
		return p
	}
	in := append(v.held, p...)
	v.out = v.out[:0]
	for len(in) > 0 {
		r, size := utf8.DecodeRune(in)
		if r == utf8.RuneError && size == 1 && !utf8.FullRune(in) {
			break
		}
		v.out = utf8.AppendRune(v.out, r)
		in = in[size:]
	}
	v.held = append(v.held[:0], in...)
	return v.out
}

// finish writes what stands for the bytes still held.
func (v *validUTF8) finish() {
	if len(v.held) > 0 {
		v.held = v.held[:0]
		_, _ = v.dst.Write([]byte(string(utf8.RuneError))) // the stamper cannot fail
	}
}

// trimRune returns p without an incomplete rune at its end, in memory of its own.
func trimRune(p []byte) []byte {
	for i := len(p) - 1; i >= 0 && i >= len(p)-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				p = p[:i]
			}
			break
		}
	}
	return append([]byte(nil), p...)
}
