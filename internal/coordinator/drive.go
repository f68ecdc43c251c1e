package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// Project is a repository with pipelines.
type Project struct {
	ID     int64
	Path   string // "group/name"
	Source string // working tree, directory or bare repository that it serves; empty: nothing to clone
}

var projectPath = lazy.Regexp(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$`)

// CreateProject makes a project, or returns the one of that name with its source changed. A name without a group gets
// the group "local".
func (c *Coordinator) CreateProject(name, source string) (Project, error) {
	if !strings.Contains(name, "/") {
		name = "local/" + name
	}
	if !projectPath().MatchString(name) || strings.HasSuffix(name, ".git") {
		return Project{}, fmt.Errorf("create project: %q is no path of a project", name)
	}
	if source != "" {
		abs, err := filepath.Abs(source)
		if err != nil {
			return Project{}, fmt.Errorf("create project: %w", err)
		}
		source = abs
	}
	b := c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.settings.Projects, func(p *project) bool { return p.Path == name })
	if i < 0 {
		b.settings.NextProject++
		b.settings.Projects = append(b.settings.Projects, &project{ID: b.settings.NextProject, Path: name})
		i = len(b.settings.Projects) - 1
	}
	p := b.settings.Projects[i]
	p.Source = source
	b.makeGroups(name)
	if err := b.saveSettings(); err != nil {
		return Project{}, fmt.Errorf("create project: %w", err) // one that is not saved does no harm: it has no jobs
	}
	return Project{ID: p.ID, Path: p.Path, Source: p.Source}, nil
}

// PipelineSpec says what to run.
type PipelineSpec struct {
	Pipeline *pipeline.Pipeline
	Ref      string
	Tag      bool
	SHA      string // a commit that the project's repository has, such as Snapshot's
	Before   string // the commit before it; empty: none
	Source   string // CI_PIPELINE_SOURCE; empty: push

	Predefined []tranter.Variable // what the pipeline was compiled with
	Project    []tranter.Variable // of the project
	Variables  []tranter.Variable // given for this pipeline

	Only      []string // names, or names in the file, of jobs: only these and what they need; manual ones are played
	Depth     int      // of the clone; 0: everything
	Timeout   time.Duration
	Protected bool
}

// StartPipeline makes a pipeline and starts it.
func (c *Coordinator) StartPipeline(ctx context.Context, project int64, spec PipelineSpec) (int64, error) {
	if spec.Pipeline == nil || len(spec.Pipeline.Jobs) == 0 {
		return 0, errors.New("start pipeline: there are no jobs in it")
	}
	jobs, err := chosen(spec.Pipeline.Jobs, spec.Only)
	if err != nil {
		return 0, fmt.Errorf("start pipeline: %w", err)
	}
	r := &run{
		Project: project, Name: spec.Pipeline.Name, Source: cmp.Or(spec.Source, "push"), Stages: spec.Pipeline.Stages,
		Commit:    commitRecord{Ref: spec.Ref, Tag: spec.Tag, SHA: spec.SHA, BeforeSHA: spec.Before, Protected: spec.Protected},
		Variables: runVariables{Predefined: spec.Predefined, Project: spec.Project, Pipeline: spec.Variables},
		Depth:     spec.Depth, Timeout: spec.Timeout,
	}
	b := c.book
	b.mu.Lock()
	exists := b.project(project).ID != 0
	if exists {
		b.number(r)
	}
	b.mu.Unlock()
	if !exists {
		return 0, notFound("project", project)
	}
	if err := c.pin(ctx, r); err != nil {
		return 0, fmt.Errorf("start pipeline: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, chosen := range jobs {
		for token := range chosen.IDTokens {
			b.log.Warn("id_tokens are made by GitLab only: this variable will be missing", slog.String("job", chosen.Name), slog.String("variable", token))
		}
		r.Definitions = append(r.Definitions, &definition{Spec: chosen.Job})
		j := b.newJob(r, i, 0)
		j.Played = chosen.played
		r.Jobs = append(r.Jobs, j)
	}
	if err := b.start(r); err != nil {
		return 0, fmt.Errorf("start pipeline: %w", err)
	}
	return r.ID, nil
}

// Enqueue offers a payload as it is to the runners whose tags include the given ones, as a pipeline of one job. Its
// id and token are replaced, its timeout and features completed. It returns the job's id.
func (c *Coordinator) Enqueue(payload tranter.Job, tags ...string) (int64, error) {
	b := c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	spec := pipeline.Job{Name: payload.Info.Name, Group: payload.Info.Name, Stage: cmp.Or(payload.Info.Stage, "test"), Tags: tags}
	r := &run{
		Project: payload.Info.ProjectID, Source: "api", Stages: []string{spec.Stage},
		Commit:      commitRecord{Ref: payload.Git.Ref, SHA: payload.Git.SHA},
		Definitions: []*definition{{Spec: spec, Raw: &payload}},
	}
	b.number(r)
	j := b.newJob(r, 0, 0)
	r.Jobs = []*job{j}
	if err := b.start(r); err != nil {
		return 0, fmt.Errorf("enqueue: %w", err)
	}
	return j.ID, nil
}

func (b *book) number(r *run) {
	b.settings.NextPipeline++
	r.ID, r.IID, r.Created, r.Status = b.settings.NextPipeline, 1, b.now(), Created
	if p := b.project(r.Project); p.ID != 0 {
		p.IID++
		r.IID = p.IID
	}
}

type chosenJob struct {
	pipeline.Job
	played bool
}

// chosen leaves of jobs the named ones and what they need.
func chosen(jobs []pipeline.Job, names []string) ([]chosenJob, error) {
	s := selection{jobs: jobs, wanted: make([]bool, len(jobs))}
	called := func(i int, name string) bool { return jobs[i].Name == name || jobs[i].Group == name }
	for _, name := range names {
		if !s.want(name) {
			return nil, fmt.Errorf("no job is called %q: %w", name, ErrNotFound)
		}
	}
	var out []chosenJob
	for i := range jobs {
		if len(names) > 0 && !s.wanted[i] {
			continue
		}
		c := chosenJob{Job: jobs[i], played: slices.ContainsFunc(names, func(name string) bool { return called(i, name) })}
		if c.played && c.When == pipeline.OnFailure {
			c.When = pipeline.Always // who names it wants it to run
		}
		out = append(out, c)
	}
	return out, nil
}

// selection marks jobs with all that they need.
type selection struct {
	jobs   []pipeline.Job
	wanted []bool
}

// want marks the jobs of a name, and tells whether there are any.
func (s *selection) want(name string) bool {
	found := false
	for i := range s.jobs {
		j := &s.jobs[i]
		if j.Name != name && j.Group != name {
			continue
		}
		found = true
		if s.wanted[i] {
			continue
		}
		s.wanted[i] = true
		for _, n := range j.Needs {
			s.want(n.Job)
		}
		for _, d := range j.Dependencies {
			s.want(d)
		}
	}
	return found
}

// change calls f with the job, which is known and the latest attempt, and settles.
func (c *Coordinator) change(id int64, f func(*book, *job) error) error {
	b := c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.jobs[id]
	if j == nil {
		return notFound("job", id)
	}
	if err := f(b, j); err != nil {
		return fmt.Errorf("job %d: %w", id, err)
	}
	return b.settle()
}

// Cancel cancels all jobs of a pipeline that are not over. With force it does not wait for jobs that are being cancelled.
func (c *Coordinator) Cancel(pipeline int64, force bool) error {
	b := c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.runs[pipeline]
	if r == nil {
		return notFound("pipeline", pipeline)
	}
	for _, j := range r.latest() {
		b.cancel(j, force)
	}
	return b.settle()
}

// CancelJob cancels one job, or ErrNotPossible. A runner that can is asked to end it gracefully; force ends it at once.
func (c *Coordinator) CancelJob(id int64, force bool) error {
	return c.change(id, func(b *book, j *job) error {
		if j.Status.Finished() || j.Status == Manual {
			return ErrNotPossible
		}
		b.cancel(j, force)
		return nil
	})
}

// cancel ends a job at once, unless a runner is to end it (gitlab-server 1.8).
func (b *book) cancel(j *job, force bool) {
	switch {
	case j.Status.Finished() || j.Status == Manual:
	case j.Status.Executing() && j.Hold.Graceful && !force:
		if j.Status == Running {
			b.move(j, Canceling)
		}
	default:
		b.move(j, Canceled)
	}
}

// RetryJob makes a new attempt of a job that is over, and returns its id.
func (c *Coordinator) RetryJob(id int64) (int64, error) {
	var fresh int64
	err := c.change(id, func(b *book, j *job) error {
		if j.Retried || j.Status != Success && j.Status != Failed && j.Status != Canceled {
			return ErrNotPossible
		}
		n := b.again(j)
		n.Played = true
		fresh = n.ID
		b.restart(n)
		return nil
	})
	return fresh, err
}

// PlayJob starts a manual job, or a delayed one before its time, with more variables.
func (c *Coordinator) PlayJob(id int64, vars ...tranter.Variable) error {
	return c.change(id, func(b *book, j *job) error {
		if j.Retried || j.Status != Manual && j.Status != Scheduled {
			return ErrNotPossible
		}
		j.Stored = vars
		b.restart(j)
		return nil
	})
}

// restart lets a job run whatever came before it, and what was skipped because of it be looked at again.
func (b *book) restart(j *job) {
	for _, id := range Revived(j.run.graph(b.now()), j.Spec.Name) {
		b.move(b.jobs[id], Created)
	}
	j.Status = Manual // from where Advance takes it to the queue
	j.Played = true
	b.touch(j)
}
