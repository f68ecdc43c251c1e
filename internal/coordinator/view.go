package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tranter-ci/tranter"
)

// views is the part of a coordinator that only looks.
type views struct{ book *book }

// View is a pipeline as it stands.
type View struct {
	ID        int64
	IID       int64
	Project   string
	ProjectID int64
	Name      string
	Ref       string
	SHA       string
	Source    string
	User      string // who has started it
	Status    Status
	Stages    []string
	Created   time.Time
	Finished  time.Time
	Jobs      []JobView // in the order of the pipeline; earlier attempts before later ones
}

// JobView is one attempt of a job as it stands.
type JobView struct {
	ID           int64
	Pipeline     int64
	Name         string
	Stage        string
	Status       Status
	Reason       tranter.FailureReason
	Problem      string // what else the user should know
	ExitCode     int
	AllowFailure bool // the job's failure is, or would be, only a warning
	Stuck        bool // pending, and no runner takes it
	Retried      bool // a later attempt has taken its place
	Attempt      int  // earlier attempts
	Runner       int64
	System       string // of the runner's process
	Tags         []string
	Needs        []string // names; nil for a job that waits for stages
	Times        Times
	LogBytes     int64
	LogDamaged   bool // the log's checksum is not what the runner reported
	Artifacts    []StoredArtifact
}

// Times are the moments of a job; zero where it has not come that far.
type Times struct{ Created, Queued, Started, Finished, Due time.Time }

// Duration is how long the job has run, up to now if it still does.
func (t Times) Duration(now time.Time) time.Duration {
	if t.Started.IsZero() {
		return 0
	}
	if t.Finished.IsZero() {
		return now.Sub(t.Started)
	}
	return t.Finished.Sub(t.Started)
}

func (b *roster) viewJob(j *job) JobView {
	v := JobView{
		ID: j.ID, Pipeline: j.run.ID, Name: j.Spec.Name, Stage: j.Spec.Stage, Status: j.Status, Reason: j.Reason, Problem: j.Problem,
		ExitCode: j.ExitCode, AllowFailure: FailureAllowed(&j.Spec, j.Status, j.ExitCode),
		Retried: j.Retried, Attempt: j.Attempt, Runner: j.Hold.Runner, System: j.Hold.System, Tags: j.Spec.Tags,
		Times: Times{
			Created: j.Times.Created, Queued: j.Times.Queued, Started: j.Times.Started, Finished: j.Times.Finished, Due: j.Due,
		},
		LogBytes: j.Log.size, LogDamaged: j.Log.Damaged, Artifacts: slices.Clone(j.Artifacts),
	}
	v.Stuck = j.Status == Pending && !b.someRunnerTakes(j)
	if j.Spec.HasNeeds {
		v.Needs = []string{}
		for _, n := range j.Spec.Needs {
			v.Needs = append(v.Needs, n.Job)
		}
	}
	return v
}

// head is a pipeline without its jobs.
func (b *roster) head(r *run) View {
	return View{
		ID: r.ID, IID: r.IID, Project: b.project(r.Project).Path, ProjectID: r.Project, Name: r.Name, Ref: r.Commit.Ref, SHA: r.Commit.SHA,
		Source: r.Source, User: r.startedBy(), Status: r.Status, Stages: r.Stages, Created: r.Created, Finished: r.Finished,
	}
}

func (b *roster) view(r *run) View {
	v := b.head(r)
	for _, j := range r.Jobs {
		v.Jobs = append(v.Jobs, b.viewJob(j))
	}
	order := map[string]int{}
	for i, j := range r.Jobs {
		if _, ok := order[j.Spec.Name]; !ok {
			order[j.Spec.Name] = i
		}
	}
	slices.SortStableFunc(v.Jobs, func(x, y JobView) int { return cmp.Compare(order[x.Name], order[y.Name]) })
	return v
}

// Projects returns all projects.
func (v *views) Projects() []Project {
	v.book.mu.Lock()
	defer v.book.mu.Unlock()
	var out []Project
	for _, p := range v.book.settings.Projects {
		out = append(out, Project{ID: p.ID, Path: p.Path, Source: p.Source})
	}
	return out
}

// Pipeline returns a pipeline as it stands, or ErrNotFound.
func (v *views) Pipeline(id int64) (View, error) {
	b := v.book
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.runs[id]
	if r == nil {
		return View{}, notFound("pipeline", id)
	}
	return b.view(r), nil
}

// Pipelines returns all pipelines, the newest first.
func (v *views) Pipelines() []View {
	b := v.book
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []View
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(b.runs))) {
		out = append(out, b.view(b.runs[id]))
	}
	return out
}

// Job returns one attempt of a job as it stands, or ErrNotFound.
func (v *views) Job(id int64) (JobView, error) {
	b := v.book
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.jobs[id]
	if j == nil {
		return JobView{}, notFound("job", id)
	}
	return b.viewJob(j), nil
}

// Wait returns a job once done says so of it, or ctx's error. Done is asked again whenever the job, its log or the
// runners have changed.
func (v *views) Wait(ctx context.Context, id int64, done func(JobView) bool) (JobView, error) {
	b := v.book
	for {
		b.mu.Lock()
		j := b.jobs[id]
		if j == nil {
			b.mu.Unlock()
			return JobView{}, notFound("job", id)
		}
		now, changed, runners := b.viewJob(j), j.bell.wait(), b.bell.wait()
		b.mu.Unlock()
		if done(now) {
			return now, nil
		}
		select {
		case <-changed:
		case <-runners:
		case <-ctx.Done():
			return now, fmt.Errorf("wait for job %d, which is %s: %w", id, now.Status, ctx.Err())
		}
	}
}
