package docker

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
)

// lines lets several goroutines write to the job's log, a whole line at a time, until the environment is ready: what comes
// later is dropped.
type lines struct {
	mu    sync.Mutex
	w     io.Writer
	part  []byte
	ended bool
	turns []turn
}

// turn is what is said about one of the images that are had at the same time. The order in the log is always the same: a
// manager that was killed meanwhile leaves a log that its successor can go on with.
type turn struct {
	name string
	left int // so many have not said all yet
	held []byte
}

// order makes what is said by way of each come after what those before it say.
func (l *lines) order(names ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		if i := l.turnOf(name); i >= 0 {
			l.turns[i].left++
			continue
		}
		l.turns = append(l.turns, turn{name: name, left: 1})
	}
}

func (l *lines) turnOf(name string) int {
	return slices.IndexFunc(l.turns, func(t turn) bool { return t.name == name })
}

// of returns the writer for what is said by way of a name.
func (l *lines) of(name string) io.Writer { return inTurn{l, name} }

type inTurn struct {
	lines *lines
	name  string
}

// Write implements io.Writer.
func (t inTurn) Write(p []byte) (int, error) {
	t.lines.mu.Lock()
	defer t.lines.mu.Unlock()
	for i := range t.lines.turns {
		switch at := &t.lines.turns[i]; {
		case at.name == t.name:
			return t.lines.write(p)
		case at.left > 0:
			t.lines.hold(t.name, p)
			return len(p), nil
		}
	}
	return t.lines.write(p)
}

func (l *lines) hold(name string, p []byte) {
	if i := l.turnOf(name); i >= 0 {
		l.turns[i].held = append(l.turns[i].held, p...)
	}
}

// done says that all has been said by way of a name.
func (l *lines) done(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.turnOf(name); i >= 0 {
		l.turns[i].left--
	}
	for i := range l.turns {
		l.release(&l.turns[i])
		if l.turns[i].left > 0 {
			return
		}
	}
}

func (l *lines) release(t *turn) {
	_, _ = l.write(t.held)
	t.held = nil
}

// Write implements io.Writer. What has no line end yet waits for it.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write(p)
}

func (l *lines) write(p []byte) (int, error) {
	if l.ended {
		return len(p), nil
	}
	l.part = append(l.part, p...)
	end := bytes.LastIndexByte(l.part, '\n') + 1
	if end == 0 {
		return len(p), nil
	}
	_, err := l.w.Write(l.part[:end])
	l.part = append(l.part[:0], l.part[end:]...)
	return len(p), err
}

func (l *lines) printf(format string, args ...any) { _, _ = fmt.Fprintf(l, format+"\n", args...) }

func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.turns {
		l.release(&l.turns[i])
	}
	if len(l.part) > 0 && !l.ended {
		_, _ = l.w.Write(append(l.part, '\n'))
	}
	l.ended = true
}
