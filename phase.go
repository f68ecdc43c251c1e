package tranter

import (
	"slices"
	"time"
)

// PhaseFormat is the version of how phases and their results are written to files. While a job runs, the manager may be
// replaced by an older or a newer one than the job's agent: a field may be added without a new version, one that is there
// may neither go nor change its meaning.
const PhaseFormat = 1

// Phase is the part of a job that runs in one environment in one go: plain data, made by package plan, carried out by
// the agent. It holds secrets; files with it have mode 0600.
type Phase struct {
	ID        string        `json:"id"` // unique within the job; starting a phase again under the same ID changes nothing
	JobID     int64         `json:"job_id"`
	JobName   string        `json:"job_name"`
	Dirs      Dirs          `json:"dirs"`
	Variables []Variable    `json:"variables"` // the complete ordered list, expanded; a file variable holds its content
	Shell     string        `json:"shell"`     // bash, sh, pwsh or powershell
	Login     bool          `json:"login"`     // run the shell as a login shell
	Log       LogFormat     `json:"log"`
	Deadline  time.Time     `json:"deadline"`   // end of the job's timeout; zero: none
	Timeout   time.Duration `json:"timeout"`    // the job's whole timeout, for messages
	KillGrace time.Duration `json:"kill_grace"` // between SIGTERM and SIGKILL; 0: 10 s
	// ScriptTimeout is for all of the user's scripts but after_script together; 0: none.
	ScriptTimeout time.Duration `json:"script_timeout"`
	FlatBackoff   bool          `json:"flat_backoff"` // between attempts: 1, 2, 4, 5 s instead of 5, 10, 20 s ...
	Prior         PhaseResult   `json:"prior"`        // how the phases before this one left the job; zero: all fine
	Steps         []Step        `json:"steps"`
	Server        Server        `json:"server"`
	JobToken      Secret        `json:"job_token"`
	RunnerName    string        `json:"runner_name"`
	Version       string        `json:"version"` // "tranter 1.2.3 linux/amd64", for the user agent of git
	// Driver, if set, has the steps carried out by a program of somebody else, each as a script.
	Driver *Driver `json:"driver,omitempty"`
	// Container, if set, says how the phase runs in one of several containers that make up the job's environment.
	Container *Container `json:"container,omitempty"`
}

// Container is about a phase in one of a job's containers.
type Container struct {
	Place Place `json:"place"`
	// Shared says that phases in other containers, whose users may be others, use the same directories: the temporary
	// directory and the file variables are for every user of them.
	Shared bool `json:"shared,omitempty"`
	// Said is what the image's entrypoint has printed: the phase's log begins with it.
	Said string `json:"said,omitempty"`
}

// Place names the container that a phase runs in.
type Place string

// The containers of a job (runner contract, section 9.6).
const (
	PlaceBuild  Place = "build"  // the job's image: scripts
	PlaceHelper Place = "helper" // the helper image: sources, caches, artifacts
)

// Driver is the program of a custom executor that runs the script of each step in an environment that only it can
// reach (runner contract, section 10).
type Driver struct {
	Exec  string        `json:"exec"` // gets Args, the script's path and the stage's name
	Args  []string      `json:"args,omitempty"`
	Env   []string      `json:"env"`            // KEY=VALUE, after what the agent itself has; secret
	Dir   string        `json:"dir"`            // for scripts; the working directory
	Exit  string        `json:"exit"`           // file in which the program leaves the exit code of a script that has failed
	Grace time.Duration `json:"grace"`          // between SIGTERM and SIGKILL
	Force time.Duration `json:"force"`          // how long a killed program is waited for
	Host  string        `json:"host,omitempty"` // name of the environment; empty: it says so itself
}

// Dirs are the directories of a job (runner contract, section 3.11): absolute paths in the job's environment.
type Dirs struct {
	Builds  string `json:"builds"`  // root of all builds
	Project string `json:"project"` // the working tree
	Temp    string `json:"temp"`    // <project>.tmp: file variables, git template, GITLAB_ENV
	Cache   string `json:"cache"`   // root of local cache archives, including the project's slug
}

// LogFormat says how the agent writes the log (runner contract, section 4).
type LogFormat struct {
	Timestamps    bool     `json:"timestamps"`
	Sections      bool     `json:"sections"`
	LimitBytes    int64    `json:"limit_bytes"`    // for this phase; 0: no limit
	LimitWhole    int64    `json:"limit_whole"`    // of the whole log, for the message; 0: LimitBytes
	Phrases       []Secret `json:"phrases"`        // masked wherever they occur
	TokenPrefixes []string `json:"token_prefixes"` // what follows one of these is masked, and one of GitLab's own
	FewTokens     bool     `json:"few_tokens"`     // of GitLab's own prefixes, only glpat- counts
	Full          bool     `json:"full,omitempty"` // the limit was reached in an earlier phase: nothing more is kept
}

// Server is how the agent reaches the coordinator for artifacts. File contents are PEM text.
type Server struct {
	URL     string `json:"url"`
	TLSCA   string `json:"tls_ca,omitempty"`
	TLSCert string `json:"tls_cert,omitempty"` // path of a file
	TLSKey  string `json:"tls_key,omitempty"`  // path of a file
}

// StepWhen says for which state of the job a step runs.
type StepWhen string

// The conditions of steps. After a job timeout or an abort only Always steps run.
const (
	OnSuccess   StepWhen = "on_success"   // nothing has failed
	OnFailure   StepWhen = "on_failure"   // something has failed, or the job has been cancelled
	AfterScript StepWhen = "after_script" // a script has been started, whatever came of it
	Always      StepWhen = "always"
)

// Step is one action of a phase. Exactly one of the pointers is set.
type Step struct {
	Name     string        `json:"name"`  // the stage's name of section 3.1, also of its log section
	Title    string        `json:"title"` // the headline in the log; empty: the step is silent
	When     StepWhen      `json:"when"`
	Attempts int           `json:"attempts"` // total tries; 0: one
	Timeout  time.Duration `json:"timeout"`  // of all tries together; 0: the phase's deadline only

	Prepare  *PrepareStep  `json:"prepare,omitempty"`
	Sources  *SourcesStep  `json:"sources,omitempty"`
	Restore  *RestoreStep  `json:"restore,omitempty"`
	Download *DownloadStep `json:"download,omitempty"`
	Script   *ScriptStep   `json:"script,omitempty"`
	Archive  *ArchiveStep  `json:"archive,omitempty"`
	Upload   *UploadStep   `json:"upload,omitempty"`
	Cleanup  *CleanupStep  `json:"cleanup,omitempty"`
}

// Wanted says whether the step's condition holds for a job that stands as r says. A result without a status is fine.
func (s *Step) Wanted(r PhaseResult) bool {
	fine := r.Status == "" || r.Status == PhaseSucceeded
	switch s.When {
	case Always:
		return true
	case OnFailure:
		return !r.Over && !fine
	case AfterScript:
		return !r.Over && r.ScriptReached
	default:
		return !r.Over && fine
	}
}

// Wanted says whether there is something to do in the phase, as the phases before it have left the job: one in which no
// step would run need not be started.
func (p *Phase) Wanted() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Wanted(p.Prior) })
}

// PrepareStep makes the directories and says where the job runs.
type PrepareStep struct {
	Greeting string `json:"greeting"` // "Running on %s via NAME...": %s is the host's name
}

// SourcesStep gets the sources (runner contract, section 6).
type SourcesStep struct {
	Strategy      string    `json:"strategy"` // clone, fetch, none, empty
	RepoURL       string    `json:"repo_url"` // without credentials
	BaseURL       string    `json:"base_url"` // of the server, for relative submodules
	Username      string    `json:"username"`
	Password      Secret    `json:"password"`
	Ref           string    `json:"ref"`
	SHA           string    `json:"sha"`
	Refspecs      []string  `json:"refspecs"`
	Depth         int       `json:"depth"`
	ObjectFormat  string    `json:"object_format"`
	SkipCheckout  bool      `json:"skip_checkout"`
	CleanFlags    []string  `json:"clean_flags"` // nil: no clean of the main tree
	FetchFlags    []string  `json:"fetch_flags"`
	CloneFlags    []string  `json:"clone_flags"`
	NativeClone   bool      `json:"native_clone"`
	BundleURIs    bool      `json:"bundle_uris"`
	ProactiveAuth bool      `json:"proactive_auth"`
	SkipLFS       bool      `json:"skip_lfs"`
	SafeDirectory bool      `json:"safe_directory"`
	CleanConfig   bool      `json:"clean_config"`
	CorrelationID string    `json:"correlation_id"`
	Submodules    Submodule `json:"submodules"`
	PreScripts    []string  `json:"pre_scripts"` // hooks, in order
	PostScripts   []string  `json:"post_scripts"`
	SharedEnv     bool      `json:"shared_env"` // several jobs share the user's home: leave the global git config alone
}

// Submodule says how to treat submodules (runner contract, section 6.5).
type Submodule struct {
	Strategy    string   `json:"strategy"` // none, normal, recursive
	Paths       []string `json:"paths"`
	Depth       int      `json:"depth"`
	UpdateFlags []string `json:"update_flags"`
	ForceHTTPS  bool     `json:"force_https"`
	SSHHost     string   `json:"ssh_host"` // what ForceHTTPS rewrites
	SSHPort     string   `json:"ssh_port"`
}

// RestoreStep unpacks caches (runner contract, section 7.4). A cache that cannot be had never fails the job.
type RestoreStep struct {
	Caches []CacheEntry `json:"caches"`
}

// ArchiveStep packs and saves caches (runner contract, section 7.6).
type ArchiveStep struct {
	Caches []CacheEntry `json:"caches"`
}

// CacheEntry is one cache with its keys expanded and sanitised.
type CacheEntry struct {
	Key       string     `json:"key"`             // as shown to the user
	Objects   []string   `json:"objects"`         // candidates in order, each "<key>"; the first is the one that is saved
	Names     []string   `json:"names,omitempty"` // of Objects, as the user knows them; empty: as they are
	Paths     []string   `json:"paths"`           // patterns, expanded by the agent with shell rules
	Untracked bool       `json:"untracked"`
	Skip      string     `json:"skip,omitempty"`     // a notice to print instead, such as "Not downloading cache K due to policy"
	Warnings  []string   `json:"warnings,omitempty"` // to print first
	Store     CacheStore `json:"store"`
	// Remote holds, for each of Objects, how it is reached in a distributed cache. The manager signs it when the job
	// starts; empty: there is none, or it could not be reached.
	Remote []RemoteArchive `json:"remote,omitempty"`
}

// CacheStore says where archives live besides the local directory.
type CacheStore struct {
	Type      string `json:"type"`       // "", "directory", or a distributed one: "s3", "gcs", "azure", "builtin"
	Directory string `json:"directory"`  // shared directory of type "directory"
	Prefix    string `json:"prefix"`     // object name up to the key: <Path>/[runner/<short token>/]project/<id>
	MaxUpload int64  `json:"max_upload"` // bytes; 0: no limit
}

// DownloadStep fetches and unpacks the artifacts of earlier jobs.
type DownloadStep struct {
	Dependencies []Dependency `json:"dependencies"`
	Parallel     bool         `json:"parallel,omitempty"` // FF_USE_PARALLEL_ARTIFACT_TRANSFER
}

// ScriptStep runs commands in one shell.
type ScriptStep struct {
	Commands     []string `json:"commands"`
	After        bool     `json:"after"`         // after_script: CI_JOB_STATUS tells how the job stands
	IgnoreErrors bool     `json:"ignore_errors"` // a failure is only warned about
	Trace        bool     `json:"trace"`         // CI_DEBUG_TRACE
	Sections     bool     `json:"sections"`      // FF_SCRIPT_SECTIONS
	ExitChecks   bool     `json:"exit_checks"`   // FF_ENABLE_BASH_EXIT_CODE_CHECK
	User         bool     `json:"user"`          // a script of the user, not a hook
}

// UploadStep uploads artifacts (runner contract, section 8.1). Only entries that match the job's state are in it.
type UploadStep struct {
	Artifacts     []Artifact    `json:"artifacts"`
	Timeout       time.Duration `json:"timeout"`
	HeaderTimeout time.Duration `json:"header_timeout"`
	Trace         bool          `json:"trace,omitempty"`      // CI_DEBUG_TRACE: show what the server answers
	Provenance    *Provenance   `json:"provenance,omitempty"` // goes into archives of format zip; nil: none
}

// Provenance is what a statement about the origin of artifacts tells (runner contract, section 8.3).
type Provenance struct {
	Schema       string   `json:"schema"`     // SLSA_PROVENANCE_SCHEMA_VERSION
	BuildType    string   `json:"build_type"` // address of the text that explains the statement
	RepoURL      string   `json:"repo_url"`   // of the project, without credentials and .git
	SHA          string   `json:"sha"`
	JobName      string   `json:"job_name"`
	Executor     string   `json:"executor"`
	RunnerName   string   `json:"runner_name"`
	RunnerID     string   `json:"runner_id"`
	Architecture string   `json:"architecture"`
	Parameters   []string `json:"parameters"` // names of the job's variables; their values stay secret
}

// CleanupStep removes file variables and other traces of the job (runner contract, section 6.9).
type CleanupStep struct {
	WipeBuild  bool     `json:"wipe_build"` // FF_ENABLE_JOB_CLEANUP
	Strategy   string   `json:"strategy"`
	CleanFlags []string `json:"clean_flags"`
}

// AttemptPause returns the wait after the n-th attempt of a stage, n from 1 on (runner contract, section 3.3).
func AttemptPause(n int, flat bool) time.Duration {
	if flat {
		return min(time.Second<<(n-1), 5*time.Second)
	}
	return min(5*time.Second<<(n-1), 5*time.Minute)
}
