// Package providertest says what every tranter.Provider must do, as tests to run over one. Only tests call it.
package providertest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tranter "github.com/tranter-ci/tranter"
)

// Subject is a provider to test, and what can be expected of it. What it says it can't do is tested to be so.
type Subject struct {
	// New returns a provider that works. Each call returns one that knows nothing of what the others did, as after a restart
	// of the manager, and sees the same machines.
	New func(t testing.TB) tranter.Provider
	// Alive says, without the provider, whether there is a machine of that name.
	Alive func(t testing.TB, name string) bool
	// Options are the options of each machine that is made.
	Options []string
	// Fixed are the names of machines that are always there; the provider makes no others. Empty: it makes machines.
	Fixed []string
	// Notes says that Create notes a reference before it returns.
	Notes bool
	// Marks says that List finds machines by their mark.
	Marks bool
	// Starts says that it is a tranter.Starter.
	Starts bool
	// Unnamed says that a machine of which only the name is known may be out of reach: a *tranter.OrphanError is right then.
	Unnamed bool
	// Fails are options that make a creation fail, and how: tranter.ErrRejected, tranter.ErrNoCapacity, or a *tranter.ThrottledError.
	Fails []Failure
	// Prefix is what names begin with; empty: "conformance-".
	Prefix string
}

// Failure is a creation that must fail.
type Failure struct {
	Options []string
	Is      error // errors.Is must say so; nil: errors.As to a *tranter.ThrottledError
}

const (
	limit  = 2 * time.Minute  // for one call
	soon   = 15 * time.Second // to return when the context has ended
	atOnce = 6
)

// Run tests a provider. The subtests run one after the other; each removes what it makes.
func Run(t *testing.T, s Subject) {
	if s.Prefix == "" {
		s.Prefix = "conformance-"
	}
	c := conformance{s, tranter.Mark{Owner: strings.ToLower(rand.Text()[:16]), Pool: "pool-a"}}
	t.Run("settings are right", c.settings)
	t.Run("what is not there is removed already", c.absent)
	if len(s.Fixed) > 0 {
		t.Run("the machines that are there stay", c.fixed)
		t.Run("a machine that is not there is not made", c.unknown)
	} else {
		t.Run("a machine is made, found and removed", c.life)
		t.Run("a machine of which nothing was noted", c.unnamed)
		t.Run("a creation that is given up leaves nothing", c.givenUp)
		t.Run("many machines at the same time", c.many)
		t.Run("machines of others", c.marks)
		t.Run("creations that fail", c.failures)
	}
	t.Run("stop and start", c.power)
	t.Run("a context that has ended", c.ended)
}

// conformance is what the subtests share.
type conformance struct {
	Subject
	mark tranter.Mark
}

// name returns a name that no other machine has.
func (c conformance) name() string { return c.Prefix + strings.ToLower(rand.Text()[:8]) }

func (c conformance) spec(name string) tranter.MachineSpec {
	return tranter.MachineSpec{Name: name, Mark: c.mark, Options: c.Options}
}

// made is a machine and what was noted of it.
type made struct {
	tranter.Machine
	notes []json.RawMessage
	err   error
}

// ref returns what the caller of Create has kept.
func (m made) ref(name string) tranter.MachineRef {
	ref := tranter.MachineRef{Name: name, Ref: m.Ref}
	if len(ref.Ref) == 0 && len(m.notes) > 0 {
		ref.Ref = m.notes[len(m.notes)-1]
	}
	return ref
}

// create makes a machine, and sees to it that it is removed in the end.
func (c conformance) create(ctx context.Context, t *testing.T, p tranter.Provider, spec tranter.MachineSpec, noted func()) made {
	t.Helper()
	var m made
	late := false
	m.Machine, m.err = p.Create(ctx, spec, func(ref json.RawMessage) {
		if late {
			t.Errorf("%s: note is called after Create has returned", spec.Name)
			return
		}
		m.notes = append(m.notes, slices.Clone(ref))
		if noted != nil {
			noted()
		}
	})
	late = true
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		if err := c.New(t).Destroy(ctx, m.ref(spec.Name)); err != nil {
			t.Errorf("%s: remove: %v", spec.Name, err)
		}
		if len(c.Fixed) == 0 && c.Alive(t, spec.Name) {
			t.Errorf("%s is left", spec.Name)
		}
	})
	return m
}

// must makes a machine, or ends the test.
func (c conformance) must(t *testing.T, p tranter.Provider, spec tranter.MachineSpec) made {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	m := c.create(ctx, t, p, spec, nil)
	if m.err != nil {
		t.Fatalf("%s: create: %v", spec.Name, m.err)
	}
	return m
}

func (c conformance) destroy(t *testing.T, p tranter.Provider, ref tranter.MachineRef) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := p.Destroy(ctx, ref); err != nil {
		t.Errorf("%s: destroy: %v", ref.Name, err)
	}
}

// list returns the machines by their names.
func (c conformance) list(t *testing.T, p tranter.Provider, mark tranter.Mark, known ...tranter.MachineRef) map[string]tranter.Machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	all, err := p.List(ctx, mark, known)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	found := map[string]tranter.Machine{}
	for _, m := range all {
		if _, twice := found[m.Name]; twice {
			t.Errorf("%s is listed twice", m.Name)
		}
		found[m.Name] = m
	}
	return found
}

// reachable fails the test when one could not log in by what is said of a machine.
func reachable(t *testing.T, from string, m tranter.Machine) {
	t.Helper()
	if m.Power != tranter.PowerOn {
		t.Errorf("%s says that %s is %q, want %q", from, m.Name, m.Power, tranter.PowerOn)
	}
	if m.Login.Host == "" {
		t.Errorf("%s does not say where %s is: %+v", from, m.Name, m.Login)
	}
}

func (c conformance) settings(t *testing.T) {
	checker, ok := c.New(t).(tranter.Checker)
	if !ok {
		return // there is nothing that it could be asked
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := checker.Check(ctx); err != nil {
		t.Errorf("check: %v", err)
	}
}

func (c conformance) absent(t *testing.T) {
	p, ref := c.New(t), tranter.MachineRef{Name: c.name()}
	err := p.Destroy(t.Context(), ref)
	if _, orphan := errors.AsType[*tranter.OrphanError](err); err != nil && (!orphan || !c.Unnamed) {
		t.Errorf("destroy: %v", err)
	}
	if found := c.list(t, p, tranter.Mark{Owner: c.mark.Owner, Pool: "nobody"}, ref); found[ref.Name].Name != "" {
		t.Errorf("%s is listed: %+v", ref.Name, found)
	}
}

func (c conformance) life(t *testing.T) {
	p, name := c.New(t), c.name()
	m := c.must(t, p, c.spec(name))
	c.fresh(t, name, m)
	again := c.must(t, p, c.spec(name))
	if again.Name != name || again.ID != m.ID || again.Login != m.Login {
		t.Errorf("the second call returns %+v, want %+v", again.Machine, m.Machine)
	}
	p = c.New(t)
	ref := m.ref(name)
	found := c.list(t, p, tranter.Mark{}, ref, tranter.MachineRef{Name: c.name()})
	if len(found) != 1 {
		t.Errorf("listed: %+v, want one", found)
	}
	reachable(t, "the list", found[name])
	if found[name].Login != m.Login || found[name].ID != m.ID {
		t.Errorf("the list says %+v, want %+v", found[name], m.Machine)
	}
	c.destroy(t, p, ref)
	if c.Alive(t, name) {
		t.Error("it is there after it was destroyed")
	}
	if found := c.list(t, p, c.mark, ref); len(found) > 0 {
		t.Errorf("listed after it was destroyed: %+v", found)
	}
	c.destroy(t, p, ref)
	c.destroy(t, p, tranter.MachineRef{Name: name, Ref: found[name].Ref})
}

// fresh fails the test when a machine is not as a new one should be.
func (c conformance) fresh(t *testing.T, name string, m made) {
	t.Helper()
	if m.Name != name {
		t.Errorf("its name is %q, want %q", m.Name, name)
	}
	if m.Power == tranter.PowerOff || m.Power == "" {
		t.Errorf("a new machine is %q", m.Power)
	}
	if c.Notes != (len(m.notes) > 0) {
		t.Errorf("%d references were noted", len(m.notes))
	}
	if !c.Alive(t, name) {
		t.Fatal("it is not there")
	}
}

// unnamed is a crash before anything was noted.
func (c conformance) unnamed(t *testing.T) {
	name := c.name()
	c.must(t, c.New(t), c.spec(name))
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err := c.New(t).Destroy(ctx, tranter.MachineRef{Name: name})
	_, orphan := errors.AsType[*tranter.OrphanError](err)
	switch {
	case c.Unnamed && orphan:
	case err != nil:
		t.Errorf("destroy by the name alone: %v", err)
	case c.Alive(t, name):
		t.Error("destroy by the name alone says that it has worked, and the machine is there")
	}
}

// givenUp ends the context of creations at several moments. What was noted must be enough to remove all there is.
func (c conformance) givenUp(t *testing.T) {
	after := []time.Duration{-1, 0, time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond} // -1: at the first note
	var all sync.WaitGroup
	for _, delay := range after {
		name, p := c.name(), c.New(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		noted := func() {}
		if delay < 0 {
			noted = cancel
		} else {
			defer time.AfterFunc(delay, cancel).Stop()
		}
		all.Go(func() {
			m := c.create(ctx, t, p, c.spec(name), noted)
			if m.err == nil && delay == 0 {
				t.Logf("%s was made though the context had ended", name)
			}
			err := c.New(t).Destroy(context.WithoutCancel(ctx), m.ref(name))
			if _, orphan := errors.AsType[*tranter.OrphanError](err); err != nil && (!orphan || len(m.notes) > 0) {
				t.Errorf("given up after %v: destroy: %v", delay, err)
			}
			if c.Alive(t, name) {
				t.Errorf("given up after %v with %d notes and the error %v: it is there after it was destroyed", delay, len(m.notes), m.err)
			}
		})
	}
	all.Wait()
}

func (c conformance) many(t *testing.T) {
	p := c.New(t)
	var all sync.WaitGroup
	found := make([]made, atOnce)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for i := range found {
		all.Go(func() { found[i] = c.create(ctx, t, p, c.spec(c.name()), nil) })
	}
	all.Wait()
	ids, hosts, refs := map[string]bool{}, map[string]bool{}, []tranter.MachineRef{}
	for _, m := range found {
		if m.err != nil {
			t.Fatalf("create: %v", m.err)
		}
		ids[m.ID], hosts[m.Login.Host] = true, true
		refs = append(refs, m.ref(m.Name))
	}
	if len(ids) != atOnce || len(hosts) != atOnce {
		t.Errorf("%d machines have %d ids and %d addresses", atOnce, len(ids), len(hosts))
	}
	listed := c.list(t, p, tranter.Mark{}, refs...)
	if len(listed) != atOnce {
		t.Errorf("%d machines are listed, want %d", len(listed), atOnce)
	}
	for _, m := range listed {
		reachable(t, "the list", m)
	}
	for _, ref := range refs {
		all.Go(func() { c.destroy(t, p, ref) })
		all.Go(func() { c.destroy(t, p, ref) }) // two who remove the same
	}
	all.Wait()
	for _, ref := range refs {
		if c.Alive(t, ref.Name) {
			t.Errorf("%s is there after it was destroyed", ref.Name)
		}
	}
}

// marks is about machines that the caller does not know by name.
func (c conformance) marks(t *testing.T) {
	p, ours, theirs := c.New(t), c.name(), c.name()
	spec := c.spec(theirs)
	spec.Mark = tranter.Mark{Owner: "another", Pool: c.mark.Pool}
	other := c.must(t, p, spec)
	c.must(t, p, c.spec(ours))
	p = c.New(t)
	listed := c.list(t, p, c.mark)
	if _, found := listed[ours]; found != c.Marks {
		t.Errorf("listed by its mark: %v, want %v", found, c.Marks)
	}
	if _, found := listed[theirs]; found {
		t.Errorf("%s is listed, whose owner is another", theirs)
	}
	if listed := c.list(t, p, tranter.Mark{Owner: c.mark.Owner, Pool: "pool-b"}); len(listed) > 0 {
		t.Errorf("listed for another pool: %+v", listed)
	}
	if _, found := c.list(t, p, c.mark, other.ref(theirs))[theirs]; !found {
		t.Errorf("%s is not listed though it is known", theirs)
	}
	if m, found := listed[ours]; found {
		c.destroy(t, p, tranter.MachineRef{Name: ours, Ref: m.Ref})
		if c.Alive(t, ours) {
			t.Error("the reference from the list does not remove it")
		}
	}
}

func (c conformance) failures(t *testing.T) {
	p := c.New(t)
	for _, f := range c.Fails {
		name := c.name()
		spec := c.spec(name)
		spec.Options = append(slices.Clone(c.Options), f.Options...)
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		m := c.create(ctx, t, p, spec, nil)
		cancel()
		_, throttled := errors.AsType[*tranter.ThrottledError](m.err)
		if m.err == nil || f.Is != nil && !errors.Is(m.err, f.Is) || f.Is == nil && !throttled {
			t.Errorf("%v: the error is %v, want %v", f.Options, m.err, f.Is)
		}
		c.destroy(t, p, m.ref(name))
	}
}
