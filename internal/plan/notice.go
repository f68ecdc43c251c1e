package plan

import (
	"errors"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/variables"
)

// withoutEffect returns the variables that GitLab Runner reads and this program does not (runner contract, section 5.6).
// What is about executors that are not here, such as KUBERNETES_*, is not among them: such variables are often set for
// all jobs of an installation.
func withoutEffect() []string {
	return []string{
		"CACHE_CHUNK_SIZE", "CACHE_CONCURRENCY", "CACHE_REQUEST_TIMEOUT", "CACHE_TRANSFER_BUFFER_SIZE",
		"FASTZIP_ARCHIVER_BUFFER_SIZE", "FASTZIP_ARCHIVER_CONCURRENCY", "FASTZIP_EXTRACTOR_CONCURRENCY", "TRANSFER_METER_FREQUENCY",
	}
}

// notices warns about what the job asks for in vain, by name, so that nothing of it is ignored in silence.
func (b *builder) notices() {
	var names []string
	for _, key := range withoutEffect() {
		if strings.TrimSpace(b.vars.Get(key)) != "" {
			names = append(names, key)
		}
	}
	if on, _ := variables.List(b.job.Variables).Bool("RUNNER_GENERATE_ARTIFACTS_METADATA"); on && hasArchive(b.job) {
		names = append(names, "RUNNER_GENERATE_ARTIFACTS_METADATA")
	}
	if on, _ := b.vars.Bool("CI_DEBUG_SERVICES"); on && !b.settings.DebugTraceDisabled {
		names = append(names, "CI_DEBUG_SERVICES")
	}
	missing, configOnly := variables.WithoutEffect(b.flags, b.early)
	if names = append(names, missing...); len(names) > 0 {
		b.warn("without effect in this runner: %s", strings.Join(names, ", "))
	}
	if len(configOnly) > 0 {
		b.warn("only the runner's configuration can change: %s", strings.Join(configOnly, ", "))
	}
	if n := len(b.job.Services); n > 0 && b.settings.Executor == "shell" {
		b.warn("the job's services are not started: the executor shell has no containers")
	}
}

func hasArchive(job *tranter.Job) bool {
	for _, a := range job.Artifacts {
		if a.Format == "zip" {
			return true
		}
	}
	return false
}

// public returns err without secrets in its text: it is shown at the end of a log that has no plan to mask by.
func public(b *builder, err error) error {
	l := b.raw
	if l == nil {
		l = variables.List(b.job.Variables)
	}
	text := err.Error()
	for _, secret := range l.Expand(b.dirs.Temp).Masked() {
		text = strings.ReplaceAll(text, secret, "[MASKED]")
	}
	if text == err.Error() {
		return err
	}
	masked := errors.New(text)
	if _, ok := errors.AsType[*tranter.ConfigError](err); ok {
		return &tranter.ConfigError{Err: masked}
	}
	return masked
}
