package providertest

import (
	"context"
	"errors"
	"testing"
	"time"

	tranter "github.com/tranter-ci/tranter"
)

func (c conformance) fixed(t *testing.T) {
	p := c.New(t)
	for _, name := range c.Fixed {
		m := c.must(t, p, c.spec(name))
		reachable(t, "Create", m.Machine)
		ref := m.ref(name)
		reachable(t, "the list", c.list(t, p, c.mark, ref)[name])
		c.destroy(t, p, ref)
		c.destroy(t, p, ref)
		if !c.Alive(t, name) {
			t.Errorf("%s is not there any more", name)
		}
		if again := c.must(t, p, c.spec(name)); again.Login != m.Login {
			t.Errorf("%s: the login was %+v and is %+v", name, m.Login, again.Login)
		}
	}
}

func (c conformance) unknown(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	name := c.name()
	m := c.create(ctx, t, c.New(t), c.spec(name), nil)
	if !errors.Is(m.err, tranter.ErrRejected) && !errors.Is(m.err, tranter.ErrNoCapacity) {
		t.Errorf("the error is %v", m.err)
	}
}

func (c conformance) power(t *testing.T) {
	p := c.New(t)
	starter, ok := p.(tranter.Starter)
	if ok != c.Starts {
		t.Fatalf("it is a Starter: %v, want %v", ok, c.Starts)
	}
	if !ok {
		return // that was all there is to say
	}
	name := c.name()
	ref := c.must(t, p, c.spec(name)).ref(name)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	stop(ctx, t, starter, ref)
	if m := c.list(t, p, c.mark, ref)[name]; m.Power != tranter.PowerOff {
		t.Errorf("stopped, it is %q in the list", m.Power)
	}
	for range 2 {
		m, err := starter.Start(ctx, ref)
		if err != nil {
			t.Fatalf("start: %v", err)
		}
		reachable(t, "Start", m)
		if m.Name != name || len(m.Ref) == 0 {
			t.Errorf("Start returns %+v", m)
		}
	}
	if _, err := starter.Start(ctx, tranter.MachineRef{Name: c.name()}); err == nil {
		t.Error("a machine that is not there was started")
	}
	stop(ctx, t, starter, ref)
	c.destroy(t, p, ref)
	if c.Alive(t, name) {
		t.Error("a machine that is off is there after it was destroyed")
	}
}

// stop stops a machine twice: the second time it is off already.
func stop(ctx context.Context, t *testing.T, p tranter.Starter, ref tranter.MachineRef) {
	t.Helper()
	for range 2 {
		if err := p.Stop(ctx, ref); err != nil {
			t.Fatalf("stop: %v", err)
		}
	}
}

func (c conformance) ended(t *testing.T) {
	p, name := c.New(t), c.name()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	m := c.create(ctx, t, p, c.spec(name), nil)
	if m.err == nil {
		t.Error("a machine was made though the context had ended")
	}
	if _, err := p.List(ctx, c.mark, []tranter.MachineRef{{Name: name}}); err == nil && len(c.Fixed) == 0 {
		t.Error("machines were listed though the context had ended")
	}
	_ = p.Destroy(ctx, m.ref(name)) // success is right where nothing has to be asked
	if took := time.Since(start); took > soon {
		t.Errorf("three calls took %v after the context had ended", took)
	}
}
