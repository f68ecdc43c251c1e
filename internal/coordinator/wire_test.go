package coordinator_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

func (b *bench) body(resp *response) string {
	b.t.Helper()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

func (b *bench) json(resp *response, v any) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.body(resp)), v); err != nil {
		b.t.Fatal(err)
	}
}

// old15 is the info that GitLab Runner 15.5 sends: it knows no system_id, and not the newer features.
const old15 = `{"name":"gitlab-runner","version":"15.5.0","revision":"0d4137b8","platform":"linux","architecture":"amd64",
 "executor":"shell","shell":"bash","features":{"variables":true,"image":false,"services":false,"artifacts":true,"cache":true,
 "shared":true,"upload_multiple_artifacts":true,"upload_raw_artifacts":true,"session":true,"terminal":true,"refspecs":true,
 "masking":true,"proxy":false,"raw_variables":true,"artifacts_exclude":true,"multi_build_steps":true,"trace_reset":true,
 "trace_checksum":true,"trace_size":true,"vault_secrets":true,"cancelable":true,"return_exit_code":true,
 "service_variables":false},"config":{"gpus":""}}`

// One whole job as runner 15.5 runs it, from registration to removal.
func TestARunnerOf15_5(t *testing.T) {
	b := open(t, coordinator.Options{Registration: "GR1348941-reg", LongPoll: -1})
	resp := b.want(b.call("POST", "/api/v4/runners", []byte(`{"info":`+old15+`,"token":"GR1348941-reg","description":"old",
		"tag_list":"","run_untagged":true,"locked":true,"paused":false}`), "Content-Type", "application/json"), http.StatusCreated)
	var made struct {
		ID    int64
		Token string
	}
	b.json(resp, &made)
	b.want(b.call("POST", "/api/v4/runners/verify", []byte(`{"token":"`+made.Token+`"}`)), http.StatusOK)

	request := []byte(`{"info":` + old15 + `,"token":"` + made.Token + `","last_update":""}`)
	resp = b.want(b.call("POST", "/api/v4/jobs/request", request), http.StatusNoContent)
	if resp.Header.Get("X-GitLab-Last-Update") == "" {
		t.Error("no X-GitLab-Last-Update")
	}
	id := b.start(stages(script("one", "test", func(j *pipeline.Job) {
		j.Artifacts = []tranter.Artifact{{Name: "x", Paths: []string{"out"}, Type: "archive", Format: "zip"}}
	})))
	resp = b.want(b.call("POST", "/api/v4/jobs/request", request), http.StatusCreated)
	var j tranter.Job
	b.json(resp, &j)
	b.want(b.put(&j, map[string]any{"state": "running", "info": json.RawMessage(old15)}), http.StatusOK)
	b.want(b.patch(&j, 0, "hello\n"), http.StatusAccepted)
	if got := b.body(b.want(b.upload(&j, "expire_in=1+week&artifact_format=zip&artifact_type=archive", "x.zip", []byte("PK")), http.StatusCreated)); got != "201" {
		t.Errorf("the answer to an upload is %q", got)
	}

	// It does not know how to cancel gracefully, so it is not asked to.
	if err := b.c.Cancel(id, false); err != nil {
		t.Fatal(err)
	}
	b.expect(id, map[string]coordinator.Status{"one": coordinator.Canceled})
	resp = b.want(b.patch(&j, 6, "more"), http.StatusForbidden)
	if resp.Header.Get("Job-Status") != "canceled" {
		t.Errorf("Job-Status %q", resp.Header.Get("Job-Status"))
	}

	b.start(stages(script("two", "test")))
	b.json(b.want(b.call("POST", "/api/v4/jobs/request", request), http.StatusCreated), &j)
	b.want(b.patch(&j, 0, "bye\n"), http.StatusAccepted)
	sum := fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE([]byte("bye\n")))
	b.want(b.put(&j, map[string]any{"state": "failed", "failure_reason": "script_failure", "checksum": sum, "exit_code": 3}), http.StatusOK)
	v, err := b.c.Job(j.ID)
	if err != nil || v.Status != coordinator.Failed || v.ExitCode != 3 || v.LogDamaged {
		t.Errorf("job: %+v, %v", v, err)
	}
	b.want(b.call("DELETE", "/api/v4/runners", []byte(`{"token":"`+made.Token+`"}`)), http.StatusNoContent)
}

// Parameters may come in the query, as a form of either kind, or as JSON, with numbers and truth values as text.
func TestParametersComeInManyForms(t *testing.T) {
	b := open(t, coordinator.Options{Registration: "12345"})
	form := url.Values{
		"token": {"12345"}, "description": {"2026"}, "tag_list": {"a, b"}, "run_untagged": {"false"}, "maximum_timeout": {"3600"},
		"info[name]": {"curl"}, "access_level": {"ref_protected"},
	}
	var multi bytes.Buffer
	parts := multipart.NewWriter(&multi)
	for key, values := range form {
		if err := parts.WriteField(key, values[0]); err != nil {
			t.Fatal(err)
		}
	}
	parts.Close()
	for name, resp := range map[string]*response{
		"query":      b.call("POST", "/api/v4/runners?"+form.Encode(), nil),
		"urlencoded": b.call("POST", "/api/v4/runners", []byte(form.Encode()), "Content-Type", "application/x-www-form-urlencoded"),
		"multipart":  b.call("POST", "/api/v4/runners", multi.Bytes(), "Content-Type", parts.FormDataContentType()),
	} {
		if resp.StatusCode != http.StatusCreated {
			t.Errorf("%s: %d %s", name, resp.StatusCode, b.body(resp))
			continue
		}
		var made struct{ ID int64 }
		b.json(resp, &made)
		for _, rn := range b.c.Runners() {
			if rn.ID == made.ID && (rn.Description != "2026" || rn.RunUntagged || rn.MaximumTimeout != time.Hour || !rn.ProtectedOnly ||
				!slices.Equal(rn.Tags, []string{"a", "b"})) {
				t.Errorf("%s: %+v", name, rn)
			}
		}
	}
	token := b.c.Runners()[0].Token.Reveal()
	b.want(b.call("POST", "/api/v4/runners/verify", nil, "Runner-Token", token), http.StatusOK)
	b.want(b.call("DELETE", "/api/v4/runners", []byte("token="+token), "Content-Type", "application/x-www-form-urlencoded"), http.StatusNoContent)
}

func TestWrongParametersAreNamed(t *testing.T) {
	b := open(t, coordinator.Options{Registration: "reg"})
	for body, want := range map[string]string{
		`{`:                            "the body is not valid",
		`[]`:                           "the body is not valid",
		`"token"`:                      "the body is not valid",
		`{}`:                           "token is missing",
		`{"token":7}`:                  "token is invalid",
		`{"token":"reg","tag_list":7}`: "tag_list is invalid",
		`{"token":"reg","maximum_timeout":"soon"}`:                      "maximum_timeout is invalid",
		`{"token":"reg","access_level":"all"}`:                          "access_level does not have a valid value",
		`{"token":"reg","active":true,"paused":true}`:                   "active, paused are mutually exclusive",
		`{"token":"reg","system_id":"` + strings.Repeat("x", 65) + `"}`: "system_id is too long (maximum is 64 characters)",
	} {
		resp := b.call("POST", "/api/v4/runners", []byte(body))
		var got struct{ Error string }
		b.json(resp, &got)
		if resp.StatusCode != http.StatusBadRequest || got.Error != want {
			t.Errorf("%s: %d %q, want %q", body, resp.StatusCode, got.Error, want)
		}
	}
	for body, field := range map[string]string{
		`{"token":"reg","run_untagged":false}`:                                   "tags_list",
		`{"token":"reg","maximum_timeout":599}`:                                  "maximum_timeout",
		`{"token":"reg","maximum_timeout":-1}`:                                   "maximum_timeout",
		`{"token":"reg","maintenance_note":"` + strings.Repeat("x", 1025) + `"}`: "maintenance_note",
	} {
		resp := b.call("POST", "/api/v4/runners", []byte(body))
		var got struct{ Message map[string][]string }
		b.json(resp, &got)
		if resp.StatusCode != http.StatusBadRequest || len(got.Message[field]) == 0 {
			t.Errorf("%s: %d %v", body, resp.StatusCode, got.Message)
		}
	}
	if n := len(b.c.Runners()); n != 0 {
		t.Errorf("%d runners were made of wrong parameters", n)
	}
}

func TestRegistrationCanBeSwitchedOff(t *testing.T) {
	b := open(t, coordinator.Options{})
	b.want(b.call("POST", "/api/v4/runners", map[string]any{"token": "any"}), http.StatusGone)
}

// Who presents a wrong token learns nothing, whatever is there (gitlab-server 1.6).
func TestWrongTokensAndUnknownJobsAreForbidden(t *testing.T) {
	b := started(t, coordinator.Options{})
	b.start(stages(script("one", "test"), script("two", "test")))
	one, two := b.take(), b.take()
	for _, id := range []string{fmt.Sprint(one.ID), "4711", "0", "-1", "x", "99999999999999999999", "..%2f1"} {
		for _, token := range []string{"", "glcbt-64_nobody", two.Token.Reveal(), b.runner.Token.Reveal(), b.c.AdminToken().Reveal()} {
			for _, call := range [][2]string{{"PATCH", "/trace"}, {"POST", "/artifacts"}, {"POST", "/artifacts/authorize"}} {
				resp := b.call(call[0], "/api/v4/jobs/"+id+call[1], nil, "Job-Token", token)
				if resp.StatusCode != http.StatusForbidden || resp.Header.Get("Job-Status") != "" {
					t.Errorf("%s jobs/%s%s with %q: %d %s", call[0], id, call[1], token, resp.StatusCode, b.body(resp))
				}
			}
			if token == "" {
				continue
			}
			b.want(b.call("PUT", "/api/v4/jobs/"+id, map[string]any{"token": token, "state": "success"}), http.StatusForbidden)
		}
	}
	b.want(b.call("PUT", fmt.Sprintf("/api/v4/jobs/%d", one.ID), map[string]any{"state": "success"}), http.StatusBadRequest)
	// The parameter goes before the header.
	b.want(b.call("PUT", fmt.Sprintf("/api/v4/jobs/%d", one.ID), map[string]any{"state": "success", "token": "wrong"}, "Job-Token", one.Token.Reveal()), http.StatusForbidden)
	b.want(b.call("PUT", fmt.Sprintf("/api/v4/jobs/%d", one.ID), map[string]any{"state": "running"}, "Job-Token", one.Token.Reveal()), http.StatusOK)
	for _, state := range []string{"pending", "canceled", "RUNNING", ""} {
		b.want(b.put(one, map[string]any{"state": state}), http.StatusBadRequest)
	}
	b.want(b.call("GET", fmt.Sprintf("/api/v4/jobs/%d/artifacts", one.ID), nil), http.StatusUnauthorized)
	b.want(b.call("GET", "/api/v4/nothing", nil), http.StatusNotFound)
}

func TestTooMuchIsRefused(t *testing.T) {
	b := started(t, coordinator.Options{})
	b.start(stages(script("one", "test")))
	j := b.take()
	much := strings.Repeat("x", 33<<10)
	b.want(b.call("POST", "/api/v4/jobs/request", map[string]any{"token": b.runner.Token.Reveal(), "last_update": much}), http.StatusRequestEntityTooLarge)
	huge := strings.Repeat("x", 1<<20)
	b.want(b.put(j, map[string]any{"state": "running", "failure_reason": huge}), http.StatusRequestEntityTooLarge)
	b.want(b.call("POST", "/api/v4/runners", []byte("token="+huge), "Content-Type", "application/x-www-form-urlencoded"), http.StatusRequestEntityTooLarge)
	resp := b.call("PATCH", fmt.Sprintf("/api/v4/jobs/%d/trace", j.ID), bytes.NewReader(make([]byte, 17<<20)), "Job-Token", j.Token.Reveal(), "Content-Range", "0-1")
	b.want(resp, http.StatusRequestEntityTooLarge)
	b.want(b.put(j, map[string]any{"state": "running"}), http.StatusOK)
}

func TestStrangeRangesOfALog(t *testing.T) {
	b := started(t, coordinator.Options{})
	b.start(stages(script("one", "test")))
	j := b.take()
	path := fmt.Sprintf("/api/v4/jobs/%d/trace", j.ID)
	send := func(ranges, text string) *response {
		return b.call("PATCH", path, []byte(text), "Job-Token", j.Token.Reveal(), "Content-Range", ranges)
	}
	for _, wrong := range []string{"", "x-1", "-1-2", "1", "bytes 0-1/2"} {
		b.want(send(wrong, "text"), http.StatusBadRequest)
	}
	b.want(send("9223372036854775807-9", "text"), http.StatusForbidden) // larger than any limit
	b.start(stages(script("two", "test")))
	j = b.take()
	path = fmt.Sprintf("/api/v4/jobs/%d/trace", j.ID)
	b.want(send("0-400", "four"), http.StatusAccepted) // only the start counts
	resp := b.want(send("4-8", "more"), http.StatusAccepted)
	if got := resp.Header.Get("Range"); got != "0-8" {
		t.Errorf("Range %q", got)
	}
	resp = b.want(send("4-8", "more"), http.StatusRequestedRangeNotSatisfiable) // the answer was lost
	if got := resp.Header.Get("Range"); got != "0-8" {
		t.Errorf("Range %q", got)
	}
	if got := b.body(resp); got != `{"message":"416 Range Not Satisfiable"}` {
		t.Errorf("body %s", got)
	}
}

// File names and types of artifacts are hostile; what is stored stays below the job's directory.
func TestHostileNamesOfArtifacts(t *testing.T) {
	b := started(t, coordinator.Options{})
	b.start(stages(script("one", "build"), script("two", "test")))
	j := b.take()
	for _, kind := range []string{"..%2f..%2fstate.json", "%2fetc%2fpasswd", "a%00b", "A", "a.b", strings.Repeat("x", 65), "trace%2f", "%0a"} {
		b.want(b.upload(j, "artifact_type="+kind, "x", []byte("x")), http.StatusBadRequest)
	}
	for _, format := range []string{"exe", "..", "gzip"} { // an archive is a zip
		b.want(b.upload(j, "artifact_format="+format, "x", []byte("x")), http.StatusBadRequest)
	}
	b.want(b.upload(j, "artifact_type=junit&artifact_format=raw", "x", []byte("x")), http.StatusBadRequest)
	b.want(b.call("POST", fmt.Sprintf("/api/v4/jobs/%d/artifacts", j.ID), []byte("no form"), "Job-Token", j.Token.Reveal()), http.StatusBadRequest)
	before := tree(t, b.dir)
	b.want(b.upload(j, "", "../../../../etc/\r\npass\"wd", []byte("data")), http.StatusCreated)
	for _, path := range tree(t, b.dir) {
		if !slices.Contains(before, path) && path != fmt.Sprintf("jobs/%d/artifact-archive", j.ID) {
			t.Errorf("an upload made %s", path)
		}
	}
	b.finish(j, "success")
	two := b.take()
	if name := two.Dependencies[0].File.Filename; strings.ContainsAny(name, "/\r\n") {
		t.Errorf("file name %q", name)
	}
	resp := b.want(b.call("GET", fmt.Sprintf("/api/v4/jobs/%d/artifacts", j.ID), nil, "Job-Token", two.Token.Reveal()), http.StatusOK)
	if resp.Header.Get("Content-Length") != "4" || !strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment") {
		t.Errorf("headers: %v", resp.Header)
	}
	resp = b.call("GET", fmt.Sprintf("/api/v4/jobs/%d/artifacts", j.ID), nil, "Job-Token", two.Token.Reveal(), "Range", "bytes=1-2")
	if got := b.body(b.want(resp, http.StatusPartialContent)); got != "at" {
		t.Errorf("a part of it: %q", got)
	}
}

// tree lists the files below dir.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			out = append(out, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPausedAndSpecialRunners(t *testing.T) {
	b := started(t, coordinator.Options{})
	admin := []string{"Private-Token", b.c.AdminToken().Reveal()}
	b.start(stages(script("one", "test")))
	path := fmt.Sprintf("/api/v4/runners/%d", b.runner.ID)
	b.want(b.call("PUT", path+"?paused=true", nil, admin...), http.StatusOK)
	b.none()
	b.want(b.call("PUT", path, map[string]any{"paused": false, "access_level": "ref_protected"}, admin...), http.StatusOK)
	b.none() // the ref is not protected
	b.want(b.call("PUT", path, map[string]any{"access_level": "not_protected"}, admin...), http.StatusOK)
	b.take()

	other, err := b.c.CreateProject("group/other", "")
	if err != nil {
		t.Fatal(err)
	}
	var made struct{ Token string }
	b.json(b.want(b.call("POST", "/api/v4/user/runners", map[string]any{"runner_type": "project_type", "project_id": other.ID}, admin...), http.StatusCreated), &made)
	if !strings.HasPrefix(made.Token, "glrt-t3_") {
		t.Errorf("token %q", made.Token)
	}
	b.start(stages(script("not for it", "test")))
	b.runner.Token = tranter.Secret(made.Token)
	b.none()
	if _, err := b.c.StartPipeline(t.Context(), other.ID, coordinator.PipelineSpec{Pipeline: stages(script("for it", "test")), SHA: "a1"}); err != nil {
		t.Fatal(err)
	}
	if j := b.take(); j.Info.Name != "for it" || j.Info.ProjectJobsRunning != "+Inf" {
		t.Errorf("job info: %+v", j.Info)
	}
}

// A runner of the whole instance serves the project first that has the fewest jobs running (gitlab-server 3.1).
func TestTheQueueIsFairToProjects(t *testing.T) {
	b := started(t, coordinator.Options{})
	small, err := b.c.CreateProject("small", "")
	if err != nil {
		t.Fatal(err)
	}
	b.start(stages(script("a", "test"), script("b", "test"), script("c", "test")))
	if _, err := b.c.StartPipeline(t.Context(), small.ID, coordinator.PipelineSpec{Pipeline: stages(script("d", "test")), SHA: "a1"}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 4 {
		j := b.take()
		got = append(got, j.Info.Name+j.Info.ProjectJobsRunning)
	}
	if want := []string{"a0", "d0", "b1", "c2"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

func TestWhatARunnerDoesNotSupportFailsTheJob(t *testing.T) {
	for name, change := range map[string]func(*pipeline.Job){
		"fallback keys": func(j *pipeline.Job) { j.Cache = []tranter.Cache{{Key: "a", FallbackKeys: []string{"b"}}} },
		"inputs":        func(j *pipeline.Job) { j.Inputs = json.RawMessage(`{"env":{"default":"x"}}`) },
	} {
		t.Run(name, func(t *testing.T) {
			b := started(t, coordinator.Options{})
			id := b.start(stages(script("one", "test", change)))
			b.none()
			if v := b.view(id).Jobs[0]; v.Status != coordinator.Failed || v.Reason != "runner_unsupported" {
				t.Errorf("job: %+v", v)
			}
		})
	}
}

func TestInputsReachTheRunner(t *testing.T) {
	b := started(t, coordinator.Options{})
	b.start(stages(script("one", "test", func(j *pipeline.Job) {
		j.Inputs = json.RawMessage(`{"env":{"default":"staging"},"count":{"type":"number","default":2}}`)
	})))
	resp := b.call("POST", "/api/v4/jobs/request", map[string]any{
		"token": b.runner.Token.Reveal(), "info": map[string]any{"features": map[string]bool{"job_inputs": true}},
	})
	var got struct{ Inputs json.RawMessage }
	b.json(b.want(resp, http.StatusCreated), &got)
	want := `[{"key":"count","value":{"content":2,"sensitive":false,"type":"number"}},{"key":"env","value":{"content":"staging","sensitive":false,"type":"string"}}]`
	if string(got.Inputs) != want {
		t.Errorf("inputs %s", got.Inputs)
	}
}

// Requests of several processes of one runner are told apart by their system_id.
func TestManagersOfARunner(t *testing.T) {
	b := started(t, coordinator.Options{})
	for _, system := range []string{"s_aaaaaaaaaaaa", "", "s_bbbbbbbbbbbb"} {
		b.want(b.call("POST", "/api/v4/jobs/request", map[string]any{
			"token": b.runner.Token.Reveal(), "system_id": system, "info": map[string]any{"version": "19.4.0", "platform": "linux"},
		}), http.StatusNoContent)
	}
	var list []struct {
		System  string `json:"system_id"`
		Version string
		Status  string
	}
	b.json(b.want(b.call("GET", fmt.Sprintf("/api/v4/runners/%d/managers", b.runner.ID), nil, "Private-Token", b.c.AdminToken().Reveal()), http.StatusOK), &list)
	if len(list) != 3 || list[0].System != "<legacy>" || list[1].Version != "19.4.0" || list[2].Status != "online" {
		t.Errorf("managers: %+v", list)
	}
}

func TestALongPollIsHeldAndEndsByItself(t *testing.T) {
	b := started(t, coordinator.Options{LongPoll: 60 * time.Millisecond})
	resp := b.want(b.ask(), http.StatusNoContent)
	b.update = resp.Header.Get("X-GitLab-Last-Update")
	begin := time.Now()
	resp = b.want(b.ask(), http.StatusNoContent)
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("not held: %v", took)
	}
	if resp.Header.Get("X-GitLab-Last-Update") != b.update || resp.Header.Get("Gitlab-Ci-Builds-Polling") != "yes" {
		t.Errorf("headers: %v", resp.Header)
	}
	// A runner that is removed is told at once.
	got := make(chan *response, 1)
	b2 := *b
	go func() { got <- b2.ask() }()
	b.want(b.call("DELETE", fmt.Sprintf("/api/v4/runners/%d", b.runner.ID), nil, "Private-Token", b.c.AdminToken().Reveal()), http.StatusNoContent)
	<-got
	b.want(b.ask(), http.StatusForbidden)
}

func TestTokensExpireAndAreReset(t *testing.T) {
	now := time.Now()
	b := open(t, coordinator.Options{Now: func() time.Time { return now }, SweepEvery: time.Hour})
	rn, err := b.c.CreateRunner(coordinator.RunnerSpec{RunUntagged: true, TokenLifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	verify := func(token string) *response {
		return b.call("POST", "/api/v4/runners/verify", map[string]any{"token": token, "system_id": "s_0123456789ab"})
	}
	var got struct {
		Token   string
		Expires time.Time `json:"token_expires_at"`
	}
	b.json(b.want(verify(rn.Token.Reveal()), http.StatusOK), &got)
	if got.Token != rn.Token.Reveal() || got.Expires.Sub(now).Round(time.Minute) != time.Hour {
		t.Errorf("%+v", got)
	}
	reset := b.call("POST", fmt.Sprintf("/api/v4/runners/%d/reset_authentication_token", rn.ID), nil, "Private-Token", b.c.AdminToken().Reveal())
	b.json(b.want(reset, http.StatusCreated), &got)
	b.want(verify(rn.Token.Reveal()), http.StatusForbidden)
	b.want(verify(got.Token), http.StatusOK)
	now = now.Add(time.Hour)
	b.want(verify(got.Token), http.StatusForbidden)
}

// Other parts of the form, such as the metadata of older clients, are not the artifact.
func TestOtherPartsOfAnUploadAreIgnored(t *testing.T) {
	b := started(t, coordinator.Options{})
	b.start(stages(script("one", "test")))
	j := b.take()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for _, part := range []string{"metadata", "file", "metadata"} {
		w, err := form.CreateFormFile(part, part+".zip")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, "the "+part)
	}
	if err := form.WriteField("expire_in", "1 day"); err != nil {
		t.Fatal(err)
	}
	form.Close()
	path := fmt.Sprintf("/api/v4/jobs/%d/artifacts", j.ID)
	b.want(b.call("POST", path+"/authorize", nil, "Job-Token", j.Token.Reveal()), http.StatusOK)
	b.want(b.call("POST", path, body.Bytes(), "Job-Token", j.Token.Reveal(), "Content-Type", form.FormDataContentType()), http.StatusCreated)
	f, err := b.c.OpenArtifact(j.ID, "archive")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data, _ := io.ReadAll(f); string(data) != "the file" {
		t.Errorf("artifact %q", data)
	}
}

// An upload that breaks off leaves nothing behind, and may be repeated.
func TestAnUploadThatBreaksOff(t *testing.T) {
	b := started(t, coordinator.Options{})
	b.start(stages(script("one", "test")))
	j := b.take()
	body := "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.zip\"\r\n\r\nhalf of"
	resp := b.call("POST", fmt.Sprintf("/api/v4/jobs/%d/artifacts", j.ID), []byte(body), "Job-Token", j.Token.Reveal(), "Content-Type", "multipart/form-data; boundary=x")
	b.want(resp, http.StatusServiceUnavailable)
	for _, path := range tree(t, b.dir) {
		if strings.HasPrefix(path, "jobs/") {
			t.Errorf("left behind: %s", path)
		}
	}
	b.want(b.upload(j, "", "a.zip", []byte("all of it")), http.StatusCreated)
}
