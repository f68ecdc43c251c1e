package coordinator

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/pipeline"
	"github.com/tranter-ci/tranter/internal/variables"
)

// order is one job on its way to a runner, which reaches the server under base.
type order struct {
	*job
	project *project
	runner  *runner
	base    string
	server  string // UUID
}

// payload builds what the runner gets (gitlab-server 2). The job has its Hold and is running.
func (o *order) payload() (*tranter.Job, error) {
	j := o.job
	path := o.project.Path
	if path == "" && j.Raw != nil {
		path = j.Raw.Info.ProjectFullPath // which only the payload knows
	}
	repo, err := repoURL(o.base, path, j.Token)
	if err != nil {
		return nil, err
	}
	if j.Raw != nil {
		return rawPayload(j, repo), nil
	}
	vars := o.variables()
	p := &tranter.Job{
		ID: j.ID, Token: j.Token, AllowGitFetch: true,
		Info: o.info(), Git: o.git(vars, repo),
		Runner:    tranter.RunnerInfo{Timeout: int(j.Hold.Timeout.Seconds()), UUID: o.runner.UUID},
		Variables: vars, Hooks: j.Spec.Hooks, Image: j.Spec.Image, Services: j.Spec.Services,
		Artifacts: j.Spec.Artifacts, Cache: j.Spec.Cache, Dependencies: o.dependencies(),
		Features: tranter.JobFeatures{TraceSections: true, FailureReasons: failureReasons()},
	}
	if given(j.Spec.Run) {
		p.Run = string(j.Spec.Run)
	} else {
		p.Steps = steps(j)
	}
	if p.Secrets, err = secrets(&j.Spec); err != nil {
		return nil, err
	}
	if p.Inputs, err = inputs(j.Spec.Inputs); err != nil {
		return nil, err
	}
	return withoutNulls(p), nil
}

// rawPayload is a payload that was given as a whole, under the id and token of the job.
func rawPayload(j *job, repo string) *tranter.Job {
	p := *j.Raw
	p.ID, p.Token = j.ID, j.Token
	p.Runner.Timeout = int(j.Hold.Timeout.Seconds())
	if p.Git.RepoURL == "" {
		p.Git.RepoURL = repo
	}
	if p.Features.FailureReasons == nil {
		p.Features.FailureReasons = failureReasons()
	}
	return withoutNulls(&p)
}

// withoutNulls makes lists that are not there empty ones.
func withoutNulls(p *tranter.Job) *tranter.Job {
	p.Variables = orEmpty(p.Variables)
	p.Steps = orEmpty(p.Steps)
	p.Services = orEmpty(p.Services)
	p.Artifacts = orEmpty(p.Artifacts)
	p.Cache = orEmpty(p.Cache)
	p.Credentials = orEmpty(p.Credentials)
	p.Dependencies = orEmpty(p.Dependencies)
	p.Git.Refspecs = orEmpty(p.Git.Refspecs)
	return p
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func repoURL(base, project string, token tranter.Secret) (string, error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("the coordinator's address: %w", err)
	}
	u.User = url.UserPassword("gitlab-ci-token", token.Reveal())
	u.Path = strings.TrimRight(u.Path, "/") + "/" + project + ".git"
	return u.String(), nil
}

func (o *order) info() tranter.JobInfo {
	j, p := o.job, o.project
	name := p.Path[strings.LastIndex(p.Path, "/")+1:]
	return tranter.JobInfo{
		Name: j.Spec.Name, Stage: j.Spec.Stage, PipelineID: j.run.ID, ProjectID: p.ID, ProjectName: name, ProjectFullPath: p.Path,
		NamespaceID: 1, RootNamespaceID: 1, OrganizationID: 1, UserID: 1,
		InstanceID: o.server, InstanceUUID: o.server,
		TimeInQueueSeconds: max(0, j.Times.Started.Sub(j.Times.Queued).Seconds()), ProjectJobsRunning: "+Inf",
	}
}

func (o *order) git(vars []tranter.Variable, repo string) tranter.GitInfo {
	j := o.job
	c := j.run.Commit
	g := tranter.GitInfo{
		RepoURL: repo, Ref: c.Ref, SHA: c.SHA, BeforeSHA: c.BeforeSHA, RefType: "branch", Depth: j.run.Depth,
		ObjectFormat: "sha1", Protected: &c.Protected,
	}
	if len(c.SHA) == 64 {
		g.ObjectFormat = "sha256"
	}
	if g.BeforeSHA == "" {
		g.BeforeSHA = strings.Repeat("0", len(c.SHA))
	}
	if c.Tag {
		g.RefType = "tag"
	}
	for _, v := range vars {
		if v.Key == "GIT_DEPTH" {
			if n, err := strconv.Atoi(v.Value); err == nil && n >= 0 {
				g.Depth = n
			}
		}
	}
	g.Refspecs = []string{fmt.Sprintf("+%s:refs/pipelines/%d", c.SHA, j.run.ID)}
	switch {
	case g.Depth == 0:
		g.Refspecs = append(g.Refspecs, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
	case c.Tag:
		g.Refspecs = append(g.Refspecs, fmt.Sprintf("+refs/tags/%s:refs/tags/%s", c.Ref, c.Ref))
	default:
		g.Refspecs = append(g.Refspecs, fmt.Sprintf("+refs/heads/%s:refs/remotes/origin/%s", c.Ref, c.Ref))
	}
	return g
}

func steps(j *job) []tranter.JobStep {
	timeout := int(j.Hold.Timeout.Seconds())
	out := []tranter.JobStep{{Name: "script", Script: orEmpty(j.Spec.Script), Timeout: timeout, When: "on_success"}}
	if given(j.Spec.Release) {
		out = append(out, tranter.JobStep{
			Name: "release", Timeout: timeout, When: "on_success",
			Script: []string{`echo "A release is made by GitLab only: nothing was released."`},
		})
	}
	if len(j.Spec.AfterScript) > 0 {
		out = append(out, tranter.JobStep{
			Name: "after_script", Script: j.Spec.AfterScript, Timeout: timeout, When: "always", AllowFailure: true,
		})
	}
	return out
}

func secrets(spec *pipeline.Job) (map[string]any, error) {
	if len(spec.Secrets) == 0 {
		return nil, nil
	}
	out := map[string]any{}
	for name, raw := range spec.Secrets {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("secret %s: %w", name, err)
		}
		out[name] = v
	}
	return out, nil
}

// inputs gives each input of a job its default: there is nobody who could have given another value.
func inputs(raw json.RawMessage) ([]tranter.Input, error) {
	if !given(raw) {
		return nil, nil
	}
	var defined map[string]struct {
		Type    string          `json:"type"`
		Default json.RawMessage `json:"default"`
	}
	if err := json.Unmarshal(raw, &defined); err != nil {
		return nil, fmt.Errorf("inputs: %w", err)
	}
	var out []tranter.Input
	for _, name := range slices.Sorted(maps.Keys(defined)) {
		d := defined[name]
		if !given(d.Default) {
			return nil, fmt.Errorf("input %s has no default", name)
		}
		value, err := json.Marshal(map[string]any{"type": cmp.Or(d.Type, "string"), "content": d.Default, "sensitive": false})
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", name, err)
		}
		out = append(out, tranter.Input{Key: name, Value: value})
	}
	return out, nil
}

// sources lists the jobs whose artifacts and dotenv variables a job gets (gitlab-server 2.4).
func (j *job) sources() []*job {
	stage := func(x *job) int { return slices.Index(j.run.Stages, x.Spec.Stage) }
	var out []*job
	for _, other := range j.run.latest() {
		wanted := stage(other) < stage(j)
		if j.Spec.HasNeeds {
			wanted = slices.ContainsFunc(j.Spec.Needs, func(n pipeline.Need) bool { return n.Job == other.Spec.Name && n.Artifacts })
		}
		if wanted && j.Spec.HasDepends {
			wanted = slices.Contains(j.Spec.Dependencies, other.Spec.Name) || slices.Contains(j.Spec.Dependencies, other.Spec.Group)
		}
		if wanted && !other.Times.Started.IsZero() {
			out = append(out, other)
		}
	}
	return out
}

func (o *order) dependencies() []tranter.Dependency {
	var out []tranter.Dependency
	for _, from := range o.sources() {
		d := tranter.Dependency{ID: from.ID, Token: o.Token, Name: from.Spec.Name}
		if a, ok := from.artifact(archiveType); ok {
			d.File = &tranter.DependencyFile{Filename: a.Filename, Size: a.Size}
		}
		out = append(out, d)
	}
	return out
}

// variables builds the ordered list of gitlab-server 2.3, expanded as the server does. Later ones win.
func (o *order) variables() []tranter.Variable {
	j, rn := o.job, o.runner
	var list []tranter.Variable
	list = append(list, j.run.Variables.Predefined...)
	list = append(list, o.persisted()...)
	list = append(list, j.described()...)
	list = append(list, served(o.base)...)
	list = append(list, public("CI_RUNNER_ID", strconv.FormatInt(rn.ID, 10)), public("CI_RUNNER_DESCRIPTION", rn.Spec.Description),
		public("CI_RUNNER_TAGS", tagList(rn.Spec.Tags)))
	list = append(list, j.Spec.Variables...)
	list = append(list, aboutUser(j.run.Variables.Predefined)...)
	for _, from := range o.sources() {
		list = append(list, unpublished(from.Dotenv)...)
	}
	list = append(list, unpublished(j.run.Variables.Project)...)
	list = append(list, unpublished(j.run.Variables.Pipeline)...)
	list = append(list, unpublished(j.Stored)...)
	list = append(list, environment(j.Spec.Environment)...)
	return variables.SortAndExpand(list)
}

func public(key, value string) tranter.Variable {
	return tranter.Variable{Key: key, Value: value, Public: true}
}

func hidden(key, value string) tranter.Variable {
	return tranter.Variable{Key: key, Value: value, Masked: true}
}

// aboutUser picks the variables that a job's own cannot replace.
func aboutUser(predefined []tranter.Variable) []tranter.Variable {
	return slices.DeleteFunc(slices.Clone(predefined), func(v tranter.Variable) bool { return !strings.HasPrefix(v.Key, "GITLAB_USER_") })
}

// unpublished are variables that services do not get: on GitLab, all that are stored or given rather than written in the
// pipeline's file.
func unpublished(list []tranter.Variable) []tranter.Variable {
	list = slices.Clone(list)
	for i := range list {
		list[i].Public = false
	}
	return list
}

// persisted are the variables that depend on the ids of pipeline and job.
func (o *order) persisted() []tranter.Variable {
	j, project, base := o.job, o.project, o.base
	page := base + "/" + project.Path
	started := j.Times.Started.UTC().Format("2006-01-02T15:04:05Z")
	id := strconv.FormatInt(j.ID, 10)
	pipelineID := strconv.FormatInt(j.run.ID, 10)
	repo, _ := repoURL(base, project.Path, j.Token) // payload has refused a wrong base
	return []tranter.Variable{
		public("CI_PIPELINE_ID", pipelineID),
		public("CI_PIPELINE_URL", page+"/-/pipelines/"+pipelineID),
		public("CI_JOB_ID", id),
		public("CI_JOB_URL", page+"/-/jobs/"+id),
		hidden("CI_JOB_TOKEN", j.Token.Reveal()),
		public("CI_JOB_STARTED_AT", started),
		public("CI_JOB_STARTED_AT_SLUG", pipeline.Slug(started)),
		public("CI_REGISTRY_USER", "gitlab-ci-token"),
		hidden("CI_REGISTRY_PASSWORD", j.Token.Reveal()),
		{Key: "CI_REPOSITORY_URL", Value: repo},
		public("CI_PIPELINE_IID", strconv.FormatInt(j.run.IID, 10)),
		public("CI_PIPELINE_NAME", j.run.Name),
		public("CI_PIPELINE_CREATED_AT", j.run.Created.UTC().Format("2006-01-02T15:04:05Z")),
		public("CI_PROJECT_ID", strconv.FormatInt(project.ID, 10)),
		public("CI_PROJECT_URL", page),
	}
}

// described are the variables that follow from the job's definition.
func (j *job) described() []tranter.Variable {
	s := &j.Spec
	list := []tranter.Variable{
		public("CI_JOB_NAME", s.Name), public("CI_JOB_NAME_SLUG", pipeline.Slug(s.Name)), public("CI_JOB_GROUP_NAME", s.Group),
		public("CI_JOB_STAGE", s.Stage), public("CI_JOB_TAGS", tagList(s.Tags)), public("CI_JOB_RETRY_COUNT", strconv.Itoa(j.Attempt)),
		public("CI_NODE_TOTAL", strconv.Itoa(max(1, s.Total))),
	}
	if s.Index > 0 {
		list = append(list, public("CI_NODE_INDEX", strconv.Itoa(s.Index)))
	}
	if s.When == pipeline.Manual {
		list = append(list, public("CI_JOB_MANUAL", "true"))
	}
	if e := s.Environment; e != nil {
		list = append(list, public("CI_ENVIRONMENT_NAME", e.Name), public("CI_ENVIRONMENT_ACTION", e.Action),
			public("CI_ENVIRONMENT_TIER", e.Tier))
	}
	return list
}

// served are the addresses of the server as this runner reaches it.
func served(base string) []tranter.Variable {
	u, err := url.Parse(base)
	if err != nil {
		return nil
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return []tranter.Variable{
		public("CI_SERVER_URL", base), public("CI_SERVER_HOST", u.Hostname()), public("CI_SERVER_PORT", port),
		public("CI_SERVER_PROTOCOL", u.Scheme), public("CI_SERVER_FQDN", u.Host), public("CI_API_V4_URL", base+"/api/v4"),
		public("CI_API_GRAPHQL_URL", base+"/api/graphql"), public("CI_SERVER_SHELL_SSH_HOST", u.Hostname()),
	}
}

func environment(e *pipeline.Environment) []tranter.Variable {
	if e == nil {
		return nil
	}
	list := []tranter.Variable{public("CI_ENVIRONMENT_SLUG", pipeline.EnvironmentSlug(e.Name))}
	if e.URL != "" {
		list = append(list, public("CI_ENVIRONMENT_URL", e.URL))
	}
	return list
}

// tagList is the text form in which GitLab gives tags.
func tagList(tags []string) string {
	data, err := json.Marshal(orEmpty(tags))
	if err != nil {
		return "[]"
	}
	return strings.ReplaceAll(string(data), `","`, `", "`)
}
