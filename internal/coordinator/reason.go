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
	stuckOrTimeout       tranter.FailureReason = "stuck_or_timeout_failure" // what older servers say for the next two
	noUpdatesRunning     tranter.FailureReason = "no_updates_running"
	noUpdatesCanceling   tranter.FailureReason = "no_updates_canceling"
	serverTimeoutRunning tranter.FailureReason = "server_timeout_running"
	downstreamFailed     tranter.FailureReason = "downstream_pipeline_creation_failed"
)

// failureReasons are the server's words; a payload lists them in features.failure_reasons. With it, a runner knows that
// it need not fold newer reasons into older ones (gitlab-server 1.8). A runner's image_pull_failure and job_canceled
// are not among them.
func failureReasons() []tranter.FailureReason {
	return []tranter.FailureReason{
		tranter.UnknownFailure, tranter.ScriptFailure, "api_failure", stuckOrTimeout, tranter.RunnerSystemFailure, missingDependency,
		runnerUnsupported, "stale_schedule", tranter.JobExecutionTimeout, "archived_failure", "unmet_prerequisites", schedulerFailure,
		"data_integrity_failure", "forward_deployment_failure", "user_blocked", "project_deleted", "ci_quota_exceeded",
		"pipeline_loop_detected", noMatchingRunner, traceSizeExceeded, "builds_disabled", "environment_creation_failure",
		"deployment_rejected", "failed_outdated_deployment_job", "job_execution_server_timeout", "stuck_pending_with_matching_runners",
		"stuck_pending_no_matching_runners", noUpdatesRunning, noUpdatesCanceling, serverTimeoutRunning, "server_timeout_canceling",
		tranter.RunnerConfigurationError, tranter.ExternalDependencyFailure, tranter.RunnerInterrupted,
		"protected_environment_failure", "insufficient_bridge_permissions", "downstream_bridge_project_not_found",
		"invalid_bridge_trigger", "upstream_bridge_project_not_found", "insufficient_upstream_permissions",
		"bridge_pipeline_is_child_pipeline", downstreamFailed, "secrets_provider_not_found", "reached_max_descendant_pipelines_depth",
		"ip_restriction_failure", "reached_max_pipeline_hierarchy_size", "reached_downstream_pipeline_trigger_rate_limit",
		"duo_workflow_not_allowed", "job_router_failure", "job_token_expired", "id_token_burned_project_path",
		"downstream_project_trigger_resolved_to_empty",
	}
}

// knownReason maps what a runner reports to a reason that the server has.
func knownReason(r tranter.FailureReason) tranter.FailureReason {
	if slices.Contains(failureReasons(), r) {
		return r
	}
	return tranter.UnknownFailure
}
