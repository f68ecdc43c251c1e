package pipeline

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// readScripts reads what the job runs.
func (d *definition) readScripts() {
	f := d.keywords
	before, _ := d.keyword("before_script")
	if !before.v.isNull() {
		d.base.Script = before.commands()
	}
	if f.v.has("script") {
		if f.v.has("run") && f.v.given("run") {
			f.report.errorf(f.v.keyAt("run"), f.job, "%s config: these keys cannot be used together: run, script", f.path)
		}
		d.readScript()
	} else {
		d.readRun()
	}
	if s, ok := d.keyword("after_script"); ok {
		d.base.AfterScript = s.commands()
	}
	if s, ok := d.keyword("hooks"); ok && s.isHash("pre_get_sources_script") {
		if h, ok := s.sub("pre_get_sources_script"); ok {
			d.base.Hooks = []tranter.Hook{{Name: "pre_get_sources_script", Script: h.commands()}}
		}
	}
}

func (d *definition) readScript() {
	s, ok := d.keywords.sub("script")
	if !ok {
		d.keywords.report.errorf(d.keywords.v.keyAt("script"), d.name, "%s script can't be blank", d.keywords.path)
		return
	}
	if s.v.is(text) && strings.TrimSpace(s.v.text) == "" || s.v.is(list) && len(s.v.items) == 0 {
		s.errorf("config can't be blank")
		return
	}
	d.base.Script = append(d.base.Script, s.commands()...)
}

func (d *definition) readRun() {
	s, ok := d.keywords.sub("run")
	if !ok || !s.v.is(list) {
		d.keywords.report.errorf(d.keywords.v.keyAt("run"), d.name, "%s run should be an array of steps", d.keywords.path)
		return
	}
	for _, step := range s.v.items {
		f := field{report: s.report, v: step, job: s.job, path: s.path}
		if !step.is(hash) {
			f.errorf("config should be an array of hashes")
			continue
		}
		if !step.given("name") || !oneStepKind(step) {
			f.errorf("each step needs a name and one of: script, step, func")
		}
	}
	for _, key := range []string{"before_script", "after_script"} {
		if d.keywords.v.given(key) && !d.defaulted[key] {
			d.keywords.report.errorf(d.keywords.v.keyAt(key), d.name, "%s config: these keys cannot be used together: run, %s", d.keywords.path, key)
		}
	}
	d.base.Script = nil
	d.base.Run = s.v.json()
}

func oneStepKind(step *value) bool {
	kinds := 0
	for _, key := range []string{"script", "step", "func", "action"} {
		if step.given(key) {
			kinds++
		}
	}
	return kinds == 1
}

// readRuntime reads where and how often the job runs.
func (d *definition) readRuntime() {
	if s, ok := d.keyword("image"); ok {
		d.base.Image = readImage(s)
	}
	if s, ok := d.keyword("services"); ok {
		d.base.Services = readServices(s)
	}
	d.base.Tags = d.parent("tags").texts("tags", false)
	if len(d.base.Tags) >= maxTags {
		s, _ := d.keyword("tags")
		s.errorf("config must be less than the limit of %d tags", maxTags)
	}
	d.base.Timeout = d.parent("timeout").duration("timeout", maxTimeout)
	if s, ok := d.keyword("retry"); ok {
		d.base.Retry = readRetry(s)
	}
	if s, ok := d.keyword("coverage"); ok {
		d.base.Coverage = readCoverage(s)
	}
}

const (
	maxTags    = 50
	maxTimeout = 2629746 * time.Second // a month, as the server counts it
	maxRetries = 2
)

func retryReasons() []string {
	return []string{
		"always", "unknown_failure", "script_failure", "api_failure", "stuck_or_timeout_failure", "runner_system_failure",
		"missing_dependency_failure", "runner_unsupported", "stale_schedule", "job_execution_timeout", "archived_failure",
		"unmet_prerequisites", "scheduler_failure", "data_integrity_failure", "forward_deployment_failure", "user_blocked",
		"project_deleted", "ci_quota_exceeded", "pipeline_loop_detected", "no_matching_runner", "trace_size_exceeded", "builds_disabled",
		"environment_creation_failure", "deployment_rejected", "failed_outdated_deployment_job", "protected_environment_failure",
		"insufficient_bridge_permissions", "downstream_bridge_project_not_found", "invalid_bridge_trigger",
		"upstream_bridge_project_not_found", "insufficient_upstream_permissions", "bridge_pipeline_is_child_pipeline",
		"downstream_pipeline_creation_failed", "secrets_provider_not_found", "reached_max_descendant_pipelines_depth",
		"ip_restriction_failure", "runner_configuration_error", "runner_external_dependency_failure", "runner_interrupted",
		"image_pull_failure", "job_canceled", "job_token_expired", "job_execution_server_timeout", "server_timeout_running",
	}
}

func readRetry(f field) Retry {
	var r Retry
	most := f
	switch {
	case f.v.is(integer):
	case f.v.is(hash):
		f.known([]string{"max", "when", "exit_codes"})
		r.When = f.texts("when", true)
		for _, reason := range r.When {
			if !slices.Contains(retryReasons(), reason) {
				f.errorf("when contains unknown values: %s%s", reason, nearest(reason, retryReasons()))
			}
		}
		r.ExitCodes = f.numbers("exit_codes")
		var ok bool
		if most, ok = f.sub("max"); !ok {
			return r
		}
	default:
		f.errorf("config should be a hash or an integer")
		return r
	}
	n, ok := most.v.number()
	if !ok || n < 0 || n > maxRetries {
		most.errorf("config must be an integer from 0 to %d", maxRetries)
		return r
	}
	r.Max = n
	return r
}

var coverageShape = lazy.Regexp(`^/((?s:.*))/([ismU]*)$`)

// readCoverage returns the expression with its flags in front, ready to compile; a line's last match is wanted.
func readCoverage(f field) string {
	m := coverageShape().FindStringSubmatch(f.v.text)
	if !f.v.is(text) || m == nil {
		f.errorf("config must be a regular expression, such as '/\\d+%%/'")
		return ""
	}
	source := strings.ReplaceAll(m[1], `\/`, "/")
	if m[2] != "" {
		source = "(?" + m[2] + ")" + source
	}
	if _, err := regexp.Compile(source); err != nil {
		f.errorf("config must be a regular expression: %v", err)
		return ""
	}
	return source
}
