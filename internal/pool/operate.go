package pool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
)

// operations are what the loop begins at providers and on machines.
type operations struct{ *loop }

// operation is something that is being done with a machine. There is one at a time.
type operation struct {
	cancel context.CancelFunc
	then   func() // begun when it has ended
}

// Limits of operations that the book has no deadline for.
const (
	removeLimit = 10 * time.Minute
	stopLimit   = 5 * time.Minute
	warmLimit   = 5 * time.Minute
)

// begin runs work in a goroutine of its own, once the one before it on the same machine has ended, which is told to. What
// work returns is run by the loop. A limit of 0 is none.
func (l *loop) begin(name string, limit time.Duration, work func(ctx context.Context) (end func())) {
	if before := l.ops[name]; before != nil {
		before.then = func() { l.begin(name, limit, work) }
		before.cancel()
		return
	}
	ctx, cancel := context.WithCancel(l.life)
	if limit > 0 {
		ctx, cancel = context.WithTimeout(l.life, limit)
	}
	o := &operation{cancel: cancel}
	l.ops[name] = o
	l.owned.Go(func() {
		defer cancel()
		end := func() {}
		select {
		case l.turns <- struct{}{}:
			end = work(ctx)
			<-l.turns
		case <-ctx.Done():
		}
		l.pool.post(func(l *loop) {
			delete(l.ops, name)
			end()
			if o.then != nil && !l.ending {
				o.then()
			}
		})
	})
}

// state returns the state of a machine, or "" if it is not in the book.
func (l *loop) state(name string) fleet.State {
	if m := l.book.Machines[name]; m != nil {
		return m.State
	}
	return ""
}

func (l *loop) ref(name string) tranter.MachineRef {
	if m := l.book.Machines[name]; m != nil {
		return tranter.MachineRef{Name: name, Ref: m.Seen.Ref}
	}
	return tranter.MachineRef{Name: name}
}

// createMachine asks the provider for a machine, then has it made ready.
func (l operations) createMachine(name, set string) {
	s, p := l.settings, l.pool
	spec := tranter.MachineSpec{Name: name, Mark: p.options.Mark}
	if s.Options != nil {
		spec.Options = s.Options(set, name)
	}
	l.begin(name, s.Policy.Times.Create, func(ctx context.Context) func() {
		start := time.Now()
		m, err := s.Provider.Create(ctx, spec, func(ref json.RawMessage) { p.note(name, ref) })
		took := time.Since(start)
		return func() { l.created(name, m, took, err) }
	})
}

// note keeps what the provider needs to remove a machine that it is still making; it returns once that is durable, or can't be.
func (p *Pool) note(name string, ref []byte) {
	_ = p.do(context.Background(), func(l *loop) {
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
	default: // it is to be removed by now, for which what the provider says is needed
		l.record(fleet.Event{Kind: fleet.MachineSeen, Machine: name, Seen: &m})
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
	var throttled *tranter.ThrottledError
	if errors.As(err, &throttled) {
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
	l.begin(name, s.Policy.Times.Boot, func(ctx context.Context) func() {
		r := &ready{}
		r.host, r.kept, r.err = s.Hands.Prepare(ctx, seen, nil, func(t tranter.Timing) { steps = append(steps, t) })
		r.arm(s.Hands, seen)
		return func() { l.booted(name, r, steps) }
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
	tending{l.loop}.tend(name, r)
}

// stopMachine switches a machine off.
func (l operations) stopMachine(name string) {
	s, ref := l.settings, l.ref(name)
	starter, ok := s.Provider.(tranter.Starter)
	if !ok {
		return
	}
	l.begin(name, stopLimit, func(ctx context.Context) func() {
		err := starter.Stop(ctx, ref)
		return func() {
			if m := l.book.Machines[name]; err != nil && m != nil && m.State == fleet.Stopped && !l.ending {
				l.remove(m, "it could not be switched off: "+brief(err))
			}
		}
	})
}

// startMachine switches a machine on again.
func (l operations) startMachine(name string) {
	s, ref := l.settings, l.ref(name)
	starter, ok := s.Provider.(tranter.Starter)
	if !ok {
		return
	}
	l.begin(name, s.Policy.Times.Boot, func(ctx context.Context) func() {
		start := time.Now()
		m, err := starter.Start(ctx, ref)
		took := time.Since(start)
		return func() {
			if l.state(name) != fleet.Booting || l.ending {
				return
			}
			if err != nil {
				l.record(fleet.Event{Kind: fleet.MachineFailed, Machine: name, Class: classOf(err), Reason: "it could not be switched on: " + brief(err)})
				return
			}
			m.Name = name
			l.record(fleet.Event{Kind: fleet.MachineSeen, Machine: name, Seen: &m})
			l.then(func() { l.bootMachine(name, []tranter.Timing{{Step: "start", Took: took}}) })
		}
	})
}

// removeMachine has the provider remove a machine.
func (l operations) removeMachine(name string) {
	s, p := l.settings, l.pool
	l.begin(name, removeLimit, func(ctx context.Context) func() {
		err := s.Provider.Destroy(ctx, p.refOf(ctx, name))
		return func() { l.removed(name, err) }
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
		var throttled *tranter.ThrottledError
		if errors.As(err, &throttled) {
			wait, e.Class = max(wait, throttled.RetryAfter), fleet.Deferred
		}
		e.Retry = time.Now().Add(wait)
		l.record(e)
	}
}

// maxReason bounds what is kept of an error.
const maxReason = 500

// brief is an error's text in one line, bounded.
func brief(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "..."
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
