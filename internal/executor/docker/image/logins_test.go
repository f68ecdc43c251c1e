package image

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/registry"

	"github.com/tranter-ci/tranter"
)

func auths(pairs ...string) string {
	var entries []string
	for i := 0; i < len(pairs); i += 2 {
		entries = append(entries, fmt.Sprintf(`%q: {"auth": %q}`, pairs[i], base64.StdEncoding.EncodeToString([]byte(pairs[i+1]))))
	}
	return `{"auths": {` + strings.Join(entries, ",") + `}}`
}

func home(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for path, content := range files {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func find(t *testing.T, l Logins, image string) (login, string) {
	t.Helper()
	n, err := parse(image)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	return l.find(t.Context(), n, &log), log.String()
}

func TestWhereALoginComesFrom(t *testing.T) {
	dir := home(t, map[string]string{".docker/config.json": auths("r.example", "file:f", "file.example", "file:f"), ".dockercfg": auths("old.example", "old:o")})
	old := home(t, map[string]string{".dockercfg": `{"https://old.example/v1/": {"auth": "` + base64.StdEncoding.EncodeToString([]byte("old:o")) + `", "email": "a@b"}}`})
	credentials := []tranter.Credential{
		{Type: "ssh", URL: "file.example", Username: "wrong", Password: "w"},
		{Type: "registry", URL: "R.example", Username: "payload", Password: "p"},
		{Type: "registry", URL: "gl.example:5050", Username: "payload", Password: "p"},
	}
	job := auths("r.example/group", "group:g", "R.Example", "job:j", "https://index.docker.io/v1/", "hub:h")
	runner := auths("r.example", "runner:r", "r.example/group/project", "deep:d", "run.example", "runner:r")
	file := filepath.Join(dir, ".docker", "config.json")
	for _, c := range []struct{ home, image, user, source, path string }{
		{dir, "r.example/x", "job", "$DOCKER_AUTH_CONFIG", "r.example"},
		{dir, "R.EXAMPLE/x:1", "job", "$DOCKER_AUTH_CONFIG", "r.example"},
		{dir, "r.example/group/x", "group", "$DOCKER_AUTH_CONFIG", "r.example/group"},
		{dir, "r.example/groups/x", "job", "$DOCKER_AUTH_CONFIG", "r.example"},
		{dir, "r.example/group/project:1", "deep", "$DOCKER_AUTH_CONFIG of the runner's environment", "r.example/group/project"},
		{dir, "run.example/x", "runner", "$DOCKER_AUTH_CONFIG of the runner's environment", "run.example"},
		{dir, "file.example/x@sha256:" + strings.Repeat("a", 64), "file", file, "file.example"},
		{dir, "gl.example:5050/x", "payload", "job payload (GitLab Registry)", "gl.example:5050"},
		{dir, "gl.example/x", "", "", ""},
		{dir, "ruby", "hub", "$DOCKER_AUTH_CONFIG", "docker.io"},
		{dir, "index.docker.io/library/ruby", "hub", "$DOCKER_AUTH_CONFIG", "docker.io"},
		{dir, "old.example/x", "", "", ""},
		{old, "old.example/x", "old", filepath.Join(old, ".dockercfg"), "old.example"},
		{"", "file.example/x", "", "", ""},
		{dir, "sha256:" + strings.Repeat("a", 64), "", "", ""},
	} {
		l, log := find(t, LoginsOf(job, runner, c.home, credentials), c.image)
		if l.auth.Username != c.user || l.source != c.source || l.path != c.path {
			t.Errorf("%s: %s from %s for %s, want %+v", c.image, l.auth.Username, l.source, l.path, c)
		}
		if log != "" {
			t.Errorf("%s: %s", c.image, log)
		}
	}
	if l, _ := find(t, Logins{}, "r.example/x"); l.source != "" {
		t.Errorf("the zero value has a login from %s", l.source)
	}
}

func TestKindsOfLogins(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte("user:pass:word"))
	for text, want := range map[string]registry.AuthConfig{
		`{"auth": "` + basic + `"}`:                               {Username: "user", Password: "pass:word"},
		`{"auth": "` + basic[:5] + `\n` + basic[5:] + `"}`:        {Username: "user", Password: "pass:word"},
		`{"username": "a", "password": "b"}`:                      {Username: "a", Password: "b"},
		`{"username": "a", "password": "b", "auth": ""}`:          {Username: "a", Password: "b"},
		`{"identitytoken": "t"}`:                                  {IdentityToken: "t"},
		`{"registrytoken": "t", "email": "x"}`:                    {RegistryToken: "t"},
		`{"username": "<token>", "password": "t"}`:                {IdentityToken: "t"},
		`{"auth": "` + basic + `", "identitytoken": "longlived"}`: {Username: "user", Password: "pass:word", IdentityToken: "longlived"},
	} {
		want.ServerAddress = "r.example"
		l, log := find(t, LoginsOf(`{"auths": {"r.example": `+text+`}}`, "", "", nil), "r.example/x")
		if l.auth != want || log != "" {
			t.Errorf("%s: %+v %s", text, l.auth, log)
		}
		header, err := l.header()
		if err != nil || header == "" {
			t.Errorf("%s: header %q %v", text, header, err)
		}
	}
}

func TestAMalformedConfigIsAWarningAndTellsNothingOfItself(t *testing.T) {
	const secret = "s3cret"
	for _, c := range []struct{ config, says string }{
		{secret, "line 1, column 1; it must begin with a brace"},
		{"/builds/x/" + secret, "it must begin with a brace"},
		{"{\n\"auths\": {\n  " + secret + "}", "line 3, column 3"},
		{`{"auths": {"r.example": {"auth": "` + secret, "not valid JSON at line 1"},
		{`{"auths": ["` + secret + `"]}`, "a value of the wrong kind ends at line 1"},
		{`["` + secret + `"]`, "a value of the wrong kind"},
		{`{"auths": {"r.example": "` + secret + `"}}`, "entry 1 of auths"},
		{`{"auths": {"a.example": {}, "r.example": {"auth": "` + secret + `"}}}`, "entry 2 of auths"},
		{`{"auths": {"r.example": {"auth": "` + base64.StdEncoding.EncodeToString([]byte(secret)) + `"}}}`, "is not user:password"},
		{`{"credsStore": "../` + secret + `"}`, "credsStore is not the name of a program"},
		{`{"credHelpers": {"r.example": "../../tmp/` + secret + `"}}`, "entry 1 of credHelpers"},
		{`{"credHelpers": {"r.example": "..` + secret + `"}}`, "entry 1 of credHelpers"},
	} {
		logins := LoginsOf(c.config, auths("r.example", "runner:r"), "", nil)
		l, log := find(t, logins, "r.example/x")
		if l.auth.Username != "runner" {
			t.Errorf("%s: the next source is not asked: %+v", c.config, l)
		}
		if !strings.Contains(log, "WARNING: $DOCKER_AUTH_CONFIG") || !strings.Contains(log, c.says) || strings.Count(log, "WARNING") != 1 {
			t.Errorf("%s: log %q, want %q", c.config, log, c.says)
		}
		if strings.Contains(log, secret) || strings.Contains(log, base64.StdEncoding.EncodeToString([]byte(secret))) {
			t.Errorf("the content is told: %s", log)
		}
		if _, again := find(t, logins, "r.example/x"); again != "" {
			t.Errorf("the warning is repeated: %s", again)
		}
	}
}

func TestAConfigFileThatCannotBeRead(t *testing.T) {
	dir := home(t, map[string]string{".docker/config.json/x": ""}) // a directory
	l, log := find(t, LoginsOf("", "", dir, []tranter.Credential{{Type: "registry", URL: "r.example", Username: "u", Password: "p"}}), "r.example/x")
	if l.auth.Username != "u" || !strings.Contains(log, "config.json is not used for logins to registries") {
		t.Errorf("%+v %s", l, log)
	}
}

// program puts a helper into PATH.
func program(t *testing.T, name, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

const keeper = `
read -r server
case "$1 $server" in
"get r.example/group") echo '{"ServerURL":"r.example/group","Username":"helped","Secret":"s"}' ;;
"get https://index.docker.io/v1/") echo '{"Username":"<token>","Secret":"tok"}' ;;
"list "*) echo '{"https://index.docker.io/v1/":"<token>", "r.example/group":"helped"}' ;;
*) echo "credentials not found in native keychain"; exit 1 ;;
esac
`

func TestHelpersKeepLogins(t *testing.T) {
	program(t, "keeper", keeper)
	helpers := `{"credHelpers": {"r.example/group": "keeper", "other.example": "keeper"}, "auths": {"other.example": {"username": "plain", "password": "p"}, "r.example/group": {}}}`
	store := `{"credsStore": "keeper", "auths": {"r.example/group": {}, "plain.example": {"username": "plain", "password": "p"}}}`
	for _, c := range []struct{ config, image, user, token string }{
		{helpers, "r.example/group/x", "helped", ""},
		{helpers, "r.example/x", "", ""},
		{helpers, "other.example/x", "plain", ""},
		{store, "r.example/group/x", "helped", ""},
		{store, "ruby", "", "tok"},
		{store, "plain.example/x", "plain", ""},
		{store, "none.example/x", "", ""},
	} {
		l, log := find(t, LoginsOf(c.config, "", "", nil), c.image)
		if l.auth.Username != c.user || l.auth.IdentityToken != c.token || log != "" {
			t.Errorf("%s by %s: %+v %s", c.image, c.config, l.auth, log)
		}
	}
}

func TestAHelperThatFails(t *testing.T) {
	for name, c := range map[string]struct{ script, says string }{
		"fails":       {"echo 'cannot reach https://me:hidden@vault' >&2; exit 3", "docker-credential-t get failed (exit status 3): cannot reach https://[MASKED]@vault"},
		"says why":    {"echo 'error: locked'; exit 1", "error: locked"},
		"talks a lot": {"yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa | head -c 3000000 >&2; exit 1", "..."},
		"no JSON":     {"echo hidden", "said something else than a login"},
		"secret":      {`echo '{"Username":"u","Secret":"hidden"}'; exit 1`, "it said nothing"},
		"hangs":       {"exec sleep 60", "did not end within 200ms"},
		"leaves one":  {"sleep 60 & echo '{'", "said something else than a login"},
	} {
		t.Run(name, func(t *testing.T) {
			program(t, "t", c.script)
			logins := LoginsOf(`{"credHelpers": {"r.example": "t"}}`, auths("r.example", "runner:r"), "", nil)
			if name == "hangs" {
				logins.found.list[0].helperIn.limit = 200 * time.Millisecond
			}
			l, log := find(t, logins, "r.example/x")
			if l.auth.Username != "runner" || !strings.Contains(log, c.says) || strings.Contains(log, "hidden") || len(log) > 700 {
				t.Errorf("%+v %s", l.auth, log)
			}
		})
	}
	l, log := find(t, LoginsOf(`{"credsStore": "is-not-there", "auths": {"r.example": {}}}`, "", "", nil), "r.example/x")
	if l.source != "" || !strings.Contains(log, "docker-credential-is-not-there is not in PATH") {
		t.Errorf("%+v %s", l, log)
	}
}

func TestAHelperRunsForTheUserOfTheFiles(t *testing.T) {
	program(t, "t", `echo "{\"Username\":\"$HOME\",\"Secret\":\"s\"}"`)
	dir := home(t, map[string]string{".docker/config.json": `{"credHelpers": {"r.example": "t"}}`})
	if l, log := find(t, LoginsOf("", "", dir, nil), "r.example/x"); l.auth.Username != dir || log != "" {
		t.Errorf("%+v %s", l.auth, log)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(auths("r.example", "a:b")))
	f.Add([]byte(`{"credsStore": "x", "credHelpers": {"a": "b"}, "auths": {"": {"auth": "="}}}`))
	f.Add([]byte("\xef\xbb\xbf[1"))
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, parser := range []func([]byte) (parsed, error){parseConfig, parseOldConfig} {
			p, err := parser(content)
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("a long error: %v", err)
			}
			for path, auth := range p.logins {
				if path == "" || (auth.Username == "" && auth.IdentityToken == "" && auth.RegistryToken == "") {
					t.Errorf("a login of nothing: %q %+v", path, auth)
				}
			}
			for _, h := range p.helpers {
				if !validProgram(h.program) || strings.ContainsAny(h.program, "/\\") {
					t.Errorf("a program %q", h.program)
				}
			}
		}
	})
}
