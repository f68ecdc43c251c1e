package web

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/view"
)

const (
	// freshness is how long a look at what is there serves all who ask: below a second, so that what changes right after one is
	// on the pages within a second.
	freshness   = 800 * time.Millisecond
	lookTimeout = 10 * time.Second
)

var errNoSource = errors.New("this server has nothing to show: it was made without a source")

// snapshots looks at what is there, for all who ask together. Each look has a number.
type snapshots struct {
	source Source

	mu   sync.Mutex
	last view.Snapshot
	err  error
	at   time.Time
	gen  uint64

	notices []view.Notice // of last, once somebody wants them
	noticed uint64        // the look that they are of
}

// get returns what is there, not older than freshness, and the number of the look.
func (n *snapshots) get(ctx context.Context) (view.Snapshot, uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gen > 0 && !n.at.IsZero() && time.Since(n.at) < freshness {
		return n.last, n.gen, n.err
	}
	if n.source == nil {
		return view.Snapshot{}, n.gen, errNoSource
	}
	// Others wait for this look as well: that the one who began it goes away must not end it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	n.last, n.err = n.source.Snapshot(ctx)
	n.at = time.Now()
	n.gen++
	return n.last, n.gen, n.err
}

// attention returns what needs attention, as of the last look: found once for all pages.
func (n *snapshots) attention() []view.Notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.noticed != n.gen {
		n.notices, n.noticed = view.Attention(n.last, n.at), n.gen
	}
	return n.notices
}

// expire makes the next get look anew: something has changed.
func (n *snapshots) expire() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at = time.Time{}
}

// snapshot returns what is there, at most freshness old.
func (s *Server) snapshot(ctx context.Context) (view.Snapshot, error) {
	now, _, err := s.now.get(ctx)
	return now, err
}
