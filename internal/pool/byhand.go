package pool

import (
	"context"
	"fmt"
	"slices"

	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/scale"
)

// byHand is the loop, doing what people ask for.
type byHand struct{ *loop }

// Create makes machines for people, with an option set or, if that is empty, the first. They count like others, and stay
// when they are idle. It returns their names before they are there. ErrFull: the limit leaves no room for so many.
func (p *Pool) Create(ctx context.Context, n int, set string) ([]string, error) {
	var names []string
	var err error
	if e := p.do(ctx, func(l *loop) { names, err = byHand{l}.createByHand(n, set) }); e != nil {
		return nil, e
	}
	return names, err
}

func (l byHand) createByHand(n int, set string) ([]string, error) {
	policy := l.settings.Policy
	if set == "" && len(policy.Sets) > 0 {
		set = policy.Sets[0].Name
	}
	if !slices.ContainsFunc(policy.Sets, func(s scale.Set) bool { return s.Name == set }) {
		return nil, fmt.Errorf("there is no option set %q", set)
	}
	if l.retired {
		return nil, fmt.Errorf("the pool removes its machines: %w", ErrEnded)
	}
	if len(policy.Fixed) > 0 {
		return nil, fmt.Errorf("the machines of this pool are a fixed list: add one to the configuration")
	}
	if policy.Limit > 0 && l.book.Live()+n > policy.Limit {
		return nil, fmt.Errorf("%w: there are %d of %d", ErrFull, l.book.Live(), policy.Limit)
	}
	var names []string
	for range n {
		names = append(names, l.want(scale.Action{Do: scale.Create, Set: set, Reason: "asked for by hand"}, true))
	}
	return names, nil
}

// Remove removes a machine: at once if it is idle or force is given, which loses its jobs, else once its jobs have ended.
func (p *Pool) Remove(ctx context.Context, name string, force bool) error {
	err := ErrUnknown
	if e := p.do(ctx, func(l *loop) {
		m := l.book.Machines[name]
		if m == nil {
			return
		}
		err = nil
		if len(m.Leases) > 0 && !force {
			l.drain(m, "to be removed, asked for by hand", l.drainTime())
			return
		}
		l.remove(m, "asked for by hand")
	}); e != nil {
		return e
	}
	return err
}

// Drain has a machine take no more jobs; it is removed when its jobs have ended.
func (p *Pool) Drain(ctx context.Context, name, reason string) error {
	err := ErrUnknown
	if e := p.do(ctx, func(l *loop) {
		m := l.book.Machines[name]
		if m == nil {
			return
		}
		err = nil
		switch m.State {
		case fleet.Removing: // it takes none
		case fleet.Wanted, fleet.Booting:
			l.remove(m, reason)
		default:
			l.drain(m, reason, l.drainTime())
		}
	}); e != nil {
		return e
	}
	return err
}

// Prune forgets possible orphans, which a person has looked after, and tries at once to remove what could not be removed.
// It returns their names; with dry it does nothing else.
func (p *Pool) Prune(ctx context.Context, dry bool) ([]string, error) {
	var names []string
	err := p.do(ctx, func(l *loop) {
		for _, m := range l.book.Machines {
			switch {
			case m.Orphan:
				names = append(names, m.Name)
				if !dry {
					l.record(fleet.Event{Kind: fleet.MachineGone, Machine: m.Name, Reason: "dismissed by hand"})
				}
			case m.Stuck():
				names = append(names, m.Name)
				if !dry {
					l.remove(m, "tried again by hand")
				}
			}
		}
		slices.Sort(names)
	})
	return names, err
}

// retire takes no more jobs and removes all.
func (l byHand) retire(reason string) {
	l.retired, l.pace.due = true, true
	if len(l.settings.Policy.Fixed) > 0 {
		l.settings.Policy.Sets = nil // they are not made, so none is made for jobs that wait
	}
	l.settings.Policy.Idle, l.settings.Policy.Periods, l.settings.Policy.Stopped, l.settings.Policy.Fixed = scale.Idle{}, nil, 0, nil
	for _, m := range l.book.Machines {
		if m.State == fleet.Removing {
			continue
		}
		if len(m.Leases) > 0 {
			l.drain(m, reason, l.drainTime())
			continue
		}
		l.remove(m, reason)
	}
}
