package image

import (
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// The pull policies (runner contract, section 9.7).
const (
	Always       = "always"         // pull; the engine fetches only what it does not have
	IfNotPresent = "if-not-present" // pull what the engine does not have
	Never        = "never"          // take what the engine has
)

// Allowed reports whether a job may use the image called name: it is one of configured, the images that the runner's own
// configuration names, or one of the patterns matches it, or there are no patterns. In a pattern ** crosses slashes, *
// does not; a malformed one matches nothing.
func Allowed(patterns, configured []string, name string) bool {
	if len(patterns) == 0 || slices.Contains(configured, name) {
		return true
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := doublestar.Match(p, name)
		return ok && err == nil
	})
}

// Refused returns the *tranter.ConfigError for an image that is not Allowed. key names the setting: allowed_images or
// allowed_services.
func Refused(key string, patterns []string, name string) error {
	return configError("disallowed image %q: %s of this runner allows only %s; use one of them, or ask the runner's administrator to add yours",
		shorten(name, 300), key, strings.Join(patterns, ", "))
}

// Effective returns the pull policies to try, in their order: those that the job asked for, or else those configured, as
// far as they are allowed. Nothing configured means always; nothing allowed means what is configured. The error is a
// *tranter.ConfigError for an unknown policy or when none is left (runner contract, section 9.7).
func Effective(configured, allowed, asked []string) ([]string, error) {
	configured, allowed, asked = given(configured), given(allowed), given(asked)
	if len(configured) == 0 {
		configured = []string{Always}
	}
	if len(allowed) == 0 {
		allowed = configured
	}
	wanted, of := asked, "the job"
	if len(wanted) == 0 {
		wanted, of = configured, "pull_policy of [runners.docker]"
	}
	for _, list := range []struct {
		of       string
		policies []string
	}{{"pull_policy of [runners.docker]", configured}, {"allowed_pull_policies of [runners.docker]", allowed}, {"the job", asked}} {
		if err := known(list.of, list.policies); err != nil {
			return nil, err
		}
	}
	var effective []string
	for _, p := range wanted {
		if slices.Contains(allowed, p) && !slices.Contains(effective, p) {
			effective = append(effective, p)
		}
	}
	if len(effective) == 0 {
		return nil, configError("none of the pull policies [%s] of %s is one of those that the runner allows, [%s]: ask for one of them, or have the runner's administrator add yours to allowed_pull_policies",
			strings.Join(wanted, " "), of, strings.Join(allowed, " "))
	}
	return effective, nil
}

// given leaves out empty entries: an empty string is how a setting is left open in TOML.
func given(policies []string) []string {
	return slices.DeleteFunc(slices.Clone(policies), func(p string) bool { return strings.TrimSpace(p) == "" })
}

func known(of string, policies []string) error {
	for _, p := range policies {
		if p != Always && p != IfNotPresent && p != Never {
			return configError("unsupported pull policy %q of %s: there are %s, %s and %s", shorten(p, 100), of, Always, IfNotPresent, Never)
		}
	}
	return nil
}
