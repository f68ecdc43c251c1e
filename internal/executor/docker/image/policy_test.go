package image

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
)

func TestWhichImagesAreAllowed(t *testing.T) {
	for _, c := range []struct {
		patterns []string
		name     string
		want     bool
	}{
		{nil, "anything", true},
		{[]string{"ruby:*"}, "ruby:2.7", true},
		{[]string{"ruby:*"}, "ruby", false},
		{[]string{"ruby:*", "python"}, "python", true},
		{[]string{"r.example/*"}, "r.example/a/b:1", false},
		{[]string{"r.example/**"}, "r.example/a/b:1", true},
		{[]string{"r.example/**/*:*"}, "r.example/a:1", true},
		{[]string{"{a,b}:?"}, "b:1", true},
		{[]string{"[", "a"}, "a", true},
		{[]string{"["}, "[", false},
		{[]string{"x"}, "default:1", true}, // configured
	} {
		if got := Allowed(c.patterns, []string{"default:1"}, c.name); got != c.want {
			t.Errorf("Allowed(%q, %q) = %v", c.patterns, c.name, got)
		}
	}
	err := Refused("allowed_images", []string{"ruby:*", "python"}, "perl")
	var config *tranter.ConfigError
	if !errors.As(err, &config) || !strings.Contains(err.Error(), `disallowed image "perl"`) || !strings.Contains(err.Error(), "ruby:*, python") {
		t.Error(err)
	}
}

func TestWhichPoliciesAreEffective(t *testing.T) {
	list := func(s string) []string { return strings.Fields(s) }
	for _, c := range []struct{ configured, allowed, asked, want, says string }{
		{"", "", "", "always", ""},
		{"if-not-present always", "", "", "if-not-present always", ""},
		{"", "", "always", "always", ""},
		{"always", "always if-not-present", "if-not-present", "if-not-present", ""},
		{"always", "if-not-present always", "always never if-not-present always", "always if-not-present", ""},
		{"always never", "never", "", "never", ""},
		{"", "", "if-not-present", "", "[if-not-present] of the job is one of those that the runner allows, [always]"},
		{"always", "never", "", "", "[always] of pull_policy of [runners.docker] is one of those that the runner allows, [never]"},
		{"sometimes", "", "", "", `unsupported pull policy "sometimes" of pull_policy`},
		{"", "Always", "", "", `unsupported pull policy "Always" of allowed_pull_policies`},
		{"", "", "none", "", `unsupported pull policy "none" of the job`},
	} {
		got, err := Effective(list(c.configured), list(c.allowed), list(c.asked))
		if !slices.Equal(got, list(c.want)) {
			t.Errorf("%+v: %v %v", c, got, err)
		}
		var config *tranter.ConfigError
		if c.says != "" && (!errors.As(err, &config) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if got, err := Effective([]string{""}, []string{""}, []string{""}); err != nil || !slices.Equal(got, []string{Always}) {
		t.Errorf("empty entries: %v %v", got, err)
	}
}
