package pipeline

import (
	"encoding/json"
	"time"

	"github.com/tranter-ci/tranter"
)

// Pipeline is what a .gitlab-ci.yml amounts to: the jobs that are in it, in the order of stages and of the file.
type Pipeline struct {
	Name      string // workflow:name, expanded
	Stages    []string
	Variables []tranter.Variable // top-level ones and those of the matching workflow rule
	Jobs      []Job
}

// When says under which state of what came before a job runs.
type When string

// The values of when. A job with "never" is not in a pipeline.
const (
	OnSuccess When = "on_success"
	OnFailure When = "on_failure"
	Always    When = "always"
	Manual    When = "manual"
	Delayed   When = "delayed"
)

// Job is one job of a pipeline, with everything inherited, exploded and decided.
type Job struct {
	Name  string // "test: [linux, amd64]" or "test 1/3" for a parallel one
	Group string // the name in the file
	Stage string
	File  string // where it is defined
	Line  int

	Script      []string // before_script and script
	AfterScript []string
	Run         json.RawMessage // steps of run:, instead of Script
	Hooks       []tranter.Hook
	Release     json.RawMessage // release:, as written

	Image     tranter.Image
	Services  []tranter.Image
	Variables []tranter.Variable // top-level, job, matrix and rule variables, in this order
	Tags      []string           // expanded

	When              When
	StartIn           time.Duration // of a delayed job
	AllowFailure      bool
	AllowFailureCodes []int // exit codes that are allowed; nil: all (if AllowFailure) or none

	Needs        []Need
	HasNeeds     bool // needs was given, maybe as an empty list: the job does not wait for stages
	Dependencies []string
	HasDepends   bool // dependencies was given, maybe as an empty list

	Artifacts []tranter.Artifact // the archive first, then the reports, in the form of a payload
	Coverage  string             // coverage: the regular expression between the slashes, with its flags
	Cache     []tranter.Cache    // keys resolved as the server does; variables in them are left to the runner

	Retry         Retry
	Timeout       time.Duration // 0: the project's
	Index, Total  int           // CI_NODE_INDEX and CI_NODE_TOTAL; 0 and 1 for a job that is not parallel
	Parallel      bool
	Environment   *Environment
	ResourceGroup string
	Interruptible bool
	IDTokens      map[string][]string // name of the variable to audiences
	Secrets       map[string]json.RawMessage
	Inputs        json.RawMessage
	Trigger       *Trigger // a bridge job: it has no script
}

// Need is an edge of the job graph.
type Need struct {
	Job       string // exact name of a job of the pipeline
	Artifacts bool
	Optional  bool
}

// Retry says how often, and after what, a failed job is tried again as a new job.
type Retry struct {
	Max       int
	When      []string // failure reasons, or "always"
	ExitCodes []int
}

// Environment is a job's deployment target, with its name expanded.
type Environment struct {
	Name, URL, Action, Tier, OnStop string
	AutoStopIn                      time.Duration
}

// Trigger starts another pipeline: of a project, or a child pipeline of the files in Include. With neither, the job takes
// over the status of a pipeline (needs:pipeline).
type Trigger struct {
	Project  string // may have variables
	Branch   string // of Project, may have variables; empty: its default branch
	Include  json.RawMessage
	Inputs   json.RawMessage
	Strategy string // depend, mirror, or empty: it succeeds once the pipeline is created

	ForwardYAML     bool // the job's variables go to the pipeline; the default
	ForwardPipeline bool // so do the variables given for this pipeline
}
