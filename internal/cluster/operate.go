package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
)

// together is the loop, acting on what was decided: what can be asked of the scheduler in one call is.
type together struct {
	*loop
	cancel  []end
	account []string
	unfit   bool
}

// fit records an event, and remembers if the book has not taken it.
func (t *together) fit(e allocation.Event) bool {
	ok := t.record(e)
	t.unfit = t.unfit || !ok
	return ok
}

// act records the intent of an action now; the work is begun once that is durable.
func (t *together) act(a allocation.Action, now time.Time) {
	switch a.Kind {
	case allocation.Create:
		if t.fit(allocation.Event{Kind: allocation.Plan, At: now, Allocation: a.New.Name, New: a.New, Reason: a.Reason}) {
			t.log.Info("A batch job is wanted", "allocation", a.New.Name, "reason", a.Reason)
		}
	case allocation.Submit, allocation.Look:
		t.ask(a, now)
	case allocation.Place:
		t.place(a, now)
	case allocation.Fail:
		t.fail(a, now)
	case allocation.Cancel:
		t.log.Info("A batch job is ended", "allocation", a.Allocation, "reason", a.Reason)
		if t.fit(allocation.Event{Kind: allocation.Tell, At: now, Allocation: a.Allocation, Reason: a.Reason}) {
			t.cancel = append(t.cancel, end{name: a.Allocation, hard: a.Hard})
		}
	case allocation.Account:
		if t.fit(allocation.Event{Kind: allocation.Inquire, At: now, Allocation: a.Allocation}) {
			t.account = append(t.account, a.Allocation)
		}
	case allocation.Reserve:
		t.fit(allocation.Event{Kind: allocation.Assign, At: now, Allocation: a.Allocation, Jobs: a.Jobs})
	case allocation.Drop:
		operations{t.loop}.forget(a.Allocation)
	}
}

// end is an allocation that is to end; hard: nobody in it would listen.
type end struct {
	name string
	hard bool
}

// ask has the scheduler asked to take a batch job, unless it is being asked.
func (t *together) ask(a allocation.Action, now time.Time) {
	name := a.Allocation
	if t.busy[name] || t.asking >= submissions {
		t.unfit = true
		return
	}
	if a.Kind == allocation.Look {
		t.log.Warn("The scheduler does not know a batch job that it was asked to take: it is asked again", "allocation", name)
	}
	if t.fit(allocation.Event{Kind: allocation.Ask, At: now, Allocation: name}) {
		t.asking++
		t.then(func() { operations{t.loop}.submit(name) })
	}
}

// fail tells a job that it can't be had. One that had a place is told by what it waits for there.
func (t *together) fail(a allocation.Action, now time.Time) {
	if a.Allocation == "" {
		queue{t.loop}.fail(a)
		return
	}
	listing{t.loop}.ended(a.Allocation)
	t.fit(allocation.Event{Kind: allocation.Release, At: now, Allocation: a.Allocation, Job: a.Job, Reason: a.Reason})
}

func (t *together) place(a allocation.Action, now time.Time) {
	if t.fit(allocation.Event{Kind: allocation.Grant, At: now, Allocation: a.Allocation, Job: a.Job, Lease: a.Lease}) {
		t.then(func() { queue{t.loop}.tell(a.Job) })
	}
}

// begin begins what was gathered, once it is durable why.
func (t *together) begin() {
	if cancel := t.cancel; len(cancel) > 0 {
		t.then(func() { operations{t.loop}.cancel(cancel) })
	}
	if account := t.account; len(account) > 0 {
		t.then(func() { operations{t.loop}.account(account) })
	}
}

// operations is the loop, having the scheduler do something.
type operations struct{ *loop }

// submitting is how long one submission may take: the scheduler's commands have limits of their own.
const submitting = 3 * time.Minute

// submit hands a batch job in. Its name is in the book.
func (o operations) submit(name string) {
	a := o.book.Get(name)
	if a == nil || a.State != allocation.Submitting || o.busy[name] {
		o.asking--
		return
	}
	o.busy[name] = true
	delete(o.elsewhere, name) // it is prepared anew
	s, copied, c := o.settings, *a, o.cluster
	o.owned.Go(func() {
		ctx, stop := context.WithTimeout(o.life, submitting)
		defer stop()
		id, err := s.submit(ctx, copied)
		_ = c.do(context.WithoutCancel(ctx), func(l *loop) {
			delete(l.busy, name)
			l.asking--
			l.due = true
			operations{l}.submitted(name, id, err)
		})
	})
}

// submissions is how many submissions are under way at a time: the scheduler's commands are processes, and it is their ends
// that say how fast it can take more.
const submissions = 8

// prepareRetry is the wait before what a batch job needs is made ready again, after a failure.
const prepareRetry = 30 * time.Second

func (s *Settings) submit(ctx context.Context, a allocation.Allocation) (string, error) {
	var as *tranter.Account
	if a.User != "" {
		var err error
		if as, err = s.Account(a.User); err != nil {
			return "", fmt.Errorf("%w: %w", tranter.ErrRejected, err)
		}
	}
	script, err := s.Hands.Prepare(a, as)
	if err != nil {
		return "", &unpreparedError{err}
	}
	return s.Scheduler.Submit(ctx, tranter.BatchSpec{
		Name: a.Name, Comment: fmt.Sprintf("CI jobs of %s", s.Runner), Script: script, Output: s.Output(a.Name), Dir: s.Dir,
		Shape: a.Shape, Exclude: a.Past.Avoid, As: as,
	})
}

// unpreparedError means that the scheduler was not asked at all.
type unpreparedError struct{ error }

func (e *unpreparedError) Unwrap() error { return e.error }

// submitted records what came of a submission. After an error that does not say so the batch job may be there: the next list
// tells.
func (o operations) submitted(name, id string, err error) {
	var unprepared *unpreparedError
	switch {
	case err == nil:
		if o.record(allocation.Event{Kind: allocation.Accept, Allocation: name, BatchID: id}) {
			o.log.Info("The batch job is in the queue", "allocation", name, "batch_job", id)
			queue(o).submitted(name, id)
			if o.settings.Policy.Order != allocation.SelfTaking {
				o.handsOf(name).Follow(name)
			}
		}
	case errors.Is(err, tranter.ErrRejected):
		o.log.Error("The scheduler refuses a batch job", "allocation", name, "error", err)
		o.record(allocation.Event{Kind: allocation.Reject, Allocation: name, Reason: err.Error()})
	case errors.Is(err, tranter.ErrNoCapacity), errors.As(err, &unprepared):
		o.log.Warn("A batch job can't be submitted now; it will be tried again", "allocation", name, "error", err)
		deferred := allocation.Event{Kind: allocation.Defer, Allocation: name, Reason: err.Error()}
		if unprepared != nil { // that says nothing about the queue
			deferred.Until = time.Now().Add(prepareRetry)
		}
		o.record(deferred)
	default:
		o.log.Warn("It is not known whether the scheduler has taken a batch job: its list will tell", "allocation", name, "error", err)
		o.looks.problem = oneLine(err.Error())
		o.looks.soon(time.Now())
		if o.settings.Policy.Order != allocation.SelfTaking {
			o.handsOf(name).Follow(name)
		}
	}
}

// cancel ends allocations: those that have begun are told, so that they end in order; all others are the scheduler's to end.
func (o operations) cancel(ends []end) {
	var ids []string
	for _, e := range ends {
		a := o.book.Get(e.name)
		if a == nil {
			continue
		}
		if t := o.tenders[e.name]; t != nil && !e.hard && !t.lost() {
			o.tellEnd(e.name, a.BatchID, a.Reason)
			continue
		}
		if a.BatchID != "" {
			ids = append(ids, a.BatchID)
		}
	}
	o.scheduler("end batch jobs", func(ctx context.Context, s Settings) error {
		if len(ids) == 0 {
			return nil
		}
		return s.Scheduler.Cancel(ctx, ids)
	})
}

// tellEnd tells what runs in an allocation to end, and has the scheduler see to it if that does not help.
func (o operations) tellEnd(name, id, reason string) {
	hands := o.handsOf(name)
	o.scheduler("end a batch job", func(ctx context.Context, s Settings) error {
		err := hands.End(ctx, name, reason)
		if err != nil && id != "" {
			err = s.Scheduler.Cancel(ctx, []string{id})
		}
		return err
	})
}

// scheduler has something done that may be repeated: what fails is decided again.
func (o operations) scheduler(what string, f func(ctx context.Context, s Settings) error) {
	s := o.settings
	o.owned.Go(func() {
		ctx, stop := context.WithTimeout(o.life, submitting)
		defer stop()
		if err := f(ctx, s); err != nil && ctx.Err() == nil {
			s.log(o.log).Warn("The scheduler could not be told something; it will be tried again", "what", what, "error", err)
		}
		o.cluster.post(func(l *loop) { l.due = true })
	})
}

// account asks how batch jobs have ended that the scheduler does not list any more.
func (o operations) account(names []string) {
	ids, byID := []string{}, map[string]string{}
	for _, name := range names {
		a := o.book.Get(name)
		if a == nil || o.busy[name] {
			continue
		}
		if a.BatchID == "" {
			if o.record(allocation.Event{Kind: allocation.Silent, Allocation: name, Reason: "the scheduler does not know it"}) {
				listing(o).ended(name)
			}
			continue
		}
		o.busy[name] = true
		ids, byID[a.BatchID] = append(ids, a.BatchID), name
	}
	if len(ids) == 0 {
		return
	}
	s, c := o.settings, o.cluster
	o.owned.Go(func() {
		ctx, stop := context.WithTimeout(o.life, submitting)
		defer stop()
		jobs, err := s.Scheduler.Final(ctx, ids)
		_ = c.do(context.WithoutCancel(ctx), func(l *loop) { operations{l}.accounted(jobs, byID, err) })
	})
}

func (o operations) accounted(jobs []tranter.BatchJob, byID map[string]string, err error) {
	for _, name := range byID {
		delete(o.busy, name)
	}
	if err != nil {
		o.log.Warn("The scheduler's accounting does not answer; it will be asked again", "error", err)
		o.looks.soon(time.Now())
		return
	}
	for _, j := range jobs {
		if name := byID[j.ID]; name != "" {
			listing(o).saw(name, j)
			delete(byID, j.ID)
		}
	}
	for id, name := range byID {
		o.log.Warn("Neither the scheduler nor its accounting knows a batch job any more", "allocation", name, "batch_job", id)
		if o.record(allocation.Event{Kind: allocation.Silent, Allocation: name, Reason: "the scheduler does not know it any more"}) {
			listing(o).ended(name)
		}
	}
}

// forget drops an allocation that has ended, and what was made for it. It is in the store until that is removed: after a crash
// nothing else would know that it is there.
func (o operations) forget(name string) {
	o.collect()
	o.book.Forget(name)
	if t := o.tenders[name]; t != nil {
		t.done()
		delete(o.tenders, name)
	}
	hands := o.handsOf(name)
	delete(o.elsewhere, name)
	o.due = true
	o.then(func() {
		s := o.settings
		o.owned.Go(func() {
			if err := hands.Remove(name); err != nil {
				s.log(o.log).Warn("What was made for a batch job could not be removed", "allocation", name, "error", err)
			}
			o.cluster.post(func(l *loop) {
				l.unsaved.gone = append(l.unsaved.gone, name)
				l.due = true
			})
		})
	})
}
