package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/tranter-ci/tranter"
)

// security is what the security options of containers come to. Bare lists of paths that are not nil and empty take away
// the engine's own.
type security struct {
	options       []string
	maskedPaths   []string
	readonlyPaths []string
}

func (s *Spec) compileSecurity() error {
	d := s.job.in.Settings
	var err error
	if s.parts.security, err = s.job.securityOf(d.SecurityOpt); err != nil {
		return invalid("security_opt", err)
	}
	if s.parts.serviceSecurity, err = s.job.securityOf(d.ServicesSecurityOpt); err != nil {
		return invalid("services_security_opt", err)
	}
	for key, patterns := range map[string][]string{
		"allowed_privileged_images": d.AllowedPrivilegedImages, "allowed_privileged_services": d.AllowedPrivilegedServices,
	} {
		for _, p := range patterns {
			if !doublestar.ValidatePattern(p) {
				return invalid(key, fmt.Errorf("%q is not a pattern", p))
			}
		}
	}
	// The image that is really used is compared. The stock runner compares the name that the job gives, which is empty
	// where the default image is used, and for the helper an id, which no pattern is written for: so does nothing here
	// that gives the helper rights which it does not need.
	s.parts.privileged = d.Privileged && matches(d.AllowedPrivilegedImages, s.Image)
	s.parts.helperPrivileged = d.Privileged && len(d.AllowedPrivilegedImages) == 0
	return nil
}

// servicePrivileged says whether a service gets all rights (runner contract, section 9.8).
func (j *job) servicePrivileged(image string) bool {
	d := j.in.Settings
	return d.ServicesPrivileged.Or(d.Privileged) && matches(d.AllowedPrivilegedServices, image)
}

// matches says whether one of the patterns matches; without patterns, all does.
func matches(patterns []string, name string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := doublestar.Match(p, name)
		return ok
	})
}

// securityOf reads security options as the command line of Docker does.
func (j *job) securityOf(configured []string) (security, error) {
	var out security
	for _, option := range configured {
		key, value := cutOption(option)
		switch {
		case key == "systempaths" && value == "unconfined" && j.in.Podman:
			option = "unmask=ALL"
		case key == "systempaths" && value == "unconfined":
			out.maskedPaths, out.readonlyPaths = []string{}, []string{}
			continue
		case key == "systempaths":
			return out, fmt.Errorf("%q: the only value of systempaths is unconfined", option)
		case key == "seccomp":
			profile, err := j.seccomp(value)
			if err != nil {
				return out, err
			}
			option = "seccomp=" + profile
		case value == "" && key != "no-new-privileges":
			return out, fmt.Errorf("%q is not a security option: write NAME=VALUE", option)
		}
		out.options = append(out.options, option)
	}
	return out, nil
}

// cutOption cuts at "=", or at ":", which is the older form.
func cutOption(option string) (key, value string) {
	if i := strings.IndexAny(option, "=:"); i >= 0 {
		return option[:i], option[i+1:]
	}
	return option, ""
}

// seccomp returns a seccomp profile as the engine wants it: a word, or the profile itself.
func (j *job) seccomp(value string) (string, error) {
	text, inline := []byte(value), strings.HasPrefix(strings.TrimSpace(value), "{")
	switch {
	case value == "unconfined" || value == "builtin":
		return value, nil
	case j.in.Podman && inline:
		return "", errors.New("Podman takes a seccomp profile only as a file on its machine: write seccomp=PATH") //nolint:staticcheck // a name
	case j.in.Podman:
		return value, nil
	case !inline:
		if j.in.ReadFile == nil {
			return "", fmt.Errorf("the seccomp profile %s can't be read here", value)
		}
		var err error
		if text, err = j.in.ReadFile(value); err != nil {
			return "", fmt.Errorf("read the seccomp profile: %w", err)
		}
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return "", fmt.Errorf("the seccomp profile %s is not JSON: %w", cut(value, longestName), err)
	}
	return compact.String(), nil
}

// buildUser returns the build container's user: the configured one, else the one that the job asks for.
func (j *job) buildUser(asked string) (string, error) {
	if forced := j.in.Settings.User; forced != "" {
		if asked != "" && asked != forced {
			j.warn("The job asks for user %q; the runner's configuration has it run as %q.", asked, forced)
		}
		return forced, nil
	}
	return asked, j.checkUser(asked)
}

// checkUser refuses a user whom the job may not choose (allowed_users; without it, only user if that is set).
func (j *job) checkUser(asked string) error {
	allowed := j.in.Settings.AllowedUsers
	if len(allowed) == 0 && j.in.Settings.User != "" {
		allowed = []string{j.in.Settings.User}
	}
	if asked == "" || len(allowed) == 0 || slices.Contains(allowed, asked) {
		return nil
	}
	return &tranter.ConfigError{Err: fmt.Errorf("user %q is not allowed: allowed_users in [runners.docker] has %q", asked, allowed)}
}

// errNoImage means that neither the job nor the settings name an image.
var errNoImage = errors.New("the job names no image and [runners.docker] has no default: write image: in .gitlab-ci.yml, or image = in the runner's configuration")

// compileImage works out from which image the build container is made, and as whom and how it starts.
func (s *Spec) compileImage() error {
	asked := s.job.in.Job.Image
	s.Image, s.PullPolicy = s.job.expand(asked.Name), asked.PullPolicy
	if s.Image == "" {
		s.Image = s.job.expand(s.job.in.Settings.Image)
	}
	if s.Image == "" {
		return &tranter.ConfigError{Err: errNoImage}
	}
	opts, err := parseExecutorOpts(asked.ExecutorOpts)
	if err != nil {
		return fmt.Errorf("the job's image: %w", err)
	}
	if s.parts.user, err = s.job.buildUser(s.job.expand(opts.User)); err != nil {
		return err
	}
	s.Platform = s.job.expand(opts.Platform)
	if s.parts.platform, err = parsePlatform(s.Platform); err != nil {
		return &tranter.ConfigError{Err: fmt.Errorf("the job's image: %w", err)}
	}
	s.parts.entrypoint = s.job.overwritten("The job", asked.Entrypoint)
	return nil
}

// overwritten returns the entrypoint that is asked for, unless that is not allowed; nil: the image's.
func (j *job) overwritten(who string, asked []string) []string {
	if len(asked) == 0 {
		return nil
	}
	if j.in.Settings.DisableEntrypointOverwrite {
		j.warn("%s asks for another entrypoint, which the runner's configuration does not allow (disable_entrypoint_overwrite).", who)
		return nil
	}
	return asked
}
