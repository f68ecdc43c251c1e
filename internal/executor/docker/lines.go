package docker

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// lines lets several goroutines write to the job's log, a whole line at a time, until the environment is ready: what comes
// later is dropped.
type lines struct {
	mu    sync.Mutex
	w     io.Writer
	part  []byte
	ended bool
}

// Write implements io.Writer. What has no line end yet waits for it.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
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
	if len(l.part) > 0 && !l.ended {
		_, _ = l.w.Write(append(l.part, '\n'))
	}
	l.ended = true
}
