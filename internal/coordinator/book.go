package coordinator

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// book is the whole state in memory. Every method expects mu to be held, unless it says otherwise.
//
// A change is made in three steps: move or touch the jobs, then save what must not be lost (keep), then settle, which
// draws all conclusions. What settle concludes may get lost: it is concluded again when the state is read.
type book struct {
	mu sync.Mutex
	roster
	shelf
	ledger
	stale map[*run]bool // pipelines to draw conclusions about
	dirty []*job        // changed since the last settle
	feeds map[*feed]bool
}

func openBook(d *disk, now func() time.Time, log *slog.Logger) (*book, error) {
	b := &book{
		roster: roster{disk: d, now: now, log: log},
		shelf:  newShelf(),
		ledger: ledger{unsaved: map[*job]bool{}},
		stale:  map[*run]bool{}, feeds: map[*feed]bool{},
	}
	if err := load(d.settingsPath(), &b.settings); err != nil {
		return nil, err
	}
	for _, rn := range b.settings.Runners {
		rn.queue = randomHex(16)
	}
	runs, err := d.loadRuns(log)
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		if err := b.takeIn(r); err != nil {
			return nil, err
		}
	}
	return b, b.settle()
}

// takeIn adds a stored pipeline. Whether a job was retried, and what follows from all that is stored, is found anew: it
// may be that the end came before it was written.
func (b *book) takeIn(r *run) error {
	s := &b.settings
	s.NextPipeline = max(s.NextPipeline, r.ID)
	p := b.project(r.Project)
	p.IID = max(p.IID, r.IID)
	slices.SortFunc(r.Jobs, func(x, y *job) int { return cmp.Compare(x.ID, y.ID) })
	latest := map[int]*job{}
	for _, j := range r.Jobs {
		s.NextJob = max(s.NextJob, j.ID)
		j.Retried = false
		if old := latest[j.Definition]; old != nil {
			old.Retried = true
		}
		latest[j.Definition] = j
		if err := b.disk.measure(j); err != nil {
			return err
		}
	}
	b.add(r, b.now())
	b.grade(r)
	b.stale[r] = true
	return nil
}

// newJob makes an attempt of a job of the pipeline, and only that.
func (b *book) newJob(r *run, definition, attempt int) *job {
	b.settings.NextJob++
	j := &job{
		ID: b.settings.NextJob, Token: tranter.Secret("glcbt-64_" + randomHex(20)), Definition: definition, Attempt: attempt,
		definition: r.Definitions[definition], run: r, contact: b.now(),
	}
	j.Status, j.Times.Created = Created, b.now()
	return j
}

// start writes a new pipeline and lets it run. What could not be written does not exist.
func (b *book) start(r *run) error {
	if err := b.disk.begin(r); err != nil {
		_ = os.Remove(b.disk.runPath(r.ID)) // it may not even be there
		return err
	}
	b.add(r, b.now())
	for _, j := range r.Jobs {
		b.touch(j)
		delete(b.unsaved, j)
	}
	_ = b.settle() // what cannot be saved now is concluded again
	return nil
}

// touch notes that a job has changed: it is saved and told by settle.
func (b *book) touch(j *job) {
	b.place(j)
	b.unsaved[j] = true
	if !j.touched {
		j.touched = true
		b.dirty = append(b.dirty, j)
	}
	b.stale[j.run] = true
	if j.Spec.ResourceGroup == "" {
		return
	}
	for _, r := range b.live { // one of them may wait for the resource
		if r.Project == j.run.Project {
			b.stale[r] = true
		}
	}
}

// move brings a job into another state.
func (b *book) move(j *job, to Status) {
	now := b.now()
	j.Status = to
	switch {
	case to == Created:
		j.Times = jobTimes{Created: j.Times.Created}
		j.Reason, j.ExitCode, j.Problem = "", 0, ""
	case to == Pending:
		j.Times.Queued, j.Played = now, false
	case to == Running:
		j.Times.Started, j.contact = now, now
	case to.Finished() && to != Skipped:
		j.Times.Finished = now
	}
	b.touch(j)
}

// fail ends a job that no runner has failed.
func (b *book) fail(j *job, reason tranter.FailureReason, problem string) {
	j.Reason, j.Problem = reason, problem
	b.move(j, Failed)
}

// keep saves what was done to a job since it was as before. What cannot be saved is undone.
func (b *book) keep(j *job, before jobState) error {
	if err := b.disk.append(j.run, nil, []*job{j}); err != nil {
		b.complain(b.log, err)
		j.jobState = before
		b.place(j)
		return err
	}
	delete(b.unsaved, j)
	return nil
}

// commit does f to a job, so that it is on disk when commit returns without an error, and draws the conclusions.
func (b *book) commit(j *job, f func()) error {
	before := j.jobState
	f()
	if err := b.keep(j, before); err != nil {
		return err
	}
	_ = b.settle() // what cannot be saved now is concluded again
	return nil
}

// settle draws all conclusions from what has changed, saves it and tells it. It ends every change of the book.
func (b *book) settle() error {
	for len(b.stale) > 0 {
		b.conclude()
	}
	changed := map[*run]bool{}
	for _, j := range b.dirty {
		changed[j.run] = true
	}
	for r := range changed {
		b.grade(r)
	}
	err := b.flush(b.disk, b.log)
	b.tick()
	b.tell()
	for _, j := range b.dirty {
		j.touched = false
		j.bell.ring()
	}
	b.dirty = nil
	return err
}

// conclude applies the scheduler's decisions to the pipelines that have changed, once.
func (b *book) conclude() {
	stale := slices.SortedFunc(maps.Keys(b.stale), func(x, y *run) int { return cmp.Compare(x.ID, y.ID) })
	clear(b.stale)
	for _, r := range stale {
		g := r.graph(b.now())
		g.Busy = b.busy(r)
		for _, d := range Advance(g) {
			b.apply(b.jobs[d.ID], d)
		}
	}
}

func (b *book) apply(j *job, d Decision) {
	if d.Retry {
		j = b.again(j)
	}
	j.Due = d.Due
	b.move(j, d.Status)
	if j.Spec.Trigger != nil && d.Status == Pending {
		b.fail(j, downstreamFailed, "trigger: other pipelines cannot be started here")
	}
}

// again makes a new attempt of a job, in the state created.
func (b *book) again(old *job) *job {
	fresh := b.newJob(old.run, old.Definition, old.Attempt+1)
	fresh.Stored = old.Stored
	old.Retried = true
	old.run.Jobs = append(old.run.Jobs, fresh)
	b.addJob(fresh)
	b.touch(old)
	b.touch(fresh)
	return fresh
}

func randomHex(n int) string {
	buf := make([]byte, n)
	_, _ = rand.Read(buf) // never fails
	return hex.EncodeToString(buf)
}

func newUUID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
