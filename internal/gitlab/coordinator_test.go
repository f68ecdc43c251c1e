package gitlab

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
	"github.com/tranter-ci/tranter/internal/trace"
)

// interrupt calls f before it passes a request on.
func interrupt(next http.Handler, f func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f()
		next.ServeHTTP(w, r)
	})
}

func runnerOf(t *testing.T, g *coordinatortest.GitLab, change ...func(*Options)) *patient {
	t.Helper()
	return connect(t, g.URL, append([]func(*Options){func(o *Options) { o.Token = g.Token }}, change...)...)
}

// take gets the next job of a server that has one.
func take(t *testing.T, c *patient) *tranter.Job {
	t.Helper()
	job, err := c.Request(t.Context(), tranter.Request{Executor: "shell", Features: tranter.Features{Refspecs: true}})
	if err != nil || job == nil {
		t.Fatalf("%v, %v", job, err)
	}
	return job
}

// A job from its request to its end, against the local coordinator, through a network that loses answers.
func TestAJobFromBeginningToEnd(t *testing.T) {
	g := coordinatortest.New(t, func(o *coordinator.Options) { o.VerifyLog = true })
	c := runnerOf(t, g)
	producer := g.Enqueue(coordinatortest.Script("make"))
	job := take(t, c)
	if job.ID != producer || job.Info.Name != "job" || job.Steps[0].Script[0] != "make" || job.Local[tranter.LocalCorrelationID] == "" {
		t.Fatalf("job: %+v", job)
	}
	if a, err := c.Update(t.Context(), job.Ref(), tranter.Update{State: tranter.JobRunning}); err != nil || a.Verdict != tranter.Accepted || a.Interval <= 0 {
		t.Fatalf("accepting: %+v, %v", a, err)
	}
	for _, f := range []coordinatortest.Fault{
		{Endpoint: coordinatortest.Trace, Lose: true},
		{Endpoint: coordinatortest.Trace, Status: 502, Times: 3},
		{Endpoint: coordinatortest.Upload, Status: 503},
		{Endpoint: coordinatortest.Download, Status: 500},
	} {
		g.Inject(f)
	}
	log := strings.Repeat("A line of the log.\n", 100_000) // more than one chunk
	// What arrived is not what the trace sends later: the server finds out, and gets all of it again.
	if a, err := c.Append(t.Context(), job.Ref(), 0, []byte(strings.ToUpper(log[:100]))); err == nil {
		t.Fatalf("the answer was lost, but %+v came", a)
	}
	archive := filepath.Join(t.TempDir(), "a.zip")
	if err := os.WriteFile(archive, bytes.Repeat([]byte("artifact"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	up := tranter.ArtifactUpload{Filename: "a.zip", Type: "archive", Format: "zip", ExpireIn: "1 day", Body: func() (io.ReadCloser, error) { return os.Open(archive) }}
	if err := c.Upload(t.Context(), job.Ref(), up); err != nil {
		t.Fatal(err)
	}
	finish(t, c, job, log, tranter.Result{State: tranter.JobSuccess})
	if v := g.Wait(producer); v.Status != coordinator.Success || g.Log(producer) != log {
		t.Errorf("job: %+v with %d of %d bytes of log", v, len(g.Log(producer)), len(log))
	}
	if n := slices.IndexFunc(g.Calls(coordinatortest.Update), func(c coordinatortest.Call) bool { return c.Status == http.StatusPreconditionFailed }); n < 0 {
		t.Error("the log was not demanded again")
	}
	want, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(g.Artifact(producer, "archive"), want) {
		t.Error("the artifact has changed on its way")
	}

	// Another job gets the artifacts of the first.
	g.Enqueue(coordinatortest.Script("make check"))
	next := take(t, c)
	body, err := c.Download(t.Context(), tranter.JobRef{ID: producer, Token: next.Token})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("downloaded %d of %d bytes, %v", len(got), len(want), err)
	}
	g.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Update, Lose: true})
	if a, err := c.Update(t.Context(), next.Ref(), tranter.Update{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 3}); err == nil {
		t.Fatalf("the answer was lost, but %+v came", a)
	}
	finish(t, c, next, "no\n", tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 3})
	if v := g.Wait(next.ID); v.Status != coordinator.Failed || v.Reason != tranter.ScriptFailure || v.ExitCode != 3 {
		t.Errorf("job: %+v", v)
	}
}

// finish sends a log and the end of a job as the trace does.
func finish(t *testing.T, c *patient, job *tranter.Job, log string, r tranter.Result) {
	t.Helper()
	tr, err := trace.Open(trace.Options{Reporter: c, Job: job.Ref(), Path: filepath.Join(t.TempDir(), "trace"), Log: c.log, Interval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(tr, log); err != nil {
		t.Fatal(err)
	}
	if err := tr.Finish(t.Context(), r, nil); err != nil {
		t.Fatal(err)
	}
	if err := tr.Remove(); err != nil {
		t.Error(err)
	}
}

func TestACancelReachesTheRunner(t *testing.T) {
	g := coordinatortest.New(t)
	c := runnerOf(t, g)
	g.Enqueue(coordinatortest.Script("sleep 60"))
	job := take(t, c)
	g.Cancel(job.ID)
	if a, err := c.Append(t.Context(), job.Ref(), 0, []byte("x")); err != nil || a.Stop != tranter.StopCancel || a.Next != 1 {
		t.Errorf("after cancel: %+v, %v", a, err)
	}
	g.Abort(job.ID)
	if a, err := c.Update(t.Context(), job.Ref(), tranter.Update{State: tranter.JobRunning}); err != nil || a.Stop != tranter.StopAbort || a.Verdict != tranter.Gone {
		t.Errorf("after abort: %+v, %v", a, err)
	}
}

// A held request brings a job as soon as there is one; one that must not be held comes back at once.
func TestHeldRequests(t *testing.T) {
	g := coordinatortest.New(t, func(o *coordinator.Options) { o.LongPoll = time.Minute })
	c := runnerOf(t, g)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // far less than a request is held
	defer cancel()
	for range 2 {
		if job, err := c.Request(ctx, tranter.Request{NoHold: true}); job != nil || err != nil {
			t.Fatalf("%v, %v", job, err)
		}
	}
	later := time.AfterFunc(20*time.Millisecond, func() { g.Enqueue(coordinatortest.Script("true")) })
	defer later.Stop()
	var job *tranter.Job
	for job == nil { // a held request may end without a job when there is one, to be made again
		var err error
		if job, err = c.Request(ctx, tranter.Request{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARunnerFromRegistrationToRemoval(t *testing.T) {
	const registration = "GR1348941aBcDeFgHiJkLmN"
	g := coordinatortest.New(t, func(o *coordinator.Options) { o.Registration = registration })
	anybody := connect(t, g.URL)
	if _, err := anybody.Verify(t.Context()); err == nil {
		t.Error("a token that does not exist is valid")
	}
	r, err := anybody.Register(t.Context(), RegisterParams{Token: registration, Description: "d", RunUntagged: true, Tags: []string{"a", "b"}})
	if err != nil || r.ID == 0 || !strings.HasPrefix(r.Token.Reveal(), "glrtr-") {
		t.Fatalf("%+v, %v", r, err)
	}
	with := func(token tranter.Secret) *patient { return connect(t, g.URL, func(o *Options) { o.Token = token }) }
	got, err := with(r.Token).Verify(t.Context())
	if err != nil || got.ID != r.ID || got.Token != r.Token {
		t.Fatalf("%+v, %v", got, err)
	}
	fresh, err := with(r.Token).ResetToken(t.Context())
	if err != nil || fresh.Token == "" || fresh.Token == r.Token {
		t.Fatalf("%+v, %v", fresh, err)
	}
	if _, err := with(r.Token).Verify(t.Context()); err == nil {
		t.Error("the old token is still valid")
	}
	if err := with(fresh.Token).Unregister(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := with(fresh.Token).Verify(t.Context()); err == nil {
		t.Error("the removed runner is still there")
	}

	// A runner that was created in the server loses only this manager.
	c := runnerOf(t, g)
	if _, err := c.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Unregister(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Unregister(t.Context()); err == nil {
		t.Error("a manager was removed twice")
	}
	if _, err := c.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}
