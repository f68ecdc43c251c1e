package cluster

import (
	"context"
	"time"

	"github.com/tranter-ci/tranter"
)

// Lists asks a scheduler for the batch jobs of several clusters at once: those that want to know at about the same time get
// the same answer.
type Lists struct {
	scheduler tranter.Scheduler
	prefix    string
	fresh     time.Duration // how old an answer may be

	turn  chan struct{} // whoever has put a token in may ask, and has the answer
	jobs  []tranter.BatchJob
	asked time.Time
	err   error     // of the last question
	tried time.Time // when it was asked
}

// NewLists returns what lists the batch jobs whose names begin with prefix. fresh is how old an answer may be.
func NewLists(s tranter.Scheduler, prefix string, fresh time.Duration) *Lists {
	return &Lists{scheduler: s, prefix: prefix, fresh: fresh, turn: make(chan struct{}, 1)}
}

// List returns what the scheduler has said, and when it was asked: not longer before notBefore than an answer may be old.
func (l *Lists) List(ctx context.Context, notBefore time.Time) ([]tranter.BatchJob, time.Time, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, time.Time{}, context.Cause(ctx)
	}
	if !l.asked.IsZero() && l.asked.After(notBefore.Add(-l.fresh)) {
		return l.jobs, l.asked, nil
	}
	if l.err != nil && l.tried.After(notBefore) { // others, who have waited for the answer, would only wait for the same again
		return nil, l.tried, l.err
	}
	now := time.Now()
	jobs, err := l.scheduler.List(ctx, l.prefix)
	l.err, l.tried = err, now
	if err != nil {
		if ctx.Err() != nil {
			l.err = nil // that was only about this caller
		}
		return nil, now, err
	}
	l.jobs, l.asked = jobs, now
	return jobs, now, nil
}
