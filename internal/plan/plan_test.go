package plan

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/variables"
)

var update = flag.Bool("update", false, "write the golden files")

func settings() Settings {
	return Settings{
		Name: "builder", Executor: "shell", ServerURL: "https://gitlab.example.com", ShortToken: "abcdefghi", SystemID: "s_1",
		Dirs:  DirSettings{Builds: "/srv/builds", Cache: "/srv/cache", SharedBuilds: true},
		Shell: "bash", Login: true, Shared: true, OutputLimit: 4 << 20,
		Program: Program{Version: "1.0", Commit: "abc", Arch: "linux/amd64"},
	}
}

func job(variables ...string) *tranter.Job {
	j := &tranter.Job{
		ID: 7, Token: "glcbt-64_secretoken", AllowGitFetch: true,
		Info: tranter.JobInfo{Name: "test", Stage: "test", ProjectID: 3},
		Git: tranter.GitInfo{
			RepoURL: "https://gitlab-ci-token:glcbt-64_secretoken@gitlab.example.com/group/project.git", Ref: "main", SHA: "0123456789abcdef0123456789abcdef01234567",
			Refspecs: []string{"+refs/heads/main:refs/remotes/origin/main"}, Depth: 20,
		},
		Runner: tranter.RunnerInfo{Timeout: 3600},
		Steps:  []tranter.JobStep{{Name: "script", Script: []string{"make", "make test"}}, {Name: "after_script", Script: []string{"echo bye"}}},
		Variables: []tranter.Variable{
			{Key: "CI_PROJECT_PATH", Value: "group/project", Public: true},
			{Key: "PASSWORD", Value: " hunter22 ", Masked: true},
		},
		Features: tranter.JobFeatures{TraceSections: true},
	}
	for i := 0; i < len(variables); i += 2 {
		j.Variables = append(j.Variables, tranter.Variable{Key: variables[i], Value: variables[i+1]})
	}
	return j
}

func build(t *testing.T, j *tranter.Job, s Settings) *Plan {
	t.Helper()
	p, err := Build(j, s, variables.Slots{Runner: 2, Project: 1})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGolden(t *testing.T) {
	j := job("GIT_SUBMODULE_STRATEGY", "recursive", "GET_SOURCES_ATTEMPTS", "3", "RUNNER_SCRIPT_TIMEOUT", "10m", "CACHE_FALLBACK_KEY", "main")
	j.Cache = []tranter.Cache{
		{Key: "$CI_PROJECT_PATH/deps", Paths: []string{"vendor/"}, FallbackKeys: []string{"other"}},
		{Key: "a/../b", Paths: []string{"x"}, Policy: "pull", When: "always"},
	}
	j.Artifacts = []tranter.Artifact{
		{Paths: []string{"out/"}, Type: "archive"},
		{Paths: []string{"junit.xml"}, Type: "junit", Format: "gzip", When: "always"},
	}
	j.Dependencies = []tranter.Dependency{
		{ID: 6, Token: "dep-token", Name: "build", File: &tranter.DependencyFile{Filename: "artifacts.zip", Size: 10}},
		{ID: 5, Name: "nothing"},
	}
	s := settings()
	s.Scripts = Scripts{PreGetSources: "echo pre", PreBuild: "echo before", PostBuild: "echo after"}
	s.Cache = CacheSettings{Type: "directory", Directory: "/mnt/cache", Path: "ci"}
	got, err := json.MarshalIndent(build(t, j, s), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "full.json")
	if *update {
		if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)+"\n"); d != "" {
		t.Errorf("plan differs from %s (go test -update writes it):\n%s", file, d)
	}
}

func TestNoSecretInTheCommandsOfGit(t *testing.T) {
	p := build(t, job(), settings())
	for _, s := range p.Phases[0].Steps {
		if s.Sources != nil {
			if s.Sources.RepoURL != "https://gitlab.example.com/group/project.git" || s.Sources.Password != "glcbt-64_secretoken" || s.Sources.BaseURL != "https://gitlab.example.com" {
				t.Errorf("%+v", s.Sources)
			}
		}
	}
	for _, secret := range []tranter.Secret{"hunter22", "glcbt-64_secretoken"} {
		if !slices.Contains(p.Masked, secret) {
			t.Errorf("%s is not masked", secret.Reveal())
		}
	}
}

func TestDirectories(t *testing.T) {
	custom := settings()
	custom.Dirs.Custom = true
	own := settings()
	own.Dirs.SharedBuilds = false
	for name, c := range map[string]struct {
		job      *tranter.Job
		settings Settings
		want     string
		fails    string
	}{
		"shared":            {job(), settings(), "/srv/builds/abcdefghi/1/group/project", ""},
		"not shared":        {job(), own, "/srv/builds/group/project", ""},
		"empty strategy":    {job("GIT_STRATEGY", "empty"), own, "/srv/builds/group/project-empty", ""},
		"clone path":        {job("GIT_CLONE_PATH", "$CI_BUILDS_DIR/here/$CI_CONCURRENT_ID"), custom, "/srv/builds/here/2", ""},
		"clone path leaves": {job("GIT_CLONE_PATH", "/srv/builds/../etc"), custom, "", "not within"},
		"clone path off":    {job("GIT_CLONE_PATH", "/srv/builds/x"), settings(), "", "not allowed"},
	} {
		p, err := Build(c.job, c.settings, variables.Slots{Runner: 2, Project: 1})
		if c.fails != "" {
			var configError *tranter.ConfigError
			if !errors.As(err, &configError) || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: error %v, want one of configuration with %q", name, err, c.fails)
			}
			continue
		}
		if err != nil || p.Dirs.Project != c.want {
			t.Errorf("%s: %v, %+v, want %s", name, err, p, c.want)
		}
	}
	if got := projectSlug(&tranter.Job{Git: tranter.GitInfo{RepoURL: "https://h/../../etc/x.git"}}); got != "etc/x" {
		t.Errorf("slug %q", got)
	}
	if got := projectSlug(&tranter.Job{Git: tranter.GitInfo{RepoURL: "file:///srv/x.git"}, Info: tranter.JobInfo{ProjectID: 4}}); got != "project-4" {
		t.Errorf("slug %q", got)
	}
}

func TestWarnings(t *testing.T) {
	p := build(t, job("GIT_STRATEGY", "teleport", "GET_SOURCES_ATTEMPTS", "99", "RESTORE_CACHE_ATTEMPTS", "x", "GIT_CHECKOUT", "perhaps",
		"RUNNER_AFTER_SCRIPT_TIMEOUT", "2h", "RUNNER_SCRIPT_TIMEOUT", "-3s", "FF_TIMESTAMPS", "no way"), settings())
	all := strings.Join(p.Warnings, "\n")
	for _, want := range []string{"teleport", "99", "perhaps", "2h", "-3s", "FF_TIMESTAMPS"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning with %q in:\n%s", want, all)
		}
	}
}

// What is set, and neither works nor can be read, has its name in the log (runner contract, section 5.6).
func TestSwitchesOfDebugging(t *testing.T) {
	disabled := settings()
	disabled.DebugTraceDisabled = true
	for _, tt := range []struct {
		key, value string
		settings   Settings
		want       string
	}{
		{"CI_DEBUG_TRACE", "perhaps", settings(), "CI_DEBUG_TRACE: expected true or false"},
		{"CI_DEBUG_SERVICES", "perhaps", settings(), "CI_DEBUG_SERVICES: expected true or false"},
		{"RUNNER_GENERATE_ARTIFACTS_METADATA", "perhaps", settings(), "RUNNER_GENERATE_ARTIFACTS_METADATA: expected true or false"},
		{"CI_DEBUG_SERVICES", "true", disabled, "CI_DEBUG_SERVICES is set, but the runner's configuration disables it"},
		{"CI_DEBUG_SERVICES", "false", disabled, ""},
		{"CI_DEBUG_TRACE", "1", settings(), ""},
	} {
		all := strings.Join(build(t, job(tt.key, tt.value), tt.settings).Warnings, "\n")
		if !strings.Contains(all, tt.want) || tt.want == "" && strings.Contains(all, tt.key) {
			t.Errorf("%s=%s: warnings %q, want %q", tt.key, tt.value, all, tt.want)
		}
	}
}

// Each command of a hook is echoed for itself, the job's inside the configuration's (runner contract, sections 6.1 and 6.6).
func TestCommandsOfHooks(t *testing.T) {
	s, j := settings(), job()
	s.Scripts.PreGetSources, s.Scripts.PostGetSources = "config pre\nmore", "config post"
	j.Hooks = []tranter.Hook{{Name: "pre_get_sources_script", Script: []string{"one", "", "two"}}, {Name: "post_get_sources_script", Script: []string{"three", "four"}}}
	for _, step := range build(t, j, s).Phases[0].Steps {
		if step.Sources == nil {
			continue
		}
		if want := []string{"config pre\nmore", "one", "two"}; !slices.Equal(step.Sources.PreScripts, want) {
			t.Errorf("before: %q, want %q", step.Sources.PreScripts, want)
		}
		if want := []string{"three", "four", "config post"}; !slices.Equal(step.Sources.PostScripts, want) {
			t.Errorf("after: %q, want %q", step.Sources.PostScripts, want)
		}
		return
	}
	t.Error("no step gets the sources")
}

// Without sources there are no submodules, whatever is said of them (runner contract, section 6.4).
func TestSubmodulesWithoutSources(t *testing.T) {
	for _, strategy := range []string{"none", "empty", "fetch"} {
		_, err := Build(job("GIT_STRATEGY", strategy, "GIT_SUBMODULE_STRATEGY", "deep", "GIT_SUBMODULE_PATHS", ":(exclude) x"), settings(), variables.Slots{})
		if (err != nil) != (strategy == "fetch") {
			t.Errorf("%s: error %v", strategy, err)
		}
	}
}

func TestCloneURL(t *testing.T) {
	s := settings()
	s.Git.CloneURL = "http://10.0.0.1:8080/gitlab"
	src, err := func() (*tranter.SourcesStep, error) {
		b := &builder{job: job(), settings: s, reader: reader{vars: variables.List(job().Variables)}, raw: variables.List(job().Variables)}
		return b.sources()
	}()
	if err != nil || src.RepoURL != "http://10.0.0.1:8080/gitlab/group/project.git" || src.Username != "gitlab-ci-token" {
		t.Errorf("%v: %+v", err, src)
	}
}

func TestInputs(t *testing.T) {
	j := job()
	j.Inputs = []tranter.Input{
		{Key: "who", Value: json.RawMessage(`{"type":"string","content":"world"}`)},
		{Key: "n", Value: json.RawMessage(`{"type":"number","content":3}`)},
		{Key: "key", Value: json.RawMessage(`{"type":"string","content":"s3cret","sensitive":true}`)},
	}
	j.Steps[0].Script = []string{"echo ${{ job.inputs.who }} ${{job.inputs.n}}"}
	got, err := withInputs(j)
	if err != nil || got.Steps[0].Script[0] != "echo world 3" {
		t.Errorf("%v: %q", err, got.Steps[0].Script)
	}
	for _, bad := range []string{"${{ job.inputs.none }}", "${{ job.inputs.key }}", "${{ 1 + 1 }}"} {
		j.Steps[0].Script = []string{bad}
		_, err := Build(j, settings(), variables.Slots{})
		var configError *tranter.ConfigError
		if !errors.As(err, &configError) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: error %v", bad, err)
		}
	}
	j.Inputs = []tranter.Input{{Key: "x", Value: json.RawMessage(`{"type":"boolean","content":"yes"}`)}}
	if _, err := withInputs(j); err == nil {
		t.Error("no error for an input that is not of its type")
	}
}

func TestUnsupported(t *testing.T) {
	j := job()
	j.Secrets = map[string]any{"X": nil}
	if _, err := Build(j, settings(), variables.Slots{}); err == nil || !strings.Contains(err.Error(), "secrets") {
		t.Errorf("secrets: %v", err)
	}
}

// Whatever a key says, its path stays where it is put, and a clean key is left alone.
func TestSanitizedKeysStayInside(t *testing.T) {
	for raw, want := range map[string]string{"a/b/c/../../d": "a/d", " foo / bar ": " foo / bar", "/": "", ".": "", "..": "", "  ": "", "a%2fb": "a/b", `..\..\x`: "x", "%5C": "%5C"} {
		if got, _ := sanitizeKey(raw); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.StringMatching(`[a./\\ %2fF5cE-]{0,20}`).Draw(t, "key")
		got, _ := sanitizeKey(raw)
		if got != "" && !filepath.IsLocal(got) {
			t.Fatalf("%q became %q", raw, got)
		}
		if again, warning := sanitizeKey(got); again != got || got != "" && warning != "" {
			t.Fatalf("%q is not stable: %q", got, again)
		}
	})
}

func TestSecretsToFetch(t *testing.T) {
	j := job()
	j.Variables = append(j.Variables, tranter.Variable{Key: "JWT", Value: "a.b.c", Masked: true}, tranter.Variable{Key: "APP", Value: "web"})
	j.Secrets = map[string]any{
		"B": map[string]any{"file": false, "vault": map[string]any{
			"server": map[string]any{"url": "https://vault.test", "namespace": "$APP", "auth": map[string]any{"name": "jwt", "path": "/jwt/", "data": map[string]any{"jwt": "$JWT", "role": "ci"}}},
			"engine": map[string]any{"name": "kv-v2", "path": "kv"}, "path": "$APP/db", "field": "password",
		}},
		"A": map[string]any{"gitlab_secrets_manager": map[string]any{
			"server": map[string]any{"url": "https://bao.test", "inline_auth": map[string]any{"jwt": "x", "auth_mount": "gitlab"}},
			"engine": map[string]any{"name": "kv-v2", "path": "secrets"}, "path": "p/$APP", "field": "value",
		}},
		"C": map[string]any{"akeyless": map[string]any{}},
	}
	p, err := Secrets(j, settings(), variables.Slots{})
	if err != nil {
		t.Fatal(err)
	}
	want := []tranter.ExternalSecret{
		{Variable: "A", File: true, URL: "https://bao.test", AuthPath: "auth/gitlab/login", JWT: "x", Inline: true, Engine: "kv-v2", Mount: "secrets", Path: "p/$APP", Field: "value"},
		{Variable: "B", URL: "https://vault.test", Namespace: "web", AuthPath: "auth/jwt/login", Role: "ci", JWT: "a.b.c", Engine: "kv-v2", Mount: "kv", Path: "web/db", Field: "password"},
	}
	if diff := cmp.Diff(want, p.Secrets); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "Not resolved: C") {
		t.Errorf("warnings %q", p.Warnings)
	}
	if !p.FailMissing || p.Attempts != 1 {
		t.Errorf("%+v", p)
	}
}

func TestResolvedSecretsGoBeforeVariablesOfTheJob(t *testing.T) {
	j := job()
	j.Variables = append(j.Variables, tranter.Variable{Key: "DB", Value: "of the job"})
	j.SecretVariables = []tranter.Variable{{Key: "DB", Value: "se$cret", Masked: true, Raw: true, File: true}}
	p, err := Build(j, settings(), variables.Slots{})
	if err != nil {
		t.Fatal(err)
	}
	v, _ := variables.List(p.Phases[0].Variables).Lookup("DB")
	if v.Value != "se$cret" || !v.File {
		t.Errorf("got %+v", v)
	}
	if !slices.Contains(p.Masked, "se$cret") {
		t.Error("the secret is not masked")
	}
}
