package docker

import (
	"context"
	"io"
	"sync"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
	"github.com/tranter-ci/tranter/internal/terminal"
)

// Terminal implements tranter.TerminalSession.
func (s *session) Terminal(ctx context.Context, phaseID string) (tranter.Terminal, error) {
	b := s.box(s.placeOfID(phaseID))
	streams, err := s.host.engine.Exec(ctx, b.name, []string{spec.AgentProgram, "agent", "terminal", phaseDir(phaseID)}, "")
	if err != nil {
		return nil, err
	}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, streams.Stderr) }) // how it went comes on the other stream
	return terminal.Connect(ctx, streams.Stdout, streams.Stdin, func() error {
		err := streams.Stdin.Close()
		streams.Close()
		reading.Wait()
		return err
	})
}
