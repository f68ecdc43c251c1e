package source_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/env"
	"github.com/tranter-ci/tranter/internal/agent/source"
	"github.com/tranter-ci/tranter/internal/joblog"
)

// token is what must not be seen anywhere.
const token = "glcbt-64_s3cretTokenOfTheJob"

// cleanEnviron is an environment without settings of whoever runs the tests.
func cleanEnviron(home string, more ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
	}, more...)
}

// sh runs a shell script in dir and returns what it prints.
func sh(t *testing.T, dir, script string, more ...string) string {
	t.Helper()
	out, err := shell(t, dir, script, more...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(out)
}

func shell(t *testing.T, dir, script string, more ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", script)
	cmd.Dir, cmd.Env = dir, cleanEnviron(os.DevNull, more...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// remote is a GitLab for git: repositories below root, which only the token opens.
type remote struct {
	*httptest.Server
	root string
	hang chan struct{} // not nil: requests wait for it

	mu      sync.Mutex
	headers []http.Header
	leaks   []string // command lines with the token in them, seen while a request was served
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
		if r.hang != nil {
			select {
			case <-r.hang:
			case <-req.Context().Done():
			}
			return
		}
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

// look keeps what a request has, and what everybody on the machine can see while it is served.
func (r *remote) look(req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.headers = append(r.headers, req.Header.Clone())
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
}

// repo makes a repository with one commit on main and returns the path of a clone to work in; "git push" there
// publishes.
func (r *remote) repo(t *testing.T, path string, options ...string) string {
	t.Helper()
	return newRepo(t, filepath.Join(r.root, path), options...)
}

func newRepo(t *testing.T, bare string, options ...string) string {
	t.Helper()
	work := filepath.Join(t.TempDir(), "work")
	if len(options) > 0 {
		makeRepo(t, bare, work, options...)
		return work
	}
	copyOf := model(t)
	for from, to := range map[string]string{"bare": bare, "work": work} {
		if err := os.CopyFS(to, os.DirFS(filepath.Join(copyOf, from))); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(filepath.Join(work, ".git", "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "[remote \"origin\"]\n\turl = %s\n", bare)
	return work
}

func makeRepo(t *testing.T, bare, work string, options ...string) {
	t.Helper()
	sh(t, filepath.Dir(work), fmt.Sprintf(`
git init -q --bare --template= -b main %[3]s '%[1]s'
git init -q --template= -b main %[3]s '%[2]s'
cd '%[2]s'
echo one >file; echo '*.o' >.gitignore
git add -A; git commit -q -m one; git push -q '%[1]s' main
printf '[remote "origin"]\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n[branch "main"]\n\tremote = origin\n\tmerge = refs/heads/main\n' >>.git/config`,
		bare, work, strings.Join(options, " ")))
	if len(options) > 0 {
		sh(t, work, "git remote set-url origin '"+bare+"' || git config remote.origin.url '"+bare+"'")
	}
}

// models are repositories to copy: that is faster than to make each.
var models struct {
	once sync.Once
	dir  string
}

func model(t *testing.T) string {
	t.Helper()
	models.once.Do(func() {
		dir, err := os.MkdirTemp("", "model") //nolint:usetesting // all tests share it
		if err != nil {
			t.Fatal(err)
		}
		makeRepo(t, filepath.Join(dir, "bare"), filepath.Join(dir, "work"))
		models.dir = dir
	})
	return models.dir
}

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(models.dir)
	os.Exit(code)
}

// commit changes a file in work and publishes; it returns the commit.
func commit(t *testing.T, work, script string) string {
	t.Helper()
	return sh(t, work, script+"\ngit add -A; git commit -q -m next; git push -q -f; git rev-parse HEAD", "GIT_ALLOW_PROTOCOL=file:http")
}

func head(t *testing.T, dir string) string {
	t.Helper()
	return sh(t, dir, "git rev-parse HEAD")
}

// job is a place to run steps in.
type job struct {
	env  *env.Env
	log  *bytes.Buffer
	home string
}

// newJob makes a job of the project in dir, which may have been used before.
func newJob(t *testing.T, dir string, more ...string) *job {
	t.Helper()
	project := filepath.Join(dir, "builds", "group", "project")
	j := &job{log: &bytes.Buffer{}, home: filepath.Join(dir, "home")}
	phase := &tranter.Phase{
		Dirs: tranter.Dirs{Builds: filepath.Join(dir, "builds"), Project: project, Temp: project + ".tmp"}, JobToken: token, Version: "tranter 1.2.3 linux/amd64",
	}
	for _, d := range []string{j.home, filepath.Dir(project), phase.Dirs.Temp} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	j.env = &env.Env{Phase: phase, Log: joblog.New(j.log, tranter.LogFormat{}, time.Now), Environ: cleanEnviron(j.home, more...)}
	j.env.Exec = func(ctx context.Context, cmd *exec.Cmd) error {
		own := exec.CommandContext(ctx, cmd.Path)
		own.Args, own.Dir, own.Env, own.Stdin, own.Stdout, own.Stderr = cmd.Args, cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr
		own.WaitDelay = time.Second
		err := own.Run()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	j.env.Script = func(ctx context.Context, dir string, commands []string) error {
		cmd := exec.CommandContext(ctx, "sh", "-e", "-c", strings.Join(commands, "\n"))
		cmd.Dir, cmd.Env = dir, j.env.Environ
		out, err := cmd.CombinedOutput()
		j.log.Write(out)
		return err
	}
	return j
}

func (j *job) project() string { return j.env.Dirs().Project }

// text is the log so far.
func (j *job) text(t *testing.T) string {
	t.Helper()
	if err := j.env.Log.Close(); err != nil {
		t.Fatal(err)
	}
	return j.log.String()
}

func (j *job) get(t *testing.T, s *tranter.SourcesStep) {
	t.Helper()
	if err := source.Get(t.Context(), j.env, s); err != nil {
		t.Fatalf("%v\n%s", err, j.text(t))
	}
}

// read returns the content of a file of the project, or "-" if there is none.
func (j *job) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(j.project(), name))
	if os.IsNotExist(err) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func (j *job) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(j.project(), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}

// fetchOf is a step as GitLab's jobs have it.
func fetchOf(address, sha string) *tranter.SourcesStep {
	return &tranter.SourcesStep{
		Strategy: "fetch", RepoURL: address, BaseURL: hostOf(address), Username: "gitlab-ci-token", Password: token, Ref: "main", SHA: sha,
		Refspecs: []string{"+refs/heads/main:refs/remotes/origin/main"}, CleanFlags: []string{"-ffdx"}, FetchFlags: []string{"--prune", "--quiet"},
	}
}

func hostOf(address string) string {
	scheme, rest, _ := strings.Cut(address, "://")
	host, _, _ := strings.Cut(rest, "/")
	return scheme + "://" + host
}

// filesWith returns the files below the roots that have text in them.
func filesWith(t *testing.T, text string, roots ...string) []string {
	t.Helper()
	var found []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(text)) {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// withPrograms returns a PATH entry with the given shell scripts before all others.
func withPrograms(t *testing.T, programs map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return "PATH=" + dir + string(os.PathListSeparator) + os.Getenv("PATH")
}
