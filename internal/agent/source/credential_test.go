package source_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/source"
)

// recorder returns a PATH whose git writes its arguments down, and the file in which they are.
func recorder(t *testing.T) (path, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "argv")
	return withPrograms(t, map[string]string{"git": `printf '%s\n' "$*" >>` + file + `; exec ` + sh(t, "/", "command -v git") + ` "$@"`}), file
}

// A private project with a private submodule, which has one itself, each named in another way.
func TestCredentials(t *testing.T) {
	t.Parallel()
	for name, address := range map[string]string{
		"relative": "../lib.git",
		"ssh":      "ssh://git@gitlab.example.com:2222/group/lib.git",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRemote(t)
			deep, lib, work := r.repo(t, "group/deep.git"), r.repo(t, "group/lib.git"), r.repo(t, "group/p.git")
			deepAddress := "../deep.git"
			if name == "ssh" {
				deepAddress = "git@gitlab.example.com:group/deep.git"
			}
			addSubmodule(t, lib, deep, deepAddress, "deep")
			sha := addSubmodule(t, work, lib, address, "lib")

			path, argv := recorder(t)
			dir := t.TempDir()
			j := newJob(t, dir, path)
			s := fetchOf(r.URL+"/group/p.git", sha)
			s.Submodules = tranter.Submodule{Strategy: "recursive", ForceHTTPS: true, SSHHost: "gitlab.example.com", SSHPort: "2222"}
			// A helper of the user's own must not be told the token, or it would keep it.
			sh(t, j.home, `printf '[credential]\n\thelper = store\n' >.gitconfig`)
			j.get(t, s)
			if j.read(t, "lib/file") != "one" || j.read(t, "lib/deep/file") != "one" {
				t.Errorf("lib %q, deep %q; log:\n%s", j.read(t, "lib/file"), j.read(t, "lib/deep/file"), j.text(t))
			}

			// As the job's own script: an environment that knows nothing of all this.
			for _, in := range []string{"", "lib", "lib/deep"} {
				if out, err := shell(t, filepath.Join(j.project(), in), "git fetch origin; git ls-remote --quiet origin", "HOME="+j.home, "GIT_TERMINAL_PROMPT=0"); err != nil {
					t.Errorf("git fetch of the script in %q: %v\n%s", in, err, out)
				}
			}

			if found := filesWith(t, token, filepath.Join(j.project(), ".git"), j.project(), j.home); len(found) > 0 {
				t.Errorf("the token is in %v", found)
			}
			for _, f := range filesWith(t, token, j.env.Dirs().Temp) {
				if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s with the token has mode %v, %v", f, info.Mode(), err)
				}
			}
			if err := source.Cleanup(t.Context(), j.env, &tranter.CleanupStep{Strategy: "fetch"}); err != nil {
				t.Error(err)
			}
			if found := filesWith(t, token, dir); len(found) > 0 {
				t.Errorf("after the job the token is in %v", found)
			}
			if data, err := os.ReadFile(argv); err != nil || strings.Contains(string(data), token) || !strings.Contains(string(data), "submodule update") {
				t.Errorf("git was called with: %v\n%s", err, data)
			}
			if strings.Contains(j.text(t), token) {
				t.Errorf("the token is in the log:\n%s", j.text(t))
			}
			r.check(t)
		})
	}
}

// addSubmodule adds the repository that is cloned in sub to work, under an address that only jobs can use.
func addSubmodule(t *testing.T, work, sub, address, path string) string {
	t.Helper()
	return commit(t, work, fmt.Sprintf(`
git -c protocol.file.allow=always clone -q "$(git -C '%[1]s' remote get-url origin)" %[3]s
printf '[submodule "%[3]s"]\n\tpath = %[3]s\n\turl = %[2]s\n' >.gitmodules
git add .gitmodules; git update-index --add --cacheinfo "160000,$(git -C %[3]s rev-parse HEAD),%[3]s"`, sub, address, path))
}

// Directories may have any name.
func TestOddDirectories(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	lib, work := r.repo(t, "group/lib.git"), r.repo(t, "group/p.git")
	s := fetchOf(r.URL+"/group/p.git", addSubmodule(t, work, lib, "../lib.git", "lib"))
	s.Submodules.Strategy, s.SafeDirectory = "recursive", true
	dir := filepath.Join(t.TempDir(), `it's a "dir" $HOME \t;#é`)
	for range 2 {
		j := newJob(t, dir)
		j.get(t, s)
		if j.read(t, "lib/file") != "one" {
			t.Errorf("log:\n%s", j.text(t))
		}
		for _, in := range []string{"", "lib"} {
			if out, err := shell(t, filepath.Join(j.project(), in), "git fetch origin"); err != nil {
				t.Errorf("git fetch of the script in %q: %v\n%s", in, err, out)
			}
		}
	}
}

// The token is for GitLab, not for whoever a project names.
func TestForeignHostGetsNoToken(t *testing.T) {
	t.Parallel()
	r, foreign := newRemote(t), newRemote(t)
	lib, work := foreign.repo(t, "evil/lib.git"), r.repo(t, "group/p.git")
	s := fetchOf(r.URL+"/group/p.git", addSubmodule(t, work, lib, foreign.URL+"/evil/lib.git", "lib"))
	s.Submodules.Strategy = "normal"
	err := source.Get(t.Context(), newJob(t, t.TempDir()).env, s)
	if err == nil || !strings.Contains(err.Error(), "submodule") {
		t.Errorf("error %v", err)
	}
	if len(foreign.headers) == 0 {
		t.Fatal("the other server was not asked at all")
	}
	for _, h := range foreign.headers {
		if a := h.Get("Authorization"); a != "" {
			t.Errorf("the other server was sent %q", a)
		}
	}
}

func TestWrongToken(t *testing.T) {
	t.Parallel()
	r, dir := newRemote(t), t.TempDir()
	s := fetchOf(r.URL+"/group/p.git", head(t, r.repo(t, "group/p.git")))
	newJob(t, dir).get(t, s)
	j := newJob(t, dir)
	j.write(t, ".git/mark", "kept")
	s.Password = "glcbt-wrong"
	err := source.Get(t.Context(), j.env, s)
	if err == nil || !strings.Contains(err.Error(), s.RepoURL) || strings.Contains(err.Error(), "glcbt-wrong") {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(err.Error(), "Authentication failed") && !strings.Contains(err.Error(), "Access denied") {
		t.Errorf("error %v does not say what is wrong", err)
	}
	if j.read(t, ".git/mark") != "kept" {
		t.Error("the working tree is gone")
	}
	s.Password = token
	newJob(t, dir).get(t, s)
}

// The job token also opens GitLab's own address when the project is fetched from another one.
func TestCloneURLDiffersFromServer(t *testing.T) {
	t.Parallel()
	clone, server := newRemote(t), newRemote(t)
	lib, work := server.repo(t, "group/lib.git"), clone.repo(t, "group/p.git")
	s := fetchOf(clone.URL+"/group/p.git", addSubmodule(t, work, lib, server.URL+"/group/lib.git", "lib"))
	s.Submodules.Strategy = "normal"
	j := newJob(t, t.TempDir())
	j.env.Phase.Server.URL = server.URL + "/"
	j.get(t, s)
	if j.read(t, "lib/file") != "one" {
		t.Errorf("log:\n%s", j.text(t))
	}
}

// What other jobs have left in a submodule, and a submodule that has moved.
func TestSubmodulesOfAnEarlierJob(t *testing.T) {
	t.Parallel()
	r, dir := newRemote(t), t.TempDir()
	lib, moved, work := r.repo(t, "group/lib.git"), r.repo(t, "group/moved.git"), r.repo(t, "group/p.git")
	s := fetchOf(r.URL+"/group/p.git", addSubmodule(t, work, lib, "../lib.git", "lib"))
	s.Submodules.Strategy = "normal"
	newJob(t, dir).get(t, s)

	j := newJob(t, dir)
	j.write(t, "lib/file", "changed")
	j.write(t, "lib/new", "x")
	j.write(t, ".git/modules/lib/index.lock", "")
	commit(t, moved, "echo elsewhere >file")
	s.SHA = commit(t, work, `git config -f .gitmodules submodule.lib.url ../moved.git
git add .gitmodules; git update-index --cacheinfo "160000,$(git -C '`+moved+`' rev-parse HEAD),lib"; rm -rf lib; git -c protocol.file.allow=always clone -q "`+filepath.Join(r.root, "group/moved.git")+`" lib`)
	j.get(t, s)
	if j.read(t, "lib/file") != "elsewhere" || j.read(t, "lib/new") != "-" {
		t.Errorf("file %q, new %q; log:\n%s", j.read(t, "lib/file"), j.read(t, "lib/new"), j.text(t))
	}
	if url := sh(t, filepath.Join(j.project(), "lib"), "git remote get-url origin"); url != r.URL+"/group/moved.git" {
		t.Errorf("the submodule is fetched from %s", url)
	}
	for _, want := range []string{"Updating/initializing submodules...", "Updated submodules"} {
		if !strings.Contains(j.text(t), want) {
			t.Errorf("no %q in:\n%s", want, j.text(t))
		}
	}
}

func TestBrokenSubmoduleIsReplaced(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	lib, work := r.repo(t, "group/lib.git"), r.repo(t, "group/p.git")
	s := fetchOf(r.URL+"/group/p.git", addSubmodule(t, work, lib, "../lib.git", "lib"))
	s.Submodules.Strategy = "normal"
	for name, harm := range map[string]string{
		"no HEAD":   "rm .git/modules/lib/HEAD",
		"lost":      "rm -r .git/modules",
		"link":      "echo 'gitdir: nowhere' >lib/.git",
		"work tree": "rm -r lib; echo >lib",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			newJob(t, dir).get(t, s)
			j := newJob(t, dir)
			sh(t, j.project(), harm)
			j.get(t, s)
			if j.read(t, "lib/file") != "one" || sh(t, j.project(), "git status --porcelain") != "" {
				t.Errorf("lib %q, status %q; log:\n%s", j.read(t, "lib/file"), sh(t, j.project(), "git status --porcelain"), j.text(t))
			}
		})
	}
}

func TestSubmodulePathsAndDepth(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	lib, work := r.repo(t, "group/lib.git"), r.repo(t, "group/p.git")
	for range 3 {
		commit(t, lib, "date +%N >file")
	}
	addSubmodule(t, work, lib, "../lib.git", "lib")
	sha := commit(t, work, `cp -r lib other; printf '[submodule "other"]\n\tpath = other\n\turl = ../lib.git\n' >>.gitmodules
git update-index --add --cacheinfo "160000,$(git -C lib rev-parse HEAD),other"`)
	s := fetchOf(r.URL+"/group/p.git", sha)
	s.Submodules = tranter.Submodule{Strategy: "normal", Paths: []string{"lib"}, Depth: 2, UpdateFlags: []string{"--jobs", "2"}}
	j := newJob(t, t.TempDir())
	j.get(t, s)
	if j.read(t, "other/file") != "-" || sh(t, filepath.Join(j.project(), "lib"), "git rev-list --count HEAD") != "2" {
		t.Errorf("other has %q; log:\n%s", j.read(t, "other/file"), j.text(t))
	}
	if !strings.Contains(j.text(t), "submodules with git depth set to 2...") {
		t.Errorf("log:\n%s", j.text(t))
	}
	s.Submodules.Paths = []string{":(exclude)lib"}
	j = newJob(t, t.TempDir())
	j.get(t, s)
	if j.read(t, "other/file") == "-" || j.read(t, "lib/file") != "-" {
		t.Errorf("with lib excluded: lib %q, other %q", j.read(t, "lib/file"), j.read(t, "other/file"))
	}
}

// A submodule's server that fails once is asked again.
func TestSubmodulesAreTriedTwice(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	lib, work := r.repo(t, "group/lib.git"), r.repo(t, "group/p.git")
	s := fetchOf(r.URL+"/group/p.git", addSubmodule(t, work, lib, "../lib.git", "lib"))
	s.Submodules.Strategy = "normal"
	mark := filepath.Join(t.TempDir(), "failed")
	path := withPrograms(t, map[string]string{"git": `
case "$*" in *"submodule update"*) test -e ` + mark + ` || { touch ` + mark + `; echo "fatal: no luck" >&2; exit 1; };; esac
exec ` + sh(t, "/", "command -v git") + ` "$@"`})
	j := newJob(t, t.TempDir(), path)
	j.get(t, s)
	if j.read(t, "lib/file") != "one" || !strings.Contains(j.text(t), "Updating submodules failed. Retrying...") {
		t.Errorf("log:\n%s", j.text(t))
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	s := fetchOf(r.URL+"/group/p.git", head(t, r.repo(t, "group/p.git")))
	s.CorrelationID, s.BundleURIs = "01CORRELATION", true
	j := newJob(t, t.TempDir())
	j.get(t, s)
	if len(r.headers) == 0 || !strings.Contains(j.text(t), "Gitaly correlation ID: 01CORRELATION") {
		t.Fatalf("%d requests; log:\n%s", len(r.headers), j.text(t))
	}
	for _, h := range r.headers {
		if got := h.Values("X-Gitaly-Correlation-Id"); len(got) != 1 || got[0] != "01CORRELATION" {
			t.Errorf("correlation ids %q", got)
		}
		if got := h.Get("User-Agent"); got != "tranter 1.2.3 linux/amd64" {
			t.Errorf("user agent %q", got)
		}
	}
	if got := sh(t, j.project(), "git config transfer.bundleURI"); got != "true" {
		t.Errorf("transfer.bundleURI is %q", got)
	}
}

func TestTLSSettings(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		dir := t.TempDir()
		ca := filepath.Join(dir, "CI_SERVER_TLS_CA_FILE")
		if err := os.WriteFile(ca, []byte("no certificate"), 0o600); err != nil {
			t.Fatal(err)
		}
		j := newJob(t, dir, "CI_SERVER_TLS_CA_FILE="+ca, "CI_SERVER_TLS_KEY_FILE="+filepath.Join(dir, "none"))
		s := fetchOf("https://127.0.0.1:1/group/p.git", "1234567890")
		s.SharedEnv = shared
		if err := source.Get(t.Context(), j.env, s); err == nil {
			t.Fatal("fetched from nowhere")
		}
		if got := sh(t, j.project(), "git config --get-urlmatch http.sslCAInfo https://127.0.0.1:1/x; ! git config --get-urlmatch http.sslKey https://127.0.0.1:1/x"); got != ca {
			t.Errorf("shared %v: the project's certificate authority is %q", shared, got)
		}
		global, err := os.ReadFile(filepath.Join(j.home, ".gitconfig"))
		if (err == nil && strings.Contains(string(global), ca)) == shared {
			t.Errorf("shared %v: the user's settings are %q", shared, global)
		}
	}
}
