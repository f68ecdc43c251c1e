package coordinator

import (
	"encoding/json"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// settings is the stored state beside the pipelines: one file.
type settings struct {
	NextRunner   int64          `json:"next_runner"`
	NextProject  int64          `json:"next_project"`
	NextPipeline int64          `json:"next_pipeline"` // this and the next are at least what the journals show
	NextJob      int64          `json:"next_job"`
	Runners      []*runner      `json:"runners"`
	Projects     []*project     `json:"projects"`
	AdminToken   tranter.Secret `json:"admin_token"`
	Instance     string         `json:"instance"` // UUID of this server
	NextGroup    int64          `json:"next_group,omitempty"`
	Groups       []*group       `json:"groups,omitempty"`
	Access       []AccessToken  `json:"access_tokens,omitempty"`
}

// RunnerSpec says which jobs a runner takes, and what is written about it.
type RunnerSpec struct {
	Type            string        `json:"runner_type"`        // "instance_type" (or empty), "group_type", "project_type"
	Owner           int64         `json:"owner,omitempty"`    // group or project of such a runner
	Projects        []int64       `json:"projects,omitempty"` // further projects of a project runner
	Description     string        `json:"description"`
	MaintenanceNote string        `json:"maintenance_note,omitempty"`
	Tags            []string      `json:"tag_list"`
	RunUntagged     bool          `json:"run_untagged"`
	Paused          bool          `json:"paused"`
	Locked          bool          `json:"locked"`
	ProtectedOnly   bool          `json:"ref_protected,omitempty"` // it takes only jobs of protected refs
	MaximumTimeout  time.Duration `json:"maximum_timeout"`         // 0: none
	TokenLifetime   time.Duration `json:"token_lifetime"`          // 0: for ever
}

// Runner is a runner as the server knows it.
type Runner struct {
	ID      int64
	Token   tranter.Secret
	Expires time.Time // zero: never
	RunnerSpec
	Managers []Manager
}

// Manager is one process that uses a runner's token.
type Manager struct {
	SystemID string      `json:"system_id"`
	Info     managerInfo `json:"info"`
	Created  time.Time   `json:"created_at"`
	Contact  time.Time   `json:"contacted_at"`
}

// managerInfo is the part of a request's info that is kept.
type managerInfo struct {
	Name         string            `json:"name"`
	Version      string            `json:"version"`
	Revision     string            `json:"revision"`
	Platform     string            `json:"platform"`
	Architecture string            `json:"architecture"`
	Executor     string            `json:"executor"`
	Shell        string            `json:"shell"`
	Features     tranter.Features  `json:"features"`
	Labels       map[string]string `json:"labels,omitempty"`
}

type runner struct {
	ID       int64               `json:"id"`
	UUID     string              `json:"uuid"`
	Token    tranter.Secret      `json:"token"`
	Created  time.Time           `json:"created_at"`
	Expires  time.Time           `json:"token_expires_at,omitzero"`
	Spec     RunnerSpec          `json:"spec"`
	Managers map[string]*Manager `json:"managers,omitempty"`
	queue    string              // changes when a job that this runner can take becomes pending (gitlab-server 3.3)
	bell     bell                // rings when queue changes
}

// project is a repository with pipelines.
type project struct {
	ID     int64    `json:"id"`
	Path   string   `json:"path"`             // "group/name"
	Source string   `json:"source"`           // working tree or bare repository of the user; empty: none
	IID    int64    `json:"iid"`              // of its last pipeline
	Former []string `json:"former,omitempty"` // paths that it had
}

// run is one pipeline. Its state follows from its jobs and is not stored.
type run struct {
	ID          int64         `json:"id"`
	IID         int64         `json:"iid"`
	Project     int64         `json:"project"`
	Name        string        `json:"name,omitempty"`
	Source      string        `json:"source"`
	Commit      commitRecord  `json:"commit"`
	Stages      []string      `json:"stages"`
	Variables   runVariables  `json:"variables"`
	Depth       int           `json:"depth"`
	Timeout     time.Duration `json:"timeout"`
	Created     time.Time     `json:"created"`
	Definitions []*definition `json:"definitions"`
	Status      Status        `json:"-"`
	Finished    time.Time     `json:"-"`
	Jobs        []*job        `json:"-"` // in order of their ids, retried ones too
	journal     journal
}

// definition is what all attempts of a job have in common. It does not change.
type definition struct {
	Spec pipeline.Job `json:"spec"`
	Raw  *tranter.Job `json:"raw,omitempty"` // a payload to hand out as it is
}

type commitRecord struct {
	Ref       string `json:"ref"`
	Tag       bool   `json:"tag,omitempty"`
	SHA       string `json:"sha"`
	BeforeSHA string `json:"before_sha"`
	Protected bool   `json:"protected"`
}

type runVariables struct {
	Predefined []tranter.Variable `json:"predefined,omitempty"`
	Project    []tranter.Variable `json:"project,omitempty"`
	Pipeline   []tranter.Variable `json:"pipeline,omitempty"`
}

// job is one attempt of a job: one line of its pipeline's journal, which is written anew with each change.
type job struct {
	ID         int64          `json:"id"`
	Token      tranter.Secret `json:"token"`
	Definition int            `json:"definition"` // which of its pipeline's
	Attempt    int            `json:"attempt,omitempty"`
	jobState
	*definition `json:"-"`
	run         *run
	contact     time.Time // when its runner was last heard of
	touched     bool      // since the last settle
	bell        bell      // rings with each change, and when its log has grown
}

// jobState is what changes of a job.
type jobState struct {
	Status    Status                `json:"status"`
	Reason    tranter.FailureReason `json:"reason,omitempty"`
	ExitCode  int                   `json:"exit_code,omitempty"`
	Retried   bool                  `json:"retried,omitempty"` // a later attempt has taken its place
	Played    bool                  `json:"played,omitempty"`
	Due       time.Time             `json:"due,omitzero"`
	Problem   string                `json:"problem,omitempty"` // what the user should know besides the reason
	Times     jobTimes              `json:"times"`
	Hold      hold                  `json:"hold,omitzero"`
	Log       logRecord             `json:"log,omitzero"`
	Artifacts []StoredArtifact      `json:"artifacts,omitempty"`
	Dotenv    []tranter.Variable    `json:"dotenv,omitempty"`
	Stored    []tranter.Variable    `json:"play_variables,omitempty"` // given when the job was played
}

type jobTimes struct {
	Created  time.Time `json:"created"`
	Queued   time.Time `json:"queued,omitzero"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
}

// hold says who runs the job, and on what terms.
type hold struct {
	Runner   int64         `json:"runner,omitempty"`
	System   string        `json:"system_id,omitempty"`
	Graceful bool          `json:"graceful,omitempty"` // the runner knows how to cancel and still run after_script
	Reset    bool          `json:"reset,omitempty"`    // the runner sends the log again when told so
	Timeout  time.Duration `json:"timeout,omitempty"`
}

type logRecord struct {
	size     int64  // of the file
	sum      uint32 // CRC-32 of the file
	Debug    bool   `json:"debug,omitempty"`
	Checksum string `json:"checksum,omitempty"` // as the runner reported it
	Damaged  bool   `json:"damaged,omitempty"`  // the stored log is not what the runner has sent
	Resends  int    `json:"resends,omitempty"`
}

// StoredArtifact is one uploaded file.
type StoredArtifact struct {
	Type     string    `json:"file_type"`
	Format   string    `json:"file_format"`
	Filename string    `json:"filename"`
	Size     int64     `json:"size"`
	SHA256   string    `json:"sha256"`
	ExpireIn string    `json:"expire_in,omitempty"`
	Created  time.Time `json:"created_at"`
}

func (j *job) artifact(kind string) (StoredArtifact, bool) {
	for _, a := range j.Artifacts {
		if a.Type == kind {
			return a, true
		}
	}
	return StoredArtifact{}, false
}

func (j *job) node() Node {
	return Node{
		ID: j.ID, Spec: &j.Spec, Status: j.Status, Attempt: j.Attempt, Played: j.Played, Due: j.Due,
		Reason: j.Reason, ExitCode: j.ExitCode,
	}
}

// latest yields the attempts that count.
func (r *run) latest() []*job {
	var out []*job
	for _, j := range r.Jobs {
		if !j.Retried {
			out = append(out, j)
		}
	}
	return out
}

func (r *run) graph(now time.Time) Graph {
	g := Graph{Now: now, Stages: r.Stages}
	for _, j := range r.latest() {
		g.Nodes = append(g.Nodes, j.node())
	}
	return g
}

func given(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }
