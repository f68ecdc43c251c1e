package coordinator_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// bench is a coordinator with one runner that calls it by HTTP as a runner does.
type bench struct {
	t      *testing.T
	c      *coordinator.Coordinator
	server *httptest.Server
	dir    string
	runner coordinator.Runner
	update string // last X-GitLab-Last-Update
}

func open(t *testing.T, o coordinator.Options) *bench {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.SweepEvery == 0 {
		o.SweepEvery = 10 * time.Millisecond
	}
	c, err := coordinator.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(c.Handler())
	b := &bench{t: t, c: c, server: server, dir: o.Dir}
	t.Cleanup(b.close)
	return b
}

func (b *bench) close() {
	b.server.Close()
	if err := b.c.Close(); err != nil && !strings.Contains(err.Error(), "already closed") {
		b.t.Error(err)
	}
}

func started(t *testing.T, o coordinator.Options) *bench {
	t.Helper()
	b := open(t, o)
	rn, err := b.c.CreateRunner(coordinator.RunnerSpec{RunUntagged: true, Tags: []string{"linux"}})
	if err != nil {
		t.Fatal(err)
	}
	b.runner = rn
	return b
}

// response is an answer that was read to its end.
type response struct {
	StatusCode int
	Header     http.Header
	Body       io.Reader
}

func (b *bench) call(method, path string, body any, headers ...string) *response {
	b.t.Helper()
	var from io.Reader
	switch v := body.(type) {
	case nil:
	case []byte:
		from = bytes.NewReader(v)
	case io.Reader:
		from = v
	default:
		data, err := json.Marshal(v)
		if err != nil {
			b.t.Fatal(err)
		}
		from = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.server.URL+path, from)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return &response{StatusCode: resp.StatusCode, Header: resp.Header, Body: bytes.NewReader(data)}
}

func (b *bench) want(resp *response, status int) *response {
	b.t.Helper()
	if resp.StatusCode != status {
		data, _ := io.ReadAll(resp.Body)
		b.t.Fatalf("status %d, want %d: %s", resp.StatusCode, status, data)
	}
	return resp
}

func features() map[string]any {
	return map[string]any{
		"cancel_gracefully": true, "trace_reset": true, "upload_multiple_artifacts": true, "return_exit_code": true,
		"artifacts_exclude": true, "refspecs": true,
	}
}

func (b *bench) ask() *response {
	b.t.Helper()
	return b.call("POST", "/api/v4/jobs/request", map[string]any{
		"token": b.runner.Token.Reveal(), "system_id": "s_0123456789ab", "last_update": b.update,
		"info": map[string]any{"name": "gitlab-runner", "version": "19.4.0", "executor": "shell", "features": features()},
	})
}

func (b *bench) take() *tranter.Job {
	b.t.Helper()
	resp := b.want(b.ask(), http.StatusCreated)
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		b.t.Fatalf("content type %q", got)
	}
	var j tranter.Job
	if err := json.NewDecoder(resp.Body).Decode(&j); err != nil {
		b.t.Fatal(err)
	}
	return &j
}

func (b *bench) none() {
	b.t.Helper()
	resp := b.want(b.ask(), http.StatusNoContent)
	if resp.Header.Get("X-GitLab-Last-Update") == "" {
		b.t.Fatal("no X-GitLab-Last-Update")
	}
}

func (b *bench) put(j *tranter.Job, fields map[string]any) *response {
	b.t.Helper()
	fields["token"] = j.Token.Reveal()
	return b.call("PUT", fmt.Sprintf("/api/v4/jobs/%d", j.ID), fields)
}

func (b *bench) finish(j *tranter.Job, state string) {
	b.t.Helper()
	fields := map[string]any{"state": state}
	if state == "failed" {
		fields["failure_reason"], fields["exit_code"] = "script_failure", 1
	}
	b.want(b.put(j, fields), http.StatusOK)
}

func (b *bench) patch(j *tranter.Job, offset int, text string) *response {
	b.t.Helper()
	return b.call("PATCH", fmt.Sprintf("/api/v4/jobs/%d/trace?debug_trace=false", j.ID), []byte(text), "Job-Token", j.Token.Reveal(),
		"Content-Type", "text/plain", "Content-Range", fmt.Sprintf("%d-%d", offset, offset+len(text)-1))
}

func (b *bench) upload(j *tranter.Job, query, name string, data []byte) *response {
	b.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	w, err := form.CreateFormFile("file", name)
	if err != nil {
		b.t.Fatal(err)
	}
	_, _ = w.Write(data)
	form.Close()
	// Without a length, as runners send it.
	return b.call("POST", fmt.Sprintf("/api/v4/jobs/%d/artifacts?%s", j.ID, query), io.MultiReader(&body), "Job-Token", j.Token.Reveal(),
		"Content-Type", form.FormDataContentType())
}

func (b *bench) start(p *pipeline.Pipeline, change ...func(*coordinator.PipelineSpec)) int64 {
	b.t.Helper()
	project, err := b.c.CreateProject("demo", "")
	if err != nil {
		b.t.Fatal(err)
	}
	spec := coordinator.PipelineSpec{Pipeline: p, Ref: "main", SHA: strings.Repeat("a1", 20)}
	for _, f := range change {
		f(&spec)
	}
	id, err := b.c.StartPipeline(b.t.Context(), project.ID, spec)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

func (b *bench) view(id int64) coordinator.View {
	b.t.Helper()
	v, err := b.c.Pipeline(id)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// states of the latest attempts by name.
func (b *bench) states(id int64) map[string]coordinator.Status {
	b.t.Helper()
	out := map[string]coordinator.Status{}
	for _, j := range b.view(id).Jobs {
		if !j.Retried {
			out[j.Name] = j.Status
		}
	}
	return out
}

func (b *bench) expect(id int64, want map[string]coordinator.Status) {
	b.t.Helper()
	got := b.states(id)
	for name, status := range want {
		if got[name] != status {
			b.t.Errorf("job %s is %s, want %s", name, got[name], status)
		}
	}
}

func script(name, stage string, change ...func(*pipeline.Job)) pipeline.Job {
	j := pipeline.Job{Name: name, Group: name, Stage: stage, Script: []string{"echo " + name}, When: pipeline.OnSuccess, Total: 1}
	for _, f := range change {
		f(&j)
	}
	return j
}

func stages(jobs ...pipeline.Job) *pipeline.Pipeline {
	return &pipeline.Pipeline{Stages: []string{".pre", "build", "test", "deploy", ".post"}, Jobs: jobs}
}

func TestAPipelineRunsStageByStage(t *testing.T) {
	b := started(t, coordinator.Options{})
	id := b.start(stages(
		script("compile", "build"),
		script("unit", "test", func(j *pipeline.Job) { j.AfterScript = []string{"echo after"}; j.Timeout = 90 * time.Second }),
		script("lint", "test", func(j *pipeline.Job) { j.AllowFailure = true }),
		script("ship", "deploy"),
	))
	j := b.take()
	if j.Info.Name != "compile" || j.Info.PipelineID != id || j.Info.ProjectFullPath != "local/demo" {
		t.Fatalf("job info: %+v", j.Info)
	}
	b.none()
	b.finish(j, "success")
	unit, lint := b.take(), b.take()
	if unit.Runner.Timeout != 90 || lint.Runner.Timeout != 3600 {
		t.Errorf("timeouts %d and %d", unit.Runner.Timeout, lint.Runner.Timeout)
	}
	if len(unit.Steps) != 2 || unit.Steps[1].Name != "after_script" || unit.Steps[1].When != "always" {
		t.Errorf("steps: %+v", unit.Steps)
	}
	b.finish(lint, "failed")
	b.finish(unit, "success")
	ship := b.take()
	if got, _ := ship.Variable("CI_JOB_STAGE"); got != "deploy" {
		t.Errorf("CI_JOB_STAGE = %q", got)
	}
	if got, _ := ship.Variable("CI_JOB_TOKEN"); got != ship.Token.Reveal() {
		t.Error("CI_JOB_TOKEN is not the job's token")
	}
	b.finish(ship, "success")
	if v := b.view(id); v.Status != coordinator.Success || v.Finished.IsZero() {
		t.Errorf("pipeline: %+v", v)
	}
}

func TestWhatARunnerGetsHasEveryField(t *testing.T) {
	b := started(t, coordinator.Options{})
	b.start(stages(script("one", "test")))
	resp := b.want(b.ask(), http.StatusCreated)
	var fields map[string]json.RawMessage
	if err := json.NewDecoder(resp.Body).Decode(&fields); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"id", "token", "allow_git_fetch", "job_info", "git_info", "runner_info", "variables", "steps", "image", "services",
		"artifacts", "cache", "credentials", "dependencies", "features",
	} {
		if raw, ok := fields[key]; !ok || string(raw) == "null" {
			t.Errorf("%s is %q", key, raw)
		}
	}
	var j tranter.Job
	data, _ := json.Marshal(fields)
	if err := json.Unmarshal(data, &j); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(b.server.URL, "http://")
	if want := "http://gitlab-ci-token:" + j.Token.Reveal() + "@" + host + "/local/demo.git"; j.Git.RepoURL != want {
		t.Errorf("repo_url %s, want %s", j.Git.RepoURL, want)
	}
	if !j.Features.TraceSections || !slices.Contains(j.Features.FailureReasons, tranter.RunnerConfigurationError) {
		t.Errorf("features: %+v", j.Features)
	}
	if !slices.Contains(j.Git.Refspecs, fmt.Sprintf("+%s:refs/pipelines/1", j.Git.SHA)) {
		t.Errorf("refspecs: %v", j.Git.Refspecs)
	}
}

func TestTheLogGrowsByRanges(t *testing.T) {
	b := started(t, coordinator.Options{MaxLog: 1000})
	b.start(stages(script("one", "test")))
	j := b.take()
	resp := b.want(b.patch(j, 0, "hello "), http.StatusAccepted)
	if resp.Header.Get("Range") != "0-6" || resp.Header.Get("Job-Status") != "running" || resp.Header.Get("X-GitLab-Trace-Update-Interval") != "3" {
		t.Errorf("headers: %v", resp.Header)
	}
	resp = b.want(b.patch(j, 3, "again"), http.StatusRequestedRangeNotSatisfiable)
	if resp.Header.Get("Range") != "0-6" {
		t.Errorf("Range %q", resp.Header.Get("Range"))
	}
	b.want(b.patch(j, 6, "world\n"), http.StatusAccepted)
	b.want(b.call("PATCH", fmt.Sprintf("/api/v4/jobs/%d/trace", j.ID), []byte("x"), "Job-Token", j.Token.Reveal()), http.StatusBadRequest)

	var followed bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- b.c.Follow(t.Context(), j.ID, &followed) }()
	text := "hello world\n"
	b.want(b.put(j, map[string]any{"state": "success", "output": map[string]any{
		"checksum": fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE([]byte(text))), "bytesize": len(text),
	}}), http.StatusOK)
	if err := <-done; err != nil || followed.String() != text {
		t.Errorf("followed %q, %v", followed.String(), err)
	}
	v, _ := b.c.Job(j.ID)
	if v.LogDamaged || v.LogBytes != int64(len(text)) {
		t.Errorf("log: %+v", v)
	}
	resp = b.want(b.patch(j, 12, "late"), http.StatusForbidden)
	if resp.Header.Get("Job-Status") != "success" {
		t.Errorf("Job-Status %q", resp.Header.Get("Job-Status"))
	}
}

func TestALogOverTheLimitFailsTheJob(t *testing.T) {
	b := started(t, coordinator.Options{MaxLog: 10})
	id := b.start(stages(script("one", "test")))
	j := b.take()
	b.want(b.patch(j, 0, "more than ten bytes"), http.StatusForbidden)
	v := b.view(id).Jobs[0]
	if v.Status != coordinator.Failed || v.Reason != "trace_size_exceeded" {
		t.Errorf("job: %+v", v)
	}
}

func TestADamagedLogIsDemandedAgain(t *testing.T) {
	b := started(t, coordinator.Options{VerifyLog: true})
	b.start(stages(script("one", "test")))
	j := b.take()
	b.want(b.patch(j, 0, "wrong"), http.StatusAccepted)
	final := map[string]any{"state": "success", "output": map[string]any{
		"checksum": fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE([]byte("right"))), "bytesize": 5,
	}}
	b.want(b.put(j, final), http.StatusPreconditionFailed)
	b.want(b.patch(j, 0, "right"), http.StatusAccepted)
	b.want(b.put(j, final), http.StatusOK)
}

func TestCancellingIsGracefulThenHard(t *testing.T) {
	b := started(t, coordinator.Options{})
	id := b.start(stages(script("one", "build"), script("two", "test")))
	j := b.take()
	if err := b.c.Cancel(id, false); err != nil {
		t.Fatal(err)
	}
	b.expect(id, map[string]coordinator.Status{"one": coordinator.Canceling, "two": coordinator.Canceled})
	resp := b.want(b.patch(j, 0, "x"), http.StatusAccepted)
	if resp.Header.Get("Job-Status") != "canceling" {
		t.Errorf("Job-Status %q", resp.Header.Get("Job-Status"))
	}
	b.want(b.put(j, map[string]any{"state": "failed", "failure_reason": "job_canceled"}), http.StatusOK)
	if v := b.view(id); v.Status != coordinator.Canceled {
		t.Errorf("pipeline is %s", v.Status)
	}

	id = b.start(stages(script("one", "build")))
	j = b.take()
	if err := b.c.Cancel(id, true); err != nil {
		t.Fatal(err)
	}
	resp = b.want(b.put(j, map[string]any{"state": "running"}), http.StatusForbidden)
	if resp.Header.Get("Job-Status") != "canceled" {
		t.Errorf("Job-Status %q", resp.Header.Get("Job-Status"))
	}
}

func TestALongPollEndsWhenAJobComes(t *testing.T) {
	b := started(t, coordinator.Options{LongPoll: 20 * time.Second})
	resp := b.want(b.ask(), http.StatusNoContent)
	b.update = resp.Header.Get("X-GitLab-Last-Update")
	got := make(chan *response, 1)
	go func() { got <- b.ask() }()
	begin := time.Now()
	b.start(stages(script("one", "test")))
	select {
	case resp := <-got:
		b.want(resp, http.StatusCreated)
	case <-time.After(10 * time.Second):
		t.Fatal("held although there is a job")
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestTagsAndStuckJobs(t *testing.T) {
	b := started(t, coordinator.Options{})
	id := b.start(stages(
		script("here", "test", func(j *pipeline.Job) { j.Tags = []string{"linux"} }),
		script("nowhere", "test", func(j *pipeline.Job) { j.Tags = []string{"linux", "gpu"} }),
	))
	if j := b.take(); j.Info.Name != "here" {
		t.Errorf("took %s", j.Info.Name)
	}
	b.none()
	for _, j := range b.view(id).Jobs {
		if j.Stuck != (j.Name == "nowhere") {
			t.Errorf("%s: stuck %v", j.Name, j.Stuck)
		}
	}
}

func gz(text string) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	_, _ = z.Write([]byte(text))
	z.Close()
	return buf.Bytes()
}

func TestArtifactsAndDotenvReachTheNextJobs(t *testing.T) {
	b := started(t, coordinator.Options{MaxArtifact: 1 << 16})
	b.start(stages(
		script("compile", "build"), script("other", "build"),
		script("unit", "test", func(j *pipeline.Job) { j.HasNeeds, j.Needs = true, []pipeline.Need{{Job: "compile", Artifacts: true}} }),
		script("ship", "deploy", func(j *pipeline.Job) { j.HasDepends, j.Dependencies = true, []string{} }),
	))
	compile, other := b.take(), b.take()
	b.want(b.upload(compile, "artifact_type=archive&artifact_format=zip&expire_in=1+week", "artifacts.zip", []byte("PK zip")), http.StatusCreated)
	b.want(b.upload(compile, "artifact_type=archive", "artifacts.zip", []byte("PK zip")), http.StatusCreated)
	b.want(b.upload(compile, "artifact_type=archive", "artifacts.zip", []byte("other")), http.StatusBadRequest)
	b.want(b.upload(compile, "artifact_type=junit&artifact_format=gzip", "junit.xml.gz", make([]byte, 1<<17)), http.StatusRequestEntityTooLarge)
	b.want(b.upload(compile, "artifact_type=..%2Fx", "x", nil), http.StatusBadRequest)
	b.want(b.upload(compile, "artifact_type=dotenv&artifact_format=gzip", ".env.gz", gz("# comment\n")), http.StatusBadRequest)
	b.want(b.upload(compile, "artifact_type=dotenv&artifact_format=gzip", ".env.gz", gz("VERSION = 1.2\nURL=a=b\n")), http.StatusCreated)
	b.finish(compile, "success")
	b.finish(other, "success")
	unit := b.take()
	if len(unit.Dependencies) != 1 || unit.Dependencies[0].File == nil || unit.Dependencies[0].File.Size != 6 {
		t.Fatalf("dependencies: %+v", unit.Dependencies)
	}
	if got, _ := unit.Variable("VERSION"); got != "1.2" {
		t.Errorf("VERSION = %q", got)
	}
	if got, _ := unit.Variable("URL"); got != "a=b" {
		t.Errorf("URL = %q", got)
	}
	dep := unit.Dependencies[0]
	path := fmt.Sprintf("/api/v4/jobs/%d/artifacts?direct_download=true", dep.ID)
	resp := b.want(b.call("GET", path, nil, "Job-Token", dep.Token.Reveal()), http.StatusOK)
	if data, _ := io.ReadAll(resp.Body); string(data) != "PK zip" {
		t.Errorf("got %q", data)
	}
	b.want(b.call("GET", fmt.Sprintf("/api/v4/jobs/%d/artifacts", other.ID), nil, "Job-Token", unit.Token.Reveal()), http.StatusNotFound)
	b.want(b.call("GET", path, nil, "Job-Token", compile.Token.Reveal()), http.StatusUnauthorized)
	b.finish(unit, "success")
	if ship := b.take(); len(ship.Dependencies) != 0 {
		t.Errorf("dependencies: %+v", ship.Dependencies)
	}
}

func TestEverythingSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	b := started(t, coordinator.Options{Dir: dir})
	id := b.start(stages(script("one", "build"), script("two", "test")))
	j := b.take()
	b.want(b.patch(j, 0, "before "), http.StatusAccepted)
	if _, err := coordinator.Open(coordinator.Options{Dir: dir}); err == nil {
		t.Fatal("two coordinators in one directory")
	}
	runner := b.runner
	b.server.Close()
	if err := b.c.Close(); err != nil {
		t.Fatal(err)
	}
	b2 := open(t, coordinator.Options{Dir: dir})
	b2.runner = runner
	resp := b2.want(b2.patch(j, 0, "x"), http.StatusRequestedRangeNotSatisfiable)
	if resp.Header.Get("Range") != "0-7" {
		t.Errorf("Range %q", resp.Header.Get("Range"))
	}
	b2.want(b2.patch(j, 7, "after"), http.StatusAccepted)
	b2.finish(j, "success")
	log, err := b2.c.Trace(j.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if data, _ := io.ReadAll(log); string(data) != "before after" {
		t.Errorf("log %q", data)
	}
	b2.finish(b2.take(), "success")
	if v := b2.view(id); v.Status != coordinator.Success {
		t.Errorf("pipeline is %s", v.Status)
	}
	info, err := os.Stat(dir + "/state.json")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state.json: %v, %v", info, err)
	}
}

func TestRegistration(t *testing.T) {
	b := open(t, coordinator.Options{Registration: "GR1348941secret"})
	b.want(b.call("POST", "/api/v4/runners", map[string]any{"token": "wrong", "run_untagged": true}), http.StatusForbidden)
	b.want(b.call("POST", "/api/v4/runners", map[string]any{"token": "GR1348941secret", "run_untagged": false}), http.StatusBadRequest)
	resp := b.want(b.call("POST", "/api/v4/runners", map[string]any{"token": "GR1348941secret", "tag_list": "a, b"}), http.StatusCreated)
	var made struct {
		ID    int64
		Token string
	}
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil || made.ID == 0 || !strings.HasPrefix(made.Token, "glrtr-") {
		t.Fatalf("%+v, %v", made, err)
	}
	verify := map[string]any{"token": made.Token, "system_id": "s_0123456789ab"}
	b.want(b.call("POST", "/api/v4/runners/verify", verify), http.StatusOK)
	b.want(b.call("POST", "/api/v4/runners/verify", map[string]any{"token": "glrt-nobody"}), http.StatusForbidden)
	b.want(b.call("GET", "/api/v4/runners/router/discovery", nil, "Runner-Token", made.Token), http.StatusNotImplemented)
	b.want(b.call("DELETE", "/api/v4/runners/managers", map[string]any{"token": made.Token, "system_id": "s_nobody"}), http.StatusNotFound)
	b.want(b.call("DELETE", "/api/v4/runners/managers", verify), http.StatusNoContent)
	resp = b.want(b.call("POST", "/api/v4/runners/reset_authentication_token", map[string]any{"token": made.Token}), http.StatusCreated)
	b.want(b.call("POST", "/api/v4/runners/verify", verify), http.StatusForbidden)
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil {
		t.Fatal(err)
	}
	b.want(b.call("DELETE", "/api/v4/runners", map[string]any{"token": made.Token}), http.StatusNoContent)
	b.want(b.call("DELETE", "/api/v4/runners", map[string]any{"token": made.Token}), http.StatusForbidden)
	b.want(b.call("POST", "/api/v4/jobs/request", map[string]any{"token": made.Token}), http.StatusForbidden)
	b.want(b.call("POST", "/api/v4/jobs/request", map[string]any{}), http.StatusBadRequest)
}

func TestARunnerThatFallsSilentLosesItsJob(t *testing.T) {
	b := started(t, coordinator.Options{LostAfter: 50 * time.Millisecond})
	id := b.start(stages(script("one", "test")))
	events, cancel := b.c.Subscribe(id)
	defer cancel()
	b.take()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	for {
		select {
		case e := <-events:
			if e.Job.ID == 0 && e.Status == coordinator.Failed {
				if v := b.view(id).Jobs[0]; v.Reason != "no_updates_running" {
					t.Errorf("reason %s", v.Reason)
				}
				return
			}
		case <-ctx.Done():
			t.Fatal("still running")
		}
	}
}
