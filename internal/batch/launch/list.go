package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
)

// List returns the launches whose names begin with prefix. One whose command runs is running, and so is one whose command has
// ended well without handing a job to a batch system that is known: what it has started may be anywhere. One of which
// nobody can tell what has become is unknown, for a while, then failed.
func (l *Launcher) List(ctx context.Context, prefix string) ([]tranter.BatchJob, error) {
	entries, err := os.ReadDir(l.o.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list the launches: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return l.look(ctx, names)
}

// Final returns how launches stand of which List may have told before.
func (l *Launcher) Final(ctx context.Context, ids []string) ([]tranter.BatchJob, error) {
	return l.look(ctx, ids)
}

// look says how launches stand. Those that are not begun are left out.
func (l *Launcher) look(ctx context.Context, names []string) ([]tranter.BatchJob, error) {
	var jobs []tranter.BatchJob
	asked := question{}
	for _, name := range names {
		d, err := l.dir(name)
		if err != nil {
			continue // nothing of ours
		}
		job, ref, err := l.stand(name, d)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at the launch %s: %w", name, err)
		}
		if ref != nil {
			asked.add(*ref, len(jobs))
		}
		jobs = append(jobs, job)
	}
	for command, refs := range asked {
		if err := l.ask(ctx, command, refs, jobs); err != nil {
			return nil, err
		}
	}
	return jobs, nil
}

// reference is the job of a launch, and the index of the launch.
type reference struct {
	handed
	index int
}

// question holds what is to be asked, by the command of the batch system.
type question map[string][]reference

func (q question) add(h handed, index int) {
	q[h.Command] = append(q[h.Command], reference{handed: h, index: index})
}

// stand says how a launch stands, as far as its directory tells, and which job has to be asked about besides. The error is
// os.ErrNotExist for one that is not begun.
func (l *Launcher) stand(name string, d directory) (tranter.BatchJob, *handed, error) {
	var b begun
	var it intent
	if err := errors.Join(d.read(begunFile, &b), d.read(intentFile, &it)); err != nil {
		return tranter.BatchJob{}, nil, err
	}
	job := tranter.BatchJob{ID: name, Name: name, State: tranter.BatchRunning, Native: "its command runs", Submitted: b.At, Started: b.At}
	if d.read(finalFile, &job) == nil {
		l.sure(name)
		return job, nil, nil
	}
	var e ended
	known := d.read(exitFile, &e) == nil
	if !known {
		alive, err := d.alive()
		if err != nil || alive {
			l.sure(name)
			d.insist()
			return job, nil, err
		}
		known = d.read(exitFile, &e) == nil // written a moment ago
	}
	if h, ok := l.submitted(it.Command.Executable, d); ok {
		return job, &h, nil
	}
	if !known {
		return l.doubtful(job, "the host went down, or somebody has killed the program that ran its command: what came of it is not known"), nil, nil
	}
	l.sure(name)
	return d.over(job, e, it.Command), nil, nil
}

// submitted tells the job that a command has handed to a batch system that is known.
func (l *Launcher) submitted(executable string, d directory) (handed, bool) {
	if l.o.Recognise == nil {
		return handed{}, false
	}
	for _, name := range []string{stdoutFile, stderrFile} {
		if h, ok := recognise(executable, strings.NewReader(d.text(name))); ok && l.o.Recognise(h.Command) != nil {
			return h, true
		}
	}
	var h handed
	if d.read(foundFile, &h) == nil && h.ID != "" && l.o.Recognise(h.Command) != nil {
		return h, true
	}
	return handed{}, false
}

// over says how a launch stands whose command has ended without handing in a job that can be followed.
func (d directory) over(job tranter.BatchJob, e ended, c Command) tranter.BatchJob {
	job.ExitCode, job.Signal = e.ExitCode, e.Signal
	said := batch.Brief(d.text(stderrFile) + "\n" + d.text(stdoutFile))
	base := filepath.Base(c.Executable)
	switch {
	case e.Error != "":
		job.State, job.Reason = tranter.BatchFailed, e.Error
	case e.Stopped:
		job.State, job.Reason = tranter.BatchCancelled, base+" was stopped"
	case e.TimedOut:
		job.State, job.Reason = tranter.BatchFailed, spoken(fmt.Sprintf("%s did not end within %v", base, c.Timeout), said)
	case e.Signal != 0:
		job.State, job.Reason = tranter.BatchFailed, spoken(fmt.Sprintf("%s was ended by signal %d", base, e.Signal), said)
	case e.ExitCode != 0:
		job.State, job.Reason = tranter.BatchFailed, spoken(fmt.Sprintf("%s: exit code %d", base, e.ExitCode), said)
	case d.has(cancelFile):
		job.State, job.Reason = tranter.BatchCancelled, base+" had ended well; what it has started is not known here, and may go on"
	default:
		job.Native = "its command has ended well"
		if alive, err := d.alive(); err == nil && !alive { // else what it has left behind goes on
			job.Ended = e.At
		}
		return job
	}
	job.Native, job.Ended = "its command has ended", e.At
	return job
}

func spoken(what, said string) string {
	if said == "" {
		return what
	}
	return what + ": " + said
}

// doubtful says how a launch stands of which nobody knows what has become.
func (l *Launcher) doubtful(job tranter.BatchJob, why string) tranter.BatchJob {
	l.mu.Lock()
	defer l.mu.Unlock()
	since, known := l.doubts[job.Name]
	if !known {
		since = time.Now()
		l.doubts[job.Name] = since
	}
	job.State, job.Native, job.Reason = tranter.BatchUnknown, "unknown", why
	if time.Since(since) >= l.o.Grace {
		job.State, job.Ended = tranter.BatchFailed, time.Now()
	}
	return job
}

// sure ends the doubts about a launch.
func (l *Launcher) sure(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.doubts, name)
}

// ask completes what is said of launches by what their batch system says of their jobs.
func (l *Launcher) ask(ctx context.Context, command string, refs []reference, jobs []tranter.BatchJob) error {
	found, err := l.o.Recognise(command).Jobs(ctx, idsOf(refs))
	if err != nil {
		return fmt.Errorf("ask about what was launched with %s: %w", command, err)
	}
	byID := map[string]tranter.BatchJob{}
	for _, f := range found {
		byID[f.ID] = f
	}
	var unwanted []string
	for _, r := range refs {
		job := &jobs[r.index]
		f, ok := byID[r.ID]
		switch {
		case !ok:
			*job = l.doubtful(*job, fmt.Sprintf("%s has handed in job %s, which its batch system does not name", filepath.Base(command), r.ID))
			if job.State == tranter.BatchFailed { // it was there, and nothing says that it has failed
				job.State = tranter.BatchCompleted
			}
		default:
			l.sure(job.Name)
			*job = adopt(*job, f)
		}
		if l.settle(*job) {
			unwanted = append(unwanted, r.ID)
		}
	}
	if len(unwanted) == 0 {
		return nil
	}
	if err := l.o.Recognise(command).Cancel(ctx, unwanted); err != nil {
		return fmt.Errorf("cancel what was launched with %s: %w", command, err)
	}
	return nil
}

// settle writes down how the job of a launch has ended. It says whether the job goes on and is to be cancelled: its launch
// was cancelled before anybody knew of the job.
func (l *Launcher) settle(job tranter.BatchJob) (unwanted bool) {
	d, err := l.dir(job.Name)
	if err != nil {
		return false
	}
	if !job.State.Final() {
		return job.State != tranter.BatchUnknown && d.has(cancelFile)
	}
	if err := d.write(finalFile, job); err != nil {
		l.o.Log.Warn("can't write down how a launched job has ended", "launch", job.Name, "error", err)
	}
	return false
}

// adopt makes the launch stand as its job does.
func adopt(job, of tranter.BatchJob) tranter.BatchJob {
	of.Native = strings.TrimSpace(of.Native + " (job " + of.ID + ")")
	of.ID, of.Name = job.ID, job.Name
	if of.Submitted.IsZero() {
		of.Submitted = job.Submitted
	}
	return of
}

func idsOf(refs []reference) []string {
	ids := make([]string, len(refs))
	for i, r := range refs {
		ids[i] = r.ID
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Cancel ends the commands of launches that still run, and the jobs that the others have handed in. Where neither is known,
// as of a command that has ended well and has handed in nothing that is recognised, there is nothing to end.
func (l *Launcher) Cancel(ctx context.Context, names []string) error {
	asked := question{}
	var failed error
	for _, name := range names {
		d, err := l.dir(name)
		if err != nil || !d.has(intentFile) || d.has(finalFile) {
			continue
		}
		if !d.has(cancelFile) {
			failed = errors.Join(failed, d.write(cancelFile, begun{At: time.Now()}))
		}
		if !d.has(exitFile) {
			d.insist()
		}
		_, ref, err := l.stand(name, d)
		if err == nil && ref != nil {
			asked.add(*ref, 0)
		}
	}
	for command, refs := range asked {
		failed = errors.Join(failed, l.o.Recognise(command).Cancel(ctx, idsOf(refs)))
	}
	if failed != nil {
		return fmt.Errorf("cancel launches: %w", failed)
	}
	return nil
}
