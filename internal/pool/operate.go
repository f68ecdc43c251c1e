package pool

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
)

// operations are what the loop begins at providers and on machines.
type operations struct{ *loop }

// Limits of operations that the book has no deadline for.
const (
	removeLimit = 10 * time.Minute
	stopLimit   = 5 * time.Minute
	warmLimit   = 5 * time.Minute
)

// state returns the state of a machine, or "" if it is not in the book.
func (l *loop) state(name string) fleet.State {
	if m := l.book.Machines[name]; m != nil {
		return m.State
	}
	return ""
}

// see takes over what the provider says of a machine. A provider that says less than before, as some do in lists, does not
// make us forget how the machine is found and reached.
func (l operations) see(name string, seen tranter.Machine, reason string) {
	m := l.book.Machines[name]
	if m == nil {
		return
	}
	seen.Name = name
	if len(seen.Ref) == 0 {
		seen.Ref = m.Seen.Ref
	}
	if seen.Login.Host == "" {
		seen.Login = m.Seen.Login
	}
	seen.ID = cmp.Or(seen.ID, m.Seen.ID)
	l.record(fleet.Event{Kind: fleet.MachineSeen, Machine: name, Seen: &seen, Reason: reason})
}

func (l *loop) ref(name string) tranter.MachineRef {
	if m := l.book.Machines[name]; m != nil {
		return tranter.MachineRef{Name: name, Ref: m.Seen.Ref}
	}
	return tranter.MachineRef{Name: name}
}

// before is a limit just below one of the policy's: what an operation was waiting for is said when it has run out of time, not
// only that it has.
func before(limit time.Duration) time.Duration { return limit - min(limit/10, 5*time.Second) }

// createMachine asks the provider for a machine, then has it made ready.
func (l operations) createMachine(name, set string) {
	s, p := l.settings, l.pool
	spec := tranter.MachineSpec{Name: name, Mark: p.options.Mark}
	if s.Options != nil {
		spec.Options = s.Options(set, name)
	}
	var m tranter.Machine
	var err error
	var noted json.RawMessage
	l.begin(task{
		name: name, limit: before(s.Policy.Times.Create), turns: l.turns.making,
		work: func(ctx context.Context) func() {
			start := time.Now()
			m, err = s.Provider.Create(ctx, spec, func(ref json.RawMessage) {
				noted = ref
				p.note(ctx, name, ref)
			})
			took := time.Since(start)
			return func() { l.created(name, m, took, err) }
		},
		fail: func(err error) { l.created(name, tranter.Machine{}, 0, err) },
		late: func() {
			if err != nil {
				m = tranter.Machine{Ref: noted}
			}
			p.post(func(l *loop) { operations{l}.strayed(name, m) })
		},
	})
}

// note keeps what the provider needs to remove a machine that it is still making; it returns once that is durable, or can't be.
func (p *Pool) note(ctx context.Context, name string, ref []byte) {
	_ = p.do(context.WithoutCancel(ctx), func(l *loop) {
		if l.book.Machines[name] == nil {
			return
		}
		l.record(fleet.Event{Kind: fleet.MachineNoted, Machine: name, Seen: &tranter.Machine{Name: name, Ref: ref}})
		l.commit(time.Now())
	})
}

func (l operations) created(name string, m tranter.Machine, took time.Duration, err error) {
	state := l.state(name)
	if err != nil {
		l.createFailed(name, state, err)
		return
	}
	m.Name = name
	switch state {
	case fleet.Wanted:
		l.record(fleet.Event{
			Kind: fleet.MachineCreated, Machine: name, Seen: &m, Deadline: time.Now().Add(l.settings.Policy.Times.Boot), Reason: "created in " + round(took),
		})
		l.then(func() { l.bootMachine(name, []tranter.Timing{{Step: "create", Took: took}}) })
	case "":
		l.strayed(name, m)
	default: // it is to be removed by now, for which what the provider says is needed
		l.see(name, m, "")
	}
}

// strayed removes what a creation may have made after the book had done with it.
func (l operations) strayed(name string, m tranter.Machine) {
	const why = "it was made after its creation had been given up"
	m.Name = name
	switch o := l.ops[name]; {
	case l.ending || m.ID == "" && len(m.Ref) == 0: // nothing is known; lists may show it
	case o != nil && o.removes: // perhaps in vain: it knows less
		o.then = func() { l.strayed(name, m) }
	case l.state(name) == fleet.Removing:
		l.see(name, m, why)
	case l.state(name) == "":
		if l.record(fleet.Event{Kind: fleet.MachineAdopted, Machine: name, Seen: &m, Reason: why, Deadline: time.Now().Add(l.settings.Policy.Times.Boot)}) {
			l.remove(l.book.Machines[name], why)
		}
	}
}

func (l operations) createFailed(name string, state fleet.State, err error) {
	if state != fleet.Wanted {
		return // it is on its way out for another reason, such as its deadline
	}
	if l.ending {
		err = errors.New("the manager ended while it was created")
	}
	e := fleet.Event{Kind: fleet.MachineFailed, Machine: name, Reason: brief(err), Class: classOf(err)}
	if throttled, ok := errors.AsType[*tranter.ThrottledError](err); ok {
		l.throttle(throttled)
	}
	l.record(e)
}

// throttle keeps from creating anything until the provider wants to be asked again.
func (l operations) throttle(t *tranter.ThrottledError) {
	wait := t.RetryAfter
	if wait <= 0 {
		wait = defaultThrottle
	}
	until := time.Now().Add(wait)
	if until.After(l.book.Throttle) {
		l.record(fleet.Event{Kind: fleet.Throttled, Retry: until, Reason: brief(t)})
	}
}

// defaultThrottle is the wait when a provider does not say how long.
const defaultThrottle = 30 * time.Second

func classOf(err error) fleet.Class {
	var config *tranter.ConfigError
	switch {
	case errors.Is(err, tranter.ErrNoCapacity):
		return fleet.NoCapacity
	case errors.Is(err, tranter.ErrRejected), errors.As(err, &config):
		return fleet.Rejected
	}
	return fleet.Passing
}

// bootMachine makes a machine ready that its provider has made.
func (l operations) bootMachine(name string, steps []tranter.Timing) {
	m := l.book.Machines[name]
	if m == nil || m.State != fleet.Booting {
		return
	}
	s, seen := l.settings, m.Seen
	r := &ready{}
	l.begin(task{
		name: name, limit: before(s.Policy.Times.Boot), turns: l.turns.making,
		work: func(ctx context.Context) func() {
			r.host, r.kept, r.err = s.Hands.Prepare(ctx, seen, nil, func(t tranter.Timing) { steps = append(steps, t) })
			r.arm(s.Hands, seen)
			return func() { l.booted(name, r, steps) }
		},
		fail: func(err error) { l.booted(name, &ready{err: err}, nil) },
		late: func() {
			if r.err == nil {
				r.close()
			}
		},
	})
}

// ready is what comes of making a machine ready.
type ready struct {
	host     Host
	kept     []byte
	executor tranter.Executor
	err      error
}

// arm makes the executor of a machine that could be prepared.
func (r *ready) arm(h Hands, m tranter.Machine) {
	if r.err != nil {
		return
	}
	if r.executor, r.err = h.Executor(m, r.host); r.err != nil {
		r.close()
	}
}

func (r *ready) close() {
	if c, ok := r.executor.(io.Closer); ok {
		_ = c.Close()
	}
	if r.host != nil {
		_ = r.host.Close()
	}
}

func (l operations) booted(name string, r *ready, steps []tranter.Timing) {
	if state := l.state(name); state != fleet.Booting || l.ending {
		if r.err == nil {
			l.owned.Go(r.close)
		}
		return // after a restart it is made ready again
	}
	if r.err != nil {
		class := fleet.Unready
		if classOf(r.err) == fleet.Rejected {
			class = fleet.Rejected
		}
		l.record(fleet.Event{Kind: fleet.MachineFailed, Machine: name, Class: class, Reason: "it could not be made ready: " + brief(r.err), Boot: steps})
		return
	}
	if !l.record(fleet.Event{Kind: fleet.MachineReady, Machine: name, Kept: r.kept, Boot: steps, Reason: stepsText(steps)}) {
		l.owned.Go(r.close)
		return
	}
	tending(l).tend(name, r)
}

// stopMachine switches a machine off.
func (l operations) stopMachine(name string) {
	s, ref := l.settings, l.ref(name)
	starter, ok := s.Provider.(tranter.Starter)
	if !ok {
		return
	}
	ended := func(err error) {
		if m := l.book.Machines[name]; err != nil && m != nil && m.State == fleet.Stopped && !l.ending {
			l.remove(m, "it could not be switched off: "+brief(err))
		}
	}
	l.begin(task{
		name: name, limit: stopLimit, turns: l.turns.ridding, fail: ended,
		work: func(ctx context.Context) func() {
			err := starter.Stop(ctx, ref)
			return func() { ended(err) }
		},
	})
}

// startMachine switches a machine on again.
func (l operations) startMachine(name string) {
	s, ref := l.settings, l.ref(name)
	starter, ok := s.Provider.(tranter.Starter)
	if !ok {
		return
	}
	l.begin(task{
		name: name, limit: before(s.Policy.Times.Boot), turns: l.turns.making,
		work: func(ctx context.Context) func() {
			start := time.Now()
			m, err := starter.Start(ctx, ref)
			took := time.Since(start)
			return func() { l.started(name, m, took, err) }
		},
		fail: func(err error) { l.started(name, tranter.Machine{}, 0, err) },
	})
}

func (l operations) started(name string, m tranter.Machine, took time.Duration, err error) {
	if l.state(name) != fleet.Booting || l.ending {
		return
	}
	if err != nil {
		l.record(fleet.Event{Kind: fleet.MachineFailed, Machine: name, Class: classOf(err), Reason: "it could not be switched on: " + brief(err)})
		return
	}
	l.see(name, m, "")
	l.then(func() { l.bootMachine(name, []tranter.Timing{{Step: "start", Took: took}}) })
}

// removeMachine has the provider remove a machine.
func (l operations) removeMachine(name string) {
	s, p := l.settings, l.pool
	l.begin(task{
		name: name, removes: true, limit: removeLimit, turns: l.turns.ridding,
		work: func(ctx context.Context) func() {
			err := s.Provider.Destroy(ctx, p.refOf(ctx, name))
			return func() { l.removed(name, err) }
		},
		fail: func(err error) { l.removed(name, err) },
	})
}

// refOf asks the loop for what is known now: an operation that was given up may have brought more.
func (p *Pool) refOf(ctx context.Context, name string) tranter.MachineRef {
	ref := tranter.MachineRef{Name: name}
	_ = p.do(ctx, func(l *loop) { ref = l.ref(name) })
	return ref
}

func (l operations) removed(name string, err error) {
	m := l.book.Machines[name]
	if m == nil {
		return
	}
	var orphan *tranter.OrphanError
	switch {
	case err == nil:
		l.record(fleet.Event{Kind: fleet.MachineGone, Machine: name, Reason: m.Reason})
	case errors.As(err, &orphan):
		l.record(fleet.Event{Kind: fleet.MachineGone, Machine: name, Orphan: true, Reason: brief(err)})
		l.log.Error("A machine may have been left behind", "machine", name, "where", orphan.Hint)
	case l.ending: // the next start goes on
	default:
		e := fleet.Event{Kind: fleet.RemovalFailed, Machine: name, Reason: brief(err)}
		wait := fleet.RemovalRetry(m.Tries + 1)
		if throttled, ok := errors.AsType[*tranter.ThrottledError](err); ok {
			wait, e.Class = max(wait, throttled.RetryAfter), fleet.Deferred
		}
		e.Retry = time.Now().Add(wait)
		l.record(e)
	}
}

// maxReason bounds what is kept of an error.
const maxReason = 500

// brief is an error's text in one line.
func brief(err error) string {
	return oneLine(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "), maxReason) // there may be several in one
}

// oneLine is a text in one line, bounded, and without what a terminal would act upon: some of it may be a machine's or a
// driver's.
func oneLine(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || unicode.IsSpace(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}

// stepsText shows how long each step took.
func stepsText(steps []tranter.Timing) string {
	var b strings.Builder
	for i, t := range steps {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s", t.Step, round(t.Took))
	}
	return b.String()
}

func round(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
