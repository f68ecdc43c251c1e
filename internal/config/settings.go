package config

import (
	"time"

	"github.com/tranter-ci/tranter"
)

// Config is a whole config.toml with all defaults filled in.
type Config struct {
	Concurrent       int               `toml:"concurrent" default:"1" example:"concurrent = 4" about:"Jobs that this process runs at the same time, over all runners."`
	CheckInterval    time.Duration     `toml:"check_interval" unit:"s" default:"3" zero:"default" min:"0" about:"Time in which each runner asks its server for a job once."`
	LogLevel         string            `toml:"log_level" default:"info" enum:"panic,fatal,error,warning,warn,info,debug" about:"How much the manager logs; the flag --log-level wins."`
	LogFormat        string            `toml:"log_format" default:"runner" enum:"runner,text,json" about:"Form of the manager's log; the flag --log-format wins."`
	ListenAddress    string            `toml:"listen_address" example:"listen_address = \":9252\"" about:"Address of the HTTP server for metrics and debugging; empty: none. The port is 9252 unless given. Read at start only."`
	ShutdownTimeout  time.Duration     `toml:"shutdown_timeout" unit:"s" default:"30" zero:"default" min:"0" about:"Time that running jobs get to end once the manager has been told to stop at once."`
	SentryDSN        tranter.Secret    `toml:"sentry_dsn" built:"no" about:"Where the manager's own errors are reported."`
	ConnectionMaxAge time.Duration     `toml:"connection_max_age" default:"15m" min:"0" about:"Connections to a server that are older than this are replaced before the next request; 0 keeps them."`
	User             string            `toml:"user" about:"System user as whom the shell executor runs jobs; the flag --user wins."`
	Labels           map[string]string `toml:"labels" example:"labels = { site = \"berlin\" }" about:"Labels that all runners report to the server."`
	StateDir         string            `toml:"state_dir" about:"Directory for what has to survive a restart: jobs, logs on their way, the control socket. Not a key of GitLab Runner."`
	CacheServer      CacheServer       `toml:"cache_server" about:"The cache of type builtin; read when the first runner uses it. Not a section of GitLab Runner."`
	DiskGuard        DiskGuard         `toml:"disk_guard" about:"Room on the disk below which no jobs are taken. Not a section of GitLab Runner."`
	SessionServer    SessionServer     `toml:"session_server" about:"Server for interactive terminals of jobs; read at start only."`
	Machine          MachineGlobal     `toml:"machine" shown:"given" about:"What concerns the machines of all runners."`
	Web              Web               `toml:"web" shown:"given" about:"The web page of the manager; read at start only, the tokens too. Not a section of GitLab Runner."`
	History          History           `toml:"history" shown:"given" about:"What is kept of the past; read at start only. Not a section of GitLab Runner."`
	Cost             Cost              `toml:"cost" shown:"given" about:"Prices, from which costs are worked out. Not a section of GitLab Runner."`
	Tracing          Tracing           `toml:"tracing" shown:"given" about:"Traces of jobs by OpenTelemetry; read at start only. Not a section of GitLab Runner."`
	Experimental     Experimental      `toml:"experimental" built:"no" about:"Settings that may change or go."`
	Runners          []Runner          `toml:"runners" about:"One section per runner, that is, per token."`
}

// SessionServer is [session_server].
type SessionServer struct {
	ListenAddress    string        `toml:"listen_address" example:"listen_address = \"[::]:8093\"" about:"Address to listen on; empty: no session server."`
	AdvertiseAddress string        `toml:"advertise_address" about:"Address under which GitLab reaches the session server, without a scheme; the listen address unless given."`
	SessionTimeout   time.Duration `toml:"session_timeout" unit:"s" default:"1800" zero:"default" min:"0" about:"Time that a job's environment stays after the job's end while a terminal is attached, at most to the job's timeout."`
}

// DiskGuard is [disk_guard].
type DiskGuard struct {
	MinFreeMiB    int `toml:"min_free_mib" default:"256" min:"0" example:"min_free_mib = 4096" about:"MiB that must be free on the disks of the state directory, of a runner's builds and cache directories, if its executor works on this host, and of its container engine; 0: any."`
	MinFreeInodes int `toml:"min_free_inodes" default:"1000" min:"0" about:"Inodes that must be free there; 0: any."`
	// What follows is about the disks of container engines.
	PruneFreeMiB    int `toml:"prune_free_mib" default:"2048" min:"0" example:"prune_free_mib = 8192" about:"MiB that are kept free on the disks of container engines, by removing images and cache volumes that were not used for the longest time; 0: nothing is removed."`
	PruneFreeInodes int `toml:"prune_free_inodes" default:"20000" min:"0" about:"Inodes that are kept free there in the same way; 0: nothing is removed."`
}

// MachineGlobal is [machine].
type MachineGlobal struct {
	ShutdownDrain ShutdownDrain `toml:"shutdown_drain" about:"Removal of all machines when the manager ends."`
}

// ShutdownDrain is [machine.shutdown_drain].
type ShutdownDrain struct {
	Enabled      bool          `toml:"enabled" about:"Remove all machines before the manager exits, which may take 5 minutes; not when it makes way for another one."`
	Concurrency  int           `toml:"concurrency" default:"3" zero:"default" min:"0" about:"Machines that are removed at the same time in GitLab Runner. Here all are."`
	MaxRetries   int           `toml:"max_retries" default:"3" zero:"default" min:"0" about:"Further tries for a machine that could not be removed, in GitLab Runner. Here it is tried until the time is over, and after the next start."`
	RetryBackoff time.Duration `toml:"retry_backoff" default:"5s" zero:"default" min:"0" about:"Wait before the next try in GitLab Runner. Here it begins with a second, and gets longer."`
}

// Experimental is [experimental].
type Experimental struct {
	UsageLogger UsageLogger `toml:"usage_logger" about:"One JSON record for each job that has ended."`
}

// UsageLogger is [experimental.usage_logger].
type UsageLogger struct {
	Enabled   bool      `toml:"enabled" about:"Write usage records."`
	Writers   []string  `toml:"writers" default:"logrotate" about:"Where the records go: logrotate, snowplow_billing."`
	LogRotate LogRotate `toml:"logrotate" about:"Usage records in files that are rotated."`
	Snowplow  Snowplow  `toml:"snowplow_billing" about:"Usage records for a Snowplow collector."`
}

// LogRotate is [experimental.usage_logger.logrotate].
type LogRotate struct {
	LogDir         string            `toml:"log_dir" about:"Directory of the files; usage-log beside the configuration unless given."`
	MaxBackupFiles int               `toml:"max_backup_files" min:"0" about:"Old files that are kept."`
	MaxRotationAge time.Duration     `toml:"max_rotation_age" min:"0" about:"Age at which a file is rotated."`
	Labels         map[string]string `toml:"labels" about:"Labels in each record."`
}

// Snowplow is [experimental.usage_logger.snowplow_billing].
type Snowplow struct {
	CollectorURI     string            `toml:"collector_uri" about:"Address of the collector."`
	AppID            string            `toml:"app_id" about:"Application id in each record."`
	Category         string            `toml:"category" about:"Event category."`
	Realm            string            `toml:"realm" about:"Realm in each record, such as saas or self-managed."`
	DeploymentType   string            `toml:"deployment_type" about:"Kind of deployment in each record."`
	Metadata         map[string]string `toml:"metadata" about:"Further fields of each record."`
	EnableOIDC       bool              `toml:"enable_oidc" about:"Authenticate by an identity token of the cloud."`
	SkipOIDC         bool              `toml:"skip_oidc_if_unsupported_cloud" default:"true" about:"Go on without an identity token where the cloud has none."`
	SkipSystemFaults bool              `toml:"skip_runner_system_failure" default:"true" about:"No record for jobs that failed through the runner."`
	DeliveryBuckets  []float64         `toml:"batch_delivery_duration_buckets" about:"Histogram buckets of the delivery time, in seconds."`
}

// Runner is one [[runners]] section.
type Runner struct {
	Name            string         `toml:"name" flag:"name,description" env:"RUNNER_NAME" about:"Description of the runner; commands select runners by it."`
	URL             string         `toml:"url" flag:"url" short:"u" env:"CI_SERVER_URL" example:"url = \"https://gitlab.example.com\"" about:"The GitLab server. $VAR and ${VAR} are taken from the manager's environment."`
	Token           tranter.Secret `toml:"token" flag:"token" short:"t" env:"CI_SERVER_TOKEN" shown:"short" example:"token = \"$RUNNER_TOKEN\"" about:"The runner's authentication token. $VAR and ${VAR} are taken from the manager's environment."`
	TokenFile       string         `toml:"token_file" flag:"token-file" env:"CI_SERVER_TOKEN_FILE" example:"token_file = \"runner.token\"" about:"File that holds the token, in place of token; relative to the configuration file, as a flag to the current directory. Not a key of GitLab Runner."`
	ID              int64          `toml:"id" min:"0" about:"Number of the runner on its server."`
	TokenObtainedAt time.Time      `toml:"token_obtained_at" about:"When the token was issued."`
	TokenExpiresAt  time.Time      `toml:"token_expires_at" about:"When the token stops working; it is replaced in time."`
	TLSCAFile       string         `toml:"tls-ca-file" flag:"tls-ca-file" env:"CI_SERVER_TLS_CA_FILE" about:"PEM file of certificate authorities to trust besides the system's."`
	TLSCertFile     string         `toml:"tls-cert-file" flag:"tls-cert-file" env:"CI_SERVER_TLS_CERT_FILE" about:"PEM file of the client certificate; needs tls-key-file."`
	TLSKeyFile      string         `toml:"tls-key-file" flag:"tls-key-file" env:"CI_SERVER_TLS_KEY_FILE" about:"PEM file of the client certificate's key."`
	Executor        string         `toml:"executor" flag:"executor" env:"RUNNER_EXECUTOR" enum:"shell,docker,docker-windows,docker+machine,docker-autoscaler,instance,kubernetes,custom,apptainer,ssh,parallels,virtualbox" example:"executor = \"shell\"" about:"Where jobs run."`
	Shell           string         `toml:"shell" flag:"shell" env:"RUNNER_SHELL" enum:"bash,sh,pwsh,powershell" about:"Shell of the job's script; what suits the executor unless given."`

	Limit                  int           `toml:"limit" flag:"limit" env:"RUNNER_LIMIT" min:"0" about:"Jobs of this runner at the same time, and machines that it may have; 0: no limit of its own."`
	OutputLimit            int           `toml:"output_limit" flag:"output-limit" env:"RUNNER_OUTPUT_LIMIT" default:"4096" zero:"default" min:"0" about:"Largest log of a job, in KiB."`
	RequestConcurrency     int           `toml:"request_concurrency" flag:"request-concurrency" env:"RUNNER_REQUEST_CONCURRENCY" default:"1" zero:"default" min:"0" about:"Requests for a job that may be under way at the same time."`
	StrictCheckInterval    bool          `toml:"strict_check_interval" flag:"strict-check-interval" env:"RUNNER_STRICT_CHECK_INTERVAL" about:"Wait for check_interval even after a job was received."`
	UnhealthyRequestsLimit int           `toml:"unhealthy_requests_limit" flag:"unhealthy-requests-limit" env:"RUNNER_UNHEALTHY_REQUESTS_LIMIT" default:"3" zero:"default" min:"0" about:"Failed requests in a row after which the runner pauses."`
	UnhealthyInterval      time.Duration `toml:"unhealthy_interval" flag:"unhealthy-interval" env:"-" default:"60m" zero:"default" min:"0" about:"Length of that pause."`
	FinalUpdateRetryLimit  int           `toml:"job_status_final_update_retry_limit" flag:"job-status-final-update-retry-limit" env:"RUNNER_job_status_final_update_retry_limit" default:"10" zero:"default" min:"0" about:"Tries to tell the server how a job ended before the manager goes over to slow repetition."`
	PrepareTimeout         time.Duration `toml:"prepare_timeout" flag:"prepare-timeout" env:"RUNNER_PREPARE_TIMEOUT" min:"0" about:"Longest preparation of a job's environment; 0: the job's timeout."`
	GetSourcesTimeout      time.Duration `toml:"get_sources_timeout" flag:"get-sources-timeout" env:"RUNNER_GET_SOURCES_TIMEOUT" min:"0" about:"Longest fetch of the sources; 0: the job's timeout."`

	Labels                map[string]string `toml:"labels" about:"Labels that this runner reports, in addition to the global ones."`
	BuildsDir             string            `toml:"builds_dir" flag:"builds-dir" env:"RUNNER_BUILDS_DIR" about:"Root of the directories in which jobs work; what suits the executor unless given."`
	CacheDir              string            `toml:"cache_dir" flag:"cache-dir" env:"RUNNER_CACHE_DIR" about:"Root of the caches that stay where the job runs."`
	CloneURL              string            `toml:"clone_url" flag:"clone-url" env:"CLONE_URL" about:"Replaces scheme, host and port of the repository's address."`
	Environment           []string          `toml:"environment" flag:"env" env:"RUNNER_ENV" example:"environment = [\"GIT_DEPTH=20\"]" about:"Variables that each job gets, as KEY=VALUE."`
	ProxyExec             bool              `toml:"proxy_exec" flag:"proxy-exec" env:"RUNNER_PROXY_EXEC" built:"no" about:"Run commands through a helper that masks values learned during the job."`
	PreGetSourcesScript   string            `toml:"pre_get_sources_script" flag:"pre-get-sources-script" env:"RUNNER_PRE_GET_SOURCES_SCRIPT" old:"pre_clone_script" about:"Commands before the sources are fetched."`
	PostGetSourcesScript  string            `toml:"post_get_sources_script" flag:"post-get-sources-script" env:"RUNNER_POST_GET_SOURCES_SCRIPT" old:"post_clone_script" about:"Commands after the sources were fetched."`
	PreBuildScript        string            `toml:"pre_build_script" flag:"pre-build-script" env:"RUNNER_PRE_BUILD_SCRIPT" about:"Commands before the job's script, in its environment."`
	PostBuildScript       string            `toml:"post_build_script" flag:"post-build-script" env:"RUNNER_POST_BUILD_SCRIPT" about:"Commands after the job's script, if it succeeded."`
	DebugTraceDisabled    bool              `toml:"debug_trace_disabled" flag:"debug-trace-disabled" env:"RUNNER_DEBUG_TRACE_DISABLED" about:"Ignore CI_DEBUG_TRACE, which prints all variables."`
	SafeDirectoryCheckout Optional[bool]    `toml:"safe_directory_checkout" flag:"safe-directory-checkout" env:"RUNNER_SAFE_DIRECTORY_CHECKOUT" about:"Tell git that the project's directory is trusted whoever owns it; what suits the executor unless given."`
	CleanGitConfig        Optional[bool]    `toml:"clean_git_config" flag:"clean-git-config" env:"RUNNER_CLEAN_GIT_CONFIG" about:"Remove git configuration and hooks that an earlier job may have left; what suits the executor unless given."`
	UseSlotCgroups        bool              `toml:"use_slot_cgroups" flag:"use-slot-cgroups" env:"RUNNER_USE_SLOT_CGROUPS" built:"no" about:"Give each slot of a machine a control group of its own."`
	SlotCgroupTemplate    string            `toml:"slot_cgroup_template" flag:"slot-cgroup-template" env:"RUNNER_SLOT_CGROUP_TEMPLATE" default:"gitlab-runner/slot-${slot}" built:"no" about:"Name of a slot's control group."`
	StepRunnerImage       string            `toml:"step_runner_image" flag:"step-runner-image" env:"STEP_RUNNER_IMAGE" built:"no" about:"Image that holds the step runner."`
	FeatureFlags          map[string]bool   `toml:"feature_flags" flag:"feature-flags" env:"FEATURE_FLAGS" example:"[runners.feature_flags]\n  FF_TIMESTAMPS = true" about:"Feature flags of GitLab Runner, on or off for all jobs."`

	CustomBuildDir CustomBuildDir     `toml:"custom_build_dir" about:"Whether jobs choose their directory."`
	Artifact       Artifact           `toml:"artifact" about:"Limits for the upload of artifacts."`
	Referees       Referees           `toml:"referees" built:"no" about:"Measurements that are attached to a job."`
	Monitoring     Monitoring         `toml:"monitoring" about:"What counts as a slow start of a job."`
	Experimental   RunnerExperimental `toml:"experimental" built:"no" about:"Settings that may change or go."`
	Cache          Cache              `toml:"cache" prefix:"cache" about:"Caches that several managers or machines share."`

	Docker     Docker     `toml:"docker" prefix:"docker" about:"Containers of the docker executors."`
	Machine    Machine    `toml:"machine" prefix:"machine" about:"Machines of executor docker+machine."`
	Autoscaler Autoscaler `toml:"autoscaler" built:"no" about:"Instances of executors docker-autoscaler and instance."`
	Instance   Instance   `toml:"instance" built:"no" about:"Executor instance: jobs directly on instances."`
	Custom     Custom     `toml:"custom" prefix:"custom" about:"Programs of executor custom."`
	Apptainer  Apptainer  `toml:"apptainer" shown:"given" about:"Containers of executor apptainer. Not a section of GitLab Runner."`
	Batch      Batch      `toml:"batch" shown:"given" about:"Batch jobs of a cluster in which the runner's jobs run. Not a section of GitLab Runner."`
	SSH        SSH        `toml:"ssh" prefix:"ssh" built:"no" about:"Login of executors ssh, parallels and virtualbox."`
	Parallels  Parallels  `toml:"parallels" prefix:"parallels" built:"no" about:"Virtual machines of executor parallels."`
	VirtualBox VirtualBox `toml:"virtualbox" prefix:"virtualbox" built:"no" about:"Virtual machines of executor virtualbox."`
	Kubernetes Kubernetes `toml:"kubernetes" prefix:"kubernetes" built:"no" about:"Pods of executor kubernetes."`

	// Index counts the sections of the file from 0; Line is that of the section's header.
	Index int
	Line  int
	// Raw holds url, token and token_file as they are written, before variables of the environment were put in.
	Raw Raw
}

// Raw is the text of values that are not used as they are written: server and token as they are named in the file.
type Raw struct {
	URL       string
	Token     tranter.Secret
	TokenFile string
}

// CustomBuildDir is [runners.custom_build_dir].
type CustomBuildDir struct {
	Enabled Optional[bool] `toml:"enabled" flag:"custom_build_dir-enabled" env:"CUSTOM_BUILD_DIR_ENABLED" about:"Let jobs set GIT_CLONE_PATH; what suits the executor unless given."`
}

// Artifact is [runners.artifact].
type Artifact struct {
	UploadTimeout         time.Duration `toml:"upload_timeout" default:"1h" zero:"default" min:"0" about:"Longest upload of an archive."`
	ResponseHeaderTimeout time.Duration `toml:"response_header_timeout" default:"10m" zero:"default" min:"0" about:"Longest wait for the server's answer once an archive is sent."`
}

// Referees is [runners.referees].
type Referees struct {
	Metrics RefereeMetrics `toml:"metrics" about:"Metrics from Prometheus, uploaded as an artifact."`
}

// RefereeMetrics is [runners.referees.metrics].
type RefereeMetrics struct {
	PrometheusAddress string   `toml:"prometheus_address" about:"Address of the Prometheus server."`
	QueryInterval     int      `toml:"query_interval" min:"0" about:"Resolution of the queries, in seconds."`
	Queries           []string `toml:"queries" old:"metric_queries" about:"Queries as label:expression."`
}

// Monitoring is [runners.monitoring].
type Monitoring struct {
	JobQueuingDurations []JobQueuingDuration `toml:"job_queuing_durations" about:"Longest acceptable wait in the queue, by time of day; the last matching entry holds."`
}

// JobQueuingDuration is one [[runners.monitoring.job_queuing_durations]].
type JobQueuingDuration struct {
	Periods               []string      `toml:"periods" default:"* * * * *" check:"period" about:"Cron expressions of the times in which the entry holds."`
	Timezone              string        `toml:"timezone" about:"Time zone of the periods; the manager's unless given."`
	Threshold             time.Duration `toml:"threshold" min:"0" about:"A longer wait is counted."`
	JobsRunningForProject string        `toml:"jobs_running_for_project" check:"regexp" about:"Regular expression on the number of the project's running jobs; the entry holds only where it matches."`
}

// RunnerExperimental is [runners.experimental].
type RunnerExperimental struct {
	BootVerify BootVerify `toml:"boot_verify" about:"A made-up job at start that shows that the executor works."`
}

// BootVerify is [runners.experimental.boot_verify].
type BootVerify struct {
	Enabled           bool          `toml:"enabled" about:"Run the made-up job at start."`
	Timeout           time.Duration `toml:"timeout" default:"5m" zero:"default" min:"0" about:"Longest run of it."`
	AcquireMinBackoff time.Duration `toml:"acquire_min_backoff" default:"1s" zero:"default" min:"0" about:"First wait when no machine is to be had."`
	AcquireMaxBackoff time.Duration `toml:"acquire_max_backoff" default:"10s" zero:"default" min:"0" about:"Longest such wait."`
}
