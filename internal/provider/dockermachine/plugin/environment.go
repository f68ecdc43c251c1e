package plugin

import (
	"slices"
	"strings"
)

// withoutGitLab returns an environment without what lets one speak to GitLab as this runner or as a user: configurations may
// have their tokens from there, and a driver has no use for them.
func withoutGitLab(environment []string) []string {
	return slices.DeleteFunc(slices.Clone(environment), func(e string) bool {
		name, value, _ := strings.Cut(e, "=")
		return slices.Contains([]string{"CI_SERVER_TOKEN", "REGISTRATION_TOKEN", "RUNNER_TOKEN", "CI_JOB_TOKEN", "GITLAB_TOKEN"}, name) ||
			slices.ContainsFunc([]string{"glrt-", "glrtr-", "glpat-", "glcbt-", "gldt-", "glptt-", "GR1348941"}, func(prefix string) bool {
				return strings.HasPrefix(value, prefix)
			})
	})
}
