package jobtest

import (
	"context"
	"io"
	"slices"
	"sync"

	"github.com/tranter-ci/tranter"
)

// Terminal implements tranter.TerminalSession: what is typed is shown, until Close.
func (s *session) Terminal(_ context.Context, phase string) (tranter.Terminal, error) {
	s.e.mu.Lock()
	s.e.shown[s.job] = append(s.e.shown[s.job], phase)
	s.e.mu.Unlock()
	r, w := io.Pipe()
	return &echo{PipeReader: r, in: w}, nil
}

// Terminals returns the phases of a job beside which terminals were opened.
func (e *Executor) Terminals(id int64) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.shown[id])
}

// echo is a terminal that shows what is typed.
type echo struct {
	*io.PipeReader
	in *io.PipeWriter

	mu    sync.Mutex
	ended bool
}

func (e *echo) Write(p []byte) (int, error) { return e.in.Write(p) }
func (e *echo) Resize(uint16, uint16) error { return nil }

func (e *echo) CloseWrite() error {
	e.mu.Lock()
	e.ended = true
	e.mu.Unlock()
	return e.in.Close()
}

func (e *echo) ExitCode() (int, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return 0, e.ended
}
