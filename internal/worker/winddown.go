package worker

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
)

// How the worker ends what runs: kindly, so that after_script runs, then by force, and with time for the manager to take the
// results. Batch systems kill what is left 30 s after their signal.
const (
	kindGrace = 8 * time.Second  // for a script to end
	kindTime  = 18 * time.Second // for all of a job
	forceTime = 3 * time.Second
	takeTime  = 5 * time.Second // for the manager to close the sessions
)

// farewell is how a worker ends.
type farewell struct{ *worker }

// running is a phase that may run.
type running struct {
	job     *job
	session tranter.Session
	phase   string
}

func (w farewell) running() (all []running) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.jobs {
		if j.stop != nil {
			j.stop(w.ending)
		}
		for _, p := range j.phases {
			all = append(all, running{j, j.session, p})
		}
	}
	return all
}

// windDown ends what runs, in an orderly way.
func (w farewell) windDown(ctx context.Context) {
	why := w.endingWhy().Error()
	if err := w.show(); err != nil { // no places any more
		w.log.Warn("The manager can't be shown that the worker ends", "error", err)
	}
	w.log.Info("The worker ends", "reason", why)
	phases := w.running()
	each := func(f func(running)) {
		var all sync.WaitGroup
		for _, r := range phases {
			all.Go(func() { f(r) })
		}
		all.Wait()
	}
	kind, stopKind := context.WithTimeout(ctx, kindTime)
	each(func(r running) { r.interrupt(kind, "the batch job that the job ran in has ended: "+why) })
	stopKind()
	force, stopForce := context.WithTimeout(ctx, forceTime)
	each(func(r running) { r.abort(force) })
	stopForce()
	w.awaitTaken(ctx, len(phases) > 0)
	if w.out.bulk() {
		w.closeAll(ctx)
	}
}

// interrupt ends a phase kindly and waits until it has ended, or ctx does.
func (r running) interrupt(ctx context.Context, why string) {
	if r.session == nil || agent.Ended(r.dir()) {
		return
	}
	err := agent.Interrupt(r.dir(), kindGrace, why)
	if errors.Is(err, fs.ErrNotExist) || err != nil && !r.here() { // an executor that keeps its phases elsewhere
		err = r.session.Cancel(ctx, r.phase, false, kindGrace)
	}
	if err == nil {
		_, _ = r.session.Attach(ctx, r.phase, noJournal, discard{})
	}
}

func (r running) dir() string { return phaseDir(r.job.dir, r.phase) }

func (r running) here() bool {
	_, err := os.Lstat(filepath.Join(r.dir(), "phase.json"))
	return err == nil
}

// abort ends a phase by force, if it has not ended.
func (r running) abort(ctx context.Context) {
	if r.session == nil || agent.Ended(r.dir()) {
		return
	}
	if err := r.session.Cancel(ctx, r.phase, true, time.Second); err == nil {
		_, _ = r.session.Attach(ctx, r.phase, noJournal, discard{})
	}
	if !agent.Ended(r.dir()) && r.here() {
		_ = agent.End(r.dir())
	}
}

// awaitTaken gives the manager time to take results and to close its sessions. In the shared directory they can be taken
// later too.
func (w farewell) awaitTaken(ctx context.Context, ran bool) {
	limit := time.NewTimer(takeTime)
	defer limit.Stop()
	for w.occupied() > 0 && ran {
		select {
		case <-w.wake:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// closeAll closes what sessions are left, whose files only this node has.
func (w farewell) closeAll(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, forceTime)
	defer stop()
	w.mu.Lock()
	var all []request
	for _, j := range w.jobs {
		all = append(all, request{Job: j.key, Attempt: j.attempt})
	}
	w.mu.Unlock()
	for _, r := range all {
		if err := w.close(ctx, r); err != nil {
			w.log.Warn("A job could not be removed", "job", r.Job, "error", err)
		}
	}
}
