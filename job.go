package tranter

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Job is the payload with which a coordinator hands out a job (runner contract, section 2). Field names and JSON keys
// are GitLab's; unknown fields are ignored.
type Job struct {
	ID            int64          `json:"id"`
	Token         Secret         `json:"token"`
	AllowGitFetch bool           `json:"allow_git_fetch"`
	Info          JobInfo        `json:"job_info"`
	Git           GitInfo        `json:"git_info"`
	Runner        RunnerInfo     `json:"runner_info"`
	Inputs        []Input        `json:"inputs,omitempty"`
	Variables     []Variable     `json:"variables"`
	Steps         []JobStep      `json:"steps"`
	Hooks         []Hook         `json:"hooks,omitempty"`
	Image         Image          `json:"image"`
	Services      []Image        `json:"services"`
	Artifacts     []Artifact     `json:"artifacts"`
	Cache         []Cache        `json:"cache"`
	Credentials   []Credential   `json:"credentials"`
	Dependencies  []Dependency   `json:"dependencies"`
	Features      JobFeatures    `json:"features"`
	Secrets       map[string]any `json:"secrets,omitempty"`
	Run           string         `json:"run,omitempty"`
	Policy        PolicyOptions  `json:"policy_options,omitzero"`
	// SecretVariables are the resolved Secrets: never on the wire, set by the manager.
	SecretVariables []Variable        `json:"-"`
	Local           map[string]string `json:"-"` // never on the wire: set by the client that received the job (TLS files, correlation id)
}

// Keys of Job.Local.
const (
	LocalTLSCA         = "tls_ca"         // PEM text of the certificate authorities that the coordinator was verified with
	LocalTLSCert       = "tls_cert"       // path of the client certificate
	LocalTLSKey        = "tls_key"        // path of the client key
	LocalCorrelationID = "correlation_id" // X-Request-Id of the answer that carried the job
)

// JobInfo names the job and its project (runner contract, section 2.2).
type JobInfo struct {
	Name               string  `json:"name"`
	Stage              string  `json:"stage"`
	PipelineID         int64   `json:"pipeline_id,omitempty"`
	ProjectID          int64   `json:"project_id"`
	ProjectName        string  `json:"project_name"`
	ProjectFullPath    string  `json:"project_full_path,omitempty"`
	NamespaceID        int64   `json:"namespace_id,omitempty"`
	RootNamespaceID    int64   `json:"root_namespace_id,omitempty"`
	OrganizationID     int64   `json:"organization_id,omitempty"`
	InstanceID         string  `json:"instance_id,omitempty"`
	InstanceUUID       string  `json:"instance_uuid,omitempty"`
	UserID             int64   `json:"user_id,omitempty"`
	TimeInQueueSeconds float64 `json:"time_in_queue_seconds,omitempty"`
	ProjectJobsRunning string  `json:"project_jobs_running_on_instance_runners_count,omitempty"`
	QueueSize          int64   `json:"queue_size,omitempty"`
	QueueDepth         int64   `json:"queue_depth,omitempty"`
}

// GitInfo says which commit to work on (runner contract, section 2.3). Depth 0 means the whole history.
type GitInfo struct {
	RepoURL      string   `json:"repo_url"`
	Ref          string   `json:"ref"`
	SHA          string   `json:"sha"`
	BeforeSHA    string   `json:"before_sha"`
	RefType      string   `json:"ref_type"`
	Refspecs     []string `json:"refspecs"`
	Depth        int      `json:"depth"`
	ObjectFormat string   `json:"repo_object_format,omitempty"`
	Protected    *bool    `json:"protected,omitempty"` // nil: an older server that does not say
}

// RunnerInfo carries the job's timeout in seconds.
type RunnerInfo struct {
	Timeout int    `json:"timeout"`
	UUID    string `json:"uuid,omitempty"`
}

// Input is one job input (runner contract, section 2.11). Value is kept raw so that a malformed one fails the job, not
// the decoding of its payload.
type Input struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

// Variable is one CI/CD variable (runner contract, section 2.4). In a list, the last one with a key wins.
type Variable struct {
	Key      string `json:"key"`
	Value    string `json:"value"`
	Public   bool   `json:"public"`
	Masked   bool   `json:"masked"`
	File     bool   `json:"file,omitempty"`
	Raw      bool   `json:"raw,omitempty"`
	Internal bool   `json:"-"` // provided by the runner; reaches services although it may not be public
}

// JobStep is one script of the payload (runner contract, section 2.5): "script", "release", "after_script" or others.
type JobStep struct {
	Name         string   `json:"name"`
	Script       []string `json:"script"`
	Timeout      int      `json:"timeout"`
	When         string   `json:"when"`
	AllowFailure bool     `json:"allow_failure"`
}

// Hook is a script of the job that runs around another step, such as pre_get_sources_script.
type Hook struct {
	Name   string   `json:"name"`
	Script []string `json:"script"`
}

// Image is the container image of a job or of one of its services (runner contract, section 2.6).
type Image struct {
	Name         string          `json:"name"`
	Alias        string          `json:"alias,omitempty"`
	Command      []string        `json:"command,omitempty"`
	Entrypoint   []string        `json:"entrypoint,omitempty"`
	Ports        json.RawMessage `json:"ports,omitempty"`
	Variables    []Variable      `json:"variables,omitempty"`
	PullPolicy   []string        `json:"pull_policy,omitempty"`
	ExecutorOpts json.RawMessage `json:"executor_opts,omitempty"`
}

// Artifact says what to upload when the job has ended (runner contract, section 2.7).
type Artifact struct {
	Name      string   `json:"name"`
	Untracked bool     `json:"untracked"`
	Paths     []string `json:"paths"`
	Exclude   []string `json:"exclude,omitempty"`
	When      string   `json:"when"`
	Type      string   `json:"artifact_type"`
	Format    string   `json:"artifact_format,omitempty"`
	ExpireIn  string   `json:"expire_in,omitempty"`
}

// Cache is one cache of the job (runner contract, section 2.8).
type Cache struct {
	Key          string   `json:"key"`
	Untracked    bool     `json:"untracked"`
	Policy       string   `json:"policy"`
	Paths        []string `json:"paths"`
	When         string   `json:"when"`
	FallbackKeys []string `json:"fallback_keys,omitempty"`
}

// Credential is a login to a registry.
type Credential struct {
	Type     string `json:"type"`
	URL      string `json:"url"`
	Username string `json:"username"`
	Password Secret `json:"password"`
}

// Dependency is an earlier job whose artifacts this job gets. Token is the one to download with.
type Dependency struct {
	ID    int64           `json:"id"`
	Token Secret          `json:"token"`
	Name  string          `json:"name"`
	File  *DependencyFile `json:"artifacts_file,omitempty"` // nil: nothing to download
}

// DependencyFile names an archive and its size in bytes.
type DependencyFile struct {
	Filename string `json:"filename"`
	Size     int64  `json:"size"`
}

// JobFeatures says what the coordinator understands (runner contract, section 2.9).
type JobFeatures struct {
	TraceSections     bool            `json:"trace_sections"`
	TokenMaskPrefixes []string        `json:"token_mask_prefixes,omitempty"`
	FailureReasons    []FailureReason `json:"failure_reasons,omitempty"`
}

// PolicyOptions is printed into the log of a job that a policy has injected.
type PolicyOptions struct {
	ExecutionPolicyJob                bool     `json:"execution_policy_job"`
	PolicyName                        string   `json:"policy_name"`
	PolicyVariablesOverrideAllowed    *bool    `json:"policy_variables_override_allowed,omitempty"`
	PolicyVariablesOverrideExceptions []string `json:"policy_variables_override_exceptions,omitempty"`
}

// DefaultJobTimeout holds for a job whose payload names none.
const DefaultJobTimeout = 2 * time.Hour

// Timeout returns the time that the job may take.
func (j *Job) Timeout() time.Duration {
	if j.Runner.Timeout <= 0 {
		return DefaultJobTimeout
	}
	return time.Duration(j.Runner.Timeout) * time.Second
}

// Ref returns what later calls to the coordinator need to name the job.
func (j *Job) Ref() JobRef { return JobRef{ID: j.ID, Token: j.Token} }

// CleanRepoURL returns the repository's URL without credentials, query and fragment.
func (j *Job) CleanRepoURL() string {
	u, err := url.Parse(j.Git.RepoURL)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// ShortSHA returns at most the first 8 characters of the commit id.
func (j *Job) ShortSHA() string {
	if len(j.Git.SHA) > 8 {
		return j.Git.SHA[:8]
	}
	return j.Git.SHA
}

// Variable returns the value of the payload's last variable called key, and whether there is one.
func (j *Job) Variable(key string) (string, bool) {
	for _, v := range slices.Backward(j.Variables) {
		if v.Key == key {
			return v.Value, true
		}
	}
	return "", false
}

// URL returns the address of the job's page, or "" when the repository's URL does not tell it.
func (j *Job) URL() string {
	base := strings.TrimSuffix(j.CleanRepoURL(), ".git")
	if base == "" {
		return ""
	}
	return base + "/-/jobs/" + jsonInt(j.ID)
}

func jsonInt(n int64) string {
	b, _ := json.Marshal(n)
	return string(b)
}
