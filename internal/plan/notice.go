package plan

import (
	"errors"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/variables"
)

// notices warns about what the job asks for in vain, by name, so that nothing of it is ignored in silence.
func (b *builder) notices() {
	noBooleans(b)
	var names []string
	if on, _ := b.vars.Bool("CI_DEBUG_SERVICES"); on && b.settings.DebugTraceDisabled {
		b.warn("CI_DEBUG_SERVICES is set, but the runner's configuration disables it")
	} else if on && !b.settings.Container {
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

// noBooleans warns about switches that are neither on nor off.
func noBooleans(b *builder) {
	for _, key := range []string{"CI_DEBUG_TRACE", "CI_DEBUG_SERVICES", "RUNNER_GENERATE_ARTIFACTS_METADATA"} {
		if _, known := b.vars.Bool(key); !known && strings.TrimSpace(b.vars.Get(key)) != "" {
			b.warn("%s: expected true or false, got %q; using the default value: false", key, b.vars.Get(key))
		}
	}
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
