package pool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tranter-ci/tranter"
)

// Budget limits how often a provider's account is asked, over all pools that use it. When the provider asks for less, no one
// asks until the time that it names is over; the first who may then finds out whether it has recovered.
type Budget struct {
	limiter *rate.Limiter

	mu    sync.Mutex
	until time.Time
	cause error
	fails int
}

// NewBudget returns a budget of so many requests per second, with a burst. Without a rate, only the provider's own limits hold.
func NewBudget(perSecond float64, burst int) *Budget {
	limit := rate.Limit(perSecond)
	if perSecond <= 0 {
		limit = rate.Inf
	}
	return &Budget{limiter: rate.NewLimiter(limit, atOnce(perSecond, burst))}
}

// atOnce is how many requests may be made at once after a pause: a second's, unless a burst is given.
func atOnce(perSecond float64, burst int) int {
	if burst <= 0 {
		burst = int(min(perSecond, math.MaxInt32))
	}
	return max(1, burst)
}

// Change replaces the rate and the burst.
func (b *Budget) Change(perSecond float64, burst int) {
	limit := rate.Limit(perSecond)
	if perSecond <= 0 {
		limit = rate.Inf
	}
	b.limiter.SetLimit(limit)
	b.limiter.SetBurst(atOnce(perSecond, burst))
}

// How long nobody asks after the provider has asked for less and has not said how long: it doubles each time in a row.
const (
	firstPause   = 5 * time.Second
	longestPause = 5 * time.Minute
)

// take waits for a turn. *tranter.ThrottledError: the provider does not want to be asked now.
func (b *Budget) take(ctx context.Context) error {
	b.mu.Lock()
	left, cause := time.Until(b.until), b.cause
	b.mu.Unlock()
	if left > 0 {
		return &tranter.ThrottledError{RetryAfter: left, Err: fmt.Errorf("the provider has asked for fewer requests: %w", cause)}
	}
	err := b.limiter.Wait(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("wait for a turn at the provider: %w", context.Cause(ctx))
	}
	// There is no turn in time. The provider was not asked, so that is not a failure of what it should do.
	return &tranter.ThrottledError{RetryAfter: firstPause, Err: errors.New("too many requests are waiting already for the configured number per second")}
}

// learn takes notice of an answer.
func (b *Budget) learn(err error) {
	var throttled *tranter.ThrottledError
	b.mu.Lock()
	defer b.mu.Unlock()
	if !errors.As(err, &throttled) {
		if err == nil {
			b.fails = 0
		}
		return
	}
	wait := throttled.RetryAfter
	if wait <= 0 {
		wait = min(firstPause<<min(b.fails, 10), longestPause)
	}
	b.fails++
	if until := time.Now().Add(wait); until.After(b.until) {
		b.until, b.cause = until, throttled.Err
	}
	throttled.RetryAfter = max(throttled.RetryAfter, wait)
}

// Limited returns a provider whose requests come out of a budget.
func Limited(p tranter.Provider, b *Budget) tranter.Provider {
	if s, ok := p.(tranter.Starter); ok {
		return limitedStarter{limited{p, b}, s}
	}
	return limited{p, b}
}

type limited struct {
	tranter.Provider
	budget *Budget
}

// Create implements tranter.Provider.
func (p limited) Create(ctx context.Context, spec tranter.MachineSpec, note func(json.RawMessage)) (tranter.Machine, error) {
	if err := p.budget.take(ctx); err != nil {
		return tranter.Machine{}, err
	}
	m, err := p.Provider.Create(ctx, spec, note)
	p.budget.learn(err)
	return m, err
}

// Destroy implements tranter.Provider.
func (p limited) Destroy(ctx context.Context, m tranter.MachineRef) error {
	if err := p.budget.take(ctx); err != nil {
		return err
	}
	err := p.Provider.Destroy(ctx, m)
	if err != nil || len(m.Ref) > 0 { // what it has never named, it may have removed without asking anybody
		p.budget.learn(err)
	}
	return err
}

// List implements tranter.Provider.
func (p limited) List(ctx context.Context, mark tranter.Mark, known []tranter.MachineRef) ([]tranter.Machine, error) {
	if err := p.budget.take(ctx); err != nil {
		return nil, err
	}
	seen, err := p.Provider.List(ctx, mark, known)
	p.budget.learn(err)
	return seen, err
}

// Check implements tranter.Checker. It asks about settings, and is not counted.
func (p limited) Check(ctx context.Context) error {
	if c, ok := p.Provider.(tranter.Checker); ok {
		return c.Check(ctx)
	}
	return nil
}

type limitedStarter struct {
	limited
	starter tranter.Starter
}

// Start implements tranter.Starter.
func (p limitedStarter) Start(ctx context.Context, m tranter.MachineRef) (tranter.Machine, error) {
	if err := p.budget.take(ctx); err != nil {
		return tranter.Machine{}, err
	}
	started, err := p.starter.Start(ctx, m)
	p.budget.learn(err)
	return started, err
}

// Stop implements tranter.Starter.
func (p limitedStarter) Stop(ctx context.Context, m tranter.MachineRef) error {
	if err := p.budget.take(ctx); err != nil {
		return err
	}
	err := p.starter.Stop(ctx, m)
	p.budget.learn(err)
	return err
}
