package tranter_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
)

// The vectors of the contract, section 14.3.
func TestShortTokens(t *testing.T) {
	for token, want := range map[tranter.Secret]string{
		"glrt-t1_abcdefghijklmnopqrst": "abcdefghi",
		"glrt-t1_XyZ-123_456789":       "XyZ-123_4",
		"glrtr-AAAABBBBCCCC":           "AAAABBBBC",
		"GR1348941aBcDeFgHiJkLmN":      "aBcDeFgHi",
		"glcbt-64_AbCdEfGhIjKl":        "64_AbCdEf",
		"t3_abcdefghijkl":              "abcdefghi",
		"short":                        "short",
		"":                             "",
	} {
		if got := token.Short(); got != want {
			t.Errorf("%s: %q, want %q", token.Reveal(), got, want)
		}
	}
}

// What an older server does not know is told in words that it does (contract 3.9).
func TestFailureReasonsForServers(t *testing.T) {
	known := []tranter.FailureReason{tranter.ImagePullFailure, tranter.RunnerInterrupted}
	for reason, want := range map[tranter.FailureReason]tranter.FailureReason{
		"":                                 tranter.ScriptFailure,
		tranter.ScriptFailure:              tranter.ScriptFailure,
		tranter.RunnerSystemFailure:        tranter.RunnerSystemFailure,
		tranter.JobExecutionTimeout:        tranter.JobExecutionTimeout,
		tranter.ImagePullFailure:           tranter.ImagePullFailure,
		tranter.RunnerInterrupted:          tranter.RunnerInterrupted,
		tranter.RunnerConfigurationError:   tranter.ScriptFailure,
		tranter.ExternalDependencyFailure:  tranter.RunnerSystemFailure,
		tranter.JobCanceled:                tranter.UnknownFailure,
		tranter.UnknownFailure:             tranter.UnknownFailure,
		tranter.FailureReason("brand_new"): tranter.UnknownFailure,
	} {
		if got := reason.For(known); got != want {
			t.Errorf("%q becomes %q, want %q", reason, got, want)
		}
	}
	if got := tranter.ImagePullFailure.For(nil); got != tranter.RunnerSystemFailure {
		t.Errorf("image_pull_failure for a server that does not know it: %q", got)
	}
}

// No way of printing shows a secret; the wire does.
func TestSecretsAreNotPrinted(t *testing.T) {
	secret := tranter.Secret("hunter2")
	holder := struct{ S tranter.Secret }{secret}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "token", secret, "holder", holder)
	for _, text := range []string{
		fmt.Sprint(secret), fmt.Sprintf("%s %v %q %x %d %#v %+v", secret, secret, secret, secret, secret, secret, secret),
		fmt.Sprintf("%v %+v %#v", holder, holder, holder), logged.String(),
	} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("%s", text)
		}
	}
	if data, err := json.Marshal(holder); err != nil || string(data) != `{"S":"hunter2"}` {
		t.Errorf("%s, %v", data, err)
	}
}
