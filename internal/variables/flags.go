package variables

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Flag is one of GitLab Runner's feature flags (runner contract, section 5.8).
type Flag struct {
	Name       string
	Default    bool
	About      string
	ConfigOnly bool // needed before there is a job: a job's variable of this name has no effect
	Status     Status
}

// Status says what a feature flag does in this program.
type Status int

// The states of feature flags.
const (
	Works     Status = iota // it has the effect that it has in GitLab Runner
	Always                  // nothing depends on it: About says what always is so
	Elsewhere               // it is about executors, systems or caches that this program does not have yet
	Missing                 // it asks for something that this program does not do yet
)

// String returns the state's name in documents.
func (s Status) String() string {
	return [...]string{"works", "always", "elsewhere", "not yet"}[s]
}

// Flags returns all known feature flags in alphabetical order.
func Flags() []Flag {
	out := flags()
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

const flagPrefix = "FF_" // of all flags

// IsFlag says whether name is that of a known feature flag.
func IsFlag(name string) bool {
	// Most names are seen to be none without the list, which is made anew each time.
	return strings.HasPrefix(name, flagPrefix) && slices.ContainsFunc(flags(), func(f Flag) bool { return f.Name == name })
}

// ResolveFlags returns the value of every flag: what the configuration says, else the job's variable, else the default
// (runner contract, section 5.7). A job's value that is no boolean gives a warning and the default.
func ResolveFlags(config map[string]bool, vars List) (values map[string]bool, warnings []string) {
	known := flags()
	values = make(map[string]bool, len(known))
	for _, f := range known {
		values[f.Name] = f.Default
		if set, ok := config[f.Name]; ok {
			values[f.Name] = set
			continue
		}
		v, ok := vars.Lookup(f.Name)
		if !ok || f.ConfigOnly || v.Value == "" {
			continue
		}
		b, err := strconv.ParseBool(v.Value)
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("%s: expected true or false, got %q; using the default value: %v", f.Name, v.Value, f.Default))
			continue
		}
		values[f.Name] = b
	}
	return values, warnings
}

// WithoutEffect returns the names of the flags that a job or its runner has changed in vain, in alphabetical order: those
// that ask for what is missing, and those that the job's variables change although only the configuration can.
func WithoutEffect(values map[string]bool, vars List) (missing, configOnly []string) {
	for _, f := range Flags() {
		if f.Status == Missing && values[f.Name] != f.Default {
			missing = append(missing, f.Name)
		}
		if v, set := vars.Bool(f.Name); f.ConfigOnly && set && v != values[f.Name] {
			configOnly = append(configOnly, f.Name)
		}
	}
	return missing, configOnly
}

// ChangedFlags returns, as "NAME:value" and in alphabetical order, the flags whose value is not their default.
func ChangedFlags(values map[string]bool) []string {
	var out []string
	for _, f := range Flags() {
		if v, ok := values[f.Name]; ok && v != f.Default {
			out = append(out, f.Name+":"+strconv.FormatBool(v))
		}
	}
	return out
}

// flags are the known ones, in the order of the contract.
func flags() []Flag {
	return []Flag{
		{Name: "FF_TEST_FEATURE", About: "No effect; for tests"},
		{Name: "FF_NETWORK_PER_BUILD", About: "Containers: a network of its own for each job"},
		{Name: "FF_USE_LEGACY_KUBERNETES_EXECUTION_STRATEGY", Status: Elsewhere, About: "Kubernetes: exec instead of attach"},
		{Name: "FF_USE_DIRECT_DOWNLOAD", Default: true, Status: Always, About: "Artifacts come straight from object storage; the first try always asks for that"},
		{Name: "FF_USE_FASTZIP", Default: true, Status: Always, About: "Another zip implementation; ours is always the fast one"},
		{Name: "FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR", About: "Containers: no umask 0000; the sources are given to the user of the build container"},
		{Name: "FF_ENABLE_BASH_EXIT_CODE_CHECK", About: "Check the exit code after every command, besides errexit"},
		{Name: "FF_USE_WINDOWS_LEGACY_PROCESS_STRATEGY", Status: Missing, About: "Windows: old way to handle processes"},
		{Name: "FF_USE_LEGACY_BASH_EVAL", Status: Missing, About: "The old form of bash scripts"},
		{Name: "FF_USE_POWERSHELL_PATH_RESOLVER", Status: Always, About: "PowerShell resolves paths; ours are made by the agent"},
		{Name: "FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL", ConfigOnly: true, About: "Keep-alive of the log follows the interval that the server asks for"},
		{Name: "FF_SCRIPT_SECTIONS", About: "Commands of several lines become sections of the log"},
		{Name: "FF_ENABLE_JOB_CLEANUP", About: "Clean or remove the project directory at the end of a job"},
		{Name: "FF_KUBERNETES_HONOR_ENTRYPOINT", Status: Elsewhere, About: "Kubernetes: run the image's entrypoint"},
		{Name: "FF_POSIXLY_CORRECT_ESCAPES", Status: Always, About: "Quote by POSIX rules; our scripts always do"},
		{Name: "FF_RESOLVE_FULL_TLS_CHAIN", ConfigOnly: true, Status: Always, About: "Complete the server's certificate chain for git; ours always does"},
		{Name: "FF_DISABLE_POWERSHELL_STDIN", Status: Always, About: "PowerShell scripts by file; ours always are"},
		{Name: "FF_USE_POD_ACTIVE_DEADLINE_SECONDS", Default: true, Status: Elsewhere, About: "Kubernetes: deadline of pods"},
		{Name: "FF_USE_ADVANCED_POD_SPEC_CONFIGURATION", Status: Elsewhere, About: "Kubernetes: pod_spec"},
		{Name: "FF_SECRET_RESOLVING_FAILS_IF_MISSING", Default: true, About: "A secret that is not found fails the job"},
		{Name: "FF_PRINT_POD_EVENTS", Status: Elsewhere, About: "Kubernetes: events of pods in the log"},
		{Name: "FF_USE_GIT_BUNDLE_URIS", Default: true, About: "Git may fetch from bundle URIs"},
		{Name: "FF_USE_GIT_NATIVE_CLONE", About: "git clone for strategy clone, with git 2.49 or newer"},
		{Name: "FF_USE_DUMB_INIT_WITH_KUBERNETES_EXECUTOR", Status: Elsewhere, About: "Kubernetes: dumb-init"},
		{Name: "FF_USE_INIT_WITH_DOCKER_EXECUTOR", About: "Containers: an init process"},
		{Name: "FF_LOG_IMAGES_CONFIGURED_FOR_JOB", About: "Containers: image names in the runner's log"},
		{Name: "FF_USE_DOCKER_AUTOSCALER_DIAL_STDIO", Default: true, Status: Elsewhere, About: "Autoscaler: tunnel by docker system dial-stdio"},
		{Name: "FF_CLEAN_UP_FAILED_CACHE_EXTRACT", Status: Always, About: "Remove what an archive has left that could not be unpacked; ours always does"},
		{Name: "FF_USE_WINDOWS_JOB_OBJECT", Status: Elsewhere, About: "Windows: job objects"},
		{Name: "FF_TIMESTAMPS", Default: true, About: "Time stamps in the log"},
		{Name: "FF_DISABLE_AUTOMATIC_TOKEN_ROTATION", ConfigOnly: true, About: "No rotation of tokens"},
		{Name: "FF_USE_LEGACY_GCS_CACHE_ADAPTER", Status: Always, About: "Cache: the old GCS signer; ours is one for both"},
		{Name: "FF_DISABLE_UMASK_FOR_KUBERNETES_EXECUTOR", Status: Elsewhere, About: "Kubernetes: no umask 0000"},
		{Name: "FF_USE_LEGACY_S3_CACHE_ADAPTER", Status: Always, About: "Cache: the old S3 client; ours is one for both"},
		{Name: "FF_GIT_URLS_WITHOUT_TOKENS", Status: Always, About: "No tokens in remote URLs; ours never have them"},
		{Name: "FF_WAIT_FOR_POD_TO_BE_REACHABLE", Status: Elsewhere, About: "Kubernetes: wait for pods"},
		{Name: "FF_MASK_ALL_DEFAULT_TOKENS", Default: true, About: "Mask what looks like a GitLab token"},
		{Name: "FF_EXPORT_HIGH_CARDINALITY_METRICS", Status: Missing, About: "A histogram per stage"},
		{Name: "FF_USE_FLEETING_ACQUIRE_HEARTBEATS", ConfigOnly: true, Status: Elsewhere, About: "Autoscaler: check a machine before it is used"},
		{Name: "FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", Default: true, About: "Longer and longer waits between attempts"},
		{Name: "FF_USE_ADAPTIVE_REQUEST_CONCURRENCY", Default: true, ConfigOnly: true, Status: Always, About: "Job requests in flight follow how many jobs there are; ours always do"},
		{Name: "FF_USE_GITALY_CORRELATION_ID", Default: true, About: "Git requests carry the job's correlation id"},
		{Name: "FF_USE_GIT_PROACTIVE_AUTH", About: "Git sends credentials with the first request"},
		{Name: "FF_HASH_CACHE_KEYS", About: "Cache keys are hashed"},
		{Name: "FF_ENABLE_JOB_INPUTS_INTERPOLATION", Default: true, About: "Job inputs are put in"},
		{Name: "FF_USE_JOB_ROUTER", ConfigOnly: true, Status: Missing, About: "Jobs from the job router"},
		{Name: "FF_SCRIPT_TO_STEP_MIGRATION", Status: Missing, About: "Scripts through the step runner"},
		{Name: "FF_USE_PARALLEL_CACHE_TRANSFER", Status: Always, About: "Caches in parallel parts; ours always are"},
		{Name: "FF_USE_PARALLEL_ARTIFACT_TRANSFER", About: "Artifacts in parallel parts, and those of several jobs at the same time"},
		{Name: "FF_CONCRETE", Status: Missing, About: "The whole job through the step runner"},
		{Name: "FF_SUSPENDABLE_ENVIRONMENTS", Status: Missing, About: "Environments that can be suspended"},
		{Name: "FF_USE_NATIVE_CONTAINER_STOP", Status: Always, About: "Containers: how a script is ended; the agent beside it always does that"},
	}
}
