package coordinator_test

import (
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

func gitRun(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull,
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "GIT_ALLOW_PROTOCOL=http:file")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func mustGit(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := gitRun(t, dir, args...)
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return out
}

// repository makes a repository with one file.
func repository(t *testing.T, content string) string {
	t.Helper()
	dir := t.TempDir()
	mustGit(t, dir, "init", "--quiet", "--initial-branch=main")
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	mustGit(t, dir, "add", ".")
	mustGit(t, dir, "commit", "--quiet", "-m", "first")
	return dir
}

// serve starts a pipeline of one job on the present content of a directory and hands the job out.
func (b *bench) serve(name, dir string, depth int) *tranter.Job {
	b.t.Helper()
	p, err := b.c.CreateProject(name, dir)
	if err != nil {
		b.t.Fatal(err)
	}
	commit, err := b.c.Snapshot(b.t.Context(), p.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = b.c.StartPipeline(b.t.Context(), p.ID, coordinator.PipelineSpec{
		Pipeline: stages(script("one", "test")), Ref: commit.Ref, SHA: commit.SHA, Depth: depth,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return b.take()
}

// fetch gets the sources as a runner does: with the payload's refspecs and depth.
func fetch(t *testing.T, j *tranter.Job) string {
	t.Helper()
	dir := t.TempDir()
	mustGit(t, dir, "init", "--quiet")
	args := []string{"fetch", "--quiet", "--no-tags"}
	if j.Git.Depth > 0 {
		args = append(args, fmt.Sprintf("--depth=%d", j.Git.Depth))
	}
	mustGit(t, dir, slices.Concat(args, []string{j.Git.RepoURL}, j.Git.Refspecs)...)
	mustGit(t, dir, "checkout", "--quiet", j.Git.SHA)
	return dir
}

func TestARunnerFetchesWhatThePayloadNames(t *testing.T) {
	for _, depth := range []int{0, 1, 20} {
		b := started(t, coordinator.Options{})
		source := repository(t, "committed")
		if err := os.WriteFile(filepath.Join(source, "file"), []byte("changed"), 0o600); err != nil {
			t.Fatal(err)
		}
		dir := fetch(t, b.serve("demo", source, depth))
		if data, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(data) != "changed" {
			t.Errorf("depth %d: %q, %v", depth, data, err)
		}
		if got := mustGit(t, source, "status", "--short"); got != "M file" {
			t.Errorf("the user's repository: %q", got)
		}
	}
}

// Submodules with relative URLs lie on the same host, where the job's token opens them too.
func TestSubmodulesOnTheSameHost(t *testing.T) {
	b := started(t, coordinator.Options{})
	library := repository(t, "library")
	p, err := b.c.CreateProject("group/library", library)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.c.Snapshot(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"../library.git", "../library"} {
		app := repository(t, "app")
		mustGit(t, app, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library, "lib")
		mustGit(t, app, "config", "-f", ".gitmodules", "submodule.lib.url", url)
		mustGit(t, app, "commit", "--quiet", "-am", "library")
		j := b.serve("group/app", app, 0)
		dir := fetch(t, j)
		mustGit(t, dir, "remote", "add", "origin", j.Git.RepoURL)
		mustGit(t, dir, "submodule", "--quiet", "update", "--init")
		if data, err := os.ReadFile(filepath.Join(dir, "lib", "file")); err != nil || string(data) != "library" {
			t.Errorf("%s: %q, %v", url, data, err)
		}
		b.finish(j, "success")
	}
}

func TestRepositoriesAreOpenOnlyToRunningJobs(t *testing.T) {
	b := started(t, coordinator.Options{})
	j := b.serve("demo", repository(t, "secret"), 0)
	refs := "/local/demo.git/info/refs?service=git-upload-pack"
	get := func(path, user, password string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "GET", b.server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			r.SetBasicAuth(user, password)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: git is not told to ask for a password", path)
		}
		return resp.StatusCode
	}
	token := j.Token.Reveal()
	for _, c := range []struct {
		path, user, password string
		want                 int
	}{
		{refs, "gitlab-ci-token", token, 200},
		{"/local/demo/info/refs?service=git-upload-pack", "gitlab-ci-token", token, 200},
		{refs, "", "", 401},
		{refs, "gitlab-ci-token", "wrong", 401},
		{refs, "gitlab-ci-token", b.runner.Token.Reveal(), 401},
		{"/local/nobody.git/info/refs?service=git-upload-pack", "gitlab-ci-token", token, 404},
		{"/local/demo.git/info/refs?service=git-receive-pack", "gitlab-ci-token", token, 403},
		{"/local/demo.git/info/refs", "gitlab-ci-token", token, 404},
		{"/local/demo.git/HEAD", "gitlab-ci-token", token, 404},
		{"/local/demo.git/..%2f..%2fstate.json", "gitlab-ci-token", token, 404},
		{"/local/..%2f1.git/info/refs?service=git-upload-pack", "gitlab-ci-token", token, 404},
		{"/", "", "", 404},
	} {
		if got := get(c.path, c.user, c.password); got != c.want {
			t.Errorf("%s as %q: %d, want %d", c.path, c.user, got, c.want)
		}
	}
	b.finish(j, "success")
	if got := get(refs, "gitlab-ci-token", token); got != 401 {
		t.Errorf("after the job: %d", got)
	}
}

// A coordinator that listens everywhere tells each runner the address under which the runner has called it.
func TestTheAddressThatRunnersAreGiven(t *testing.T) {
	for listen, want := range map[string]string{"127.0.0.1:0": "http://127.0.0.1:", "0.0.0.0:0": "http://localhost:"} {
		b := started(t, coordinator.Options{})
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- b.c.Serve(t.Context(), l) }()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		b.server.URL = "http://localhost:" + port
		b.start(stages(script("one", "test")))
		j := b.take()
		if api, _ := j.Variable("CI_API_V4_URL"); !strings.HasPrefix(api, want) {
			t.Errorf("listening on %s: CI_API_V4_URL=%s", listen, api)
		}
		if !strings.Contains(j.Git.RepoURL, strings.TrimPrefix(want, "http://")) {
			t.Errorf("listening on %s: %s", listen, j.Git.RepoURL)
		}
		t.Cleanup(func() {
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// The order of variables decides which value holds (gitlab-server 2.3).
func TestPrecedenceOfVariables(t *testing.T) {
	b := started(t, coordinator.Options{})
	v := func(key, value string) []tranter.Variable { return []tranter.Variable{{Key: key, Value: value}} }
	b.start(stages(script("one", "test", func(j *pipeline.Job) {
		j.Variables = append(append(v("A", "job"), v("B", "job")...), append(v("C", "$CI_JOB_NAME/$D"), v("CI_JOB_STAGE", "mine")...)...)
		j.Tags = []string{"linux"}
	})), func(s *coordinator.PipelineSpec) {
		s.Predefined = append(v("CI", "true"), v("A", "predefined")...)
		s.Project = append(v("B", "project"), v("D", "project")...)
		s.Variables = v("D", "pipeline")
	})
	j := b.take()
	for key, want := range map[string]string{
		"A": "job", "B": "project", "D": "pipeline", "C": "one/pipeline", "CI": "true", "CI_JOB_STAGE": "mine", "CI_JOB_NAME": "one",
		"CI_RUNNER_TAGS": `["linux"]`, "CI_NODE_TOTAL": "1",
	} {
		if got, _ := j.Variable(key); got != want {
			t.Errorf("%s=%q, want %q", key, got, want)
		}
	}
	for _, v := range j.Variables {
		if secret := strings.Contains(v.Value, j.Token.Reveal()); secret && (v.Public || v.Key != "CI_REPOSITORY_URL" && !v.Masked) {
			t.Errorf("%s shows the job's token", v.Key)
		}
	}
}

// Large files come from the user's repository, those that are new in the working tree too, and nothing is written there.
func TestLargeFiles(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), "git", "lfs", "version").CombinedOutput(); err != nil {
		t.Fatalf("git-lfs is needed (make test installs it): %v: %s", err, out)
	}
	b := started(t, coordinator.Options{})
	source := repository(t, "small")
	mustGit(t, source, "lfs", "install", "--local")
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(source, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
	write("old.bin", "committed")
	mustGit(t, source, "add", ".")
	mustGit(t, source, "commit", "--quiet", "-m", "large")
	write("new.bin", "not committed")
	write("gone.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:"+strings.Repeat("a", 64)+"\nsize 5\n")
	before := len(filesBelow(t, filepath.Join(source, ".git", "lfs", "objects")))

	j := b.serve("demo", source, 0)
	dir := fetch(t, j)
	mustGit(t, dir, "remote", "add", "origin", j.Git.RepoURL)
	mustGit(t, dir, "lfs", "install", "--local")
	mustGit(t, dir, "lfs", "pull", "--exclude=gone.bin")
	for name, want := range map[string]string{"old.bin": "committed", "new.bin": "not committed"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != want {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	if after := len(filesBelow(t, filepath.Join(source, ".git", "lfs", "objects"))); after != before {
		t.Errorf("the user's repository has %d large files, had %d", after, before)
	}

	if out, err := gitRun(t, dir, "lfs", "fetch"); err == nil || !strings.Contains(out, "run git lfs pull there") {
		t.Errorf("a file that is nowhere: %v: %s", err, out)
	}
	b.finish(j, "success")
	if out, err := gitRun(t, dir, "lfs", "fetch"); err == nil || strings.Contains(out, "run git lfs pull there") {
		t.Errorf("a job that has ended: %v: %s", err, out)
	}
}

func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
