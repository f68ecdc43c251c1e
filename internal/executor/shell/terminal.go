package shell

import (
	"context"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
)

// Terminal implements tranter.TerminalSession.
func (s *session) Terminal(ctx context.Context, phaseID string) (tranter.Terminal, error) {
	t, err := agent.OpenTerminal(ctx, s.phaseDir(phaseID), s.launch)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beside = true
	s.waits = append(s.waits, func() { _ = t.Close() })
	return t, nil
}
