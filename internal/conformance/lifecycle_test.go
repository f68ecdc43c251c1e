package conformance

import (
	"archive/zip"
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

// known are failure reasons that GitLab lists in the payload.
var known = []tranter.FailureReason{
	tranter.RunnerConfigurationError, tranter.RunnerInterrupted, tranter.JobCanceled, tranter.ExternalDependencyFailure, tranter.ImagePullFailure,
}

// plain removes time stamps and colours from a log.
func plain(log string) string {
	log = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT[0-9:.]+Z [0-9a-f]{2}[OE][ +]`).ReplaceAllString(log, "")
	return regexp.MustCompile("\x1b\\[[0-9;]*[mK]").ReplaceAllString(log, "")
}

// outcome is what is expected of a job.
type outcome struct {
	job    tranter.Job
	status coordinator.Status
	reason tranter.FailureReason
	code   int
	has    []string // in the log
	lacks  []string
	fast   time.Duration // limit of its run; 0: none
}

// TestEveryEndOfAJob runs one job for each way in which a job ends.
func TestEveryEndOfAJob(t *testing.T) { onEach(t, testEveryEndOfAJob) }

func testEveryEndOfAJob(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "output_limit = 64")
	broken := r.Serve(repository(t, map[string]string{"a": "b"}), script("true"))
	broken.Git.SHA = strings.Repeat("1", 40)
	timeout := script("sleep 60")
	timeout.Runner.Timeout = 1
	inputs := script("echo ${{ job.inputs.who }}")
	inputs.Inputs = []tranter.Input{{Key: "who", Value: []byte(`{"type":"number","content":"x"}`)}}
	secrets := script("true")
	secrets.Secrets = map[string]any{"S": map[string]any{"vault": map[string]any{}}}
	steps := script("true")
	steps.Run = `[{"name":"hello"}]`
	empty := script()
	empty.Steps = nil
	artifact := script("true")
	artifact.Artifacts = []tranter.Artifact{{Name: "a", Paths: []string{"nothing"}, When: "always", Type: "archive", Format: "zip"}}
	hidden := with(script("echo one; echo se''cret-value; echo c2VjcmV0LXZhbHVl"))
	hidden.Variables = append(hidden.Variables, tranter.Variable{Key: "SECRET", Value: "secret-value", Masked: true})
	cases := map[string]outcome{
		"success":            {job: script("echo hello"), status: coordinator.Success, has: []string{"$ echo hello\nhello\n", "Job succeeded", "section_start:", "Preparing the \"" + r.executor() + "\" executor"}},
		"exit code":          {job: script("echo before", "exit 7", "echo after"), status: coordinator.Failed, reason: tranter.ScriptFailure, code: 7, has: []string{"before", "ERROR: Job failed: exit " + map[string]string{"shell": "status", "docker": "code"}[r.executor()] + " 7"}, lacks: []string{"\nafter\n"}},
		"killed by a signal": {job: script("kill -KILL $$"), status: coordinator.Failed, reason: tranter.ScriptFailure},
		"pipefail":           {job: script("false | true"), status: coordinator.Failed, reason: tranter.ScriptFailure, code: 1},
		"command not found":  {job: script("no-such-command-here"), status: coordinator.Failed, reason: tranter.ScriptFailure, code: 127},
		"syntax error":       {job: script("if"), status: coordinator.Failed, reason: tranter.ScriptFailure},
		"no sources":         {job: broken, status: coordinator.Failed, reason: tranter.RunnerSystemFailure, has: []string{"get_sources"}},
		"timeout":            {job: after(timeout, "echo never"), status: coordinator.Failed, reason: tranter.JobExecutionTimeout, has: []string{"execution took longer than"}, lacks: []string{"\nnever"}, fast: time.Minute},
		"timeout of the script": {
			job: after(with(script("sleep 60"), "RUNNER_SCRIPT_TIMEOUT", "1s"), "echo status $CI_JOB_STATUS"), status: coordinator.Failed, reason: tranter.JobExecutionTimeout,
			has: []string{"status timedout"}, fast: time.Minute,
		},
		"after_script after a failure":     {job: after(script("exit 3"), "echo status $CI_JOB_STATUS"), status: coordinator.Failed, reason: tranter.ScriptFailure, code: 3, has: []string{"status failed"}},
		"failing after_script":             {job: after(script("true"), "exit 4"), status: coordinator.Success, has: []string{"after_script failed, but job will continue unaffected"}},
		"failing after_script that counts": {job: after(with(script("true"), "AFTER_SCRIPT_IGNORE_ERRORS", "false"), "exit 4"), status: coordinator.Failed, reason: tranter.ScriptFailure, code: 4},
		"malformed input":                  {job: inputs, status: coordinator.Failed, reason: tranter.RunnerConfigurationError, has: []string{"job input"}},
		"bad configuration of the job":     {job: with(script("true"), "GIT_CLONE_PATH", "/elsewhere"), status: coordinator.Failed, reason: tranter.RunnerConfigurationError, has: []string{"GIT_CLONE_PATH"}},
		"secrets of a provider":            {job: secrets, status: coordinator.Failed, reason: tranter.RunnerConfigurationError, has: []string{"secret S", "login method"}},
		"run steps":                        {job: steps, status: coordinator.Failed, reason: tranter.RunnerSystemFailure, code: 3, has: []string{"run:"}},
		"no script":                        {job: empty, status: coordinator.Success, has: []string{"no script"}},
		"artifacts that are not there":     {job: artifact, status: coordinator.Success, has: []string{"no matching files", "No files to upload"}},
		"masking":                          {job: hidden, status: coordinator.Success, has: []string{"[MASKED]"}, lacks: []string{"secret-value", "c2VjcmV0LXZhbHVl"}},
		"more output than allowed":         {job: script("yes | head -c 300000 || true", "echo the end"), status: coordinator.Success, has: []string{"Job succeeded", "limit"}, lacks: []string{"the end"}},
		"NUL bytes and half characters":    {job: script(`printf 'a\0b\n'; printf '\303'; printf '\251\n'; printf '\303\n'; printf '\xff\xfe\n'; echo whole`), status: coordinator.Success, has: []string{"\nwhole\n", "é\n"}},
		"daemons":                          {job: script("setsid sleep 300 & echo started"), status: coordinator.Success, has: []string{"started"}, fast: time.Minute},
		"background with the output open":  {job: script("sleep 300 & echo started"), status: coordinator.Success, has: []string{"started"}, fast: time.Minute},
		"unusual variables":                {job: with(script(`test "$ODD" = "$(printf 'a\nb"c\\d$e')"`), "ODD", "a\nb\"c\\d$$e"), status: coordinator.Success},
		"input that nobody gives":          {job: script("cat"), status: coordinator.Success, fast: time.Minute},
		"GIT_STRATEGY that is not known":   {job: with(script("true"), "GIT_STRATEGY", "none", "RUNNER_SCRIPT_TIMEOUT", "soon"), status: coordinator.Success, has: []string{"RUNNER_SCRIPT_TIMEOUT"}},
	}
	r.start()
	r.expect(cases)
}

// expect runs jobs and looks at how each has ended.
func (r *rig) expect(cases map[string]outcome) {
	r.t.Helper()
	ids := map[string]int64{}
	for name, c := range cases {
		c.job.Info.Name = name
		c.job.Features.FailureReasons = known
		ids[name] = r.Enqueue(c.job)
	}
	for name, c := range cases {
		r.t.Run(name, func(t *testing.T) { r.judge(t, ids[name], c) })
	}
}

// judge waits for a job and compares how it has ended with what is expected of it.
func (r *rig) judge(t *testing.T, id int64, c outcome) {
	t.Helper()
	v := r.waitLong(id, time.Minute)
	log := plain(r.Log(id))
	if v.Status != c.status || v.Reason != c.reason || c.code != 0 && v.ExitCode != c.code {
		t.Errorf("got %s %q %d, want %s %q %d", v.Status, v.Reason, v.ExitCode, c.status, c.reason, c.code)
	}
	for _, want := range c.has {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	for _, bad := range c.lacks {
		if strings.Contains(log, bad) {
			t.Errorf("the log has %q", bad)
		}
	}
	if took := v.Times.Duration(time.Now()); c.fast > 0 && took > c.fast {
		t.Errorf("it took %v", took)
	}
	if v.LogDamaged {
		t.Error("the log's checksum is wrong")
	}
	if t.Failed() {
		t.Logf("log:\n%s", log)
	}
}

func TestCancelRunsAfterScriptAndUploads(t *testing.T) {
	onEach(t, testCancelRunsAfterScriptAndUploads)
}

func testCancelRunsAfterScriptAndUploads(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "")
	r.start()
	job := after(script("echo part > result.txt", "touch "+r.path("running"), "trap '' TERM; sleep 60 & wait; sleep 60"), "echo status $CI_JOB_STATUS")
	job.Artifacts = []tranter.Artifact{{Name: "a", Paths: []string{"result.txt"}, When: "always", Type: "archive", Format: "zip"}}
	job.Features.FailureReasons = known
	id := r.Enqueue(job)
	r.file(r.path("running"))
	r.Cancel(id)
	v := r.Wait(id)
	if v.Status != coordinator.Canceled {
		t.Errorf("status %s", v.Status)
	}
	log := plain(r.Log(id))
	for _, want := range []string{"status canceled", "Uploading artifacts for failed job"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	if len(r.Artifact(id, "archive")) == 0 {
		t.Error("no artifact")
	}
}

func TestAbortEndsTheJobAtOnce(t *testing.T) { onEach(t, testAbortEndsTheJobAtOnce) }

func testAbortEndsTheJobAtOnce(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "")
	r.start()
	id := r.Enqueue(after(script("touch "+r.path("running"), "sleep 60"), "touch "+r.path("after")))
	next := r.Enqueue(script("true"))
	r.file(r.path("running"))
	r.Abort(id)
	r.Wait(next)
	r.eventually("the job's processes are gone", func() bool {
		out, _ := r.tool("status", "--state-dir", r.path("state"), "--output", "json")
		return strings.Contains(out, `"jobs": []`)
	})
	if fileExists(r.path("after")) {
		t.Error("after_script has run")
	}
}

func TestSourcesCacheArtifactsAndDependencies(t *testing.T) {
	onEach(t, testSourcesCacheArtifactsAndDependencies)
}

func testSourcesCacheArtifactsAndDependencies(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "")
	dir := repository(t, map[string]string{"src/hello.txt": "hello from the repository\n", ".gitignore": "cached/\n"})
	r.start()
	build := r.Serve(dir, script("cat src/hello.txt", "git log --format=%s -1", "mkdir -p out cached", "echo built > out/result.txt", "echo kept > cached/file", "echo VERSION=42 > build.env"))
	build.Artifacts = []tranter.Artifact{
		{Name: "result", Paths: []string{"out/"}, When: "on_success", Type: "archive", Format: "zip"},
		{Name: "dotenv", Paths: []string{"build.env"}, When: "always", Type: "dotenv", Format: "gzip"},
	}
	build.Cache = []tranter.Cache{{Key: "deps-$CI_COMMIT_REF_SLUG", Paths: []string{"cached/"}, Policy: "pull-push", When: "on_success"}}
	id := r.Enqueue(build)
	v := r.Wait(id)
	log := plain(r.Log(id))
	if v.Status != coordinator.Success || !strings.Contains(log, "hello from the repository") || !strings.Contains(log, "Created cache") {
		t.Fatalf("%s\n%s", v.Status, log)
	}
	archive, err := zip.NewReader(bytes.NewReader(r.Artifact(id, "archive")), int64(len(r.Artifact(id, "archive"))))
	if err != nil || len(archive.File) == 0 {
		t.Fatalf("archive: %v", err)
	}

	test := r.Serve(dir, script("grep kept cached/file", "test ! -e build.env", "test ! -e out"))
	test.Cache = build.Cache
	second := r.Enqueue(test)
	v = r.Wait(second)
	log = plain(r.Log(second))
	if v.Status != coordinator.Success || !strings.Contains(log, "Successfully extracted cache") {
		t.Fatalf("%s\n%s", v.Status, log)
	}

	// The token of a job that is over is not valid any more: what depends on it can't be downloaded.
	test.Dependencies = []tranter.Dependency{{
		ID: id, Token: tranter.Secret(r.Calls(coordinatortest.Upload)[0].Header.Get("JOB-TOKEN")), Name: "build", File: &tranter.DependencyFile{Filename: "result.zip", Size: 1},
	}}
	third := r.Enqueue(test)
	if v := r.Wait(third); v.Status != coordinator.Failed || v.Reason != tranter.RunnerSystemFailure || !strings.Contains(plain(r.Log(third)), "artifacts of build") {
		t.Errorf("%s %s\n%s", v.Status, v.Reason, plain(r.Log(third)))
	}
	for _, secret := range []string{r.Token.Reveal(), "glcbt-"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %s", secret)
		}
	}
}

func TestNothingOfASecretIsWhereOthersCanSeeIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	r.start()
	marker := "s3cret-" + fmt.Sprint(time.Now().UnixNano())
	job := r.Serve(repository(t, map[string]string{"a": "b"}), script(
		"touch "+r.path("running"),
		// What anybody on the host can read of this job, and what the job inherits of the manager's secrets.
		`printf '%s\n' "$NEEDLE" glcbt- > needle; if grep -lFf needle /proc/[0-9]*/cmdline; then echo found in a process list; exit 1; fi; rm needle`,
		`if tr '\0' '\n' </proc/$$/environ | grep -F "$RUNNER"; then echo the runner token is in the environment; exit 1; fi`,
		`git config --list --show-origin | grep -F glcbt- && { echo the job token is in the configuration of git; exit 1; }`,
		"git fetch origin",
	))
	job.Variables = append(job.Variables,
		tranter.Variable{Key: "NEEDLE", Value: marker, Masked: true},
		tranter.Variable{Key: "FILE", Value: marker, Masked: true, File: true},
		tranter.Variable{Key: "RUNNER", Value: r.Token.Reveal()[5:20], Public: true})
	id := r.Enqueue(job)
	v := r.Wait(id)
	if log := plain(r.Log(id)); v.Status != coordinator.Success {
		t.Errorf("%s\n%s", v.Status, log)
	}
	r.signal(syscall.SIGQUIT)
	r.wait(20 * time.Second)
	assertNoSecretLeft(t, r.dir, marker)
	if strings.Contains(r.output.String(), marker) || strings.Contains(r.output.String(), r.Token.Reveal()) {
		t.Error("the manager's log has a secret")
	}
}

// Which caches and artifacts are kept is decided once, by how the scripts ended.
func TestAnUploadThatFailsIsNotFollowedByThatOfAFailedJob(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	r.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Upload, Status: 413, Times: -1})
	r.start()
	job := script("echo x > file")
	job.Artifacts = []tranter.Artifact{{Name: "a", Paths: []string{"file"}, When: "always", Type: "archive", Format: "zip"}}
	id := r.Enqueue(job)
	v := r.Wait(id)
	log := plain(r.Log(id))
	if v.Status != coordinator.Failed || !strings.Contains(log, "too large") || len(r.Calls(coordinatortest.Upload)) != 1 {
		t.Errorf("%s %s, %d uploads:\n%s", v.Status, v.Reason, len(r.Calls(coordinatortest.Upload)), log)
	}
}
