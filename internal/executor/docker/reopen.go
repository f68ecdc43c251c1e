package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// Refers says whether a reference is one of this executor.
func Refers(ref json.RawMessage) bool {
	var r reference
	return json.Unmarshal(ref, &r) == nil && r.Session != "" && len(r.Containers) > 0
}

// Reopen implements tranter.Executor. An engine that is being restarted is waited for.
func (e *Executor) Reopen(ctx context.Context, ref json.RawMessage) (tranter.Session, error) {
	var r reference
	if err := json.Unmarshal(ref, &r); err != nil || !Refers(ref) {
		return nil, fmt.Errorf("reopen a session: malformed reference %q", ref)
	}
	h, err := e.hostOf(ctx, r.Docker)
	if err != nil {
		return nil, err
	}
	s := newSession(ctx, h, r)
	for _, place := range slices.Collect(maps.Keys(r.Containers)) {
		s.addBox(place, r.Containers[place], r.Images[place]).entrypoint = e.options.Settings.EntrypointTimeout
	}
	s.followAll(time.Now())
	return s, nil
}

// hostOf returns the engine that a session was made on, which may not be the configuration's any more.
func (e *Executor) hostOf(ctx context.Context, a engineAddress) (*host, error) {
	since := time.Now()
	for {
		h, err := e.connectTo(ctx, a)
		if err == nil || !engine.Gone(err) || time.Since(since) > e.options.Settings.ReconnectTimeout || !pause(ctx, lastWait) {
			return h, err
		}
	}
}

func (e *Executor) connectTo(ctx context.Context, a engineAddress) (*host, error) {
	switch own := e.address(); {
	case a == own:
		return e.connect(ctx)
	case a.Machine != "":
		return nil, fmt.Errorf("the job is on machine %s, whose engine can't be reached from here: only the pool of that machine knows the way", a.Machine)
	case own.Machine != "":
		return nil, fmt.Errorf("the job is on the engine at %q, and not on machine %s", a.Host, own.Machine)
	}
	return e.dial(ctx, a)
}

// Disconnect gives up the connections to the engine that no session uses. The next call that needs one connects anew.
func (e *Executor) Disconnect() error {
	e.dialing.Lock()
	defer e.dialing.Unlock()
	e.mu.Lock()
	h := e.host
	e.host = nil
	e.mu.Unlock()
	if h == nil {
		return nil
	}
	return h.engine.Close()
}
