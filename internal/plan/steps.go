package plan

import (
	"fmt"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// defaultAfterScriptTimeout holds unless RUNNER_AFTER_SCRIPT_TIMEOUT says otherwise.
const defaultAfterScriptTimeout = 5 * time.Minute

// steps returns the steps of the job in their order (runner contract, sections 3.1 and 3.2). Steps with nothing to do
// are left out.
func (b *builder) steps() (stages, error) {
	sources, err := b.sources()
	if err != nil {
		return stages{}, err
	}
	caches, err := b.caches()
	if err != nil {
		return stages{}, err
	}
	before := []tranter.Step{{
		Name: "prepare_script", Title: "Preparing environment", Timeout: b.limit("prepare_timeout", b.settings.Limits.Prepare),
		Prepare: &tranter.PrepareStep{Greeting: fmt.Sprintf("Running on %%s via %s...", strings.ReplaceAll(b.settings.Name, "%", "%%"))},
	}, {
		Name: "get_sources", Title: "Getting source from Git repository", Attempts: b.attempts("GET_SOURCES_ATTEMPTS"),
		Timeout: b.limit("get_sources_timeout", b.settings.Limits.GetSources), Sources: sources,
	}}
	if len(caches.restore) > 0 {
		before = append(before, tranter.Step{
			Name: "restore_cache", Title: "Restoring cache", Attempts: b.attempts("RESTORE_CACHE_ATTEMPTS"),
			Restore: &tranter.RestoreStep{Caches: caches.restore},
		})
	}
	if d := dependencies(b.job); len(d) > 0 {
		before = append(before, tranter.Step{
			Name: "download_artifacts", Title: "Downloading artifacts", Attempts: b.attempts("ARTIFACT_DOWNLOAD_ATTEMPTS"),
			Download: &tranter.DownloadStep{Dependencies: d, Parallel: b.flags["FF_USE_PARALLEL_ARTIFACT_TRANSFER"]},
		})
	}
	scripts := b.scripts()
	after := append(caches.archive(), b.uploads()...)
	after = append(after, tranter.Step{
		Name: "cleanup_file_variables", Title: "Cleaning up project directory and file based variables", When: tranter.Always,
		Cleanup: &tranter.CleanupStep{WipeBuild: b.flags["FF_ENABLE_JOB_CLEANUP"], Strategy: sources.Strategy, CleanFlags: sources.CleanFlags},
	})
	for _, steps := range [][]tranter.Step{before, scripts, after} {
		for i := range steps {
			if steps[i].When == "" {
				steps[i].When = tranter.OnSuccess
			}
		}
	}
	return stages{before: before, scripts: scripts, after: after}, nil
}

func dependencies(job *tranter.Job) []tranter.Dependency {
	var out []tranter.Dependency
	for _, d := range job.Dependencies {
		if d.File != nil && d.File.Filename != "" {
			out = append(out, d)
		}
	}
	return out
}

// scripts returns the user's scripts: all steps of the payload in order, after_script last.
func (b *builder) scripts() []tranter.Step {
	var steps []tranter.Step
	var after []string
	found := false
	for _, s := range b.job.Steps {
		name := strings.ToLower(s.Name)
		if name == "after_script" {
			after = s.Script
			continue
		}
		commands := b.commands(name, s.Script)
		if len(commands) == 0 {
			continue
		}
		found = true
		stage := "step_" + name
		steps = append(steps, tranter.Step{
			Name: stage, Title: fmt.Sprintf("Executing %q stage of the job script", stage),
			Script: b.script(commands),
		})
	}
	if !found {
		b.warn("the job has no script: there is nothing to execute")
	}
	if len(after) > 0 {
		script := b.script(after)
		script.After, script.IgnoreErrors = true, b.boolean("AFTER_SCRIPT_IGNORE_ERRORS", true)
		steps = append(steps, tranter.Step{
			Name: "after_script", Title: "Running after_script", When: tranter.AfterScript,
			Timeout: b.duration("RUNNER_AFTER_SCRIPT_TIMEOUT", defaultAfterScriptTimeout), Script: script,
		})
	}
	return steps
}

// commands puts the configuration's hooks around a script of the user.
func (b *builder) commands(step string, script []string) []string {
	if len(script) == 0 {
		return nil
	}
	var out []string
	if s := b.settings.Scripts.PreBuild; s != "" {
		out = append(out, s)
	}
	for _, line := range script {
		if step == "release" {
			line = b.vars.ExpandString(line, b.dirs.Temp)
		}
		out = append(out, line)
	}
	if s := b.settings.Scripts.PostBuild; s != "" {
		out = append(out, s)
	}
	return out
}

// trace says whether the job wants to see more than usual, and may.
func (b *builder) trace() bool {
	on, _ := b.vars.Bool("CI_DEBUG_TRACE")
	return on && !b.settings.DebugTraceDisabled
}

func (b *builder) script(commands []string) *tranter.ScriptStep {
	trace, _ := b.vars.Bool("CI_DEBUG_TRACE")
	if trace && b.settings.DebugTraceDisabled {
		b.warn("CI_DEBUG_TRACE is set, but the runner's configuration disables it")
		trace = false
	}
	return &tranter.ScriptStep{
		Commands: commands, Trace: trace, User: true,
		Sections:   b.flags["FF_SCRIPT_SECTIONS"] && b.job.Features.TraceSections,
		ExitChecks: b.flags["FF_ENABLE_BASH_EXIT_CODE_CHECK"],
	}
}

// uploads returns the steps that upload artifacts: one for a job that succeeded, one for a job that failed (runner
// contract, section 8.1).
func (b *builder) uploads() []tranter.Step {
	var good, bad []tranter.Artifact
	for _, a := range b.job.Artifacts {
		if len(a.Paths) == 0 && len(a.Exclude) == 0 && !a.Untracked {
			continue
		}
		success, failure := b.when("artifacts", a.When)
		if success {
			good = append(good, a)
		}
		if failure {
			bad = append(bad, a)
		}
	}
	step := func(name, title string, when tranter.StepWhen, artifacts []tranter.Artifact) []tranter.Step {
		if len(artifacts) == 0 {
			return nil
		}
		return []tranter.Step{{Name: name, Title: title, When: when, Upload: &tranter.UploadStep{
			Artifacts: artifacts, Timeout: b.settings.Limits.Upload, HeaderTimeout: b.settings.Limits.UploadHeader,
			Trace: b.trace(), Provenance: b.provenance(artifacts),
		}}}
	}
	return append(
		step("upload_artifacts_on_success", "Uploading artifacts for successful job", tranter.OnSuccess, good),
		step("upload_artifacts_on_failure", "Uploading artifacts for failed job", tranter.OnFailure, bad)...)
}
