package worker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
)

// executor is the executor of an allocation's worker as the manager has it.
type executor struct{ holding *holding }

// errLeaving is why a session is not opened when the manager ends.
var errLeaving = errors.New("the manager ends: the next one opens the session")

// tidyLimit is how long it may take to take back what was begun.
const tidyLimit = 5 * time.Second

// Open implements tranter.Executor. The worker's executor is called with a directory of its own in place of spec.Dir.
func (e *executor) Open(ctx context.Context, spec tranter.SessionSpec) (tranter.Session, error) {
	if err := checkName("job", spec.Name); err != nil {
		return nil, err
	}
	s := &session{holding: e.holding, job: spec.Name, attempt: rand.Text()}
	body := openRequest{Job: spec.Job, Dirs: spec.Dirs, Variables: spec.Variables, Internal: internals(spec.Variables), Settles: spec.Settle != nil}
	c, err := newCall(request{Op: opOpen, Job: s.job, Attempt: s.attempt}, body)
	if err != nil {
		return nil, err
	}
	opening := &opening{holding: e.holding, call: c, spec: spec}
	c.each = opening.take
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if spec.Leaving != nil {
		left := make(chan struct{})
		defer func() { <-left }()
		defer stop(nil)
		go func() {
			defer close(left)
			select {
			case <-spec.Leaving:
				stop(errLeaving)
			case <-ctx.Done():
			}
		}()
	}
	last, err := e.holding.ask(ctx, c)
	if err == nil {
		if err = last.Error.err(); err == nil {
			return s, nil
		}
		return nil, err // the worker has left nothing
	}
	if c.unsent {
		return nil, err
	}
	closing, end := context.WithTimeout(context.WithoutCancel(ctx), tidyLimit)
	defer end()
	_ = s.Close(closing)
	return nil, err
}

// opening is a session that is made.
type opening struct {
	holding *holding
	call    *call
	spec    tranter.SessionSpec
	logged  int
	settled bool
}

// take takes what the worker has to say meanwhile.
func (o *opening) take(a answer) error {
	if text := a.Log; text != "" && a.At <= o.logged && a.At+len(text) > o.logged {
		text = text[o.logged-max(0, a.At):]
		o.logged += len(text)
		if _, err := io.WriteString(o.spec.Log, text); err != nil {
			return err
		}
	}
	if a.Settle == nil || o.settled || o.spec.Settle == nil {
		return nil
	}
	o.settled = true
	dirs, vars, err := o.spec.Settle(*a.Settle)
	c, err := newCall(request{Op: opSettled, Job: o.call.request.Job, Of: o.call.request.ID}, settled{Dirs: dirs, Variables: vars, Internal: internals(vars), Error: failureOf(err)})
	if err != nil {
		return err
	}
	o.holding.mu.Lock()
	o.call.more = append(o.call.more, c)
	o.holding.mu.Unlock()
	return o.holding.send(c)
}

// reference is what Ref of a session gives.
type reference struct {
	Allocation string `json:"allocation"`
	Job        string `json:"job"`
	Attempt    string `json:"attempt"`
}

// Reopen implements tranter.Executor. The worker is not asked: what a session that it does not have is asked for fails.
func (e *executor) Reopen(_ context.Context, ref json.RawMessage) (tranter.Session, error) {
	var r reference
	if err := json.Unmarshal(ref, &r); err != nil || r.Allocation != e.holding.name || r.Attempt == "" || checkName("job", r.Job) != nil {
		return nil, fmt.Errorf("reopen a session: malformed reference %q", ref)
	}
	return &session{holding: e.holding, job: r.Job, attempt: r.Attempt}, nil
}

// session is a job's session in an allocation.
type session struct {
	holding *holding
	job     string
	attempt string
}

// Ref implements tranter.Session.
func (s *session) Ref() json.RawMessage {
	data, _ := json.Marshal(reference{Allocation: s.holding.name, Job: s.job, Attempt: s.attempt})
	return data
}

// do makes a request of which only the error is of interest.
func (s *session) do(ctx context.Context, r request, body any) error {
	r.Job, r.Attempt = s.job, s.attempt
	c, err := newCall(r, body)
	if err != nil {
		return err
	}
	last, err := s.holding.ask(ctx, c)
	if err != nil {
		return err
	}
	return last.Error.err()
}

// Start implements tranter.Session.
func (s *session) Start(ctx context.Context, p tranter.Phase) error {
	if err := checkName("phase", p.ID); err != nil {
		return err
	}
	return s.do(ctx, request{Op: opStart, Phase: p.ID}, p)
}

// Cancel implements tranter.Session.
func (s *session) Cancel(ctx context.Context, phaseID string, abort bool, grace time.Duration) error {
	return s.do(ctx, request{Op: opCancel, Phase: phaseID, Abort: abort, Grace: grace}, nil)
}

// Used returns the CPU time of the job's processes in the phases that have ended, and the memory of the largest one in bytes.
// It is no more than the job's own word: its user can write to what it is read from.
func (s *session) Used(ctx context.Context) (cpu time.Duration, memory int64, err error) {
	c, err := newCall(request{Op: opUsed, Job: s.job, Attempt: s.attempt}, nil)
	if err != nil {
		return 0, 0, err
	}
	last, err := s.holding.ask(ctx, c)
	if err == nil {
		err = last.Error.err()
	}
	if err != nil || last.Used == nil {
		return 0, 0, err
	}
	return max(0, last.Used.CPUTime), max(0, last.Used.MaxMemory), nil
}

// Close implements tranter.Session. Of a session whose worker is gone what it has left in the shared directory is removed.
func (s *session) Close(ctx context.Context) error {
	err := s.do(ctx, request{Op: opClose}, nil)
	if s.holding.loss() == nil {
		return err
	}
	f, err := s.holding.in()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = f.root.RemoveAll(filepath.Join(jobsDir, s.job))
	}
	if err != nil {
		return fmt.Errorf("remove what job %s has left in allocation %s: %w", s.job, s.holding.name, err)
	}
	return nil
}

// Attach implements tranter.Session.
func (s *session) Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	if err := checkName("phase", phaseID); err != nil {
		return tranter.PhaseResult{}, fmt.Errorf("%w: %w", tranter.ErrAgentLost, err)
	}
	c, err := newCall(request{Op: opAttach, Job: s.job, Attempt: s.attempt, Phase: phaseID}, nil)
	if err != nil {
		return tranter.PhaseResult{}, err
	}
	if s.holding.office.listen != nil {
		return s.stream(ctx, c, offset, w)
	}
	f, err := s.holding.in()
	if err != nil {
		return tranter.PhaseResult{}, s.holding.fault(err)
	}
	j := &journal{folder: f, name: path.Join(jobsDir, s.job, "phase-"+phaseID, "journal"), offset: offset, w: w}
	c.look = j.look
	last, err := s.holding.ask(ctx, c)
	switch lost := s.holding.loss(); {
	case err != nil && lost != nil && ctx.Err() == nil && j.err == nil:
		return j.left(path.Join(jobsDir, s.job, "phase-"+phaseID, "result.json"), lost)
	case err != nil:
		_ = s.holding.post(request{Op: opDrop, Job: s.job, Of: c.request.ID})
		return tranter.PhaseResult{}, err
	case last.Error != nil:
		return tranter.PhaseResult{}, last.Error.err()
	case last.Result == nil:
		return tranter.PhaseResult{}, fmt.Errorf("phase %s: %w: its worker told none", phaseID, tranter.ErrAgentLost)
	}
	return *last.Result, j.complete(ctx, last.Result.LogBytes)
}

// journal is a journal in the shared directory that is copied as it grows.
type journal struct {
	folder folder
	name   string
	offset int64
	w      io.Writer
	buf    []byte
	err    error // of w
}

const (
	copySmall = 4 << 10
	copyLarge = 256 << 10
)

// look copies what is new.
func (j *journal) look() (moved bool, err error) {
	if j.buf == nil {
		j.buf = make([]byte, copySmall)
	}
	for {
		n, err := j.folder.readFrom(j.name, j.offset, j.buf)
		if errors.Is(err, os.ErrNotExist) {
			return moved, nil // the phase has not begun; the worker tells if it never does
		}
		if err != nil {
			return moved, fmt.Errorf("read the journal: %w", err)
		}
		if n == 0 {
			break
		}
		moved = true
		j.offset += int64(n)
		if _, err := j.w.Write(j.buf[:n]); err != nil {
			j.err = err
			return moved, err
		}
		if n < len(j.buf) {
			break
		}
		if n < copyLarge {
			j.buf = make([]byte, copyLarge)
		}
	}
	if !moved {
		j.buf = nil
	}
	return moved, nil
}

// lateLimit is how long the end of a journal may take to come here after the result has.
const lateLimit = 3 * time.Second

// complete copies the rest of a journal that has ended. A network file system may take a moment to show its end.
func (j *journal) complete(ctx context.Context, size int64) error {
	limit := time.NewTimer(lateLimit)
	defer limit.Stop()
	for {
		if _, err := j.look(); err != nil || j.offset >= size {
			return err
		}
		select {
		case <-time.After(lookFast):
		case <-limit.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// maxResult bounds what is read of a result.
const maxResult = 1 << 20

// left returns the result of a phase that has ended although its worker is gone.
func (j *journal) left(name string, lost error) (tranter.PhaseResult, error) {
	var r tranter.PhaseResult
	content, err := j.folder.read(name, maxResult)
	if err != nil || json.Unmarshal(content, &r) != nil {
		return tranter.PhaseResult{}, lost
	}
	if _, err := j.look(); err != nil {
		return tranter.PhaseResult{}, err
	}
	return r, nil
}
