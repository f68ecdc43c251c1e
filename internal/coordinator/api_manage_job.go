package coordinator

import (
	"cmp"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// pipelineAdmin is the part of GitLab's management API about pipelines and jobs, for the administrator's token
// (gitlab-server 4.2).
type pipelineAdmin struct{ c *Coordinator }

func (a *pipelineAdmin) register(mux *http.ServeMux) {
	a.c.administer(mux, map[string]http.HandlerFunc{
		"GET /projects":                                  a.projects,
		"GET /projects/{project}":                        a.project,
		"POST /projects/{project}/pipeline":              a.newPipeline,
		"GET /projects/{project}/pipelines":              a.pipelines,
		"GET /projects/{project}/pipelines/{id}":         a.withPipeline(a.showPipeline),
		"GET /projects/{project}/pipelines/{id}/jobs":    a.withPipeline(a.pipelineJobs),
		"POST /projects/{project}/pipelines/{id}/cancel": a.withPipeline(a.cancelPipeline),
		"POST /projects/{project}/pipelines/{id}/retry":  a.withPipeline(a.retryPipeline),
		"GET /projects/{project}/jobs":                   a.jobs,
		"GET /projects/{project}/jobs/{id}":              a.withJob(a.showJob),
		"GET /projects/{project}/jobs/{id}/trace":        a.withJob(a.trace),
		"GET /projects/{project}/jobs/{id}/artifacts":    a.withJob(a.artifacts),
		"POST /projects/{project}/jobs/{id}/cancel":      a.withJob(a.cancelJob),
		"POST /projects/{project}/jobs/{id}/retry":       a.withJob(a.retryJob),
		"POST /projects/{project}/jobs/{id}/play":        a.withJob(a.playJob),
	})
}

// givenVariable is a variable in a request of the management API.
type givenVariable struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Type  string `json:"variable_type"` // "env_var" (or empty), "file"
}

func toVariables(list []givenVariable) []tranter.Variable {
	var out []tranter.Variable
	for _, v := range list {
		out = append(out, tranter.Variable{Key: v.Key, Value: v.Value, File: v.Type == "file"})
	}
	return out
}

// newPipeline starts a pipeline, if the coordinator was told how to make one from a ref.
func (a *pipelineAdmin) newPipeline(w http.ResponseWriter, r *http.Request) {
	p, ok := a.pathProject(w, r)
	if !ok {
		return
	}
	var body struct {
		Ref       string          `json:"ref"`
		Variables []givenVariable `json:"variables"`
	}
	if !decode(w, r, &body) {
		return
	}
	if body.Ref == "" {
		invalid(w, "ref is missing")
		return
	}
	if a.c.options.NewPipeline == nil {
		refuse(w, http.StatusNotImplemented, "")
		return
	}
	id, err := a.c.options.NewPipeline(r.Context(), p, body.Ref, toVariables(body.Variables))
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"message": map[string][]string{"base": {err.Error()}}})
		return
	}
	a.sendPipeline(w, r, http.StatusCreated, id)
}

// pathProject returns the project that the path names, by its id or by its path with %2F for the slashes. On false it
// has answered; who reads by a path that the project had before is sent to the project's id.
func (a *pipelineAdmin) pathProject(w http.ResponseWriter, r *http.Request) (Project, bool) {
	name := r.PathValue("project")
	for _, p := range a.c.Projects() {
		if (strings.EqualFold(p.Path, name) || strconv.FormatInt(p.ID, 10) == name) && callerOf(r).sees(p.Path) {
			return p, true
		}
	}
	if id := a.c.book.formerly(name); id != 0 && r.Method == http.MethodGet {
		w.Header().Set("Location", a.c.base(r)+apiPrefix+strings.Replace(r.URL.EscapedPath(), url.PathEscape(name), strconv.FormatInt(id, 10), 1))
		answer(w, http.StatusMovedPermanently, map[string]string{"message": "Moved Permanently"})
		return Project{}, false
	}
	answer(w, http.StatusNotFound, map[string]string{"message": "404 Project Not Found"})
	return Project{}, false
}

func (a *pipelineAdmin) projectEntity(r *http.Request, p Project) map[string]any {
	return map[string]any{"id": p.ID, "path_with_namespace": p.Path, "web_url": a.c.base(r) + "/" + p.Path}
}

func (a *pipelineAdmin) project(w http.ResponseWriter, r *http.Request) {
	if p, ok := a.pathProject(w, r); ok {
		answer(w, http.StatusOK, a.projectEntity(r, p))
	}
}

func (a *pipelineAdmin) projects(w http.ResponseWriter, r *http.Request) {
	list := []map[string]any{}
	for _, p := range page(w, r, a.c.Projects()) {
		list = append(list, a.projectEntity(r, p))
	}
	answer(w, http.StatusOK, list)
}

// withPipeline calls f with the pipeline that the path names, if it is one of the project.
func (a *pipelineAdmin) withPipeline(f func(http.ResponseWriter, *http.Request, View)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, ok := a.pathProject(w, r)
		if !ok {
			return
		}
		v, err := a.c.Pipeline(pathID(r))
		if err != nil || v.Project != p.Path {
			refuse(w, http.StatusNotFound, "")
			return
		}
		f(w, r, v)
	}
}

// withJob calls f with the job that the path names, if it is one of the project.
func (a *pipelineAdmin) withJob(f func(http.ResponseWriter, *http.Request, JobView)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, ok := a.pathProject(w, r)
		if !ok {
			return
		}
		_, j, err := a.c.jobAndPipeline(pathID(r), p.ID)
		if err != nil {
			refuse(w, http.StatusNotFound, "")
			return
		}
		f(w, r, j)
	}
}

// jobAndPipeline returns a job of the project, and the head of its pipeline.
func (v *views) jobAndPipeline(id, project int64) (View, JobView, error) {
	b := v.book
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.jobs[id]
	if j == nil || j.run.Project != project {
		return View{}, JobView{}, notFound("job", id)
	}
	return b.head(j.run), b.viewJob(j), nil
}

func (a *pipelineAdmin) pipelineEntity(r *http.Request, v View) map[string]any {
	return map[string]any{
		"id": v.ID, "iid": v.IID, "name": v.Name, "ref": v.Ref, "sha": v.SHA, "status": v.Status, "source": v.Source,
		"created_at": v.Created, "finished_at": moment(v.Finished),
		"web_url": a.c.base(r) + "/" + v.Project + "/-/pipelines/" + strconv.FormatInt(v.ID, 10),
	}
}

func (a *pipelineAdmin) jobEntity(r *http.Request, v View, j JobView) map[string]any {
	now := a.c.options.Now()
	files := []map[string]any{}
	var archive any
	for _, f := range j.Artifacts {
		files = append(files, map[string]any{"file_type": f.Type, "size": f.Size, "filename": f.Filename, "file_format": f.Format})
		if f.Type == archiveType {
			archive = map[string]any{"filename": f.Filename, "size": f.Size}
		}
	}
	e := map[string]any{
		"id": j.ID, "name": j.Name, "stage": j.Stage, "status": j.Status, "ref": v.Ref, "allow_failure": j.AllowFailure,
		"created_at": j.Times.Created, "started_at": moment(j.Times.Started), "finished_at": moment(j.Times.Finished),
		"duration": j.Times.Duration(now).Seconds(), "queued_duration": j.Times.queued(now).Seconds(),
		"tag_list": orEmpty(j.Tags), "artifacts": files, "artifacts_file": archive, "exit_code": j.ExitCode,
		"pipeline": map[string]any{"id": v.ID, "iid": v.IID, "ref": v.Ref, "sha": v.SHA, "status": v.Status, "project_id": v.ProjectID},
		"web_url":  a.c.base(r) + "/" + v.Project + "/-/jobs/" + strconv.FormatInt(j.ID, 10),
		"runner":   nil, "runner_manager": nil, "user": userEntity(v.User),
	}
	if j.Reason != "" {
		e["failure_reason"] = j.Reason
	}
	if j.Runner != 0 {
		e["runner"], e["runner_manager"] = map[string]any{"id": j.Runner}, map[string]any{"system_id": j.System}
	}
	return e
}

// queued is how long a job has waited for a runner, up to now if it still does.
func (t Times) queued(now time.Time) time.Duration {
	switch {
	case t.Queued.IsZero():
		return 0
	case t.Started.IsZero():
		return now.Sub(t.Queued)
	}
	return t.Started.Sub(t.Queued)
}

// pipelines lists the pipelines of a project, the newest first.
func (a *pipelineAdmin) pipelines(w http.ResponseWriter, r *http.Request) {
	p, ok := a.pathProject(w, r)
	if !ok {
		return
	}
	b := a.c.book
	b.mu.Lock()
	var runs []*run
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(b.runs))) {
		if status := r.URL.Query().Get("status"); b.runs[id].Project == p.ID && (status == "" || status == string(b.runs[id].Status)) {
			runs = append(runs, b.runs[id])
		}
	}
	list := []map[string]any{}
	for _, one := range page(w, r, runs) {
		list = append(list, a.pipelineEntity(r, b.head(one)))
	}
	b.mu.Unlock()
	answer(w, http.StatusOK, list)
}

func (a *pipelineAdmin) showPipeline(w http.ResponseWriter, r *http.Request, v View) {
	answer(w, http.StatusOK, a.pipelineEntity(r, v))
}

func (a *pipelineAdmin) sendPipeline(w http.ResponseWriter, r *http.Request, status int, id int64) {
	v, err := a.c.Pipeline(id)
	if err != nil {
		fault(w, err)
		return
	}
	answer(w, status, a.pipelineEntity(r, v))
}

// scope returns the states that the query wants; nil: all. On false it has answered.
func scope(w http.ResponseWriter, r *http.Request) ([]Status, bool) {
	var out []Status
	q := r.URL.Query()
	for _, s := range slices.Concat(q["scope[]"], q["scope"]) {
		if !known(Status(s)) {
			invalid(w, "scope does not have a valid value")
			return nil, false
		}
		out = append(out, Status(s))
	}
	return out, true
}

func known(s Status) bool {
	return s.Finished() || s.Executing() || s == Pending ||
		slices.Contains([]Status{Created, WaitingForResource, "preparing", "waiting_for_callback", Manual, Scheduled}, s)
}

func (a *pipelineAdmin) pipelineJobs(w http.ResponseWriter, r *http.Request, v View) {
	states, ok := scope(w, r)
	if !ok {
		return
	}
	retried := r.URL.Query().Get("include_retried") == "true"
	jobs := slices.DeleteFunc(v.Jobs, func(j JobView) bool {
		return j.Retried && !retried || len(states) > 0 && !slices.Contains(states, j.Status)
	})
	slices.SortFunc(jobs, func(x, y JobView) int { return cmp.Compare(y.ID, x.ID) })
	list := []map[string]any{}
	for _, j := range page(w, r, jobs) {
		list = append(list, a.jobEntity(r, v, j))
	}
	answer(w, http.StatusOK, list)
}

// jobs lists the jobs of a project, the newest first. Asked for states in which jobs wait or run, it does not look at
// pipelines that are over.
func (a *pipelineAdmin) jobs(w http.ResponseWriter, r *http.Request) {
	p, ok := a.pathProject(w, r)
	if !ok {
		return
	}
	states, ok := scope(w, r)
	if !ok {
		return
	}
	tagged(w, r, a.jobList(w, r, p.ID, states))
}

func (a *pipelineAdmin) jobList(w http.ResponseWriter, r *http.Request, project int64, states []Status) []map[string]any {
	b := a.c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	runs := b.runs
	if len(states) > 0 && !slices.ContainsFunc(states, Status.Finished) && !slices.Contains(states, Manual) {
		runs = b.live
	}
	var jobs []*job
	for _, one := range runs {
		if one.Project != project {
			continue
		}
		for _, j := range one.Jobs {
			if len(states) == 0 || slices.Contains(states, j.Status) {
				jobs = append(jobs, j)
			}
		}
	}
	slices.SortFunc(jobs, func(x, y *job) int { return cmp.Compare(y.ID, x.ID) })
	list := []map[string]any{}
	cut := page[*job]
	if r.URL.Query().Get("pagination") == "keyset" {
		cut = keyset
	}
	for _, j := range cut(w, r, jobs) {
		list = append(list, a.jobEntity(r, b.head(j.run), b.viewJob(j)))
	}
	return list
}

func (a *pipelineAdmin) showJob(w http.ResponseWriter, r *http.Request, j JobView) {
	a.sendJob(w, r, http.StatusOK, j.ID)
}

func (a *pipelineAdmin) sendJob(w http.ResponseWriter, r *http.Request, status int, id int64) {
	now, err := a.c.Job(id)
	if err != nil {
		fault(w, err)
		return
	}
	v, err := a.c.Pipeline(now.Pipeline)
	if err != nil {
		fault(w, err)
		return
	}
	answer(w, status, a.jobEntity(r, v, now))
}

type forceBody struct {
	Force bool `json:"force"`
}

func (a *pipelineAdmin) cancelPipeline(w http.ResponseWriter, r *http.Request, v View) {
	var body forceBody
	if !decode(w, r, &body) {
		return
	}
	if err := a.c.Cancel(v.ID, body.Force); err != nil {
		fault(w, err)
		return
	}
	a.sendPipeline(w, r, http.StatusOK, v.ID)
}

// retryPipeline retries the jobs of a pipeline that failed or were cancelled.
func (a *pipelineAdmin) retryPipeline(w http.ResponseWriter, r *http.Request, v View) {
	for _, j := range v.Jobs {
		if j.Retried || j.Status != Failed && j.Status != Canceled {
			continue
		}
		if _, err := a.c.RetryJob(j.ID); err != nil && !errors.Is(err, ErrNotPossible) {
			fault(w, err)
			return
		}
	}
	a.sendPipeline(w, r, http.StatusCreated, v.ID)
}

func (a *pipelineAdmin) cancelJob(w http.ResponseWriter, r *http.Request, j JobView) {
	var body forceBody
	if !decode(w, r, &body) {
		return
	}
	if err := a.c.CancelJob(j.ID, body.Force); err != nil {
		fault(w, err)
		return
	}
	a.sendJob(w, r, http.StatusCreated, j.ID)
}

func (a *pipelineAdmin) retryJob(w http.ResponseWriter, r *http.Request, j JobView) {
	id, err := a.c.RetryJob(j.ID)
	switch {
	case errors.Is(err, ErrNotPossible):
		refuse(w, http.StatusForbidden, "Job is not retryable")
	case err != nil:
		fault(w, err)
	default:
		a.sendJob(w, r, http.StatusCreated, id)
	}
}

func (a *pipelineAdmin) playJob(w http.ResponseWriter, r *http.Request, j JobView) {
	var body struct {
		Variables []givenVariable `json:"job_variables_attributes"`
	}
	if !decode(w, r, &body) {
		return
	}
	err := a.c.PlayJob(j.ID, toVariables(body.Variables)...)
	switch {
	case errors.Is(err, ErrNotPossible):
		refuse(w, http.StatusBadRequest, "Unplayable Job")
	case err != nil:
		fault(w, err)
	default:
		a.sendJob(w, r, http.StatusOK, j.ID)
	}
}

// trace sends a job's log, or byte_limit bytes of it from byte_offset on.
func (a *pipelineAdmin) trace(w http.ResponseWriter, r *http.Request, j JobView) {
	q := r.URL.Query()
	offset, err := strconv.ParseInt(q.Get("byte_offset"), 10, 64)
	if err != nil || offset < 0 {
		offset = 0
	}
	limit, err := strconv.ParseInt(q.Get("byte_limit"), 10, 64)
	if err != nil || limit < 0 || limit > j.LogBytes {
		limit = j.LogBytes
	}
	log, err := a.c.Trace(j.ID)
	if err != nil {
		fault(w, err)
		return
	}
	defer log.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if _, err := io.CopyN(io.Discard, log, offset); err == nil {
		_, _ = io.CopyN(w, log, limit) // the reader has gone, or the log is shorter
	}
}

func (a *pipelineAdmin) artifacts(w http.ResponseWriter, r *http.Request, j JobView) {
	i := slices.IndexFunc(j.Artifacts, func(s StoredArtifact) bool { return s.Type == archiveType })
	if i < 0 {
		refuse(w, http.StatusNotFound, "")
		return
	}
	a.c.sendArtifact(w, r, j.ID, j.Artifacts[i])
}
