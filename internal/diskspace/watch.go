package diskspace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Watch is a Guard that does not wait for a disk that does not answer. File systems of servers, which may not, are asked
// by another process: one that hangs in such a question can't be ended.
type Watch struct {
	guard Guard
	limit time.Duration
	ask   []string // command that prints the Room of the directory that follows, as JSON

	mu      sync.Mutex
	pending chan error // a check that is under way
	last    error
	next    time.Time // until then last holds: a process is not started for every request
}

// pause is the time between two questions to file systems of servers.
const pause = 10 * time.Second

// NewWatch returns a watch that waits for an answer at most so long.
func NewWatch(g Guard, limit time.Duration, ask []string) *Watch {
	return &Watch{guard: g, limit: limit, ask: ask}
}

// Check returns nil while there is room enough in all directories, else an error that says what is wrong where, also that
// a disk does not answer. A directory that can't be looked at is no reason to stop.
func (w *Watch) Check() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var near, far []string
	for _, dir := range w.guard.Dirs {
		if distant(dir) && len(w.ask) > 0 {
			far = append(far, dir)
		} else {
			near = append(near, dir)
		}
	}
	if err := w.guard.check(near, Of); err != nil || len(far) == 0 {
		return err
	}
	if now := time.Now(); w.pending == nil && now.Before(w.next) {
		return w.last
	}
	if w.pending == nil {
		pending := make(chan error, 1)
		go func() { pending <- w.guard.check(far, w.question) }() // outlives this call only while a disk hangs
		w.pending = pending
	}
	timer := time.NewTimer(w.limit)
	defer timer.Stop()
	select {
	case w.last = <-w.pending:
		w.pending, w.next = nil, time.Now().Add(pause)
		return w.last
	case <-timer.C:
		return fmt.Errorf("a disk does not answer: that of %s", strings.Join(far, " or "))
	}
}

// question has another process look. It is left alone if it hangs.
func (w *Watch) question(dir string) (Room, error) {
	var r Room
	cmd := exec.CommandContext(context.Background(), w.ask[0], append(w.ask[1:len(w.ask):len(w.ask)], dir)...) //nolint:gosec // our own program
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("look for room on the disk of %s: %w", dir, err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, errors.New("look for room: unexpected answer")
	}
	return r, nil
}
