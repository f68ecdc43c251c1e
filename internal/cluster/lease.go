package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
)

// queue is the loop, seeing to jobs that wait for a place or have one.
type queue struct{ *loop }

// waiter is a job that was taken and waits for a place.
type waiter struct {
	want    allocation.Want
	granted chan grant  // of size one
	notes   chan string // what the job's user may want to know; those that nobody reads are dropped
	fresh   bool        // it was told nothing yet
	said    string      // to the job last
	at      time.Time   // when
}

// grant is what a waiter gets: a place, or why there is none.
type grant struct {
	tender *tender
	a      allocation.Allocation
	err    error
}

// lease is a job's hold on a place.
type lease struct {
	cluster *Cluster
	job     string
	tender  *tender
	batch   allocation.Allocation // as it was when the place was given
}

// acquire waits for a place for a job. A job that has one already gets that again. What happens meanwhile is written to the
// job's log.
func (c *Cluster) acquire(ctx context.Context, spec tranter.SessionSpec, avoid []string) (*lease, error) {
	want, err := c.wanted(ctx, spec)
	if err != nil {
		return nil, err
	}
	want.Avoid = avoid
	w := &waiter{want: want, granted: make(chan grant, 1), notes: make(chan string, 16), fresh: true}
	var unfit error
	if err := c.do(ctx, func(l *loop) { unfit = queue{l}.join(w) }); err != nil {
		return nil, err
	}
	if unfit != nil {
		return nil, unfit
	}
	for {
		select {
		case g := <-w.granted:
			w.drain(spec)
			if g.err != nil {
				return nil, g.err
			}
			return &lease{cluster: c, job: want.Key, tender: g.tender, batch: g.a}, nil
		case note := <-w.notes:
			fmt.Fprintln(spec.Log, note)
		case <-c.done:
			return nil, ErrEnded
		case <-spec.Leaving:
			c.leave(w, true)
			return nil, ErrEnded
		case <-ctx.Done():
			c.leave(w, false)
			return nil, context.Cause(ctx)
		}
	}
}

// wanted says what a job needs. What its user should know of that is written to its log.
func (c *Cluster) wanted(ctx context.Context, spec tranter.SessionSpec) (allocation.Want, error) {
	var tags []string
	var listed string
	if err := c.do(ctx, func(l *loop) { tags, listed = l.tags[spec.Job.ID], l.domainOf(spec.Job.ID) }); err != nil {
		return allocation.Want{}, err
	}
	s := c.settings.Load()
	want, notes, err := s.taken(ctx, spec, tags)
	for _, note := range notes {
		fmt.Fprintln(spec.Log, note)
	}
	if err == nil && s.Accounts != nil && listed != "" && listed != want.Domain {
		err = &tranter.ConfigError{Err: errors.New("GitLab's list of waiting jobs names another user than the job itself: nobody can tell as whom it runs")}
	}
	if err != nil {
		c.post(func(l *loop) { l.taken[spec.Job.ID], l.due = time.Now(), true }) // it asks for no place: none is kept for it
		return allocation.Want{}, err
	}
	return want, nil
}

// domainOf returns the domain of a job that waits or did a moment ago, as GitLab's list of those jobs tells; empty: it is not
// there.
func (l *loop) domainOf(id int64) string {
	for _, want := range l.pending {
		if want.ID == id {
			return want.Domain
		}
	}
	return ""
}

// drain writes the notes that came before the place did.
func (w *waiter) drain(spec tranter.SessionSpec) {
	for {
		select {
		case note := <-w.notes:
			fmt.Fprintln(spec.Log, note)
		default:
			return
		}
	}
}

// join lets a job wait. It does not when another caller waits with it already.
func (l queue) join(w *waiter) error {
	if l.waiters[w.want.Key] != nil {
		return fmt.Errorf("job %s waits for a batch job already", w.want.Key)
	}
	l.waiters[w.want.Key], l.taken[w.want.ID] = w, time.Now()
	l.before.wants = slices.DeleteFunc(l.before.wants, func(b allocation.Want) bool { return b.ID == w.want.ID })
	l.due = true
	if l.book.Find(w.want.Key) != nil { // from before a restart
		l.tell(w.want.Key)
	}
	return nil
}

// tell gives a job the place that it has a lease of.
func (l queue) tell(job string) {
	w, a := l.waiters[job], l.book.Find(job)
	if w == nil || a == nil {
		return
	}
	t := l.tend(a.Name)
	if t == nil {
		return // it will be tried again with the next sign
	}
	delete(l.waiters, job)
	granted := *a
	granted.Batch.Nodes = cmp.Or(a.Batch.Nodes, t.host)
	granted.Batch.Queue = cmp.Or(a.Batch.Queue, a.Shape.Partition)
	w.granted <- grant{tender: t, a: granted}
}

// fail tells a job that there will be no place for it, and why.
func (l queue) fail(a allocation.Action) {
	w := l.waiters[a.Job]
	if w == nil {
		return
	}
	delete(l.waiters, a.Job)
	err := fmt.Errorf("no batch job can run it: %s", a.Reason)
	if a.Class == allocation.Impossible {
		err = &tranter.ConfigError{Err: err}
	}
	w.granted <- grant{err: err}
	l.due = true
}

// leave takes a job out of the queue, or gives back what it got meanwhile. One that only makes way for the next manager
// keeps that.
func (c *Cluster) leave(w *waiter, keep bool) {
	c.post(func(l *loop) {
		job := w.want.Key
		if l.waiters[job] == w {
			delete(l.waiters, job)
		}
		l.due = true
		if keep {
			want := w.want
			want.Key = ""
			l.before.wants, l.before.until = append(l.before.wants, want), time.Now().Add(beforeLimit)
			return
		}
		if a := l.book.Find(job); a != nil {
			l.record(allocation.Event{Kind: allocation.Release, Allocation: a.Name, Job: job, Reason: "the job has ended before it began"})
		}
	})
}

// release gives a place back.
func (h *lease) release(reason string) {
	h.cluster.post(func(l *loop) {
		if a := l.book.Find(h.job); a != nil {
			l.record(allocation.Event{Kind: allocation.Release, Allocation: a.Name, Job: h.job, Reason: reason})
		}
	})
}

// begun records that a phase of the job was started: it can't begin anew elsewhere any more.
func (h *lease) begun(ctx context.Context) error {
	var err error
	kept := make(chan struct{})
	if e := h.cluster.do(ctx, func(l *loop) {
		a := l.book.Find(h.job)
		if a == nil {
			err = h.tender.fault(tranter.ErrMachineLost)
			return
		}
		l.record(allocation.Event{Kind: allocation.Began, Allocation: a.Name, Job: h.job})
		l.then(func() { close(kept) })
		l.commit(time.Now())
	}); e != nil {
		return e
	}
	if err != nil {
		return err
	}
	select {
	case <-kept:
		return nil
	case <-h.cluster.done:
		return ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// while returns a context that ends with ctx, and with the allocation.
func (h *lease) while(ctx context.Context) (context.Context, context.CancelFunc) {
	on, stop := context.WithCancelCause(ctx)
	release := context.AfterFunc(h.tender.lives, func() { stop(h.tender.fault(tranter.ErrMachineLost)) })
	return on, func() {
		release()
		stop(nil)
	}
}

// How often a job that waits is told how its batch job stands.
const progressEvery = time.Minute

// note says something to a job that waits, if it reads.
func (w *waiter) note(text string) {
	w.fresh, w.said, w.at = false, text, time.Now()
	select {
	case w.notes <- text:
	default:
	}
}

// greet says to jobs that have come since the last decision, and have to wait, what for.
func (l queue) greet() {
	for key, w := range l.waiters {
		if !w.fresh || l.book.Find(key) != nil {
			continue
		}
		w.note(l.waitText(w))
	}
}

func (l queue) waitText(w *waiter) string {
	a := l.isFor(w.want.ID)
	switch {
	case l.looks.problem != "" && l.looks.fails > 0:
		return "Waiting for a batch job: the batch system does not answer at the moment"
	case a == nil:
		return "Waiting for a batch job: there are as many as there may be, or it is about to be submitted"
	case a.BatchID == "":
		return "Waiting for a batch job: it is being submitted"
	}
	return "Waiting for batch job " + batchText(a.Batch, a.BatchID)
}

// isFor returns the allocation that a job has in prospect; nil: none.
func (l queue) isFor(id int64) *allocation.Allocation {
	for _, a := range l.book.All() {
		if a.State != allocation.Ended && slices.Contains(a.For, id) {
			return a
		}
	}
	return nil
}

// progress tells jobs how the batch job stands that they wait for, when that has changed.
func (l queue) progress(name string, before, now tranter.BatchJob) {
	if now.State != tranter.BatchQueued || (before.State == now.State && before.Reason == now.Reason && before.Expected.Equal(now.Expected)) {
		return
	}
	a := l.book.Get(name)
	if a == nil {
		return
	}
	for _, w := range l.waiters {
		if !slices.Contains(a.For, w.want.ID) {
			continue
		}
		if text := "Waiting for batch job " + batchText(now, a.BatchID); before.ID == "" || w.said != text && time.Since(w.at) >= progressEvery {
			w.note(text)
		}
	}
}

// submitted tells jobs that their batch job is in the queue.
func (l queue) submitted(name, id string) {
	if a := l.book.Get(name); a != nil {
		for _, w := range l.waiters {
			if slices.Contains(a.For, w.want.ID) {
				w.note("Waiting for batch job " + id)
			}
		}
	}
}

// tellAll says something to all jobs that wait.
func (l queue) tellAll(text string) {
	for _, w := range l.waiters {
		if w.said != text {
			w.note(text)
		}
	}
}

// batchText says how a batch job stands, as in "1234 in partition batch: Priority, expected to start at 15:04".
func batchText(j tranter.BatchJob, id string) string {
	var b strings.Builder
	b.WriteString(id)
	if j.Queue != "" {
		b.WriteString(" in partition " + j.Queue)
	}
	if j.Reason != "" && j.Reason != "None" {
		b.WriteString(": " + j.Reason)
	}
	if !j.Expected.IsZero() {
		b.WriteString(", expected to start at " + j.Expected.Format("2006-01-02 15:04"))
	}
	return b.String()
}
