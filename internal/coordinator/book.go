package coordinator

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// book is the whole state in memory. Every method expects mu to be held, unless it says otherwise.
type book struct {
	mu       sync.Mutex
	disk     *disk
	now      func() time.Time
	log      *slog.Logger
	settings settings
	runs     map[int64]*run
	jobs     map[int64]*job
	tokens   map[tranter.Secret]*job

	changed   chan struct{} // closed and replaced whenever a job or a log changes
	dirty     map[*run]bool
	dirtyJobs []*job
	feeds     map[*feed]bool
}

func openBook(d *disk, now func() time.Time, log *slog.Logger) (*book, error) {
	b := &book{
		disk: d, now: now, log: log,
		runs: map[int64]*run{}, jobs: map[int64]*job{}, tokens: map[tranter.Secret]*job{},
		changed: make(chan struct{}), dirty: map[*run]bool{}, feeds: map[*feed]bool{},
	}
	if err := load(d.settingsPath(), &b.settings); err != nil {
		return nil, err
	}
	for _, rn := range b.settings.Runners {
		rn.queue = randomHex(16)
	}
	runs, err := d.loadRuns()
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		b.runs[r.ID] = r
		b.settings.NextPipeline = max(b.settings.NextPipeline, r.ID)
		for _, j := range r.Jobs {
			if err := b.index(r, j); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// index takes a stored job in. Its runner gets the full time to make itself heard again.
func (b *book) index(r *run, j *job) error {
	j.run, j.contact = r, b.now()
	b.jobs[j.ID], b.tokens[j.Token] = j, j
	b.settings.NextJob = max(b.settings.NextJob, j.ID)
	info, err := os.Stat(b.disk.tracePath(j.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	j.Log.size = info.Size()
	return nil
}

// add makes a new job part of a pipeline.
func (b *book) add(r *run, j *job) {
	b.settings.NextJob++
	j.ID = b.settings.NextJob
	j.Token = tranter.Secret("glcbt-64_" + randomHex(20))
	j.run, j.Times.Created, j.contact = r, b.now(), b.now()
	if j.Status == "" {
		j.Status = Created
	}
	r.Jobs = append(r.Jobs, j)
	b.jobs[j.ID], b.tokens[j.Token] = j, j
	b.touch(j)
}

// touch notes that a job has changed: it is saved and told by settle.
func (b *book) touch(j *job) {
	b.dirty[j.run] = true
	if !slices.Contains(b.dirtyJobs, j) {
		b.dirtyJobs = append(b.dirtyJobs, j)
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

// settle draws all conclusions from what has changed, saves it and tells it. It ends every change of the book.
func (b *book) settle() error {
	if len(b.dirty) == 0 {
		return nil
	}
	for b.conclude() {
	}
	var errs []error
	for r := range b.dirty {
		b.grade(r)
		errs = append(errs, save(b.disk.runPath(r.ID), r))
	}
	b.tick()
	b.tell()
	clear(b.dirty)
	b.dirtyJobs = nil
	b.broadcast()
	if err := errors.Join(errs...); err != nil {
		b.log.Error("the state could not be saved", slog.Any("error", err))
		return err
	}
	return nil
}

// conclude applies the scheduler's decisions once to all pipelines that are not over.
func (b *book) conclude() bool {
	any := false
	for _, id := range b.ids() {
		r := b.runs[id]
		if r.Status.Finished() && !b.dirty[r] {
			continue
		}
		g := r.graph(b.now())
		g.Busy = b.busy(r)
		for _, d := range Advance(g) {
			b.apply(b.jobs[d.ID], d)
			any = true
		}
	}
	return any
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
	old.Retried = true
	b.touch(old)
	fresh := &job{Spec: old.Spec, Raw: old.Raw, Attempt: old.Attempt + 1, Stored: old.Stored}
	b.add(old.run, fresh)
	return fresh
}

func (b *book) ids() []int64 {
	ids := make([]int64, 0, len(b.runs))
	for id := range b.runs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// busy lists the resource groups that jobs of other pipelines of the same project occupy.
func (b *book) busy(r *run) map[string]bool {
	out := map[string]bool{}
	for _, other := range b.runs {
		if other == r || other.Project != r.Project || other.Status.Finished() {
			continue
		}
		for _, j := range other.Jobs {
			if j.Spec.ResourceGroup != "" && j.Status.holds() {
				out[j.Spec.ResourceGroup] = true
			}
		}
	}
	return out
}

// grade recomputes the state of a pipeline.
func (b *book) grade(r *run) {
	r.Status = PipelineStatus(r.graph(b.now()).Nodes)
	if !r.Status.Finished() {
		r.Finished = time.Time{}
	} else if r.Finished.IsZero() {
		r.Finished = b.now()
	}
}

// broadcast wakes all that wait for a change.
func (b *book) broadcast() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *book) saveSettings() error {
	if err := save(b.disk.settingsPath(), &b.settings); err != nil {
		b.log.Error("the state could not be saved", slog.Any("error", err))
		return err
	}
	return nil
}

func (b *book) project(id int64) *project {
	i := slices.IndexFunc(b.settings.Projects, func(p *project) bool { return p.ID == id })
	if i < 0 {
		return &project{}
	}
	return b.settings.Projects[i]
}

// pending lists the jobs that wait for a runner, oldest first.
func (b *book) pending() []*job {
	var out []*job
	for _, j := range b.jobs {
		if j.Status == Pending && !j.Retried {
			out = append(out, j)
		}
	}
	slices.SortFunc(out, func(x, y *job) int { return cmp.Compare(x.ID, y.ID) })
	return out
}

func randomHex(n int) string {
	buf := make([]byte, n)
	_, _ = rand.Read(buf) // never fails
	return hex.EncodeToString(buf)
}
