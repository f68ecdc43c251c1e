package pool_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/scale"
)

// cloud is a provider that behaves like one: machines take time to come and go, and faults can be asked for.
type cloud struct {
	mu       sync.Mutex
	takes    time.Duration // a creation
	removal  time.Duration
	machines map[string]*vm
	most     int // at once
	created  []time.Time
	removed  []string
	fail     func(n int) error // how the nth creation fails; nil: it does not
	half     bool              // a failed creation leaves the machine
	deaf     bool              // lists fail
	stuck    error             // of removals
	begun    int
}

type vm struct {
	power tranter.Power
	alive bool
	host  string
	mark  tranter.Mark
}

func newCloud(takes time.Duration) *cloud {
	return &cloud{takes: takes, machines: map[string]*vm{}}
}

func (c *cloud) Create(ctx context.Context, spec tranter.MachineSpec, note func(json.RawMessage)) (tranter.Machine, error) {
	c.mu.Lock()
	c.begun++
	var fault error
	if c.fail != nil {
		fault = c.fail(c.begun)
	}
	c.created = append(c.created, time.Now())
	if fault == nil || c.half {
		c.machines[spec.Name] = &vm{power: tranter.PowerOn, alive: true, host: "host-" + spec.Name, mark: spec.Mark}
		c.most = max(c.most, len(c.machines))
	}
	c.mu.Unlock()
	note(json.RawMessage(strconv.Quote(spec.Name)))
	if !sleep(ctx, c.takes) {
		return tranter.Machine{}, context.Cause(ctx)
	}
	if fault != nil {
		return tranter.Machine{}, fault
	}
	return c.describe(spec.Name), nil
}

func (c *cloud) describe(name string) tranter.Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := tranter.Machine{Name: name, Power: tranter.PowerOn, Ref: json.RawMessage(strconv.Quote(name))}
	if v := c.machines[name]; v != nil {
		m.Power, m.Login.Host = v.power, v.host
	}
	return m
}

func (c *cloud) Destroy(ctx context.Context, m tranter.MachineRef) error {
	if !sleep(ctx, c.removal) {
		return context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stuck != nil {
		return c.stuck
	}
	delete(c.machines, m.Name)
	c.removed = append(c.removed, m.Name)
	return nil
}

func (c *cloud) List(_ context.Context, mark tranter.Mark, _ []tranter.MachineRef) ([]tranter.Machine, error) {
	c.mu.Lock()
	if c.deaf {
		defer c.mu.Unlock()
		return nil, errors.New("the list is not to be had")
	}
	var names []string
	for name, v := range c.machines {
		if v.mark == mark {
			names = append(names, name)
		}
	}
	c.mu.Unlock()
	var out []tranter.Machine
	for _, name := range names {
		out = append(out, c.describe(name))
	}
	return out, nil
}

func (c *cloud) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.machines))
}

// with changes the cloud.
func (c *cloud) with(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// host is a machine that is reached.
type host struct {
	cloud   *cloud
	name    string
	address string
}

func (h *host) Check(context.Context) error { return h.cloud.answers(h.name, h.address) }
func (h *host) Close() error                { return nil }

func (c *cloud) answers(name, address string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.machines[name]; v == nil || !v.alive || v.power != tranter.PowerOn || v.host != address {
		return fmt.Errorf("%s does not answer", name)
	}
	return nil
}

// work is a machine's executor: each session runs until it is told to end.
type work struct {
	h    *host
	fail *error
}

type workSession struct {
	h    *host
	name string
}

func (w work) Open(ctx context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	if err := w.h.Check(ctx); err != nil {
		return nil, err
	}
	var fault error
	w.h.cloud.with(func() { fault = *w.fail })
	if fault != nil {
		return nil, fault
	}
	return &workSession{h: w.h, name: spec.Name}, nil
}

func (w work) Reopen(ctx context.Context, ref json.RawMessage) (tranter.Session, error) {
	var name string
	if err := json.Unmarshal(ref, &name); err != nil {
		return nil, err
	}
	return &workSession{h: w.h, name: name}, w.h.Check(ctx)
}

func (s *workSession) Start(ctx context.Context, _ tranter.Phase) error { return s.h.Check(ctx) }

// Attach runs a phase, whose id is how long it takes, while the machine answers.
func (s *workSession) Attach(ctx context.Context, phase string, _ int64, _ io.Writer) (tranter.PhaseResult, error) {
	d, err := time.ParseDuration(phase)
	if err != nil {
		return tranter.PhaseResult{}, err
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		if !sleep(ctx, min(time.Second, time.Until(end))) {
			return tranter.PhaseResult{}, context.Cause(ctx)
		}
		if err := s.h.Check(ctx); err != nil {
			return tranter.PhaseResult{}, err
		}
	}
	return tranter.PhaseResult{Status: tranter.PhaseSucceeded}, nil
}

func (s *workSession) Cancel(context.Context, string, bool, time.Duration) error { return nil }
func (s *workSession) Close(context.Context) error                               { return nil }
func (s *workSession) Ref() json.RawMessage                                      { return json.RawMessage(strconv.Quote(s.name)) }

// memory is a Book that outlives pools.
type memory struct {
	mu       sync.Mutex
	machines map[string]fleet.Machine
	events   []fleet.Event
	fail     error
}

func newMemory() *memory { return &memory{machines: map[string]fleet.Machine{}} }

func (b *memory) Load(context.Context, string) ([]fleet.Machine, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.machines)), nil
}

func (b *memory) Append(_ context.Context, _ string, events []fleet.Event, changed []fleet.Machine, gone []string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return b.fail
	}
	b.events = append(b.events, events...)
	for _, m := range changed {
		data, err := json.Marshal(m)
		if err != nil {
			return err
		}
		var kept fleet.Machine
		if err := json.Unmarshal(data, &kept); err != nil {
			return err
		}
		b.machines[m.Name] = kept
	}
	for _, name := range gone {
		delete(b.machines, name)
	}
	return nil
}

func (b *memory) kinds(k fleet.Kind) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, e := range b.events {
		if e.Kind == k {
			n++
		}
	}
	return n
}

// site is a pool with all around it.
type site struct {
	t        *testing.T
	cloud    *cloud
	book     *memory
	store    pool.Book // that the pool gets; nil: book
	settings pool.Settings
	broken   error // of preparations on machines
	pool     *pool.Pool
	executor *pool.Executor
	end      context.CancelFunc
	ended    chan error
	named    int
	boots    time.Duration
}

var mark = tranter.Mark{Owner: "owner", Pool: "pool"}

func newSite(t *testing.T, takes time.Duration, policy scale.Policy) *site {
	s := &site{t: t, cloud: newCloud(takes), book: newMemory(), boots: time.Second}
	policy.Capacity = max(1, policy.Capacity)
	if len(policy.Sets) == 0 {
		policy.Sets = []scale.Set{{}}
	}
	if policy.Times.Create == 0 {
		policy.Times = scale.Times{Create: 20 * time.Minute, Boot: 10 * time.Minute}
	}
	s.settings = pool.Settings{
		Runner: "test", ProviderName: "cloud", Provider: s.cloud, Policy: policy,
		NewName: func() string { s.named++; return fmt.Sprintf("m-%d", s.named) },
		Hands: pool.Hands{
			Prepare: func(ctx context.Context, m tranter.Machine, kept json.RawMessage, report func(tranter.Timing)) (pool.Host, json.RawMessage, error) {
				if len(kept) == 0 {
					if !sleep(ctx, s.boots) {
						return nil, nil, context.Cause(ctx)
					}
					report(tranter.Timing{Step: "login", Took: s.boots})
				}
				if err := s.cloud.answers(m.Name, m.Login.Host); err != nil {
					return nil, nil, err
				}
				return &host{s.cloud, m.Name, m.Login.Host}, json.RawMessage(`"kept"`), nil
			},
			Executor: func(_ tranter.Machine, h pool.Host) (tranter.Executor, error) { return work{h.(*host), &s.broken}, nil },
		},
	}
	return s
}

func (s *site) start() {
	log := slogDiscard()
	if os.Getenv("POOL_LOG") != "" {
		log = slogText()
	}
	ctx, end := context.WithCancel(context.Background())
	book := s.store
	if book == nil {
		book = s.book
	}
	s.pool = pool.New(pool.Options{Name: "pool", Mark: mark, Book: book, Log: log}, s.settings)
	s.executor, s.end, s.ended = s.pool.Executor(), end, make(chan error, 1)
	go func() { s.ended <- s.pool.Run(ctx) }()
}

func (s *site) stop() {
	s.t.Helper()
	s.end()
	if err := <-s.ended; err != nil {
		s.t.Errorf("the pool ended with %v", err)
	}
}

// open gets a job a session.
func (s *site) open(job string, out io.Writer) (tranter.Session, error) {
	return s.executor.Open(s.t.Context(), tranter.SessionSpec{Name: job, Job: &tranter.Job{}, Log: out})
}

// run takes a job through, and returns what it ended with.
func (s *site) run(job string, d time.Duration, out io.Writer) error {
	session, err := s.open(job, out)
	if err != nil {
		return err
	}
	if err := session.Start(s.t.Context(), tranter.Phase{ID: d.String()}); err != nil {
		return errors.Join(err, session.Close(s.t.Context()))
	}
	_, err = session.Attach(s.t.Context(), d.String(), 0, io.Discard)
	return errors.Join(err, session.Close(s.t.Context()))
}

func (s *site) status() pool.Status {
	s.t.Helper()
	st, err := s.pool.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

func slogDiscard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func slogText() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }
