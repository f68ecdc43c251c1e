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
	// Phrases are masked wherever they occur, whatever the boundaries of writes and whether their lines end in \n or
	// \r\n; those of at least 8 bytes also as base64, percent-encoded, JSON-escaped and as shells quote
	// them. Empty ones are ignored.
	Phrases []string
	// TokenPrefixes are prefixes such as "glpat-" after which a token's characters are masked, besides the ones of
	// GitLab's own tokens.
	TokenPrefixes []string
	// FewTokens leaves of the prefixes of GitLab's own tokens only "glpat-".
	FewTokens bool
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
	return &Matcher{phrases: newMachine(forms(r.Phrases), false), tokens: newTokenRules(r)}
}

// NewWriter returns a writer with the matcher's rules.
func (m *Matcher) NewWriter(dst io.Writer) *Writer {
	return &Writer{phrases: m.phrases, tokens: &tokenWriter{rules: m.tokens}, dst: dst}
}

// piece is how much is masked at a time: it bounds the memory for what comes of a write.
const piece = 32 << 10

// careful is how much is looked at byte by byte around something that may be a phrase, before the fast way is tried again.
const careful = 128

// Write masks p and passes on what is certain, in one write for each piece. It reports len(p) unless the destination
// fails.
func (w *Writer) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		next := p[done:min(done+piece, len(p))]
		if out := w.convert(next); len(out) > 0 {
			if _, err := w.dst.Write(out); err != nil {
				return done, err
			}
		}
		done += len(next)
	}
	return len(p), nil
}

// convert returns what is certain with p: p itself, as far as that is certain, if there is nothing to mask in it.
func (w *Writer) convert(p []byte) []byte {
	w.out = w.out[:0]
	if w.phrases == nil {
		return w.pass(p)
	}
	for ahead := careful; len(p) > 0; ahead *= 2 {
		if len(w.held) == 0 { // nothing has begun
			n, state := w.phrases.find(p)
			begun := int(w.phrases.states[state].depth)
			plain := p[:n-begun]
			w.offset += len(plain)
			if n == len(p) && w.phrases.states[state].longest == 0 {
				w.held, w.state = append(w.held, p[len(plain):]...), state
				return w.pass(plain)
			}
			w.out = w.tokens.append(w.out, plain)
			p, ahead = p[len(plain):], max(careful, 2*begun)
		}
		n := min(ahead, len(p))
		w.advance(p[:n])
		w.release(w.offset + len(w.held) - int(w.phrases.states[w.state].depth))
		p = p[n:]
	}
	return w.out
}

// pass returns what is certain when p, in which there is no phrase, is the last part of it.
func (w *Writer) pass(p []byte) []byte {
	if len(w.out) == 0 {
		n := w.tokens.visible(p)
		if n == len(p) {
			return p
		}
		w.out, p = append(w.out, p[:n]...), p[n:]
	}
	w.out = w.tokens.append(w.out, p)
	return w.out
}

// advance takes in p and notes the matches that end in it.
func (w *Writer) advance(p []byte) {
	m, state, start := w.phrases, w.state, w.offset+len(w.held)
	w.held = append(w.held, p...)
	for i := 0; i < len(p); i++ {
		if state == 0 { // nothing begun
			if i += m.skip(p[i:]); i == len(p) {
				break
			}
		}
		state = m.next(state, p[i])
		if length := m.states[state].longest; length > 0 {
			end := start + i + 1
			w.match(interval{end - int(length), end})
		}
	}
	w.state = state
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
	from, done := w.offset, 0
	for _, match := range w.pending {
		if match.start >= safe {
			break
		}
		if match.end > safe { // a later match may overlap it: only what stands before it is certain
			safe = match.start
			break
		}
		w.out = w.tokens.append(w.out, w.held[from-w.offset:match.start-w.offset])
		w.out = w.tokens.mask(w.out)
		from = match.end
		done++
	}
	if safe > from {
		w.out = w.tokens.append(w.out, w.held[from-w.offset:safe-w.offset])
		from = safe
	}
	w.pending = slices.Delete(w.pending, 0, done)
	w.held = w.held[:copy(w.held, w.held[from-w.offset:])]
	w.offset = from
}

// minUnfinished is the length in bytes from which the beginning of a phrase is masked at the end of a stream.
const minUnfinished = 8

// Flush ends the stream: what was held back as a possible beginning of a phrase is passed on. If it is half of a phrase or
// more, and not short, it is masked: a process that was killed while it printed a secret must not leave most of it.
func (w *Writer) Flush() error {
	w.out = w.out[:0]
	end := w.offset + len(w.held)
	if w.phrases != nil {
		if n := w.phrases.unfinished(w.state, minUnfinished); n > 0 {
			w.match(interval{end - n, end})
		}
	}
	w.release(end)
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
