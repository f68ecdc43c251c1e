package provision

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/remote"
)

const (
	// openTimeout is how long Open may take if its context does not say.
	openTimeout = 15 * time.Minute
	// refusalTimeout is how long a machine may refuse our key: its first boot may put it there last.
	refusalTimeout = 3 * time.Minute
	// connectTimeout is for one attempt at a machine that may not be up: what is sent to one that is not is lost.
	connectTimeout = 5 * time.Second
)

// Pauses between attempts: an eighth of the time that it has taken so far, within these, and a fifth more or less.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// pauseAfter returns how long to wait after so much time.
func pauseAfter(waited time.Duration, chance float64) time.Duration {
	pause := min(max(waited/8, firstPause), lastPause)
	return time.Duration(float64(pause) * (0.8 + 0.4*chance))
}

// wait waits for the time of the next attempt; it says no when the context has ended.
func wait(ctx context.Context, since time.Time) bool {
	timer := time.NewTimer(pauseAfter(time.Since(since), rand.Float64()))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// target returns how to log in to a machine.
func (p *Preparer) target(m tranter.Machine, hostKey string) (remote.Target, error) {
	if m.Login.Host == "" { // that would lead to this host itself
		return remote.Target{}, fmt.Errorf("machine %s has no address: it may be switched off", m.Name)
	}
	s := p.settings.Login
	t := remote.Target{User: m.Login.User, Host: m.Login.Host, Port: m.Login.Port}
	if s.User != "" {
		t.User = s.User
	}
	if s.Port != 0 {
		t.Port = s.Port
	}
	if t.User == "" {
		t.User = "root"
	}
	identity := m.Login.Identity
	if s.Identity != "" {
		identity = s.Identity
	}
	if identity == "" {
		// No key is named, as for a machine that somebody else has set up: what the user's SSH does for it is right, also
		// whom it knows there.
		found, _, err := remote.Find(t.String(), p.env)
		if err != nil {
			return t, &tranter.ConfigError{Err: fmt.Errorf("the login of machine %s: %w", m.Name, err)}
		}
		t = found
	} else {
		t.Identities, t.IdentitiesOnly = []string{identity}, true
	}
	if t.Trust == remote.TrustKnown {
		t.Trust = remote.TrustAny // of a new machine nobody can know the key; the one it shows first is the one it keeps
	}
	t.HostKey, t.ConnectTimeout = hostKey, connectTimeout
	if s.Jump == "" {
		return t, nil
	}
	jump, _, err := remote.Find(s.Jump, p.env)
	if err != nil {
		return t, &tranter.ConfigError{Err: fmt.Errorf("login.jump: %w", err)}
	}
	t.Jump = &jump
	return t, nil
}

// login connects to a machine, and waits until it can be: its port may be closed, and its key missing, for a while.
func (p *Preparer) login(ctx context.Context, name string, t remote.Target) (*remote.Conn, error) {
	began := time.Now()
	var refused time.Time // when it was first
	var last error
	for tries := 1; ; tries++ {
		conn, err := remote.Dial(ctx, t)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if final := finally(name, t, err); final != nil {
			return nil, final
		}
		if _, ok := errors.AsType[*remote.AuthError](err); !ok {
			refused = time.Time{}
		} else if refused.IsZero() {
			refused = time.Now()
		} else if time.Since(refused) > p.refusal {
			return nil, fmt.Errorf("machine %s refuses our login since %v: %w", name, p.refusal, err)
		}
		if !wait(ctx, began) {
			return nil, fmt.Errorf("machine %s cannot be logged in to (%d attempts in %v): %w (%w)", name, tries, time.Since(began).Round(time.Millisecond), last, ctx.Err())
		}
	}
}

// finally returns the error if trying again is of no use; nil if it may be.
func finally(name string, t remote.Target, err error) error {
	if key, ok := errors.AsType[*remote.HostKeyError](err); ok {
		if t.Jump != nil && !key.Pinned {
			return &tranter.ConfigError{Err: fmt.Errorf("machine %s: login.jump: %w", name, err)}
		}
		return fmt.Errorf("machine %s: %w", name, err)
	}
	auth, ok := errors.AsType[*remote.AuthError](err)
	switch {
	case !ok:
		return nil
	case auth.Err == nil: // there is nothing to offer
		return &tranter.ConfigError{Err: fmt.Errorf("machine %s: %w", name, err)}
	case t.Jump != nil && auth.Target != t.String():
		return &tranter.ConfigError{Err: fmt.Errorf("machine %s: login.jump: %w", name, err)}
	}
	return nil
}
