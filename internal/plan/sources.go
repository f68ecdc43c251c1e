package plan

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
)

// strategy returns how to get the sources. With report, a value that is not known gives a warning.
func (b *builder) strategy(report bool) string {
	fallback := "clone"
	if b.job.AllowGitFetch {
		fallback = "fetch"
	}
	switch s := b.raw.ExpandString(b.raw.Get("GIT_STRATEGY"), ""); s {
	case "":
		return fallback
	case "clone", "fetch", "none", "empty":
		return s
	default:
		if report {
			b.warn("GIT_STRATEGY: expected clone, fetch, none or empty, got %q; using the default value: %s", s, fallback)
		}
		return fallback
	}
}

// sources returns the step that gets the sources (runner contract, sections 5.6 and 6).
func (b *builder) sources() (*tranter.SourcesStep, error) {
	strategy := b.strategy(true)
	s := &tranter.SourcesStep{
		Strategy:      strategy,
		Ref:           b.job.Git.Ref,
		SHA:           b.job.Git.SHA,
		Refspecs:      b.job.Git.Refspecs,
		Depth:         b.job.Git.Depth,
		ObjectFormat:  b.job.Git.ObjectFormat,
		SkipCheckout:  !b.boolean("GIT_CHECKOUT", true),
		FetchFlags:    b.words("GIT_FETCH_EXTRA_FLAGS", []string{"--prune", "--quiet"}),
		CloneFlags:    b.words("GIT_CLONE_EXTRA_FLAGS", nil),
		NativeClone:   b.flags["FF_USE_GIT_NATIVE_CLONE"],
		BundleURIs:    b.flags["FF_USE_GIT_BUNDLE_URIS"],
		ProactiveAuth: b.flags["FF_USE_GIT_PROACTIVE_AUTH"],
		SkipLFS:       b.boolean("GIT_LFS_SKIP_SMUDGE", false),
		SafeDirectory: b.settings.Git.SafeDirectory,
		CleanConfig:   b.settings.Git.CleanConfig,
		SharedEnv:     b.settings.Shared,
	}
	if flags := b.words("GIT_CLEAN_FLAGS", []string{"-ffdx"}); len(flags) > 0 {
		s.CleanFlags = flags
	}
	if b.flags["FF_USE_GITALY_CORRELATION_ID"] {
		s.CorrelationID = b.job.Local[tranter.LocalCorrelationID]
	}
	if strategy == "clone" || strategy == "fetch" {
		s.PreScripts = nonEmpty(slices.Concat([]string{b.settings.Scripts.PreGetSources}, hook(b.job, "pre_get_sources_script"))...)
		s.PostScripts = nonEmpty(append(slices.Clone(hook(b.job, "post_get_sources_script")), b.settings.Scripts.PostGetSources)...)
	}
	if strategy == "none" || strategy == "empty" {
		s.Submodules.Strategy = "none"
		return s, nil
	}
	if err := b.remote(s); err != nil {
		return nil, &tranter.ConfigError{Err: err}
	}
	var err error
	s.Submodules, err = b.submodules()
	return s, err
}

func nonEmpty(scripts ...string) []string {
	var out []string
	for _, s := range scripts {
		if strings.TrimSpace(s) != "" {
			out = append(out, s)
		}
	}
	return out
}

// hook returns the commands of one of the job's own hooks.
func hook(job *tranter.Job, name string) []string {
	for _, h := range job.Hooks {
		if h.Name == name {
			return h.Script
		}
	}
	return nil
}

// remote sets where the repository is and with what to log in (runner contract, section 6.2).
func (b *builder) remote(s *tranter.SourcesStep) error {
	u, err := url.Parse(b.job.Git.RepoURL)
	if err != nil || b.job.Git.RepoURL == "" {
		return fmt.Errorf("the repository's address %q is not a URL", b.job.CleanRepoURL())
	}
	projectPath := strings.TrimPrefix(u.Path, "/")
	base := *u
	base.User, base.Path, base.RawPath, base.RawQuery, base.Fragment = nil, "", "", "", ""
	if p := b.vars.Get("CI_PROJECT_PATH"); p != "" {
		if prefix, ok := strings.CutSuffix(strings.TrimSuffix(u.Path, ".git"), "/"+p); ok {
			base.Path = prefix
		}
	}
	if u.User != nil {
		s.Username = u.User.Username()
		password, _ := u.User.Password()
		s.Password = tranter.Secret(password)
	}
	if b.settings.Git.CloneURL != "" {
		if base, projectPath, err = b.elsewhere(s, projectPath); err != nil {
			return err
		}
	} else {
		projectPath = strings.TrimPrefix(strings.TrimPrefix(u.Path, base.Path), "/")
	}
	s.BaseURL = base.String()
	s.RepoURL = base.JoinPath(projectPath).String()
	return nil
}

// elsewhere returns the server and the project's path that the configuration's clone_url leads to, and sets with what to
// log in there.
func (b *builder) elsewhere(s *tranter.SourcesStep, projectPath string) (base url.URL, path string, err error) {
	clone := b.settings.Git.CloneURL
	c, err := url.Parse(clone)
	if err != nil || c.Scheme == "" || c.Host == "" {
		return base, "", fmt.Errorf("clone_url %q is not a URL such as https://gitlab.example.com", clone)
	}
	if p := b.vars.Get("CI_PROJECT_PATH"); p != "" {
		projectPath = p + ".git"
	}
	base = *c
	base.User, base.Path = nil, strings.TrimSuffix(c.Path, "/")
	s.Username, s.Password = "gitlab-ci-token", b.job.Token
	if c.Scheme == "ssh" {
		s.Username, s.Password = "git", ""
		if c.User != nil {
			s.Username = c.User.Username()
		}
		base.User = url.User(s.Username)
	}
	return base, projectPath, nil
}

func repoPassword(job *tranter.Job) string {
	u, err := url.Parse(job.Git.RepoURL)
	if err != nil || u.User == nil {
		return ""
	}
	p, _ := u.User.Password()
	return p
}

func (b *builder) submodules() (tranter.Submodule, error) {
	m := tranter.Submodule{
		Strategy:    b.vars.Get("GIT_SUBMODULE_STRATEGY"),
		Paths:       strings.Fields(b.vars.Get("GIT_SUBMODULE_PATHS")),
		Depth:       b.number("GIT_SUBMODULE_DEPTH", b.job.Git.Depth),
		UpdateFlags: b.words("GIT_SUBMODULE_UPDATE_FLAGS", nil),
		ForceHTTPS:  b.boolean("GIT_SUBMODULE_FORCE_HTTPS", false),
		SSHHost:     b.vars.Get("CI_SERVER_SHELL_SSH_HOST"),
		SSHPort:     b.vars.Get("CI_SERVER_SHELL_SSH_PORT"),
	}
	if m.SSHHost == "" {
		m.SSHHost = b.vars.Get("CI_SERVER_HOST")
	}
	switch m.Strategy {
	case "":
		m.Strategy = "none"
	case "none", "normal", "recursive":
	default:
		return m, &tranter.ConfigError{Err: fmt.Errorf("GIT_SUBMODULE_STRATEGY: expected none, normal or recursive, got %q", m.Strategy)}
	}
	for _, p := range m.Paths {
		if p == ":(exclude)" {
			return m, &tranter.ConfigError{Err: fmt.Errorf("GIT_SUBMODULE_PATHS: %q needs a path right after it, without a space", p)}
		}
	}
	return m, nil
}
