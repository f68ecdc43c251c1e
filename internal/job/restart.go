package job

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/joblog"
	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/variables"
)

const (
	// mostRestarts is how often a job begins anew because its machine was lost.
	mostRestarts = 2
	// lostLimit is how long the giving up of an environment on a lost machine may take: there is nothing to remove in it.
	lostLimit = 30 * time.Second
)

// again is a job whose machine may be lost, and which may begin anew then.
type again struct{ *run }

// restartVariable says whether a job starts again on another machine when its own was lost.
const restartVariable = "TRANTER_RESTART_LOST"

var (
	errNotWanted = errors.New("a job with " + restartVariable + ": \"true\" starts again on another one")
	errTooOften  = fmt.Errorf("that was attempt %d of %d", mostRestarts+1, mostRestarts+1)
	errUploaded  = errors.New("the job does not start again, because it has begun to upload artifacts, which can't be uploaded twice")
)

// attempts has the job carried out, on other machines too if it is lost with its own. limited ends with the job's time.
func (r again) attempts(ctx, limited, report context.Context) (tranter.PhaseResult, error) {
	for {
		result, err := r.attempt(ctx, limited, report)
		if !errors.Is(err, tranter.ErrMachineLost) || len(r.Record.Session) == 0 { // there was no machine yet
			return result, err
		}
		if why := r.staysLost(limited); why != nil {
			return result, fmt.Errorf("%w (%w)", err, why)
		}
		r.Log.Warn("A job's machine was lost; the job starts again on another one", "job", r.Record.Job.ID, "restart", r.Record.Restarts+1, "error", err)
		if err := r.beginAnew(ctx); err != nil {
			return result, err
		}
	}
}

// attempt gets an environment and has the phases carried out in it.
func (r again) attempt(ctx, limited, report context.Context) (tranter.PhaseResult, error) {
	var err error
	if len(r.Record.Session) > 0 && r.session == nil {
		err = r.reopen(limited)
	} else {
		err = r.environment(ctx, limited, report)
	}
	if err != nil {
		return tranter.PhaseResult{}, err
	}
	return course(r).all(limited, report)
}

// environment makes the job's environment, after what stands in the log before that.
func (r again) environment(ctx, limited, report context.Context) error {
	if err := r.head(ctx); err != nil {
		return err
	}
	r.giveUpLost(limited)
	if err := r.sayLost(); err != nil {
		return err
	}
	r.Stage("prepare_executor")
	return r.prepare(limited, report)
}

// staysLost returns why a job does not begin anew whose machine was lost.
func (r again) staysLost(ctx context.Context) error {
	r.mu.Lock()
	stop := r.stop
	r.mu.Unlock()
	switch {
	case stop != tranter.StopNone:
		return errStopped(stop)
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case !r.wantsRestart():
		return errNotWanted
	case r.Record.Interrupt != "": // before a restart of the manager
		return errors.New(r.Record.Interrupt)
	case r.Record.Restarts >= mostRestarts:
		return errTooOften
	case r.look(r.trace.Size()).uploads:
		return errUploaded
	}
	return nil
}

// wantsRestart says whether a job may be run once more that was cut off in the middle: what its scripts do elsewhere they
// do twice then. The job's own word counts, whatever the runner's configuration says.
func (r again) wantsRestart() bool {
	list := variables.List(r.plan.Variables())
	if list.Get(restartVariable) == "" {
		return r.Settings.RestartLost
	}
	on, _ := list.Bool(restartVariable)
	return on
}

// beginAnew records that the job is where it was before its environment was made; the log and the job's time go on. Where
// the log goes on is recorded before anything is written: what a restart interrupts is written once.
func (r again) beginAnew(ctx context.Context) error {
	r.Door.lock()
	cachesOf(r.run).abort(ctx, r.Record.Uploads)
	r.keep(ctx, func(rec *tranter.JobRecord) {
		rec.PhaseState = tranter.PhaseState{Restarts: rec.Restarts + 1, Lost: rec.Session}
		rec.Session, rec.Surroundings, rec.Uploads = nil, nil, nil
		rec.Head = r.trace.Size()
	})
	r.mu.Lock()
	r.started, r.later = "", false
	r.mu.Unlock()
	r.early = after(r.trace, r.Dir, r.Record.Head)
	p, err := r.makePlan()
	if err != nil {
		return err
	}
	r.plan = p
	return nil
}

// giveUpLost closes the environment that was on a lost machine, if there is one: whoever has made it is not to keep
// anything for the job but the next one.
func (r again) giveUpLost(ctx context.Context) {
	if len(r.Record.Lost) == 0 {
		return
	}
	r.mu.Lock()
	session := r.session
	r.session = nil
	r.mu.Unlock()
	r.Stage("cleanup")
	closing, stop := context.WithTimeout(context.WithoutCancel(ctx), lostLimit)
	defer stop()
	var err error
	if session == nil {
		session, err = r.Executor.Reopen(closing, r.Record.Lost)
	}
	if err == nil {
		err = session.Close(closing)
	}
	if err != nil && !errors.Is(err, tranter.ErrMachineLost) {
		r.Log.Warn("The environment on a machine that was lost could not be given up", "job", r.Record.Job.ID, "error", err)
	}
	r.keep(ctx, func(rec *tranter.JobRecord) { rec.Lost = nil })
}

// sayLost ends what the job's agent has left open in the log, and says why the job begins anew, if it does.
func (r again) sayLost() error {
	if r.Record.Restarts == 0 {
		return nil
	}
	before := r.look(r.Record.Head)
	if before.inLine {
		if _, err := io.WriteString(r.early, "\n"); err != nil {
			return fmt.Errorf("write the job's log: %w", err)
		}
	}
	l := joblog.New(r.early, r.plan.Format(), time.Now)
	for _, name := range slices.Backward(before.open) {
		l.SectionEnd(name)
	}
	l.Warning("The machine was lost; the job starts again on another one (attempt %d of %d)", r.Record.Restarts+1, mostRestarts+1)
	r.closeLog(l)
	return nil
}

// sight is what the log says of how far a job has come.
type sight struct {
	open    []string // sections that were begun and not ended
	uploads bool     // artifacts are being uploaded, or were
	inLine  bool     // the last line has no end
}

// uploadTitle is what plans call the uploading of artifacts.
const uploadTitle = "Uploading artifacts for "

// mostOpen is more sections than are open at a time.
const mostOpen = 20

var sectionPattern = lazy.Regexp(`section_(start|end):[0-9]+:([A-Za-z0-9_.-]{1,100})`)

// look reads the log up to a size of its spool. What can't be read is not there.
func (r again) look(size int64) (s sight) {
	f, err := os.Open(spool(r.Dir))
	if err != nil {
		return s
	}
	defer f.Close()
	in := bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		s.see(line)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return s
		}
	}
}

// see takes in a line, or a part of one.
func (s *sight) see(line []byte) {
	if len(line) == 0 {
		return
	}
	s.inLine = line[len(line)-1] != '\n'
	s.uploads = s.uploads || bytes.Contains(line, []byte(uploadTitle))
	if !bytes.Contains(line, []byte("section_")) {
		return
	}
	for _, m := range sectionPattern().FindAllSubmatch(line, -1) {
		name := string(m[2])
		if i := slices.Index(s.open, name); string(m[1]) == "end" && i >= 0 {
			s.open = slices.Delete(s.open, i, i+1)
		} else if string(m[1]) == "start" && i < 0 && len(s.open) < mostOpen {
			s.open = append(s.open, name)
		}
	}
}
