package main

import (
	"bytes"
	"io"
	"strings"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// logLine is one line of a job's log as people read it.
type logLine struct {
	text    string
	section string // innermost section that it lies in
}

// logReader takes a job's log apart, as it comes: time stamps and markers of sections go, lines that were sent in
// pieces are joined (runner contract, sections 4.2 and 4.3).
type logReader struct {
	emit     func(logLine)
	color    bool // keep escape sequences of colours
	rest     []byte
	held     string // a line that the next one may continue
	holding  bool
	sections []string
}

var (
	stampShape   = lazy.Regexp(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [0-9a-f]{2}[OE]([ +])`)
	sectionShape = lazy.Regexp(`section_(start|end):\d+:([A-Za-z0-9_.-]+)(?:\[[^\]\r]*\])?\r(?:\x1b\[0K)?`)
	escapeShape  = lazy.Regexp(`\x1b\[[0-9;?]*[A-Za-z]`)
	eraseShape   = lazy.Regexp(`\x1b\[[0-9;?]*[A-LN-Za-ln-z]`) // all but colours, which end in m
	// Commands to a terminal that no log needs: titles and the like, resets, character sets.
	commandShape = lazy.Regexp(`\x1b[\]PX^_].*?(?:\x07|\x1b\\)|\x1b[ -/]+[0-~]|\x1b[0-Z\\-~]|\x1b$`)
	controlShape = lazy.Regexp(`[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f\x{80}-\x{9f}]`)
)

// Write takes the next bytes of the log.
func (l *logReader) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, after, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.line(string(line))
		l.rest = after
	}
}

// end emits what is left.
func (l *logReader) end() {
	if len(l.rest) > 0 {
		l.line(string(l.rest))
		l.rest = nil
	}
	l.release()
}

func (l *logReader) line(text string) {
	continues, partial := false, false
	if m := stampShape().FindStringSubmatchIndex(text); m != nil {
		continues = text[m[2]] == '+'
		text = text[m[1]:]
		// What is sent before its end has a carriage return in it, or is long.
		partial = strings.Contains(text, "\r") || len(text) >= 8<<10
	}
	if !continues {
		l.release()
	}
	l.held, l.holding = l.held+text, true
	if !partial {
		l.release()
	}
}

// release emits the line that was held, if there is one to see.
func (l *logReader) release() {
	if !l.holding {
		return
	}
	text := l.held
	l.held, l.holding = "", false
	section := l.section()
	marked := false
	text = sectionShape().ReplaceAllStringFunc(text, func(marker string) string {
		m := sectionShape().FindStringSubmatch(marker)
		marked = true
		if m[1] == "start" {
			l.sections = append(l.sections, m[2])
			section = m[2]
			return ""
		}
		for n := len(l.sections); n > 0; n-- {
			if l.sections[n-1] == m[2] {
				l.sections = l.sections[:n-1]
				break
			}
		}
		return ""
	})
	text = strings.TrimRight(text, "\r")
	if i := strings.LastIndexByte(text, '\r'); i >= 0 {
		text = text[i+1:] // what a terminal would be left with
	}
	text = controlShape().ReplaceAllString(commandShape().ReplaceAllString(text, ""), "")
	if l.color {
		text = eraseShape().ReplaceAllString(text, "")
	} else {
		text = escapeShape().ReplaceAllString(text, "")
	}
	if marked && escapeShape().ReplaceAllString(text, "") == "" {
		return
	}
	l.emit(logLine{text: text, section: section})
}

func (l *logReader) section() string {
	if len(l.sections) == 0 {
		return ""
	}
	return l.sections[len(l.sections)-1]
}

// readLog returns all lines of a log.
func readLog(r io.Reader, color bool) ([]logLine, error) {
	var lines []logLine
	l := &logReader{color: color, emit: func(line logLine) { lines = append(lines, line) }}
	_, err := io.Copy(l, r)
	l.end()
	return lines, err
}

// telling keeps of a failed job's log what tells why: from its script on, or all if it did not get there, and of that
// the last lines. It also returns how many it has left out.
func telling(lines []logLine, most int) ([]logLine, int) {
	for i, line := range lines {
		if line.section == "step_script" {
			lines = lines[i:]
			break
		}
	}
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1].text) == "" {
		lines = lines[:len(lines)-1]
	}
	cut := max(0, len(lines)-most)
	return lines[cut:], cut
}
