package plugin

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"sync"
)

// maxLine is how much of a line is kept.
const maxLine = 16 << 10

// drain reads lines until the end, whatever they are: a plugin whose pipe is full stands still.
func drain(r io.Reader, line func(string)) {
	in := bufio.NewReaderSize(r, maxLine)
	for cut := false; ; {
		part, err := in.ReadSlice('\n')
		full := errors.Is(err, bufio.ErrBufferFull)
		text := strings.TrimRight(string(part), "\r\n")
		if !cut && (err == nil || len(part) > 0) {
			if full {
				text += "... (the line goes on)"
			}
			line(text)
		}
		if err != nil && !full {
			return
		}
		cut = full
	}
}

// stdout returns what takes the lines of standard output: the first is the address, the others are for people.
func (p *Process) stdout() func(string) {
	first := true
	return func(line string) {
		if first {
			first = false
			p.address <- line
			return
		}
		p.log.Info("driver output", "line", p.clean(line))
	}
}

// stderr takes the lines of standard error. Most of it is for the search of faults: plugins always print that.
func (p *Process) stderr(line string) {
	p.words.add(line)
	if p.debug {
		p.log.Info("driver output", "line", p.clean(line), "stream", "stderr")
		return
	}
	p.log.Debug("driver output", "line", p.clean(line), "stream", "stderr")
}

// maxWords is how much is told of what a process has printed last.
const maxWords = 400

// lastWords keeps the line that says best why a process has ended: of a Go program that panics, that is the first of many.
type lastWords struct {
	mu    sync.Mutex
	line  string
	fatal bool
}

func (w *lastWords) add(line string) {
	if strings.TrimSpace(line) == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fatal {
		return
	}
	w.fatal = strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")
	w.line = line
}

func (w *lastWords) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.line
}
