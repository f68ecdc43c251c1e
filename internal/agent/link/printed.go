package link

import (
	"bytes"
	"io"
	"sync"
)

// maxNote is the longest line that is one in the log.
const maxNote = 16 << 10

// printed is what an entrypoint prints: kept until it is told, then until there is a log, then passed on line by line.
type printed struct {
	done chan struct{} // closed when nothing more comes

	mu    sync.Mutex
	kept  lastBytes
	lines []byte // an unfinished one
	note  func(string)
}

// read takes the output until its end.
func (p *printed) read(r io.Reader) {
	defer close(p.done)
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		p.take(buf[:n])
		if err != nil {
			return
		}
	}
}

func (p *printed) take(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.note == nil {
		p.kept.max = maxSaid
		p.kept.add(b)
		return
	}
	p.passLocked(b)
}

func (p *printed) passLocked(b []byte) {
	p.lines = append(p.lines, b...)
	for {
		i := bytes.IndexByte(p.lines, '\n')
		if i < 0 && len(p.lines) < maxNote {
			return
		}
		line := p.lines
		if i >= 0 {
			line = p.lines[:i+1]
		}
		p.note(string(bytes.TrimRight(line, "\r\n")))
		p.lines = append([]byte(nil), p.lines[len(line):]...)
	}
}

// tell returns what was kept, which is not passed on any more.
func (p *printed) tell() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	said := string(bytes.ToValidUTF8([]byte(p.kept.String()), []byte("\uFFFD")))
	p.kept.buf = nil
	return said
}

// follow passes on what was kept, and what comes, to note.
func (p *printed) follow(note func(string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.note == nil {
		p.note = note
		p.passLocked([]byte(p.kept.String()))
		p.kept.buf = nil
	}
}
