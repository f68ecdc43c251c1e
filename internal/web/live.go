package web

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/events"
	"github.com/tranter-ci/tranter/internal/view"
)

const (
	maxViewers   = 200 // live pages at once
	heartbeat    = 15 * time.Second
	writeTimeout = 10 * time.Second
	eventsRoom   = 1024
)

// topics are what pages follow.
func topics() []string {
	return []string{"overview", "jobs", "machines", "runners", "events", "pipelines"}
}

// live tells open pages that what they show has changed. As long as there are viewers, one loop looks at what is there about once a
// second, and at once when something happens.
type live struct {
	now    *snapshots
	events *events.Hub
	seed   maphash.Seed
	most   int

	mu      sync.Mutex
	viewers map[*viewer]struct{}
	stop    context.CancelFunc // ends the loop
	ended   chan struct{}      // closed when it has
}

// viewer is an open page. What it was not told yet is in pending.
type viewer struct {
	mu      sync.Mutex
	pending map[string]bool
	wake    chan struct{} // room for one
}

func newLive(now *snapshots, hub *events.Hub) *live {
	if hub == nil {
		hub = &events.Hub{}
	}
	return &live{now: now, events: hub, seed: maphash.MakeSeed(), most: maxViewers, viewers: map[*viewer]struct{}{}}
}

// ServeHTTP streams the names of topics that have changed, as events without content: the page fetches itself anew.
func (l *live) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v, ok := l.enter(r.Context())
	if !ok {
		w.Header().Set("Retry-After", "30")
		http.Error(w, fmt.Sprintf("%d pages are live already. This one works, but does not follow what happens.", l.most), http.StatusServiceUnavailable)
		return
	}
	defer l.leave(v)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy must not collect them
	out := &stream{w: w, to: http.NewResponseController(w)}
	if out.send("retry: 2000\nevent: hello\ndata: \n\n") != nil {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		var text strings.Builder
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			text.WriteString(": still here\n\n")
		case <-v.wake:
			for _, topic := range v.take() {
				text.WriteString("event: " + topic + "\ndata: \n\n")
			}
		}
		if out.send(text.String()) != nil {
			return
		}
	}
}

// stream writes with a deadline, so that a viewer who reads nothing does not stay for ever.
type stream struct {
	w  http.ResponseWriter
	to *http.ResponseController
}

func (s *stream) send(text string) error {
	_ = s.to.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer can
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	err := s.to.Flush()
	_ = s.to.SetWriteDeadline(time.Time{}) // HTTP/2 ends a stream at its deadline, also when nothing is being written
	return err
}

func (v *viewer) tell(changed map[string]bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for topic := range changed {
		v.pending[topic] = true
	}
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

func (v *viewer) take() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var names []string
	for _, topic := range topics() {
		if v.pending[topic] {
			names = append(names, topic)
		}
	}
	clear(v.pending)
	return names
}

// enter adds a viewer; the first one begins the loop.
func (l *live) enter(ctx context.Context) (*viewer, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.viewers) >= l.most {
		return nil, false
	}
	v := &viewer{pending: map[string]bool{}, wake: make(chan struct{}, 1)}
	l.viewers[v] = struct{}{}
	if l.stop == nil {
		// It lasts as long as anybody looks, which may be longer than the first one does.
		loop, stop := context.WithCancel(context.WithoutCancel(ctx))
		ended := make(chan struct{})
		l.stop, l.ended = stop, ended
		sub := l.events.Subscribe(eventsRoom)
		go func() {
			defer close(ended)
			defer sub.Close()
			l.watch(loop, sub)
		}()
	}
	return v, true
}

// leave removes a viewer; the last one ends the loop and waits for that.
func (l *live) leave(v *viewer) {
	l.mu.Lock()
	delete(l.viewers, v)
	var ended chan struct{}
	if len(l.viewers) == 0 {
		l.stop()
		ended = l.ended
		l.stop = nil
	}
	l.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

func (l *live) tell(changed map[string]bool) {
	if len(changed) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for v := range l.viewers {
		v.tell(changed)
	}
}

// watch looks and tells until the context ends.
func (l *live) watch(ctx context.Context, sub *events.Subscription) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var seen map[string]uint64
	var looked time.Time
	fresh, again := map[string]bool{}, map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-sub.Events():
			mark(fresh, e)
			timer.Reset(max(0, freshness-time.Since(looked))) // at once, unless it was just now
			continue
		case <-timer.C:
		}
		if len(fresh) > 0 {
			l.now.expire()
			l.tell(fresh) // before the look, which takes a while where there is much
		}
		looked = time.Now()
		now, _, err := l.now.get(ctx)
		changed := again
		if err == nil {
			sums := l.sums(now)
			changed = difference(seen, sums, again)
			seen = sums
		}
		for topic := range fresh {
			delete(changed, topic)
		}
		l.tell(changed)
		// What happened may reach the store a moment later: those who show the past look once more.
		again, fresh = fresh, map[string]bool{}
		timer.Reset(freshness + 20*time.Millisecond)
	}
}

// mark notes what an event changes.
func mark(changed map[string]bool, e tranter.Event) {
	changed["events"] = true
	changed["overview"] = true
	kind := string(e.Kind)
	switch {
	case strings.HasPrefix(kind, "job_"), strings.HasPrefix(kind, "batch_"):
		changed["jobs"] = true
	case strings.HasPrefix(kind, "machine_"):
		changed["machines"] = true
	case strings.HasPrefix(kind, "lease_"):
		changed["machines"], changed["jobs"] = true, true
	default:
		changed["runners"] = true
	}
}

// difference returns the topics whose sums differ, besides those that are known to have changed. Without a look before there is
// nothing to tell.
func difference(before, after map[string]uint64, known map[string]bool) map[string]bool {
	changed := map[string]bool{}
	for topic := range known {
		changed[topic] = true
	}
	if before == nil {
		return changed
	}
	for topic, sum := range after {
		if before[topic] != sum {
			changed[topic] = true
		}
	}
	return changed
}

// jobs is what jobs look like in lists, in a number: there may be thousands, each with a long past.
func (l *live) jobs(all []view.Job) uint64 {
	var sum uint64
	for i := range all {
		j := &all[i]
		one := maphash.Comparable(l.seed, struct {
			key, stage, reason string
			place              tranter.JobPlace
			times              tranter.JobTimes
			state              tranter.JobState
			counts             [4]int64
			terminal           bool
		}{
			j.Key, j.Stage, j.Reason, j.Place, j.Times, j.Result.State,
			[4]int64{j.LogBytes, int64(j.Restarts), int64(len(j.Stages)), int64(j.Usage.CPUTime)},
			j.Terminal,
		})
		sum = sum*31 + one
	}
	return sum
}

// sums are what the topics look like, in a number each.
func (l *live) sums(now view.Snapshot) map[string]uint64 {
	sum := func(parts ...any) uint64 {
		var h maphash.Hash
		h.SetSeed(l.seed)
		if err := json.NewEncoder(&h).Encode(parts); err != nil {
			return 0 // a number that is none, such as a price; the events tell
		}
		return h.Sum64()
	}
	sums := map[string]uint64{
		"jobs":      sum(l.jobs(now.Jobs), now.Waiting, now.Batches),
		"machines":  sum(now.Machines, now.Pools),
		"runners":   sum(now.Runners, now.Manager, now.Clusters),
		"pipelines": sum(now.Pipes),
	}
	sums["overview"] = sum(sums["jobs"], sums["machines"], sums["runners"], now.Recent)
	return sums
}
