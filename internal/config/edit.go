package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNotEditable marks a file that cannot be changed by a program, for a reason that the error tells.
var ErrNotEditable = errors.New("the configuration cannot be edited")

// fresh is a new file.
const fresh = `concurrent = 1
check_interval = 3
shutdown_timeout = 30
`

// Editor changes single keys and sections of a file. All that it is not asked to change, comments, order, blank lines
// and unknown keys, stays byte for byte. Every change leaves a file that can be parsed, or fails and changes nothing.
type Editor struct {
	doc     *document
	newline string
}

// Edit begins to edit a file. An empty or missing file becomes one with the usual global keys.
func Edit(data []byte) (*Editor, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		data = []byte(fresh)
	}
	e := &Editor{newline: "\n"}
	if i := bytes.IndexByte(data, '\n'); i > 0 && data[i-1] == '\r' {
		e.newline = "\r\n"
	}
	return e, e.load(bytes.Clone(data))
}

func (e *Editor) load(data []byte) error {
	doc, faults := parseTOML(data)
	if len(faults) > 0 {
		line, column := position(data, faults[0].at)
		return fmt.Errorf("%w: line %d, column %d: %s", ErrNotEditable, line, column, faults[0].text)
	}
	e.doc = doc
	return nil
}

// Bytes returns the file as it is now.
func (e *Editor) Bytes() []byte { return bytes.Clone(e.doc.data) }

// Runners returns the number of [[runners]] sections.
func (e *Editor) Runners() int { return len(sectionNodes(e.doc.root)) }

// replace puts text in the place of the bytes from start to end.
func (e *Editor) replace(start, end int, text string) error {
	return e.load(slices.Concat(e.doc.data[:start], []byte(text), e.doc.data[end:]))
}

// insert puts whole lines at the offset of a line's start.
func (e *Editor) insert(at int, lines string) error {
	if at > 0 && e.doc.data[at-1] != '\n' {
		lines = e.newline + lines
	}
	return e.replace(at, at, lines)
}

// AppendRunner adds a [[runners]] section at the end of the file.
func (e *Editor) AppendRunner(s Section) error {
	if err := e.editable(); err != nil {
		return err
	}
	w := &writer{newline: e.newline}
	w.header([]string{"runners"}, true)
	if err := w.section([]string{"runners"}, s); err != nil {
		return err
	}
	gap := e.newline
	if bytes.HasSuffix(e.doc.data, []byte("\n\n")) || bytes.HasSuffix(e.doc.data, []byte("\n\r\n")) || len(e.doc.data) == 0 {
		gap = ""
	}
	return e.insert(len(e.doc.data), gap+w.String())
}

// editable tells why runners cannot be added or removed, if they are not written as sections.
func (e *Editor) editable() error {
	n := e.doc.root.child("runners")
	if n == nil && e.doc.root.find("runners") == nil || n != nil && n.kind == kindArray && n.origin == byArray {
		return nil
	}
	return fmt.Errorf("%w: runners are not written as [[runners]] sections", ErrNotEditable)
}

// blocks returns the statements that belong to the i-th runner, as runs of neighbours: [from, to).
func (e *Editor) blocks(i int) ([][2]int, error) {
	if err := e.editable(); err != nil {
		return nil, err
	}
	var out [][2]int
	section, inside := -1, false
	for k, s := range e.doc.statements {
		if s.header != nil {
			ours := s.header[0] == "runners"
			if ours && len(s.header) == 1 {
				section++
			}
			belongs := ours && section == i
			if belongs && !inside {
				out = append(out, [2]int{k, k})
			}
			inside = belongs
		}
		if inside {
			out[len(out)-1][1] = k + 1
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: there is no runner number %d", ErrNotEditable, i)
	}
	return out, nil
}

// RemoveRunner removes the i-th [[runners]] section with all sections below it, and the comments that touch it.
func (e *Editor) RemoveRunner(i int) error {
	blocks, err := e.blocks(i)
	if err != nil {
		return err
	}
	data := e.Bytes()
	for _, b := range slices.Backward(blocks) {
		start := e.commentsAbove(e.doc.statements[b[0]].start)
		end := e.commentsBelow(e.doc.statements[b[1]-1].end)
		if end == len(data) {
			start = withoutBlank(data, start)
		}
		data = slices.Concat(data[:start], data[end:])
	}
	return e.load(data)
}

// withoutBlank returns where the blank line directly above an offset begins: it was there to set the section apart.
func withoutBlank(data []byte, at int) int {
	if at == 0 {
		return at
	}
	start := bytes.LastIndexByte(data[:at-1], '\n') + 1
	if start > 0 && isBlank(data[start:at]) {
		return start
	}
	return at
}

// commentsAbove returns where the comment lines directly above an offset begin.
func (e *Editor) commentsAbove(at int) int {
	for at > 0 {
		start := bytes.LastIndexByte(e.doc.data[:at-1], '\n') + 1
		if !isComment(e.doc.data[start:at]) {
			break
		}
		at = start
	}
	return at
}

// commentsBelow returns the end of the comment lines directly below an offset, unless they touch the next header, and
// of the blank lines after them.
func (e *Editor) commentsBelow(at int) int {
	end := at
	for end < len(e.doc.data) && isComment(e.doc.data[end:lineEnd(e.doc.data, end)]) {
		end = lineEnd(e.doc.data, end)
	}
	if end < len(e.doc.data) && !isBlank(e.doc.data[end:lineEnd(e.doc.data, end)]) {
		end = at
	}
	for end < len(e.doc.data) && isBlank(e.doc.data[end:lineEnd(e.doc.data, end)]) {
		end = lineEnd(e.doc.data, end)
	}
	return end
}

func isComment(line []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) }
func isBlank(line []byte) bool   { return len(bytes.TrimSpace(line)) == 0 }

// Set sets a key of the i-th [[runners]] section itself: its value is replaced, or it is added behind the other keys.
func (e *Editor) Set(i int, key string, value any) error {
	blocks, err := e.blocks(i)
	if err != nil {
		return err
	}
	text, err := literal(value)
	if err != nil {
		return fmt.Errorf("set %s: %w", key, err)
	}
	if n := sectionNodes(e.doc.root)[i].find(key); n != nil {
		return e.setValue(n, text)
	}
	first := blocks[0][0]
	return e.insertKey(first, e.indentation(first)+quoteKey(key)+" = "+text+e.newline)
}

// SetGlobal sets a key at the top of the file.
func (e *Editor) SetGlobal(key string, value any) error {
	text, err := literal(value)
	if err != nil {
		return fmt.Errorf("set %s: %w", key, err)
	}
	if n := e.doc.root.find(key); n != nil {
		return e.setValue(n, text)
	}
	line := quoteKey(key) + " = " + text + e.newline
	if len(e.doc.statements) == 0 {
		return e.insert(len(e.doc.data), line)
	}
	if e.doc.statements[0].header != nil {
		at := e.commentsAbove(e.doc.statements[0].start)
		if bytes.HasPrefix(e.doc.data[at:], []byte("\xef\xbb\xbf")) {
			at += 3
			return e.replace(at, at, line+e.newline)
		}
		return e.insert(at, line+e.newline)
	}
	return e.insertKey(-1, line)
}

func (e *Editor) setValue(n *node, text string) error {
	if n.valueEnd == 0 {
		return fmt.Errorf("%w: %s is a section", ErrNotEditable, n.key)
	}
	return e.replace(n.valueAt, n.valueEnd, text)
}

// insertKey puts a line behind the keys that follow a header, given by the number of its statement.
func (e *Editor) insertKey(header int, line string) error {
	k := header + 1
	for k < len(e.doc.statements) && e.doc.statements[k].header == nil {
		k++
	}
	return e.insert(e.doc.statements[k-1].end, line)
}

// indentation returns the white space before the first key under a header.
func (e *Editor) indentation(header int) string {
	line := e.doc.statements[header].start
	extra := "  "
	if header+1 < len(e.doc.statements) && e.doc.statements[header+1].header == nil {
		line, extra = e.doc.statements[header+1].start, ""
	}
	rest := string(e.doc.data[line:])
	return rest[:len(rest)-len(strings.TrimLeft(rest, " \t"))] + extra
}

// Unset removes a key of the i-th [[runners]] section itself, with its line. A key that is not there is no error.
func (e *Editor) Unset(i int, key string) error {
	blocks, err := e.blocks(i)
	if err != nil {
		return err
	}
	n := sectionNodes(e.doc.root)[i].find(key)
	for k := blocks[0][0] + 1; n != nil && k < blocks[0][1] && e.doc.statements[k].header == nil; k++ {
		if s := e.doc.statements[k]; s.target == n && s.simple {
			return e.replace(s.start, s.end, "")
		}
	}
	if n != nil {
		return fmt.Errorf("%w: %s is a section", ErrNotEditable, key)
	}
	return nil
}
