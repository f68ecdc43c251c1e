package spec

import (
	"cmp"
	"maps"
	"strconv"

	"github.com/tranter-ci/tranter/internal/variables"
)

// Labels of ours on containers, networks and volumes.
const (
	LabelType      = "io.tranter.type"      // of what is not a job's: TypeAgent and others
	LabelOwner     = "io.tranter.owner"     // id of the manager
	LabelRunner    = "io.tranter.runner"    // short token
	LabelJob       = "io.tranter.job"       // tranter.SessionSpec.Name
	LabelSession   = "io.tranter.session"   // Input.Session
	LabelExpires   = "io.tranter.expires"   // Unix seconds
	LabelTemporary = "io.tranter.temporary" // "1": a volume that goes with its job

	TypeAgent = "agent"
)

// StockLabel begins the names of the stock runner's labels (runner contract, section 9.8).
const StockLabel = "com.gitlab.gitlab-runner."

// Values of the stock label "type".
const (
	stockBuild     = "build"
	stockHelper    = "predefined"
	stockService   = "service"
	stockCache     = "cache"
	stockTemporary = "temporary" // ours: the sweeper leaves alone what is called a cache
)

// labels are those that all things of a job have in common.
type labels struct {
	stock map[string]string // without their prefix
	own   map[string]string // nobody replaces them
	user  map[string]string // container_labels
}

func newLabels(j *job) labels {
	in, job, git := j.in, j.in.Job, j.in.Job.Git
	pipeline := ""
	if job.Info.PipelineID != 0 {
		pipeline = strconv.FormatInt(job.Info.PipelineID, 10)
	}
	var l labels
	l.stock = map[string]string{
		"job.id":            strconv.FormatInt(job.ID, 10),
		"job.url":           job.URL(),
		"job.sha":           git.SHA,
		"job.before_sha":    git.BeforeSHA,
		"job.ref":           git.Ref,
		"job.timeout":       job.Timeout().String(),
		"project.id":        strconv.FormatInt(job.Info.ProjectID, 10),
		"project.runner_id": strconv.Itoa(in.Slots.Project),
		"pipeline.id":       cmp.Or(pipeline, j.vars.Get("CI_PIPELINE_ID")),
		"runner.id":         in.Runner.ShortToken,
		"runner.local_id":   strconv.Itoa(in.Runner.LocalID),
		"runner.system_id":  in.Runner.SystemID,
		"managed":           "true",
	}
	l.own = map[string]string{
		LabelOwner: in.Runner.Owner, LabelRunner: in.Runner.ShortToken, LabelJob: in.Name, LabelSession: in.Session,
	}
	if !in.Expires.IsZero() {
		l.own[LabelExpires] = strconv.FormatInt(in.Expires.Unix(), 10)
	}
	// The job's own variables only: what the runner adds may differ between two containers of a kind.
	payload := variables.List(in.Job.Variables)
	l.user = map[string]string{}
	for k, v := range in.Settings.ContainerLabels {
		l.user[k] = payload.ExpandString(v, in.Dirs.Temp)
	}
	return l
}

// of returns those of one thing: the user's, the stock runner's with more added, and ours, which nobody replaces.
func (l labels) of(more map[string]string) map[string]string {
	out := maps.Clone(l.user)
	for k, v := range l.stock {
		out[StockLabel+k] = v
	}
	for k, v := range more {
		out[StockLabel+k] = v
	}
	maps.Copy(out, l.own)
	return out
}

// ofService returns those of a service, which has the user's also under the stock runner's prefix.
func (l labels) ofService(v Service) map[string]string {
	more := maps.Clone(l.user)
	maps.Copy(more, map[string]string{"type": stockService, "service": v.slug.service, "service.version": v.slug.version})
	return l.of(more)
}

// ofCache returns those of a volume that outlives the job: nothing on it says that it may be swept.
func (l labels) ofCache(more map[string]string) map[string]string {
	out := l.of(more)
	for _, k := range []string{LabelJob, LabelSession, LabelExpires} {
		delete(out, k)
	}
	for k := range l.user {
		delete(out, k)
	}
	return out
}
