package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
)

// tender is an allocation that has begun: how jobs are run in it.
type tender struct {
	name     string
	executor tranter.Executor
	lose     func(name string, cause error)
	host     string // where it runs, once it has said so

	mu    sync.Mutex
	cause error              // it is lost
	said  string             // why what runs there ends, as it has said itself
	fate  *allocation.Fate   // what its end means for a job that has begun
	done  context.CancelFunc // ends lives
	lives context.Context    //nolint:containedctx // the allocation's own life, not a call's
	last  time.Time          // sign of life that was recorded
}

// tend makes the tender of an allocation that has begun.
func (l *loop) tend(name string) *tender {
	if t := l.tenders[name]; t != nil {
		return t
	}
	hands := l.handsOf(name)
	executor, err := hands.Executor(name)
	if err != nil {
		l.log.Error("What runs in the batch job can't be reached", "allocation", name, "error", err)
		return nil
	}
	t := &tender{name: name, executor: executor, lose: hands.Lost}
	t.lives, t.done = context.WithCancel(l.life)
	l.tenders[name] = t
	return t
}

// signEvery is how often a sign of life is recorded at most.
const signEvery = 20 * time.Second

// sign takes in a sign of life.
func (l *loop) sign(s Sign) {
	a := l.book.Get(s.Name)
	if a == nil || a.State == allocation.Ended {
		return
	}
	switch s.Kind {
	case Over:
		l.log.Info("What runs in the batch job ends", "allocation", s.Name, "reason", s.Reason)
		if t := l.tenders[s.Name]; t != nil {
			t.mu.Lock()
			t.said = s.Reason
			t.fate = leaving(*a, s.Reason)
			t.mu.Unlock()
		}
		l.record(allocation.Event{Kind: allocation.Leave, Allocation: s.Name, Reason: s.Reason})
		l.looks.soon(time.Now())
	case Began, Alive:
		t := l.tend(s.Name)
		if t == nil || (a.State == allocation.Started && s.At.Sub(t.last) < signEvery) {
			return
		}
		if a.State != allocation.Started && a.State != allocation.Ending {
			l.log.Info("The batch job runs", "allocation", s.Name, "batch_job", a.BatchID, "host", s.Host, "until", s.Until, "waited", time.Since(a.Times.Queued).Round(time.Second))
		}
		t.last, t.host = s.At, cmp.Or(s.Host, t.host)
		due := l.due || a.State != allocation.Started // that it still lives is no reason to decide anew
		l.record(allocation.Event{Kind: allocation.Sign, At: s.At, Allocation: s.Name, Until: s.Until, Reason: s.Host})
		l.due = due
	}
}

// ended ends all that waits for something of the allocation.
func (t *tender) ended(a allocation.Allocation) {
	t.mu.Lock()
	if t.fate == nil || a.Batch.State != tranter.BatchCompleted { // the scheduler knows more of a bad end than who met it
		t.fate = allocation.FateOf(a, t.said)
	}
	if t.cause == nil {
		t.cause = fmt.Errorf("%w: batch job %s: %s", tranter.ErrMachineLost, a.BatchID, t.fate.Text)
	}
	cause := t.cause
	t.mu.Unlock()
	t.lose(t.name, cause)
	t.done()
}

func (t *tender) lost() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cause != nil
}

// fault returns what an error of the allocation's executor is once the allocation is lost.
func (t *tender) fault(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cause != nil && !errors.Is(err, tranter.ErrMachineLost) {
		return fmt.Errorf("%w (%w)", t.cause, err)
	}
	if t.cause != nil {
		return t.cause
	}
	return err
}

// leaving is what it means for jobs that what runs in their allocation ends by itself, for the reason that it gives.
func leaving(a allocation.Allocation, said string) *allocation.Fate {
	if strings.Contains(said, "walltime") {
		return &allocation.Fate{Text: "the batch job's walltime is over", Kind: tranter.JobExecutionTimeout}
	}
	return &allocation.Fate{Text: "batch job " + a.BatchID + " was ended: " + said, Kind: tranter.RunnerSystemFailure, Site: true}
}
