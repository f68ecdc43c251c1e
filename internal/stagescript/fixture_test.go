package stagescript_test

import (
	"bytes"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/stagescript"
)

// token is what must not be seen anywhere.
const token = "glcbt-64_s3cretTokenOfTheJob"

// play is a place where scripts run.
type play struct {
	t     *testing.T
	dir   string
	bin   string // first in the PATH
	shell string // what runs the scripts
	phase tranter.Phase
}

// eachShell runs a test with bash and with the smallest shell of POSIX that is here.
func eachShell(t *testing.T, test func(*testing.T, *play)) {
	t.Helper()
	for name, shell := range map[string]string{"bash": "bash", "sh": "dash"} {
		if _, err := exec.LookPath(shell); err != nil {
			shell = name
		}
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			test(t, newPlay(t, name, shell))
		})
	}
}

func newPlay(t *testing.T, name, shell string) *play {
	t.Helper()
	dir := t.TempDir()
	p := &play{t: t, dir: dir, bin: filepath.Join(dir, "bin"), shell: shell}
	project := filepath.Join(dir, "builds", "group", "it's a project")
	p.phase = tranter.Phase{
		JobID: 7, Shell: name, JobToken: token, Version: "tranter 1.2.3 linux/amd64",
		Dirs: tranter.Dirs{Builds: filepath.Join(dir, "builds"), Project: project, Temp: project + ".tmp", Cache: filepath.Join(dir, "cache")},
	}
	for _, d := range []string{p.bin, filepath.Join(dir, "home")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// program puts a program into the PATH of the scripts.
func (p *play) program(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.bin, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		p.t.Fatal(err)
	}
}

func environ(home, bin string) []string {
	return []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
	}
}

// run runs a step's script as a driver would: from a file, in another directory than the job's.
func (p *play) run(s tranter.Step, around stagescript.Around) (output string, code int) {
	p.t.Helper()
	return p.text(stagescript.Of(&p.phase, &s, around))
}

func (p *play) text(text string) (output string, code int) {
	p.t.Helper()
	file := filepath.Join(p.dir, "script")
	if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.CommandContext(p.t.Context(), p.shell, file)
	cmd.Dir, cmd.Env = p.dir, environ(filepath.Join(p.dir, "home"), p.bin)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must runs a step that succeeds.
func (p *play) must(s tranter.Step) string {
	p.t.Helper()
	out, code := p.run(s, stagescript.Around{})
	if code != 0 {
		p.t.Fatalf("%s: exit code %d\n%s", s.Name, code, out)
	}
	return out
}

func (p *play) project(name string) string { return filepath.Join(p.phase.Dirs.Project, name) }

func (p *play) temp(name string) string { return filepath.Join(p.phase.Dirs.Temp, name) }

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// script is a step of the user.
func script(commands ...string) tranter.Step {
	return tranter.Step{Name: "step_script", Script: &tranter.ScriptStep{Commands: commands, User: true}}
}

// sh runs a shell script of the test's own in dir.
func sh(t *testing.T, dir, text string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", text)
	cmd.Dir, cmd.Env = dir, append(environ(os.DevNull, "/nowhere"), "GIT_ALLOW_PROTOCOL=file:http")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", text, err, out)
	}
	return strings.TrimSpace(string(out))
}

// remote is a GitLab for git: repositories below root, which only the token opens.
type remote struct {
	*httptest.Server
	root string

	mu     sync.Mutex
	agents []string // user agents
	leaks  []string // command lines with the token in them, seen while a request was served
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	r := &remote{root: t.TempDir()}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.look(req)
		if user, password, _ := req.BasicAuth(); user != "gitlab-ci-token" || password != token {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			http.Error(w, "HTTP Basic: Access denied", http.StatusUnauthorized)
			return
		}
		req.TransferEncoding = nil
		(&cgi.Handler{Path: git, Args: []string{"http-backend"}, Env: []string{
			"GIT_PROJECT_ROOT=" + r.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL=" + req.Header.Get("Git-Protocol"), "GIT_CONFIG_COUNT=1",
			"GIT_CONFIG_KEY_0=uploadpack.allowAnySHA1InWant", "GIT_CONFIG_VALUE_0=true", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + os.DevNull,
		}}).ServeHTTP(w, req)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *remote) look(req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.agents = append(r.agents, req.UserAgent())
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		if data, err := os.ReadFile(name); err == nil && bytes.Contains(data, []byte(token)) {
			r.leaks = append(r.leaks, string(bytes.ReplaceAll(data, []byte{0}, []byte{' '})))
		}
	}
}

func (r *remote) check(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.leaks) > 0 {
		t.Errorf("the token was in a process list: %s", r.leaks[0])
	}
	if !slices.Contains(r.agents, "tranter 1.2.3 linux/amd64") {
		t.Errorf("user agents %q", r.agents)
	}
}

// repo makes a repository with one commit on main and returns a clone to work in.
func (r *remote) repo(t *testing.T, name string) string {
	t.Helper()
	bare, work := filepath.Join(r.root, name), filepath.Join(t.TempDir(), "work")
	sh(t, filepath.Dir(work), `git init -q --bare --template= -b main '`+bare+`'
git init -q --template= -b main '`+work+`'
cd '`+work+`'
git remote add origin '`+bare+`'
echo one >file; echo '*.o' >.gitignore
git add -A; git commit -q -m one; git push -q origin main`)
	return work
}

// commit changes work by a script, publishes it, and returns the commit.
func commit(t *testing.T, work, text string) string {
	t.Helper()
	return sh(t, work, text+"\ngit add -A; git commit -q -m next; git push -q -f origin main; git rev-parse HEAD")
}

// sources is a step that gets the commit from the repository.
func (r *remote) sources(strategy, repo, sha string) tranter.Step {
	return tranter.Step{Name: "get_sources", Sources: &tranter.SourcesStep{
		Strategy: strategy, RepoURL: r.URL + "/" + repo, BaseURL: r.URL, Username: "gitlab-ci-token", Password: token, Ref: "main", SHA: sha,
		Refspecs: []string{"+refs/heads/main:refs/remotes/origin/main"}, Depth: 20, CleanFlags: []string{"-ffdx"},
		FetchFlags: []string{"--prune", "--quiet"}, CleanConfig: true, SharedEnv: true, Submodules: tranter.Submodule{Strategy: "none"},
	}}
}
