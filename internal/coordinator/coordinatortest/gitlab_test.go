package coordinatortest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

func send(t *testing.T, g *coordinatortest.GitLab, method, path, body string, headers ...string) (int, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.URL+"/api/v4/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

func take(t *testing.T, g *coordinatortest.GitLab) *tranter.Job {
	t.Helper()
	status, body, err := send(t, g, "POST", "jobs/request", fmt.Sprintf(`{"token":%q,"info":{"features":{"cancel_gracefully":true}}}`, g.Token.Reveal()))
	if err != nil || status != http.StatusCreated {
		t.Fatalf("%d %s %v", status, body, err)
	}
	var j tranter.Job
	if err := json.Unmarshal([]byte(body), &j); err != nil {
		t.Fatal(err)
	}
	return &j
}

func update(t *testing.T, g *coordinatortest.GitLab, j *tranter.Job, state string) int {
	t.Helper()
	status, _, err := send(t, g, "PUT", fmt.Sprintf("jobs/%d", j.ID), fmt.Sprintf(`{"token":%q,"state":%q}`, j.Token.Reveal(), state))
	if err != nil {
		return 0
	}
	return status
}

func TestAJobGoesThrough(t *testing.T) {
	g := coordinatortest.New(t)
	id := g.Enqueue(coordinatortest.Script("echo hello"))
	j := take(t, g)
	if want := strings.TrimPrefix(g.URL, "http://") + "/local/demo.git"; !strings.HasSuffix(j.Git.RepoURL, want) {
		t.Errorf("repo_url %s does not end in %s", j.Git.RepoURL, want)
	}
	if j.ID != id || j.Steps[0].Script[0] != "echo hello" || j.Timeout() != time.Hour {
		t.Fatalf("%+v", j)
	}
	status, _, err := send(t, g, "PATCH", fmt.Sprintf("jobs/%d/trace", id), "hello\n", "Job-Token", j.Token.Reveal(), "Content-Range", "0-5")
	if err != nil || status != http.StatusAccepted {
		t.Fatal(status, err)
	}
	g.WaitLog(id, 6)
	file := filepath.Join(t.TempDir(), "artifacts.zip")
	if err := os.WriteFile(file, []byte("zip"), 0o600); err != nil {
		t.Fatal(err)
	}
	resp := g.PutArtifact(j, "archive", "zip", file)
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.StatusCode)
	}
	g.Cancel(id)
	if got := update(t, g, j, "failed"); got != http.StatusOK {
		t.Fatal(got)
	}
	if v := g.Wait(id); v.Status != coordinator.Canceled {
		t.Errorf("job: %+v", v)
	}
	if g.Log(id) != "hello\n" || !bytes.Equal(g.Artifact(id, "archive"), []byte("zip")) {
		t.Errorf("log %q", g.Log(id))
	}
	if u := g.Updates(id); len(u) != 1 || u[0].State != tranter.JobFailed {
		t.Errorf("updates: %+v", u)
	}
	if len(g.Calls(coordinatortest.Trace)) != 1 || len(g.Calls(coordinatortest.Any)) != 4 {
		t.Errorf("calls: %+v", g.Calls(coordinatortest.Any))
	}
}

func TestFaults(t *testing.T) {
	g := coordinatortest.New(t)
	g.Enqueue(coordinatortest.Script("true"))
	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Request, Status: 503, Times: 2, Header: http.Header{"Retry-After": {"1"}}})
	request := fmt.Sprintf(`{"token":%q}`, g.Token.Reveal())
	for range 2 {
		if status, _, _ := send(t, g, "POST", "jobs/request", request); status != 503 {
			t.Fatal(status)
		}
	}
	j := take(t, g)

	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Update, Drop: true})
	if got := update(t, g, j, "success"); got != 0 {
		t.Errorf("status %d from a closed connection", got)
	}
	if s := g.Job(j.ID).Status; s != coordinator.Running {
		t.Errorf("a dropped call had an effect: %s", s)
	}
	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Update, Lose: true})
	if got := update(t, g, j, "success"); got != 0 {
		t.Errorf("status %d from a closed connection", got)
	}
	if s := g.Job(j.ID).Status; s != coordinator.Success {
		t.Errorf("a lost answer had no effect: %s", s)
	}

	g.Enqueue(coordinatortest.Script("true"))
	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Request, Truncate: true})
	if _, body, err := send(t, g, "POST", "jobs/request", request); err == nil {
		t.Errorf("a whole answer: %s", body)
	}
	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Request, Status: 201, Body: `{"id":`})
	if status, body, _ := send(t, g, "POST", "jobs/request", request); status != 201 || body != `{"id":` {
		t.Errorf("%d %s", status, body)
	}

	hold := make(chan struct{})
	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Request, Hold: hold})
	answered := make(chan int, 1)
	go func() {
		status, _, _ := send(t, g, "POST", "jobs/request", request)
		answered <- status
	}()
	select {
	case status := <-answered:
		t.Errorf("not held: %d", status)
	case <-time.After(50 * time.Millisecond):
	}
	close(hold)
	if status := <-answered; status != http.StatusNoContent {
		t.Errorf("status %d", status)
	}
}

func TestARepositoryIsServedToTheJobOnly(t *testing.T) {
	g := coordinatortest.New(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hello.txt"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Enqueue(g.Serve(dir, coordinatortest.Script("cat hello.txt")))
	j := take(t, g)
	clone := filepath.Join(t.TempDir(), "clone")
	run := func(args ...string) error {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := run("clone", "--quiet", j.Git.RepoURL, clone); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(clone, "hello.txt")); err != nil || string(data) != "hello" {
		t.Errorf("%q, %v", data, err)
	}
	if err := run("-C", clone, "push", "--quiet", j.Git.RepoURL, "HEAD:refs/heads/new"); err == nil {
		t.Error("a job could push")
	}
	update(t, g, j, "success")
	if err := run("clone", "--quiet", j.Git.RepoURL, clone+"2"); err == nil {
		t.Error("the repository is open after the job")
	}
}

func TestWhichCallsAFaultDisturbs(t *testing.T) {
	g := coordinatortest.New(t)
	first, second := g.Enqueue(coordinatortest.Script("true")), g.Enqueue(coordinatortest.Script("true"))
	one, two := take(t, g), take(t, g)
	if one.ID != first || two.ID != second {
		t.Fatalf("jobs %d and %d", one.ID, two.ID)
	}
	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Update, Job: second, Skip: 1, Times: 2, Status: 500})
	var got []int
	for range 4 {
		got = append(got, update(t, g, two, "running"), update(t, g, one, "running"))
	}
	if want := []int{200, 200, 500, 200, 500, 200, 200, 200}; !slices.Equal(got, want) {
		t.Errorf("statuses %v, want %v", got, want)
	}

	g.Inject(coordinatortest.Fault{Times: -1, Drop: true})
	for range 3 {
		if got := update(t, g, one, "running"); got != 0 {
			t.Errorf("status %d while everything is down", got)
		}
	}
	g.Clear()
	if got := update(t, g, one, "running"); got != 200 {
		t.Errorf("status %d after Clear", got)
	}

	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Update, Header: http.Header{"Job-Status": {"canceled"}}, Delay: 30 * time.Millisecond})
	begin := time.Now()
	r, err := http.NewRequestWithContext(t.Context(), "PUT", fmt.Sprintf("%s/api/v4/jobs/%d", g.URL, first),
		strings.NewReader(fmt.Sprintf(`{"token":%q,"state":"running"}`, one.Token.Reveal())))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || time.Since(begin) < 30*time.Millisecond || resp.Header.Get("Job-Status") != "canceled" {
		t.Errorf("status %d after %v: %v", resp.StatusCode, time.Since(begin), resp.Header)
	}
	updates := g.Calls(coordinatortest.Update)
	if last := updates[len(updates)-1]; last.Status != 200 || last.Job != first || len(updates) != 13 {
		t.Errorf("%d updates, the last: %+v", len(updates), last)
	}
}

// What holds a call does not outlive the test, nor the client.
func TestAHeldCallEndsWithItsClient(t *testing.T) {
	g := coordinatortest.New(t)
	g.Inject(coordinatortest.Fault{Hold: make(chan struct{})})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", g.URL+"/api/v4/version", nil)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, cancel)
	resp, err := http.DefaultClient.Do(r)
	if err == nil {
		resp.Body.Close()
		t.Error("answered although it is held")
	}
}

func TestRegistrationOfOldRunners(t *testing.T) {
	g := coordinatortest.New(t, func(o *coordinator.Options) { o.Registration = "GR1348941abc" })
	status, body, err := send(t, g, "POST", "runners", `{"token":"GR1348941abc","run_untagged":true}`)
	if err != nil || status != http.StatusCreated || !strings.Contains(body, "glrtr-") {
		t.Fatal(status, body, err)
	}
	status, _, err = send(t, g, "POST", "runners/verify", fmt.Sprintf(`{"token":%q}`, g.Token.Reveal()))
	if err != nil || status != http.StatusOK {
		t.Fatal(status, err)
	}
	for _, e := range []coordinatortest.Endpoint{coordinatortest.Register, coordinatortest.Verify} {
		if calls := g.Calls(e); len(calls) != 1 {
			t.Errorf("%s: %d calls", e, len(calls))
		}
	}
}

func TestWaysToBeAway(t *testing.T) {
	g := coordinatortest.New(t)
	id := g.Enqueue(coordinatortest.Script("true"))
	j := take(t, g)
	patch := func(offset int, text string) (int, error) {
		status, _, err := send(t, g, "PATCH", fmt.Sprintf("jobs/%d/trace", id), text, "Job-Token", j.Token.Reveal(), "Content-Range", fmt.Sprintf("%d-%d", offset, offset+len(text)-1))
		return status, err
	}
	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Trace, Cut: true, Reset: true})
	if status, err := patch(0, strings.Repeat("x", 1<<20)); err == nil || g.Log(id) != "" {
		t.Errorf("a call that is cut: status %d, the log is %q", status, g.Log(id))
	}
	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Trace, Lose: true, Reset: true})
	if status, err := patch(0, "hello\n"); err == nil || g.Log(id) != "hello\n" {
		t.Errorf("a call whose answer is lost: status %d, the log is %q", status, g.Log(id))
	}
	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Update, Truncate: true, Reset: true})
	if got := update(t, g, j, "running"); got != 0 {
		t.Errorf("half an answer: status %d", got)
	}

	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Update, Dead: true})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "PUT", fmt.Sprintf("%s/api/v4/jobs/%d", g.URL, id), strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() {
		g.Clear()
		time.AfterFunc(50*time.Millisecond, cancel)
	})
	if resp, err := http.DefaultClient.Do(r); err == nil {
		resp.Body.Close()
		t.Errorf("an answer from a dead server: %d", resp.StatusCode)
	}

	g.Refuse()
	if got := update(t, g, j, "running"); got != 0 {
		t.Errorf("status %d from a server that is not there", got)
	}
	g.Admit()
	if got := update(t, g, j, "running"); got != 200 {
		t.Errorf("status %d after it is there again", got)
	}
}
