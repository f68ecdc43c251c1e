package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/coordinator"
)

// errEndNow means that a second signal came.
var errEndNow = errors.New("ended at once")

// redraw is how often a running pipeline is drawn anew on a terminal.
const redraw = 100 * time.Millisecond

// watch shows a pipeline while it runs, and heeds signals.
type watch struct {
	*session
	show     progress
	live     bool
	follow   *follower
	canceled bool
}

func newWatch(r *session) *watch {
	w := &watch{session: r, show: newProgress(r.out), live: isTerminal(r.out)}
	if !w.live && r.options.brief {
		w.show = &plainProgress{w: r.out, seen: map[int64]string{}, ends: true}
	}
	if len(r.options.follow) > 0 {
		// A log that grows and lines that are drawn over do not go together.
		out := &lockedWriter{w: r.out}
		w.live = false
		w.show = &plainProgress{w: out, seen: map[int64]string{}}
		w.follow = &follower{local: r.local, wanted: r.compiled.named(r.options.follow), out: out, color: isTerminal(r.out), seen: map[int64]bool{}}
	}
	return w
}

// run returns the pipeline as it stands when nothing more happens by itself. The error is errEndNow after a second
// signal.
func (w *watch) run(ctx context.Context, signals <-chan os.Signal) (coordinator.View, error) {
	events, unsubscribe := w.Subscribe(w.id)
	defer unsubscribe()
	defer w.follow.wait()
	var tick <-chan time.Time
	if w.live {
		ticker := time.NewTicker(redraw)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		view, err := w.Pipeline(w.id)
		if err != nil {
			return view, err
		}
		w.follow.update(ctx, view.Jobs)
		if settled(view) {
			w.follow.wait()
			w.show.finish(rows(view), time.Now())
			return view, nil
		}
		if err := w.hasten(view); err != nil {
			return view, err
		}
		w.show.update(rows(view), time.Now())
		select {
		case <-events:
			drain(events)
		case <-tick:
		case <-ctx.Done():
			return view, context.Cause(ctx)
		case <-signals:
			if err := w.interrupt(); err != nil {
				return view, err
			}
		}
	}
}

// interrupt cancels the pipeline; the second time it is errEndNow.
func (w *watch) interrupt() error {
	if w.canceled {
		return errEndNow
	}
	w.canceled = true
	if err := w.Cancel(w.id, false); err != nil {
		return err
	}
	const notice = "Canceling the pipeline; once more ends at once."
	if live, ok := w.show.(*liveProgress); ok {
		live.footer = notice
	} else {
		fmt.Fprintln(w.out, notice)
	}
	return nil
}

// hasten starts delayed jobs: who runs a pipeline here does not want to wait for the clock.
func (w *watch) hasten(v coordinator.View) error {
	for _, j := range v.Jobs {
		if j.Status != coordinator.Scheduled || j.Retried {
			continue
		}
		if err := w.PlayJob(j.ID); err != nil && !errors.Is(err, coordinator.ErrNotPossible) {
			return err
		}
	}
	return nil
}

// followed says whether the log of the job has been shown.
func (w *watch) followed() func(id int64) bool {
	return func(id int64) bool { return w.follow != nil && w.follow.seen[id] }
}

// drain takes what has happened meanwhile: the present state has it all.
func drain(events <-chan coordinator.Event) {
	for {
		select {
		case _, open := <-events:
			if !open {
				return
			}
		default:
			return
		}
	}
}

// settled says whether no job runs, or waits to be run by itself.
func settled(v coordinator.View) bool {
	return !slices.ContainsFunc(v.Jobs, func(j coordinator.JobView) bool {
		switch j.Status {
		case coordinator.Pending, coordinator.Running, coordinator.Canceling, coordinator.WaitingForResource, coordinator.Scheduled:
			return !j.Retried
		default:
			return false
		}
	})
}

// rows are the latest attempts as the progress shows them.
func rows(v coordinator.View) []jobView {
	var out []jobView
	for _, j := range v.Jobs {
		if j.Retried {
			continue
		}
		row := jobView{
			ID: j.ID, Name: j.Name, Stage: j.Stage, State: string(j.Status), Reason: string(j.Reason), ExitCode: j.ExitCode,
			AllowFailure: j.AllowFailure, Started: j.Times.Started, Finished: j.Times.Finished, Attempt: j.Attempt + 1,
		}
		if j.Problem != "" {
			row.Reason = j.Problem
		}
		out = append(out, row)
	}
	return out
}

// follower shows the logs of jobs as they grow. A nil one shows nothing.
type follower struct {
	*local
	wanted map[string]bool // names of jobs
	out    io.Writer
	color  bool
	seen   map[int64]bool
	copies sync.WaitGroup
}

// update begins with jobs that have been started since the last time.
func (f *follower) update(ctx context.Context, jobs []coordinator.JobView) {
	if f == nil {
		return
	}
	for _, j := range jobs {
		if f.seen[j.ID] || j.Times.Started.IsZero() || !f.wanted[j.Name] {
			continue
		}
		f.seen[j.ID] = true
		prefix := "    │ "
		if len(f.wanted) > 1 {
			prefix = "    " + j.Name + " │ "
		}
		reader := &logReader{color: f.color, emit: func(l logLine) { fmt.Fprintf(f.out, "%s%s\n", prefix, l.text) }}
		f.copies.Go(func() {
			err := f.Follow(ctx, j.ID, reader)
			reader.end()
			if err != nil {
				fmt.Fprintf(f.out, "%sthe log can't be shown: %v\n", prefix, err)
			}
		})
	}
}

func (f *follower) wait() {
	if f != nil {
		f.copies.Wait()
	}
}
