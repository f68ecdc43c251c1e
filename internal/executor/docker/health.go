package docker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

const (
	// lookEvery is how often an engine that does not answer is asked again by those who want to take jobs.
	lookEvery = 5 * time.Second
	// lookTime is how long it may take to answer then.
	lookTime = 2 * time.Second
)

// health knows whether an engine answers, from those who have talked to it. While it does not, no jobs are taken: each
// would wait, and fail.
type health struct {
	mu     sync.Mutex
	away   error // nil: it answers as far as is known
	looked time.Time
}

// found takes notice of how a request to the engine has ended.
func (h *health) found(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.away = nil; engine.Gone(err) {
		h.away, h.looked = fmt.Errorf("the container engine does not answer: %w", err), time.Now()
	}
}

// check returns why the engine can't be used. One that was away is looked at again now and then.
func (h *health) check(look func(context.Context) error) error {
	h.mu.Lock()
	away := h.away
	due := away != nil && time.Since(h.looked) >= lookEvery
	if due {
		h.looked = time.Now() // others need not look, too
	}
	h.mu.Unlock()
	if !due {
		return away
	}
	ctx, stop := context.WithTimeout(context.Background(), lookTime)
	defer stop()
	err := look(ctx)
	if err != nil && !engine.Gone(err) && ctx.Err() != nil { // it takes connections and says nothing
		return away
	}
	h.found(err)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.away
}
