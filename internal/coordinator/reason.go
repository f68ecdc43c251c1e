package coordinator

import (
	"slices"

	"github.com/tranter-ci/tranter"
)

// The reasons that the server finds by itself.
const (
	missingDependency    tranter.FailureReason = "missing_dependency_failure"
	runnerUnsupported    tranter.FailureReason = "runner_unsupported"
	schedulerFailure     tranter.FailureReason = "scheduler_failure"
	noMatchingRunner     tranter.FailureReason = "no_matching_runner"
	traceSizeExceeded    tranter.FailureReason = "trace_size_exceeded"
	stuckOrTimeout       tranter.FailureReason = "stuck_or_timeout_failure"
	serverTimeoutRunning tranter.FailureReason = "server_timeout_running"
	downstreamFailed     tranter.FailureReason = "downstream_pipeline_creation_failed"
)

// failureReasons returns what a payload lists in features.failure_reasons: with it, a runner knows that it need not fold
// newer reasons into older ones (gitlab-server 1.8).
func failureReasons() []tranter.FailureReason {
	return slices.Clone(reasons)
}

var reasons = []tranter.FailureReason{
	tranter.UnknownFailure, tranter.ScriptFailure, "api_failure", stuckOrTimeout, tranter.RunnerSystemFailure, missingDependency,
	runnerUnsupported, "stale_schedule", tranter.JobExecutionTimeout, "archived_failure", "unmet_prerequisites", schedulerFailure,
	"data_integrity_failure", "forward_deployment_failure", "user_blocked", "project_deleted", "ci_quota_exceeded",
	"pipeline_loop_detected", noMatchingRunner, traceSizeExceeded, "builds_disabled", "environment_creation_failure",
	"deployment_rejected", "failed_outdated_deployment_job", "job_execution_server_timeout", serverTimeoutRunning,
	tranter.RunnerConfigurationError, tranter.ExternalDependencyFailure, tranter.RunnerInterrupted, tranter.ImagePullFailure,
	tranter.JobCanceled, "protected_environment_failure", "insufficient_bridge_permissions", "downstream_bridge_project_not_found",
	"invalid_bridge_trigger", "upstream_bridge_project_not_found", "insufficient_upstream_permissions",
	"bridge_pipeline_is_child_pipeline", downstreamFailed, "secrets_provider_not_found", "reached_max_descendant_pipelines_depth",
	"ip_restriction_failure", "job_token_expired",
}

// knownReason maps what a runner reports to a reason that the server has.
func knownReason(r tranter.FailureReason) tranter.FailureReason {
	if slices.Contains(reasons, r) {
		return r
	}
	return tranter.UnknownFailure
}
