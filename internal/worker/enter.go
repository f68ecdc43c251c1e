package worker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/tranter-ci/tranter"
)

// enter makes the job that is to be opened, or takes the one that there is, with the turn on it.
func (q *asked) enter(ctx context.Context, stop context.CancelCauseFunc) (*job, error) {
	w := q.worker
	for {
		j, made, err := q.claim()
		if err != nil {
			return nil, err
		}
		if err := j.take(ctx); err != nil {
			if made {
				w.mu.Lock()
				w.remove(j)
				w.mu.Unlock()
			}
			return nil, err
		}
		if q.begin(j, stop) {
			return j, nil
		}
		j.done()
	}
}

// claim returns the job that a request is to open, made if there is none.
func (q *asked) claim() (j *job, made bool, err error) {
	w, r := q.worker, q.request
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ending != nil:
		return nil, false, fmt.Errorf("%w: %w", tranter.ErrMachineLost, w.ending)
	case w.wanted[r.Job] != r.Attempt:
		return nil, false, errDropped
	}
	j = w.jobs[r.Job]
	if made = j == nil; made {
		j = &job{key: r.Job, dir: filepath.Join(w.base, r.Job), turn: make(chan struct{}, 1)}
		j.place = w.shares.take()
		w.jobs[r.Job] = j
	} else if j.attempt != r.Attempt && j.stop != nil {
		j.stop(errors.New("the job is prepared anew"))
	}
	return j, made, nil
}

// begin says whether a request whose turn it is may open the job: it may have gone meanwhile, or not be wanted any more.
func (q *asked) begin(j *job, stop context.CancelCauseFunc) bool {
	w, r := q.worker, q.request
	w.mu.Lock()
	defer w.mu.Unlock()
	there := w.jobs[r.Job] == j
	if there && w.wanted[r.Job] == r.Attempt {
		j.stop = stop
		return true
	}
	if there && j.session == nil { // who else waits for it makes it anew
		w.remove(j)
	}
	return false
}
