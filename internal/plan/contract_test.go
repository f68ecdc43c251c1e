package plan

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/variables"
)

// The vectors of the contract, section 14.3.
func TestCacheKeyVectors(t *testing.T) {
	for raw, want := range map[string]string{
		`foo/bar/../../../.././blerp`:   "blerp",
		`some%2f../job/some/ref/.`:      "job/some/ref",
		`job\name/git\ref`:              "job/name/git/ref",
		"fallback_key/ / \\  \\":        "fallback_key",
		`foo\bar\..\..`:                 "",
		" \t\r\n":                       "",
		`%2e%2E`:                        "",
		`a/b/c/../../d`:                 "a/d",
		` foo / bar`:                    " foo / bar",
		`main-protected`:                "main-protected",
		`a/.. `:                         "a",
		`ключ/日本`:                       "ключ/日本",
		strings.Repeat("../", 9) + `x`:  "x",
		`%5C..%5C`:                      `%5C..%5C`,
		`.hidden`:                       ".hidden",
		"trailing/%2e%2e/%2e%2e/escape": "escape",
	} {
		got, warning := sanitizeKey(raw)
		if got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
		if (warning == "") != (raw == want) {
			t.Errorf("%q: warning %q", raw, warning)
		}
	}
	if got, _ := cacheKey(true, "build/main"); got != "45d0dacd3981fb6610f8347aad3fe0cc993fadfc130c36e0d6ee54310495ceb4" {
		t.Errorf("hashed: %s", got)
	}
}

func caches(t *testing.T, j *tranter.Job, s Settings) (restore, success, failure []tranter.CacheEntry) {
	t.Helper()
	for _, step := range build(t, j, s).Phases[0].Steps {
		switch {
		case step.Restore != nil:
			restore = step.Restore.Caches
		case step.Archive != nil && step.When == tranter.OnSuccess:
			success = step.Archive.Caches
		case step.Archive != nil:
			failure = step.Archive.Caches
		}
	}
	return restore, success, failure
}

func TestCacheCandidates(t *testing.T) {
	for name, c := range map[string]struct {
		variables []string
		cache     tranter.Cache
		want      []string // candidates, the one that is saved first
		warning   string
	}{
		"key":                {nil, tranter.Cache{Key: "$CI_PROJECT_PATH-x"}, []string{"group/project-x"}, ""},
		"no key":             {nil, tranter.Cache{}, []string{"test/main"}, ""},
		"empty after all":    {nil, tranter.Cache{Key: "$NOTHING"}, []string{"test/main"}, ""},
		"order":              {[]string{"CACHE_FALLBACK_KEY", "last", "B", "two"}, tranter.Cache{Key: "k", FallbackKeys: []string{"one-protected", "$B"}}, []string{"k", "one-protected", "two", "last"}, ""},
		"protected fallback": {[]string{"CACHE_FALLBACK_KEY", "main-protected"}, tranter.Cache{Key: "k"}, []string{"k"}, "CACHE_FALLBACK_KEY"},
		"hidden by dots":     {[]string{"CACHE_FALLBACK_KEY", "main-protected. ./"}, tranter.Cache{Key: "k"}, []string{"k"}, "CACHE_FALLBACK_KEY"},
		"hidden by escapes":  {[]string{"CACHE_FALLBACK_KEY", "main-protected%2f."}, tranter.Cache{Key: "k"}, []string{"k"}, "CACHE_FALLBACK_KEY"},
		"sanitized":          {nil, tranter.Cache{Key: "a/../b"}, []string{"b"}, `cache key "a/../b" sanitized to "b"`},
		"unusable fallback":  {nil, tranter.Cache{Key: "k", FallbackKeys: []string{".."}}, []string{"k"}, ".."},
	} {
		j := job(c.variables...)
		c.cache.Paths = []string{"x"}
		j.Cache = []tranter.Cache{c.cache}
		restore, save, _ := caches(t, j, settings())
		if d := cmp.Diff(c.want, restore[0].Objects); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if d := cmp.Diff(c.want[:1], save[0].Objects); d != "" {
			t.Errorf("%s: saved: %s", name, d)
		}
		if got := strings.Join(restore[0].Warnings, "\n"); !strings.Contains(got, c.warning) || c.warning == "" && got != "" {
			t.Errorf("%s: warnings %q", name, got)
		}
	}
}

func TestCachePolicyAndWhen(t *testing.T) {
	j := job("POLICY", "pull")
	paths := []string{"x"}
	j.Cache = []tranter.Cache{
		{Key: "a", Paths: paths, Policy: "$POLICY"},
		{Key: "b", Paths: paths, Policy: "push", When: "always"},
		{Key: "c", Paths: paths, When: "on_failure"},
		{Key: "d", Untracked: true, When: "sometimes"},
		{Key: "nothing"},
	}
	restore, success, failure := caches(t, j, settings())
	show := func(list []tranter.CacheEntry) string {
		var out []string
		for _, c := range list {
			out = append(out, c.Key+":"+c.Skip)
		}
		return strings.Join(out, " ")
	}
	if got, want := show(restore), "a: b:Not downloading cache b due to policy c: d:"; got != want {
		t.Errorf("restore %s", got)
	}
	if got, want := show(success), "a:Not uploading cache a due to policy b: d:"; got != want {
		t.Errorf("on success %s", got)
	}
	if got, want := show(failure), "b: c:"; got != want {
		t.Errorf("on failure %s", got)
	}
	if got := strings.Join(build(t, j, settings()).Warnings, "\n"); !strings.Contains(got, `cache:when: "sometimes" is not known`) {
		t.Errorf("warnings %q", got)
	}
	j.Cache = []tranter.Cache{{Key: "a", Paths: paths, Policy: "never"}}
	var config *tranter.ConfigError
	if _, err := Build(j, settings(), variables.Slots{}); !errors.As(err, &config) || !strings.Contains(err.Error(), "never") {
		t.Errorf("an unknown policy: %v", err)
	}
}

// With hashed keys users still see what they wrote.
func TestHashedCacheKeys(t *testing.T) {
	j := job("FF_HASH_CACHE_KEYS", "true", "CACHE_FALLBACK_KEY", "../last")
	j.Cache = []tranter.Cache{{Key: "build/$CI_PROJECT_PATH/../x", Paths: []string{"x"}, FallbackKeys: []string{"build/main", ""}}}
	restore, save, _ := caches(t, j, settings())
	c := restore[0]
	if d := cmp.Diff([]string{"build/group/project/../x", "build/main", "../last"}, c.Names); d != "" || c.Key != c.Names[0] || len(c.Warnings) > 0 {
		t.Errorf("%s, key %q, warnings %q", d, c.Key, c.Warnings)
	}
	if len(c.Objects) != 3 || c.Objects[1] != "45d0dacd3981fb6610f8347aad3fe0cc993fadfc130c36e0d6ee54310495ceb4" || save[0].Key != c.Key || len(save[0].Objects) != 1 {
		t.Errorf("objects %q", c.Objects)
	}
}

// Runners share objects or not as the configuration says (section 7.3).
func TestCacheObjectNames(t *testing.T) {
	s := settings()
	s.Cache = CacheSettings{Type: "directory", Directory: "/mnt", Path: "/ci/"}
	j := job()
	j.Cache = []tranter.Cache{{Key: "k", Paths: []string{"x"}}}
	restore, _, _ := caches(t, j, s)
	if got := restore[0].Store.Prefix; got != "ci/runner/abcdefghi/project/3" {
		t.Errorf("prefix %s", got)
	}
	s.Cache.Shared = true
	restore, _, _ = caches(t, j, s)
	if got := restore[0].Store.Prefix; got != "ci/project/3" {
		t.Errorf("shared prefix %s", got)
	}
}

func TestNotices(t *testing.T) {
	s := settings()
	s.Flags = map[string]bool{"FF_CONCRETE": true, "FF_USE_FASTZIP": false}
	j := job("CACHE_CHUNK_SIZE", "1", "CI_DEBUG_SERVICES", "true",
		"FF_USE_PARALLEL_CACHE_TRANSFER", "true", "FF_USE_JOB_ROUTER", "true", "FF_NETWORK_PER_BUILD", "true", "CACHE_CONCURRENCY", " ")
	j.Artifacts = []tranter.Artifact{{Paths: []string{"x"}, Format: "zip"}}
	j.Services = []tranter.Image{{Name: "postgres"}}
	want := []string{
		"without effect in this runner: CI_DEBUG_SERVICES, FF_CONCRETE",
		"only the runner's configuration can change: FF_USE_JOB_ROUTER",
		"the job's services are not started: the executor shell has no containers",
	}
	if d := cmp.Diff(want, build(t, j, s).Warnings); d != "" {
		t.Error(d)
	}
	s.Container, s.Executor = true, "docker"
	if d := cmp.Diff(strings.Replace(want[0], "CI_DEBUG_SERVICES, ", "", 1), build(t, j, s).Warnings[0]); d != "" {
		t.Error(d)
	}
	if got := build(t, job("DOCKER_AUTH_CONFIG", "{}", "KUBERNETES_CPU_LIMIT", "1"), settings()).Warnings; len(got) != 0 {
		t.Errorf("an ordinary job is warned about: %q", got)
	}
}

// What ends a job before there is a plan is shown as it is: it must not tell a secret.
func TestErrorsTellNoSecret(t *testing.T) {
	custom := settings()
	custom.Dirs.Custom = true
	for name, set := range map[string]func(*tranter.Job){
		"clone path": func(j *tranter.Job) {
			j.Variables = append(j.Variables, tranter.Variable{Key: "GIT_CLONE_PATH", Value: "/else/$PASSWORD"})
		},
		"cache policy": func(j *tranter.Job) {
			j.Cache = []tranter.Cache{{Paths: []string{"x"}, Policy: "$PASSWORD"}}
		},
		"submodules": func(j *tranter.Job) {
			j.Variables = append(j.Variables, tranter.Variable{Key: "GIT_SUBMODULE_STRATEGY", Value: "hunter22", Masked: true})
		},
	} {
		j := job()
		set(j)
		_, err := Build(j, custom, variables.Slots{})
		var config *tranter.ConfigError
		if !errors.As(err, &config) || strings.Contains(err.Error(), "hunter22") || !strings.Contains(err.Error(), "[MASKED]") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Masking, time stamps and tokens hold for messages before, after and without a plan as they do for the agent's log.
func TestFormats(t *testing.T) {
	j := job("FF_TIMESTAMPS", "false", "FF_MASK_ALL_DEFAULT_TOKENS", "false", "SECRET", "x")
	j.Variables = append(j.Variables, tranter.Variable{Key: "DERIVED", Value: "${PASSWORD}-more", Masked: true})
	j.Features.TokenMaskPrefixes = []string{"corp-"}
	p := build(t, j, settings())
	want := tranter.LogFormat{
		Sections: true, LimitWhole: 4 << 20, FewTokens: true, TokenPrefixes: []string{"corp-"},
		Phrases: []tranter.Secret{"hunter22", "hunter22 -more", "glcbt-64_secretoken"},
	}
	if d := cmp.Diff(want, p.Format()); d != "" {
		t.Errorf("with a plan: %s", d)
	}
	if d := cmp.Diff(want, Format(j, settings())); d != "" {
		t.Errorf("without: %s", d)
	}
	agent := p.Phases[0].Log
	want.LimitBytes = 4 << 20
	if d := cmp.Diff(want, agent); d != "" {
		t.Errorf("agent: %s", d)
	}
}

// Who wins is the order of the contract, section 5.1.
func TestWhoMayOverrideWhom(t *testing.T) {
	s := settings()
	s.Environment = []string{"FROM=config", "CI_PROJECT_DIR=config", "ONLY=a=b", "FF_SCRIPT_SECTIONS=true", "CI_RUNNER_VERSION=config"}
	s.Flags = map[string]bool{"FF_USE_GIT_NATIVE_CLONE": true}
	p := build(t, job("FROM", "job", "CI_SERVER", "mine", "CI_RUNNER_VERSION", "mine", "RUNNER_TEMP_PROJECT_DIR", "mine", "CI_SHARED_ENVIRONMENT", "mine",
		"FF_USE_GIT_NATIVE_CLONE", "false", "CI_JOB_STATUS", "mine", "REF", "$FROM $$ $FF_SCRIPT_SECTIONS"), s)
	l := variables.List(p.Phases[0].Variables)
	for key, want := range map[string]string{
		"FROM": "job", "ONLY": "a=b", "CI_SERVER": "mine", "CI_JOB_STATUS": "mine",
		"CI_PROJECT_DIR":    p.Dirs.Project, // provided after the runner's environment
		"CI_RUNNER_VERSION": "1.0", "RUNNER_TEMP_PROJECT_DIR": p.Dirs.Temp, "CI_SHARED_ENVIRONMENT": "true",
		"FF_USE_GIT_NATIVE_CLONE": "true", "FF_SCRIPT_SECTIONS": "true", "REF": "job $ true",
		"CI_CONCURRENT_ID": "2", "CI_CONCURRENT_PROJECT_ID": "1", "CI_RUNNER_SHORT_TOKEN": "abcdefghi", "CI_JOB_TIMEOUT": "3600", "CI_BUILDS_DIR": "/srv/builds",
	} {
		if got := l.Get(key); got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
}

// In containers, the runner's files are not there: jobs get the client certificate and its key as file variables, and log in
// with these.
func TestJobsInContainersGetTheClientCertificate(t *testing.T) {
	s := settings()
	s.Executor, s.Container, s.Helper = "docker", true, true
	s.ReadFile = func(name string) ([]byte, error) {
		if name == "/etc/key.pem" {
			return nil, os.ErrPermission
		}
		return []byte("content of " + name), nil
	}
	j := job()
	j.Local = map[string]string{tranter.LocalTLSCert: "/etc/cert.pem", tranter.LocalTLSKey: "/etc/own.pem"}
	p := build(t, j, s)
	for key, content := range map[string]string{"CI_SERVER_TLS_CERT_FILE": "content of /etc/cert.pem", "CI_SERVER_TLS_KEY_FILE": "content of /etc/own.pem"} {
		i := slices.IndexFunc(p.Phases[0].Variables, func(v tranter.Variable) bool { return v.Key == key })
		if i < 0 || !p.Phases[0].Variables[i].File || p.Phases[0].Variables[i].Value != content {
			t.Errorf("%s is no file with %q: %+v", key, content, p.Phases[0].Variables)
		}
	}
	for _, phase := range p.Phases {
		if got, want := phase.Server.TLSCert+" "+phase.Server.TLSKey, p.Dirs.Temp+"/CI_SERVER_TLS_CERT_FILE "+p.Dirs.Temp+"/CI_SERVER_TLS_KEY_FILE"; got != want {
			t.Errorf("phase %s logs in with %s, want %s", phase.ID, got, want)
		}
	}
	j.Local[tranter.LocalTLSKey] = "/etc/key.pem"
	if _, err := Build(j, s, variables.Slots{}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a key that can't be read: %v", err)
	}
}

func TestJobsKnowTheNameOfTheirNetwork(t *testing.T) {
	s := settings()
	j := job("FF_NETWORK_PER_BUILD", "true")
	j.Info.ProjectID, j.ID = 3, 4
	for _, own := range []bool{true, false} {
		s.Network = own
		want := ""
		if own {
			want = "runner-" + s.ShortToken + "-3-1-4"
		}
		if got := variables.List(build(t, j, s).Phases[0].Variables).Get("CI_BUILD_NETWORK_NAME"); got != want {
			t.Errorf("the network is called %q, want %q", got, want)
		}
	}
	s.Network = true
	if got := variables.List(build(t, job(), s).Phases[0].Variables).Get("CI_BUILD_NETWORK_NAME"); got != "" {
		t.Errorf("a job without a network of its own has %q", got)
	}
}

// Every variable of the contract, section 5.6, that has no effect is named to the user where users look.
func TestVariablesWithoutEffectAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"EXECUTOR_JOB_SECTION_ATTEMPTS"} {
		found := false
		for line := range strings.Lines(string(doc)) {
			found = found || strings.Contains(line, "`"+key+"`") && strings.Contains(line, "| not yet |")
		}
		if !found {
			t.Errorf("docs/compatibility.md does not say that %s has no effect", key)
		}
	}
}
