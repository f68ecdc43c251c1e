package apptainer

import (
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/variables"
)

// settings are values of the configuration that take variables of the job, then of the environment.
type settings struct {
	job variables.List
	env func(string) (string, bool)
}

var variable = lazy.Regexp(`\$\$|\$([A-Za-z_][A-Za-z0-9_]*)|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}`)

// expand replaces $NAME, ${NAME} and ${NAME:-default}; $$ is a dollar. What is not set is empty.
func (s settings) expand(text string) string {
	return variable().ReplaceAllStringFunc(text, func(found string) string {
		if found == "$$" {
			return "$"
		}
		m := variable().FindStringSubmatch(found)
		name := m[1] + m[2]
		if v, ok := s.job.Lookup(name); ok && v.Value != "" {
			return v.Value
		}
		if v, ok := s.env(name); ok && v != "" {
			return v
		}
		return m[3]
	})
}

// truth reads a setting that is true or false once its variables are replaced.
func (s settings) truth(key, text string) (bool, error) {
	switch got := strings.ToLower(strings.TrimSpace(s.expand(text))); got {
	case "", "false", "0", "no", "off":
		return false, nil
	case "true", "1", "yes", "on":
		return true, nil
	default:
		return false, configError("%s = %q in [runners.apptainer] comes to %q, which is neither true nor false", key, text, cut(got))
	}
}

// mount reads SOURCE[:TARGET[:ro|rw]]. Its parts are told apart before variables are replaced: a value adds none.
func (s settings) mount(text string) (bind, error) {
	parts := splitMount(text)
	for i, part := range parts {
		parts[i] = s.expand(part)
		if up(parts[i]) && !up(part) {
			return bind{}, configError("mounts in [runners.apptainer]: %q comes to %q: a variable can't lead out of the directory before it", text, cut(parts[i]))
		}
	}
	b, ok := bindOf(parts)
	if !ok {
		return b, configError("mounts in [runners.apptainer]: %q comes to %q, which is not SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro with absolute paths", text, cut(strings.Join(parts, ":")))
	}
	if b.Target == "/" {
		return b, configError("mounts in [runners.apptainer]: %q would hide the whole image", text)
	}
	return b, nil
}

// bindOf makes a bind of the parts of a mount.
func bindOf(parts []string) (b bind, ok bool) {
	for len(parts) < 3 {
		parts = append(parts, "")
	}
	b = bind{Source: parts[0], Target: cmp.Or(parts[1], parts[0]), ReadOnly: parts[2] == "ro"}
	if len(parts) > 3 || !slices.Contains([]string{"", "ro", "rw"}, parts[2]) {
		return b, false
	}
	if !filepath.IsAbs(b.Source) || !path.IsAbs(b.Target) || strings.ContainsAny(b.Source+b.Target, ":,\x00\n") {
		return b, false
	}
	b.Source, b.Target = filepath.Clean(b.Source), path.Clean(b.Target)
	return b, true
}

// up says whether a path leads out of one of its directories.
func up(p string) bool { return slices.Contains(strings.Split(p, "/"), "..") }

// splitMount cuts at colons that are not in ${...}.
func splitMount(text string) []string {
	var parts []string
	depth, from := 0, 0
	for i, r := range text {
		switch {
		case r == '{':
			depth++
		case r == '}':
			depth--
		case r == ':' && depth <= 0:
			parts = append(parts, text[from:i])
			from = i + 1
		}
	}
	return append(parts, text[from:])
}

// allowed says whether an image may be used (runner contract, section 9.7).
func allowed(patterns, configured []string, name string) bool {
	if len(patterns) == 0 || slices.Contains(configured, name) {
		return true
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := doublestar.Match(p, name)
		return ok && err == nil
	})
}

func refused(key string, patterns []string, name string) error {
	return configError("disallowed image %q: %s of this runner allows only %s; use one of them, or ask the runner's administrator to add yours",
		cut(name), key, strings.Join(patterns, ", "))
}

// policies returns the pull policies to try: those that the job asked for, else those configured, as far as they are
// allowed (runner contract, section 9.7).
func policies(configured, permitted, asked []string) ([]string, error) {
	if len(configured) == 0 {
		configured = []string{"always"}
	}
	if len(permitted) == 0 {
		permitted = configured
	}
	wanted, of := asked, "the job"
	if len(wanted) == 0 {
		wanted, of = configured, "pull_policy"
	}
	var effective []string
	for _, p := range wanted {
		if !slices.Contains([]string{"always", "if-not-present", "never"}, p) {
			return nil, configError("%s has the pull policy %q: use always, if-not-present or never", of, cut(p))
		}
		if slices.Contains(permitted, p) && !slices.Contains(effective, p) {
			effective = append(effective, p)
		}
	}
	if len(effective) == 0 {
		return nil, configError("none of the pull policies [%s] of %s is one of those that the runner allows, [%s]: ask for one of them, or have the runner's administrator add yours to allowed_pull_policies",
			strings.Join(wanted, " "), of, strings.Join(permitted, " "))
	}
	return effective, nil
}

// cut bounds what a message quotes of a job.
func cut(text string) string {
	const most = 300
	if len(text) <= most {
		return text
	}
	return fmt.Sprintf("%s...", strings.ToValidUTF8(text[:most], ""))
}

// overwritten says whether an entrypoint is given: [""] is not one, but no entrypoint at all, which there is anyway.
func overwritten(entrypoint []string) bool {
	return len(entrypoint) > 0 && (len(entrypoint) > 1 || entrypoint[0] != "")
}

// before is what stands in front of a command so that an entrypoint gets it. A shell with -c takes one word as the
// script, and the command after it.
func before(entrypoint []string) []string {
	if !overwritten(entrypoint) {
		return nil
	}
	if last := entrypoint[len(entrypoint)-1]; len(entrypoint) > 1 && strings.HasPrefix(last, "-") && strings.HasSuffix(last, "c") {
		return append(slices.Clone(entrypoint), `exec "$0" "$@"`)
	}
	return slices.Clone(entrypoint)
}
