package variables

import (
	"fmt"
	"sort"
	"strconv"
)

// Flag is one of GitLab Runner's feature flags (runner contract, section 5.8).
type Flag struct {
	Name       string
	Default    bool
	About      string
	ConfigOnly bool // needed before there is a job: a job's variable of this name has no effect
	Built      bool // setting it has an effect here
}

// Flags returns all known feature flags in alphabetical order.
func Flags() []Flag {
	out := make([]Flag, len(flags))
	copy(out, flags)
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// IsFlag says whether name is that of a known feature flag.
func IsFlag(name string) bool {
	for i := range flags {
		if flags[i].Name == name {
			return true
		}
	}
	return false
}

// ResolveFlags returns the value of every flag: what the configuration says, else the job's variable, else the default
// (runner contract, section 5.7). A job's value that is no boolean gives a warning and the default.
func ResolveFlags(config map[string]bool, vars List) (values map[string]bool, warnings []string) {
	values = make(map[string]bool, len(flags))
	for _, f := range flags {
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

var flags = []Flag{
	{Name: "FF_TEST_FEATURE", Built: true, About: "No effect; for tests"},
	{Name: "FF_NETWORK_PER_BUILD", About: "Containers: a network of its own for each job"},
	{Name: "FF_USE_LEGACY_KUBERNETES_EXECUTION_STRATEGY", About: "Kubernetes: exec instead of attach"},
	{Name: "FF_USE_DIRECT_DOWNLOAD", Default: true, Built: true, About: "Artifacts come straight from object storage"},
	{Name: "FF_USE_FASTZIP", Default: true, About: "Another zip implementation; ours is always the fast one"},
	{Name: "FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR", About: "Containers: no umask 0000"},
	{Name: "FF_ENABLE_BASH_EXIT_CODE_CHECK", Built: true, About: "Check the exit code after every command, besides errexit"},
	{Name: "FF_USE_WINDOWS_LEGACY_PROCESS_STRATEGY", About: "Windows: old way to handle processes"},
	{Name: "FF_USE_LEGACY_BASH_EVAL", About: "The old form of bash scripts"},
	{Name: "FF_USE_POWERSHELL_PATH_RESOLVER", About: "PowerShell resolves paths"},
	{Name: "FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL", ConfigOnly: true, Built: true, About: "Keep-alive of the log follows the interval that the server asks for"},
	{Name: "FF_SCRIPT_SECTIONS", Built: true, About: "Commands of several lines become sections of the log"},
	{Name: "FF_ENABLE_JOB_CLEANUP", Built: true, About: "Clean or remove the project directory at the end of a job"},
	{Name: "FF_KUBERNETES_HONOR_ENTRYPOINT", About: "Kubernetes: run the image's entrypoint"},
	{Name: "FF_POSIXLY_CORRECT_ESCAPES", About: "Quote by POSIX rules; our scripts always do"},
	{Name: "FF_RESOLVE_FULL_TLS_CHAIN", ConfigOnly: true, Built: true, About: "Complete the server's certificate chain for git"},
	{Name: "FF_DISABLE_POWERSHELL_STDIN", About: "PowerShell scripts by file"},
	{Name: "FF_USE_POD_ACTIVE_DEADLINE_SECONDS", Default: true, About: "Kubernetes: deadline of pods"},
	{Name: "FF_USE_ADVANCED_POD_SPEC_CONFIGURATION", About: "Kubernetes: pod_spec"},
	{Name: "FF_SECRET_RESOLVING_FAILS_IF_MISSING", Default: true, About: "A secret that is not found fails the job"},
	{Name: "FF_PRINT_POD_EVENTS", About: "Kubernetes: events of pods in the log"},
	{Name: "FF_USE_GIT_BUNDLE_URIS", Default: true, Built: true, About: "Git may fetch from bundle URIs"},
	{Name: "FF_USE_GIT_NATIVE_CLONE", Built: true, About: "git clone for strategy clone, with git 2.49 or newer"},
	{Name: "FF_USE_DUMB_INIT_WITH_KUBERNETES_EXECUTOR", About: "Kubernetes: dumb-init"},
	{Name: "FF_USE_INIT_WITH_DOCKER_EXECUTOR", About: "Containers: an init process"},
	{Name: "FF_LOG_IMAGES_CONFIGURED_FOR_JOB", About: "Containers: image names in the runner's log"},
	{Name: "FF_USE_DOCKER_AUTOSCALER_DIAL_STDIO", Default: true, About: "Autoscaler: tunnel by docker system dial-stdio"},
	{Name: "FF_CLEAN_UP_FAILED_CACHE_EXTRACT", Built: true, About: "Remove a cache's paths when its archive could not be unpacked"},
	{Name: "FF_USE_WINDOWS_JOB_OBJECT", About: "Windows: job objects; ours always uses them"},
	{Name: "FF_TIMESTAMPS", Default: true, Built: true, About: "Time stamps in the log"},
	{Name: "FF_DISABLE_AUTOMATIC_TOKEN_ROTATION", ConfigOnly: true, About: "No rotation of tokens"},
	{Name: "FF_USE_LEGACY_GCS_CACHE_ADAPTER", About: "Cache: old GCS signer"},
	{Name: "FF_DISABLE_UMASK_FOR_KUBERNETES_EXECUTOR", About: "Kubernetes: no umask 0000"},
	{Name: "FF_USE_LEGACY_S3_CACHE_ADAPTER", About: "Cache: old S3 client"},
	{Name: "FF_GIT_URLS_WITHOUT_TOKENS", About: "No tokens in remote URLs; ours never have them"},
	{Name: "FF_WAIT_FOR_POD_TO_BE_REACHABLE", About: "Kubernetes: wait for pods"},
	{Name: "FF_MASK_ALL_DEFAULT_TOKENS", Default: true, Built: true, About: "Mask what looks like a GitLab token"},
	{Name: "FF_EXPORT_HIGH_CARDINALITY_METRICS", About: "A histogram per stage"},
	{Name: "FF_USE_FLEETING_ACQUIRE_HEARTBEATS", ConfigOnly: true, About: "Autoscaler: check a machine before it is used"},
	{Name: "FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", Default: true, Built: true, About: "Longer and longer waits between attempts"},
	{Name: "FF_USE_ADAPTIVE_REQUEST_CONCURRENCY", Default: true, ConfigOnly: true, Built: true, About: "Fewer job requests in flight while there are no jobs"},
	{Name: "FF_USE_GITALY_CORRELATION_ID", Default: true, Built: true, About: "Git requests carry the job's correlation id"},
	{Name: "FF_USE_GIT_PROACTIVE_AUTH", Built: true, About: "Git sends credentials with the first request"},
	{Name: "FF_HASH_CACHE_KEYS", Built: true, About: "Cache keys are hashed"},
	{Name: "FF_ENABLE_JOB_INPUTS_INTERPOLATION", Default: true, Built: true, About: "Job inputs are put in"},
	{Name: "FF_USE_JOB_ROUTER", ConfigOnly: true, About: "Jobs from the job router"},
	{Name: "FF_SCRIPT_TO_STEP_MIGRATION", About: "Scripts through the step runner"},
	{Name: "FF_USE_PARALLEL_CACHE_TRANSFER", About: "Caches in parallel parts"},
	{Name: "FF_USE_PARALLEL_ARTIFACT_TRANSFER", About: "Artifacts in parallel parts"},
	{Name: "FF_CONCRETE", About: "The whole job through the step runner"},
	{Name: "FF_SUSPENDABLE_ENVIRONMENTS", About: "Environments that can be suspended"},
	{Name: "FF_USE_NATIVE_CONTAINER_STOP", About: "Containers: docker stop only"},
}
