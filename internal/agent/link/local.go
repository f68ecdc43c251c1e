package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
)

// phases carries out phases: in this process, or in a worker. Its methods are those of a tranter.Session.
type phases interface {
	Start(ctx context.Context, p tranter.Phase) error
	Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (tranter.PhaseResult, error)
	Cancel(ctx context.Context, phaseID string, abort bool, grace time.Duration) error
	Note(ctx context.Context, line string) error
	stop(ctx context.Context) error
}

// local carries out phases in this process, one at a time.
type local struct {
	root  string
	work  agent.Work
	ctx   context.Context //nolint:containedctx // phases outlive the request that starts them
	end   context.CancelFunc
	owned sync.WaitGroup

	mu      sync.Mutex
	known   map[string]*activity
	current *activity
}

// activity is the work on one phase.
type activity struct {
	id    string
	begun chan struct{} // closed when the agent is at work
	done  chan struct{} // closed when it has ended
	err   error         // readable once done is closed
	note  func(string)  // nil: not begun, or ended
}

func newLocal(ctx context.Context, root string, w agent.Work) *local {
	l := &local{root: root, work: w, known: map[string]*activity{}}
	l.ctx, l.end = context.WithCancel(context.WithoutCancel(ctx))
	return l
}

// Start returns when the agent is at work.
func (l *local) Start(ctx context.Context, p tranter.Phase) error {
	dir, err := phaseDir(l.root, p.ID)
	if err != nil {
		return err
	}
	a, err := l.activity(dir, p)
	if err != nil {
		return err
	}
	select {
	case <-a.begun:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.done:
	}
	select {
	case <-a.begun:
		return nil
	default:
		return a.err
	}
}

// activity returns the work on a phase, which it begins.
func (l *local) activity(dir string, p tranter.Phase) (*activity, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.known[p.ID]; a != nil {
		return a, nil
	}
	if l.current != nil {
		return nil, fmt.Errorf("phase %s can't begin before phase %s has ended", p.ID, l.current.id)
	}
	if l.ctx.Err() != nil {
		return nil, errors.New("the agent is about to end")
	}
	a := &activity{id: p.ID, begun: make(chan struct{}), done: make(chan struct{})}
	l.known[p.ID], l.current = a, a
	l.owned.Go(func() {
		err := l.run(a, dir, p)
		l.mu.Lock()
		defer l.mu.Unlock()
		a.err, a.note, l.current = err, nil, nil
		close(a.done)
	})
	return a, nil
}

// run carries out a phase.
func (l *local) run(a *activity, dir string, p tranter.Phase) error {
	if err := ownDirectory(dir); err != nil {
		return err
	}
	begun, err := agent.Put(dir, p)
	if err != nil {
		return err
	}
	if begun {
		close(a.begun)
		return nil
	}
	w := l.work
	begin := sync.OnceFunc(func() { close(a.begun) })
	w.Begun = func(note func(string)) {
		if p.Container != nil {
			for line := range strings.Lines(p.Container.Said) {
				note(strings.TrimRight(line, "\r\n"))
			}
		}
		l.mu.Lock()
		a.note = note
		l.mu.Unlock()
		begin()
	}
	if err = agent.Run(l.ctx, dir, w); err != nil {
		return errors.Join(err, agent.SaveLastWords(dir, err.Error()))
	}
	begin() // it had ended before
	return nil
}

// ownDirectory makes a directory that is this process's own, and no link to another.
func ownDirectory(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		return os.Chmod(dir, 0o700) //nolint:gosec // a directory
	}
	if !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the phase's directory: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("make the phase's directory: %w", err)
	}
	if !info.IsDir() || !isOurs(info) {
		return fmt.Errorf("somebody else has made %s", dir)
	}
	return os.Chmod(dir, 0o700) //nolint:gosec // a directory
}

// Attach copies the journal of a phase.
func (l *local) Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	dir, err := phaseDir(l.root, phaseID)
	if err != nil {
		return tranter.PhaseResult{}, err
	}
	l.mu.Lock()
	a := l.known[phaseID]
	l.mu.Unlock()
	var ended chan struct{}
	if a != nil {
		ended = a.done
		select {
		case <-a.begun:
		case <-a.done:
		case <-ctx.Done():
			return tranter.PhaseResult{}, context.Cause(ctx)
		}
	}
	result, err := agent.AttachWoken(ctx, dir, offset, w, ended)
	if err != nil || ended == nil {
		return result, err
	}
	select { // the next phase can begin when its follower knows how this one has ended
	case <-ended:
		return result, nil
	case <-ctx.Done():
		return result, context.Cause(ctx)
	}
}

// Cancel ends a phase.
func (l *local) Cancel(_ context.Context, phaseID string, abort bool, grace time.Duration) error {
	dir, err := phaseDir(l.root, phaseID)
	if err != nil {
		return err
	}
	if err := agent.Cancel(dir, abort, grace); err != nil {
		return err
	}
	agent.Wake()
	return nil
}

// Note writes into the journal of the phase that runs.
func (l *local) Note(_ context.Context, line string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == nil || l.current.note == nil {
		return errors.New("no phase runs whose journal could take a line")
	}
	l.current.note(line)
	return nil
}

// reap takes the exit states of processes that have come to this one, while no phase does.
func (l *local) reap() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == nil {
		agent.Reap()
	}
}

// stop ends the phases in an orderly way.
func (l *local) stop(context.Context) error {
	l.mu.Lock()
	l.end()
	l.mu.Unlock()
	l.owned.Wait()
	return nil
}
