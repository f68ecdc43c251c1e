package manager

import (
	"context"
	"fmt"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job"
)

// Terminals is where coordinators reach the interactive terminals of jobs. It is safe for concurrent use.
type Terminals interface {
	// Offer makes the access to the terminal of one job to come.
	Offer() (tranter.Access, error)
	// Admit lets who has the access in by open, until the returned function is called.
	Admit(a tranter.Access, open func(context.Context) (tranter.Terminal, error)) (leave func())
}

// offer adds to a request how the terminal of the job that it brings is reached, if there is to be one.
func offer(m *Manager, r *tranter.Request) {
	if m.options.Terminals == nil { // also after a reload of a configuration that has a session server now
		r.Features.Session, r.Features.Terminal = false, false
	}
	if !r.Features.Session {
		return
	}
	a, err := m.options.Terminals.Offer()
	if err != nil {
		m.options.Log.Warn("The next job gets no interactive terminal", "error", err)
		return
	}
	r.Access = &a
}

// admit lets the coordinator of a job get at its terminal, until the returned function is called.
func admit(m *Manager, rec tranter.JobRecord, d *job.Door) (leave func()) {
	if m.options.Terminals == nil || rec.Access == nil {
		return func() {}
	}
	return m.options.Terminals.Admit(*rec.Access, d.Open)
}

// Attach opens a terminal in the environment of a running job, which is named by its key in Status. The error is
// tranter.ErrNotFound if there is none, or what job.Door's Open gives.
func (m *Manager) Attach(ctx context.Context, key string) (tranter.Terminal, error) {
	m.mu.Lock()
	var door *job.Door
	if entry := m.running[key]; entry != nil {
		door = entry.door
	}
	m.mu.Unlock()
	if door == nil {
		return nil, fmt.Errorf("job %s: %w", key, tranter.ErrNotFound)
	}
	return door.Open(ctx)
}
