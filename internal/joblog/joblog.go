// Package joblog writes a job's log in the format that GitLab reads (runner contract, sections 4.1 to 4.4): masked, with
// time stamps, section markers, colours and a limit.
//
// The agent writes scripts' output through it, the manager its own messages. It does not send or store anything.
package joblog

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/redact"
)

// Log is one job's log. All methods are safe for concurrent use. The first failed write to the destination is kept:
// later output is dropped, Err and Close tell it.
type Log struct {
	mu       sync.Mutex
	out      output
	format   tranter.LogFormat
	now      func() time.Time
	matcher  *redact.Matcher
	messages *stream
	streams  []*stream
}

// New returns a log that writes to dst. The zero format is plain text without limit. now gives the times of lines.
func New(dst io.Writer, f tranter.LogFormat, now func() time.Time) *Log {
	phrases := make([]string, 0, len(f.Phrases))
	for _, p := range f.Phrases {
		phrases = append(phrases, p.Reveal())
	}
	l := &Log{
		out: output{dst: dst, limit: f.LimitBytes, whole: f.LimitWhole, full: f.Full}, format: f, now: now,
		matcher: redact.Compile(redact.Rules{Phrases: phrases, TokenPrefixes: f.TokenPrefixes, FewTokens: f.FewTokens}),
	}
	l.messages = l.open(0x00, 'O')
	return l
}

// open adds a stream with the number and kind that its time stamps carry.
func (l *Log) open(number byte, kind byte) *stream {
	s := &stream{log: l}
	s.stamper = stamper{number: number, kind: kind, out: &l.out, now: l.now, enabled: l.format.Timestamps}
	s.utf8.dst = &s.stamper
	s.mask = l.matcher.NewWriter(&s.utf8)
	l.streams = append(l.streams, s)
	return s
}

// Stdout returns a new stream for standard output of a script. Close flushes it.
func (l *Log) Stdout() io.WriteCloser { return l.script('O') }

// Stderr returns a new stream for standard error of a script. Close flushes it.
func (l *Log) Stderr() io.WriteCloser { return l.script('E') }

func (l *Log) script(kind byte) io.WriteCloser {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open(0x01, kind)
}

// The escape sequences of messages (runner contract, section 4.4).
const (
	plain  = "\x1b[0K"
	green  = "\x1b[32;1m"
	yellow = "\x1b[0;33m"
	red    = "\x1b[31;1m"
	cyan   = "\x1b[36;1m"
	reset  = "\x1b[0;m"
)

// Plain writes a message line.
func (l *Log) Plain(format string, args ...any) { l.message(plain, format, args) }

// Info writes a message line in bold green.
func (l *Log) Info(format string, args ...any) { l.message(green, format, args) }

// Warning writes a message line in yellow, beginning with WARNING.
func (l *Log) Warning(format string, args ...any) { l.message(yellow, "WARNING: "+format, args) }

// Error writes a message line in bold red, beginning with ERROR.
func (l *Log) Error(format string, args ...any) { l.message(red, "ERROR: "+format, args) }

// Headline writes the title of a step in bold cyan.
func (l *Log) Headline(title string) { l.message(cyan, "%s", []any{title}) }

// FinalInfo writes the last line of a successful job; the limit does not hold it back.
func (l *Log) FinalInfo(format string, args ...any) {
	l.beyondLimit()
	l.Info(format, args...)
}

// FinalError writes the last line of a failed job; the limit does not hold it back.
func (l *Log) FinalError(format string, args ...any) {
	l.beyondLimit()
	l.Error(format, args...)
}

func (l *Log) beyondLimit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out.final = true
}

func (l *Log) message(start, format string, args []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages.writeLocked([]byte(start + fmt.Sprintf(format, args...) + reset + "\n"))
	l.messages.flushLocked() // a message is whole: nothing of it waits for what may follow
	l.out.flush()
}

// SectionStart begins a collapsible section (runner contract, section 4.3), with options such as "collapsed=true".
func (l *Log) SectionStart(name string, options ...string) { l.section("section_start", name, options) }

// SectionEnd ends the section called name.
func (l *Log) SectionEnd(name string) { l.section("section_end", name, nil) }

func (l *Log) section(marker, name string, options []string) {
	if !l.format.Sections {
		return
	}
	suffix := ""
	for i, o := range options {
		suffix += string("[,"[min(i, 1)]) + o
	}
	if suffix != "" {
		suffix += "]"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages.writeLocked(fmt.Appendf(nil, "%s:%d:%s%s\r\x1b[0K", marker, l.now().Unix(), name, suffix))
	l.messages.flushMaskLocked()
	l.out.flush()
}

// Written returns the number of bytes that have reached the destination.
func (l *Log) Written() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.written
}

// Full says whether the limit has been reached: more output will not be kept.
func (l *Log) Full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.full && !l.out.final
}

// Err returns the error of the first failed write to the destination.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.err
}

// Close flushes all streams and returns the error of the first failed write.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		s.flushLocked()
	}
	l.out.flush()
	return l.out.err
}

// stream is one source of lines: a masker, then what makes the text valid, then time stamps.
type stream struct {
	log     *Log
	mask    *redact.Writer
	utf8    validUTF8
	stamper stamper
	closed  bool
}

var errClosed = errors.New("write to a closed log stream")

// Write implements io.Writer. Output beyond the limit is dropped before any work is done on it.
func (s *stream) Write(p []byte) (int, error) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	if s.closed {
		return 0, errClosed
	}
	s.writeLocked(p)
	s.log.out.flush()
	return len(p), nil
}

func (s *stream) writeLocked(p []byte) {
	if !s.log.out.closed() {
		_, _ = s.mask.Write(p)
	}
}

// Close flushes the stream.
func (s *stream) Close() error {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.flushLocked()
	s.log.out.flush()
	s.closed = true
	for i, other := range s.log.streams {
		if other == s {
			s.log.streams = append(s.log.streams[:i], s.log.streams[i+1:]...)
			break
		}
	}
	return nil
}

func (s *stream) flushMaskLocked() {
	_ = s.mask.Flush()
	s.utf8.finish()
}

func (s *stream) flushLocked() {
	s.flushMaskLocked()
	s.stamper.flush()
}
