// Package redact masks secrets in a stream of bytes: given phrases wherever they occur, what follows the prefix of a
// token, and the values of query parameters that carry credentials.
//
// It knows nothing of jobs or logs; package joblog puts it in front of every log.
package redact

import (
	"bytes"
	"io"
	"slices"
)

// Mask is what stands in the output for a secret.
const Mask = "[MASKED]"

// Rules say what to mask.
type Rules struct {
	// Phrases are masked wherever they occur, whatever the boundaries of writes; those of at least 8 bytes also as
	// base64, percent-encoded, JSON-escaped and with carriage returns before line feeds. Empty ones are ignored.
	Phrases []string
	// TokenPrefixes are prefixes such as "glpat-" after which a token's characters are masked, besides the ones that
	// are always masked.
	TokenPrefixes []string
}

// Writer masks what is written to it and passes it on. It holds back at most what may turn out to be the beginning of a
// phrase. It is not safe for concurrent use.
type Writer struct {
	phrases *machine
	tokens  *tokenWriter
	dst     io.Writer

	state   int32
	held    []byte     // bytes not passed on yet
	offset  int        // position in the stream of held[0]
	pending []interval // matches within held, in order, not overlapping
	out     []byte
}

type interval struct{ start, end int }

// NewWriter returns a Writer that masks by r and writes to dst.
func NewWriter(dst io.Writer, r Rules) *Writer {
	return Compile(r).NewWriter(dst)
}

// Matcher is a compiled set of rules, to be shared by the writers of many streams.
type Matcher struct {
	phrases *machine
	tokens  *tokenRules
}

// Compile prepares rules for use by several writers.
func Compile(r Rules) *Matcher {
	return &Matcher{phrases: newMachine(forms(r.Phrases)), tokens: newTokenRules(r.TokenPrefixes)}
}

// NewWriter returns a writer with the matcher's rules.
func (m *Matcher) NewWriter(dst io.Writer) *Writer {
	return &Writer{phrases: m.phrases, tokens: &tokenWriter{rules: m.tokens}, dst: dst}
}

// Write masks p and passes on what is certain. It reports len(p) unless the destination fails.
func (w *Writer) Write(p []byte) (int, error) {
	w.out = w.out[:0]
	if w.phrases == nil {
		w.out = w.tokens.append(w.out, p)
	} else {
		w.scan(p)
	}
	if len(w.out) == 0 {
		return len(p), nil
	}
	if _, err := w.dst.Write(w.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// scan runs the automaton over p and moves what is certain to w.out.
func (w *Writer) scan(p []byte) {
	m := w.phrases
	for len(p) > 0 {
		if w.state == 0 && len(w.held) == 0 { // nothing begun: pass on all up to a byte that may begin a phrase
			n := m.skip(p)
			w.out = w.tokens.append(w.out, p[:n])
			w.offset += n
			p = p[n:]
			if len(p) == 0 {
				return
			}
		}
		w.state = m.next(w.state, p[0])
		w.held = append(w.held, p[0])
		p = p[1:]
		end := w.offset + len(w.held)
		if length := m.longest[w.state]; length > 0 {
			w.match(interval{end - int(length), end})
		}
		w.release(end - int(m.depth[w.state]))
	}
}

// match notes a match, merged with those that it overlaps.
func (w *Writer) match(i interval) {
	for len(w.pending) > 0 {
		last := w.pending[len(w.pending)-1]
		if last.end <= i.start {
			break
		}
		i.start = min(i.start, last.start)
		w.pending = w.pending[:len(w.pending)-1]
	}
	w.pending = append(w.pending, i)
}

// release passes on everything before the position safe: no match that is still to come starts there.
func (w *Writer) release(safe int) {
	for len(w.pending) > 0 && w.pending[0].start < safe {
		first := w.pending[0]
		if first.end > safe { // a later match may overlap it: only what stands before it is certain
			safe = first.start
			break
		}
		w.pass(first.start)
		w.out = w.tokens.append(w.out, []byte(Mask))
		w.drop(first.end)
		w.pending = slices.Delete(w.pending, 0, 1)
	}
	w.pass(safe)
}

// pass moves the held bytes before the position end to the output.
func (w *Writer) pass(end int) {
	if n := end - w.offset; n > 0 {
		w.out = w.tokens.append(w.out, w.held[:n])
		w.drop(end)
	}
}

func (w *Writer) drop(end int) {
	n := end - w.offset
	w.held = w.held[:copy(w.held, w.held[n:])]
	w.offset = end
}

// Flush ends the stream: what was held back as a possible beginning of a phrase is passed on.
func (w *Writer) Flush() error {
	w.out = w.out[:0]
	w.release(w.offset + len(w.held))
	w.state = 0
	if len(w.out) == 0 {
		return nil
	}
	_, err := w.dst.Write(w.out)
	return err
}

// String masks a whole text by r.
func String(text string, r Rules) string {
	var b bytes.Buffer
	w := NewWriter(&b, r)
	_, _ = w.Write([]byte(text))
	_ = w.Flush()
	return b.String()
}
