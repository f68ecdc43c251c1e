// Package events passes what happens on to those who want to know: the store, metrics, and people who look on. Who is slow misses
// events; nobody waits for it.
package events

import (
	"sync"
	"sync/atomic"

	"github.com/tranter-ci/tranter"
)

// Hub passes events on. It is safe for concurrent use; the zero value is ready.
type Hub struct {
	mu   sync.RWMutex
	subs map[*Subscription]struct{}
}

// Subscription is a reader's.
type Subscription struct {
	hub    *Hub
	events chan tranter.Event
	missed atomic.Int64
	once   sync.Once
}

// Publish passes an event to all who are subscribed, and waits for nobody.
func (h *Hub) Publish(e tranter.Event) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for s := range h.subs {
		select {
		case s.events <- e:
		default:
			s.missed.Add(1)
		}
	}
}

// Subscribe begins to keep events for a reader, at most room of them until it reads. Close ends that.
func (h *Hub) Subscribe(room int) *Subscription {
	s := &Subscription{hub: h, events: make(chan tranter.Event, room)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs == nil {
		h.subs = map[*Subscription]struct{}{}
	}
	h.subs[s] = struct{}{}
	return s
}

// Events returns where the events arrive. It is closed by Close.
func (s *Subscription) Events() <-chan tranter.Event { return s.events }

// Missed returns how many events the reader was too slow for since the last call.
func (s *Subscription) Missed() int64 { return s.missed.Swap(0) }

// Close ends the subscription.
func (s *Subscription) Close() {
	s.once.Do(func() {
		s.hub.mu.Lock()
		defer s.hub.mu.Unlock()
		delete(s.hub.subs, s)
		close(s.events)
	})
}
