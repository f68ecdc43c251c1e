package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/custom"
)

const registryToken = "glcbt-of-the-job"

// busyboxRegistry is a registry with an image of busybox, for who has the job's token.
func busyboxRegistry(t *testing.T) (address string) {
	t.Helper()
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "gitlab-ci-token" || password != registryToken {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(busybox)), Typeflag: tar.TypeReg})
	_, _ = w.Write(busybox)
	for _, link := range []string{"sh", "cat", "ls", "echo", "sleep", "id", "httpd", "wget", "mkdir", "env", "test"} {
		_ = w.WriteHeader(&tar.Header{Name: "bin/" + link, Linkname: "busybox", Typeflag: tar.TypeSymlink})
	}
	_ = w.WriteHeader(&tar.Header{Name: "in-image", Mode: 0o644, Typeflag: tar.TypeReg})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err == nil {
		file.OS, file.Architecture = "linux", "amd64"
		file.Config.Env = []string{"FROM_IMAGE=yes"}
		img, err = mutate.ConfigFile(img, file)
	}
	if err != nil {
		t.Fatal(err)
	}
	address = strings.TrimPrefix(server.URL, "http://")
	ref, err := name.ParseReference(address+"/busybox:1", name.Insecure)
	if err == nil {
		err = remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "gitlab-ci-token", Password: registryToken}), remote.WithContext(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// customJob is a job that a custom executor runs by way of ours.
type customJob struct {
	t        *testing.T
	executor *custom.Executor
	file     string // the configuration
	spec     tranter.SessionSpec
	said     bytes.Buffer
	root     string
	cancelAt string // text in the log
}

func newCustomJob(t *testing.T, address, settings string) *customJob {
	t.Helper()
	root := t.TempDir()
	file := filepath.Join(root, "config.toml")
	text := fmt.Sprintf(`[[runners]]
  name = "cpu"
  url = "https://gitlab.example.com"
  token = "glrt-x"
  executor = "apptainer"
  builds_dir = "%[1]s/builds"
  cache_dir = "%[1]s/cache"
  [runners.apptainer]
    runtime = "bubblewrap"
    image_dir = "%[1]s/images"
    insecure_registries = ["%[2]s"]
    description = "node ${CI_NODE:-7}"
    %[3]s
`, root, address, settings)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := func(stage string) custom.Command {
		return custom.Command{Exec: self, Args: []string{"executor", "--config", file, "cpu", stage}, Timeout: time.Minute}
	}
	j := &customJob{t: t, root: root, file: file}
	j.executor = custom.New(custom.Options{
		Agent: []string{self}, Config: command("config"), Prepare: command("prepare"), Run: command("run"), Cleanup: command("cleanup"), Grace: 5 * time.Second, Force: 5 * time.Second,
	})
	j.spec = tranter.SessionSpec{
		Name: "job", Dir: filepath.Join(root, "job"), Log: &j.said,
		Job:       &tranter.Job{ID: 42, Token: registryToken, Image: tranter.Image{Name: address + "/busybox:1"}},
		Variables: []tranter.Variable{{Key: "CI_JOB_ID", Value: "42"}, {Key: "CI_REGISTRY", Value: address}, {Key: "CI_JOB_TOKEN", Value: registryToken}, {Key: "GREETING", Value: "hello"}},
		Settle: func(s tranter.Surroundings) (tranter.Dirs, []tranter.Variable, error) {
			project := s.Builds + "/group/project"
			return tranter.Dirs{Builds: s.Builds, Cache: s.Cache, Project: project, Temp: project + ".tmp"}, j.spec.Variables, nil
		},
		Dirs: tranter.Dirs{Builds: "/b", Cache: "/c", Project: "/b/p", Temp: "/b/p.tmp"},
	}
	if err := os.MkdirAll(j.spec.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return j
}

// run runs the job to its end.
func (j *customJob) run(commands ...string) (tranter.PhaseResult, string, error) {
	j.t.Helper()
	ctx, stop := context.WithTimeout(j.t.Context(), time.Minute)
	defer stop()
	s, err := j.executor.Open(ctx, j.spec)
	if err != nil {
		return tranter.PhaseResult{}, "", err
	}
	defer func() {
		if err := s.Close(context.WithoutCancel(ctx)); err != nil {
			j.t.Error(err)
		}
	}()
	project := filepath.Join(j.root, "builds", "42", "group", "project")
	p := tranter.Phase{
		ID: "1", JobID: 42, Shell: "bash", JobToken: registryToken, Variables: j.spec.Variables,
		Dirs: tranter.Dirs{Builds: filepath.Join(j.root, "builds", "42"), Cache: filepath.Join(j.root, "cache"), Project: project, Temp: project + ".tmp"},
		Steps: []tranter.Step{
			{Name: "get_sources", When: tranter.OnSuccess, Sources: &tranter.SourcesStep{Strategy: "none"}},
			{Name: "step_script", When: tranter.OnSuccess, Script: &tranter.ScriptStep{Commands: commands, User: true}},
			{Name: "after_script", When: tranter.AfterScript, Script: &tranter.ScriptStep{Commands: []string{"echo after $CI_JOB_STATUS", "ls /in-image"}, User: true, After: true, IgnoreErrors: true}},
			{Name: "cleanup_file_variables", When: tranter.Always, Cleanup: &tranter.CleanupStep{}},
		},
	}
	if err := s.Start(ctx, p); err != nil {
		return tranter.PhaseResult{}, "", err
	}
	out := seen{text: j.cancelAt, then: func() {
		if err := s.Cancel(ctx, "1", false, 5*time.Second); err != nil {
			j.t.Error(err)
		}
	}}
	r, err := s.Attach(ctx, "1", 0, &out)
	return r, out.log.String(), err
}

// seen does something once a text has come.
type seen struct {
	log  bytes.Buffer
	text string
	then func()
}

func (s *seen) Write(p []byte) (int, error) {
	n, err := s.log.Write(p)
	if s.text != "" && strings.Contains(s.log.String(), s.text) {
		s.text = ""
		s.then()
	}
	return n, err
}

// What tells us to end tells the script in the container.
func TestCustomExecutorEndsScriptsKindly(t *testing.T) {
	t.Parallel()
	j := newCustomJob(t, busyboxRegistry(t), "")
	j.cancelAt = "\nready"
	began := time.Now()
	r, log, err := j.run("trap 'i=0; while test $i -lt 3; do sleep 0.1; i=$((i+1)); done; echo told; exit 3' TERM", "echo ready", "sleep 1000 & wait")
	if err != nil || r.Status != tranter.PhaseCanceled || !strings.Contains(log, "\ntold") || !strings.Contains(log, "\nafter canceled") || time.Since(began) > 20*time.Second {
		t.Errorf("after %v: result %+v, %v\n%s", time.Since(began), r, err, log)
	}
}

func TestCustomExecutorRunsJobsInImages(t *testing.T) {
	t.Parallel()
	address := busyboxRegistry(t)
	j := newCustomJob(t, address, "")
	r, log, err := j.run(`ls /in-image`, `echo "$GREETING $FROM_IMAGE"`, `pwd`, `echo x >/anywhere`)
	if err != nil || r.Status != tranter.PhaseSucceeded {
		t.Fatalf("result %+v, %v\n%s\n%s", r, err, j.said.String(), log)
	}
	for _, want := range []string{"\n/in-image", "\nhello yes", "/builds/42/group/project\n", "\nafter success"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
	for _, want := range []string{"with image " + address + "/busybox:1", "Custom executor with driver Tranter (node 7)"} {
		if !strings.Contains(j.said.String(), want) {
			t.Errorf("no %q in\n%s", want, j.said.String())
		}
	}
	for _, dir := range []string{"builds/42", "builds/42.tmp"} {
		if _, err := os.Stat(filepath.Join(j.root, dir)); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
}

// Sources, caches and artifacts need nothing of the image: this program is the gitlab-runner of their scripts.
func TestCustomExecutorIsTheHelperItself(t *testing.T) {
	t.Parallel()
	j := newCustomJob(t, "registry.invalid", "")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script, temp := filepath.Join(j.root, "script"), filepath.Join(j.root, "temp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	stage := func(name, text string) (string, int, string) {
		if err := os.WriteFile(script, []byte(text), 0o700); err != nil { //nolint:gosec // a script
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), self, "executor", "--config", j.file, "cpu", "run", script, name)
		cmd.Env = append(os.Environ(), "TMPDIR="+temp, "CUSTOM_ENV_CI_JOB_ID=42", "CUSTOM_ENV_SECRET=s3cret", "BUILD_FAILURE_EXIT_CODE=11", "SYSTEM_FAILURE_EXIT_CODE=12", "BUILD_EXIT_CODE_FILE="+filepath.Join(temp, "code"))
		out, _ := cmd.CombinedOutput()
		code, _ := os.ReadFile(filepath.Join(temp, "code"))
		return string(out), cmd.ProcessState.ExitCode(), string(code)
	}
	out, code, _ := stage("restore_cache", "gitlab-runner --version; env; type gitlab-runner")
	if code != 0 || !strings.Contains(out, "Git revision:") || strings.Contains(out, "s3cret") || !strings.Contains(out, "/tranter/bin/gitlab-runner") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if out, code, told := stage("get_sources", "exit 5"); code != 11 || told != "5\n" {
		t.Errorf("exit code %d, %q: %s", code, told, out)
	}
	if out, code, _ := stage("step_script", "true"); code != 12 || !strings.Contains(out, "ERROR:") {
		t.Errorf("without prepare: exit code %d: %s", code, out)
	}
}

func TestCustomExecutorTellsHowJobsEnd(t *testing.T) {
	t.Parallel()
	address := busyboxRegistry(t)
	for name, c := range map[string]struct {
		settings string
		commands []string
		change   func(*customJob)
		reason   tranter.FailureReason
		code     int
		text     string
	}{
		"an exit code":       {commands: []string{"exit 7"}, reason: tranter.ScriptFailure, code: 7, text: "after failed"},
		"255":                {commands: []string{"exit 255"}, reason: tranter.ScriptFailure, code: 255},
		"a broken container": {settings: `options = ["--no-such-option"]`, reason: tranter.RunnerSystemFailure, text: "no-such-option"},
		"no image":           {change: func(j *customJob) { j.spec.Job.Image.Name = "" }, commands: []string{"ls /in-image || exit 9"}, reason: tranter.ScriptFailure, code: 9},
		"the runner's image": {settings: `image = "` + address + `/busybox:1"`, change: func(j *customJob) { j.spec.Job.Image.Name = "" }, commands: []string{"ls /in-image && exit 9"}, reason: tranter.ScriptFailure, code: 9},
		"a killed container": {commands: []string{"kill -9 $PPID; kill -9 1; sleep 0.1; kill -9 $$"}, reason: tranter.RunnerSystemFailure, text: "the container has failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newCustomJob(t, address, c.settings)
			if c.change != nil {
				c.change(j)
			}
			r, log, err := j.run(c.commands...)
			if err != nil || r.Reason != c.reason || r.ExitCode != c.code || !strings.Contains(log, c.text) {
				t.Errorf("result %+v, %v\n%s\n%s", r, err, j.said.String(), log)
			}
		})
	}
}

func TestCustomExecutorRefusesImages(t *testing.T) {
	t.Parallel()
	address := busyboxRegistry(t)
	for name, change := range map[string]func(*customJob){
		"that do not exist": func(j *customJob) { j.spec.Job.Image.Name = address + "/nothing:1" },
		"without a login":   func(j *customJob) { j.spec.Variables = j.spec.Variables[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newCustomJob(t, address, "")
			change(j)
			_, _, err := j.run("true")
			if err == nil {
				t.Fatal("it ran")
			}
			if build, ok := errors.AsType[*tranter.BuildError](err); ok && build.ExitCode != 1 {
				t.Errorf("error %v", err)
			}
			if !strings.Contains(j.said.String(), "ERROR:") || strings.Contains(j.said.String(), registryToken) {
				t.Errorf("the log says %s", j.said.String())
			}
		})
	}
}

func TestCustomExecutorOfASiteFile(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	file := filepath.Join(root, "site.toml")
	text := fmt.Sprintf(`name = "fleet"
url = "https://gitlab.example.com"
management_token = { env = "TOKEN_THAT_NODES_DO_NOT_HAVE" }
projects = ["a/b"]

[runners.cpu]
tags = ["cpu"]
[runners.cpu.runner]
executor = "apptainer"
builds_dir = "%[1]s/builds"
cache_dir = "%[1]s/cache"
[runners.cpu.runner.apptainer]
runtime = "bubblewrap"
description = "batch job $BATCH_JOB"
`, root)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"cpu": `"builds_dir":"` + root + `/builds/42"`, "none": `has no runner "none"`} {
		cmd := exec.CommandContext(t.Context(), self, "executor", name, "config")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "TRANTER_SITE="+file, "TMPDIR="+root, "CUSTOM_ENV_CI_JOB_ID=42", "BATCH_JOB=99")
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), want) || (err == nil) != (name == "cpu") || name == "cpu" && !strings.Contains(string(out), "Tranter (batch job 99)") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}
