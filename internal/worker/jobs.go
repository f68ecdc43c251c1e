package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// job is a job's session in this worker.
type job struct {
	key     string
	dir     string
	turn    chan struct{} // holds one for who makes, uses or closes the session
	session tranter.Session

	// These are guarded by worker.mu.
	attempt string
	stop    context.CancelCauseFunc // of the opening under way
	phases  []string                // that were started
	counted bool                    // in uses
	place   int                     // whose processors it has; -1: it has all
}

// asked is a request that was made, with the answers to it.
type asked struct {
	worker  *worker
	request request
	cancel  context.CancelCauseFunc
	replies chan settled

	mu     sync.Mutex
	log    []byte
	settle *tranter.Surroundings
	last   *answer
}

// requests are those that the worker knows.
type requests struct {
	asked  map[string]*asked
	oldest []string          // that are over
	wanted map[string]string // by job: the attempt that was asked for last, until it is closed
}

// keptAsked is how many requests that are over are known, in case they are made again because the answer was lost.
const keptAsked = 1000

// errDropped is why a request ends that nobody waits for any more.
var errDropped = errors.New("the manager does not wait for it any more")

// handle takes a request. It does not wait for what it leads to.
func (w *worker) handle(ctx context.Context, r request) {
	switch r.Op {
	case opPing:
	case opEnd:
		w.end(errors.New(brief("it was told to: "+r.Reason, maxText)))
	case opDrop:
		if q := w.known(r.Of); q != nil {
			q.cancel(errDropped)
		}
	case opSettled:
		w.settled(r)
	case opOpen, opStart, opAttach, opCancel, opUsed, opClose:
		if q := w.known(r.ID); q != nil {
			q.again()
			return
		}
		ctx, cancel := context.WithCancelCause(ctx)
		q := &asked{worker: w, request: r, cancel: cancel, replies: make(chan settled, 1)}
		w.mu.Lock()
		w.asked[r.ID] = q
		w.order(r)
		w.mu.Unlock()
		w.tasks.Go(func() {
			defer cancel(nil)
			q.answer(ctx)
			w.forget(r.ID)
		})
	}
}

// order notes which attempt of a job counts, in the order of the requests: they are answered in any other.
func (w *worker) order(r request) {
	switch {
	case r.Op == opOpen:
		w.wanted[r.Job] = r.Attempt
	case r.Op == opClose && w.wanted[r.Job] == r.Attempt:
		delete(w.wanted, r.Job)
	}
}

func (w *worker) known(id string) *asked {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[id]
}

// forget forgets requests that were over long ago.
func (w *worker) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.oldest = append(w.oldest, id)
	if len(w.oldest) > keptAsked {
		delete(w.asked, w.oldest[0])
		w.oldest = w.oldest[1:]
	}
}

// body returns what came with a request, and removes it: it may hold secrets.
func (w *worker) body(r request) ([]byte, error) {
	if !r.Apart {
		return r.Body, nil
	}
	if err := checkName("request", r.ID); err != nil {
		return nil, err
	}
	name := path.Join(bodiesDir, r.ID)
	content, err := w.folder.read(name, maxRequest)
	if err != nil {
		return nil, fmt.Errorf("read a request: %w", err)
	}
	return content, w.folder.root.Remove(filepath.FromSlash(name))
}

// settled gives an answer of the manager to the opening that has asked.
func (w *worker) settled(r request) {
	content, err := w.body(r)
	q := w.known(r.Of)
	if q == nil {
		return
	}
	var s settled
	if err == nil {
		err = json.Unmarshal(content, &s)
	}
	if err != nil {
		s.Error = failureOf(err)
	}
	select {
	case q.replies <- s:
	default: // it was answered
	}
}

// again repeats what was answered, on a new connection.
func (q *asked) again() {
	q.mu.Lock()
	defer q.mu.Unlock()
	id := q.request.ID
	for at := 0; at < len(q.log); at += logPiece {
		q.worker.out.send(answer{Re: id, Log: string(q.log[at:min(len(q.log), at+logPiece)]), At: at})
	}
	if q.settle != nil {
		q.worker.out.send(answer{Re: id, Settle: q.settle})
	}
	if q.last != nil {
		q.worker.out.send(*q.last)
	}
}

// maxLog bounds what an executor may say while it opens.
const maxLog = 4 << 20

// Write is where the executor's words to the user go while it opens.
func (q *asked) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for piece := range slices.Chunk(p, logPiece) {
		if len(q.log)+len(piece) > maxLog {
			break
		}
		q.worker.out.send(answer{Re: q.request.ID, Log: string(piece), At: len(q.log)})
		q.log = append(q.log, piece...)
	}
	return len(p), nil
}

// answer does what is asked and answers.
func (q *asked) answer(ctx context.Context) {
	a, err := q.do(ctx)
	if q.request.Op == opAttach && (errors.Is(err, errStreamed) || errors.Is(context.Cause(ctx), errDropped)) {
		return
	}
	a.Re, a.Done, a.Error = q.request.ID, true, failureOf(err)
	q.mu.Lock()
	q.last = &a
	q.mu.Unlock()
	q.worker.out.send(a)
}

func (q *asked) do(ctx context.Context) (answer, error) {
	w, r := q.worker, q.request
	content, err := w.body(r)
	if err != nil {
		return answer{}, err
	}
	if err := checkName("job", r.Job); err != nil {
		return answer{}, err
	}
	switch r.Op {
	case opOpen:
		return answer{}, q.open(ctx, content)
	case opClose:
		return answer{}, w.close(ctx, r)
	case opUsed:
		return w.used(ctx, r)
	default:
	}
	if err := checkName("phase", r.Phase); err != nil {
		return answer{}, err
	}
	j, session, err := w.find(ctx, r)
	if err != nil {
		return answer{}, err
	}
	switch r.Op {
	case opStart:
		return answer{}, w.start(ctx, j, content)
	case opCancel:
		return answer{}, session.Cancel(ctx, r.Phase, r.Abort, r.Grace)
	default:
		result, err := w.attach(ctx, j, session, r)
		return answer{Result: result}, err
	}
}

// find returns the job that a request is about, and its open session.
func (w *worker) find(ctx context.Context, r request) (*job, tranter.Session, error) {
	w.mu.Lock()
	j := w.jobs[r.Job]
	known := j != nil && j.attempt == r.Attempt
	w.mu.Unlock()
	if !known {
		return nil, nil, fmt.Errorf("job %s: %w: the worker has no such session", r.Job, tranter.ErrAgentLost)
	}
	if err := j.take(ctx); err != nil { // its opening is over
		return nil, nil, err
	}
	defer j.done()
	if j.session == nil {
		return nil, nil, fmt.Errorf("job %s: %w: the worker has no such session any more", r.Job, tranter.ErrAgentLost)
	}
	return j, j.session, nil
}

// take waits for the turn on the job.
func (j *job) take(ctx context.Context) error {
	select {
	case j.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (j *job) done() { <-j.turn }

// is sets the session. It is read by who has the turn, or the lock.
func (w *worker) is(j *job, s tranter.Session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	j.session = s
}

// open opens a session.
func (q *asked) open(ctx context.Context, content []byte) error {
	w, r := q.worker, q.request
	var o openRequest
	if err := json.Unmarshal(content, &o); err != nil {
		return fmt.Errorf("malformed request: %w", err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	j, err := q.enter(ctx, stop)
	if err != nil {
		return err
	}
	defer j.done()
	w.changed()
	defer w.changed()
	if j.session != nil && j.attempt == r.Attempt {
		return nil
	}
	if err := w.clear(context.WithoutCancel(ctx), j); err != nil {
		return err
	}
	w.mu.Lock()
	j.attempt = r.Attempt
	w.mu.Unlock()
	session, err := q.make(ctx, j, o)
	if err == nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), session.Close(context.WithoutCancel(ctx)))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	j.stop = nil
	if err != nil {
		w.remove(j)
		return errors.Join(err, os.RemoveAll(j.dir))
	}
	j.session, j.counted = session, true
	w.uses++
	return nil
}

// make has the executor make the session.
func (q *asked) make(ctx context.Context, j *job, o openRequest) (tranter.Session, error) {
	executor, err := q.worker.executor()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the job's directory: %w", err)
	}
	spec := tranter.SessionSpec{
		Name: j.key, Dir: j.dir, Job: o.Job, Dirs: o.Dirs, Log: q, Variables: markInternals(o.Variables, o.Internal),
	}
	if spec.Job == nil {
		spec.Job = &tranter.Job{}
	}
	if o.Settles {
		spec.Settle = func(s tranter.Surroundings) (tranter.Dirs, []tranter.Variable, error) { return q.ask(ctx, s) }
	}
	return executor.Open(ctx, spec)
}

// ask asks the manager what follows from a job's surroundings.
func (q *asked) ask(ctx context.Context, s tranter.Surroundings) (tranter.Dirs, []tranter.Variable, error) {
	q.mu.Lock()
	q.settle = &s
	q.mu.Unlock()
	q.worker.out.send(answer{Re: q.request.ID, Settle: &s})
	select {
	case a := <-q.replies:
		return a.Dirs, markInternals(a.Variables, a.Internal), a.Error.err()
	case <-ctx.Done():
		return tranter.Dirs{}, nil, context.Cause(ctx)
	}
}

// clear closes the session that a job has, if it has one. The caller has the turn.
func (w *worker) clear(ctx context.Context, j *job) error {
	if j.session == nil {
		return nil
	}
	if err := j.session.Close(ctx); err != nil {
		return fmt.Errorf("close the session of job %s: %w", j.key, err)
	}
	w.is(j, nil)
	w.mu.Lock()
	j.phases, j.counted = nil, false
	w.mu.Unlock()
	return os.RemoveAll(j.dir)
}

// remove forgets a job. The caller holds the lock.
func (w *worker) remove(j *job) {
	delete(w.jobs, j.key)
	w.shares.give(j.place)
	if len(w.jobs) == 0 {
		w.idle = time.Now()
	}
}

// opening is how many jobs are made that do not count as uses yet. The caller holds the lock.
func (w *worker) opening() (n int) {
	for _, j := range w.jobs {
		if !j.counted {
			n++
		}
	}
	return n
}

// close closes a session, also one that is being opened.
func (w *worker) close(ctx context.Context, r request) error {
	w.mu.Lock()
	j := w.jobs[r.Job]
	if j != nil && j.attempt == r.Attempt && j.stop != nil {
		j.stop(errDropped)
	}
	w.mu.Unlock()
	if j == nil {
		return nil
	}
	if err := j.take(ctx); err != nil {
		return err
	}
	defer j.done()
	w.mu.Lock()
	other := w.jobs[r.Job] != j || j.attempt != r.Attempt
	w.mu.Unlock()
	if other {
		return nil
	}
	if err := w.clear(ctx, j); err != nil {
		return err
	}
	w.mu.Lock()
	w.remove(j)
	w.mu.Unlock()
	w.changed()
	return nil
}

// start starts a phase.
func (w *worker) start(ctx context.Context, j *job, content []byte) error {
	var p tranter.Phase
	if err := json.Unmarshal(content, &p); err != nil {
		return fmt.Errorf("malformed request: %w", err)
	}
	if err := checkName("phase", p.ID); err != nil {
		return err
	}
	if err := j.take(ctx); err != nil {
		return err
	}
	defer j.done()
	if j.session == nil {
		return fmt.Errorf("job %s: %w: the worker has no such session any more", j.key, tranter.ErrAgentLost)
	}
	w.mu.Lock()
	if why := w.ending; why != nil && !slices.Contains(j.phases, p.ID) {
		w.mu.Unlock()
		return fmt.Errorf("%w: %w", tranter.ErrMachineLost, why)
	}
	if !slices.Contains(j.phases, p.ID) {
		j.phases = append(j.phases, p.ID)
	}
	processors := w.shares.of(j.place)
	w.mu.Unlock()
	return on(processors, func() error { return j.session.Start(ctx, p) })
}
