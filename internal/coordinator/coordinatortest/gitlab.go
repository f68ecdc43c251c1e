// Package coordinatortest is a scripted GitLab for tests of runners: a real coordinator on loopback, to which a test
// gives payloads, in front of which faults can be put, and which remembers every call. It is no mock: what a test does
// not disturb behaves as the coordinator does. Only tests call it.
package coordinatortest

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// GitLab is a scripted server. Its methods end the test when something is wrong with their use.
type GitLab struct {
	Coordinator *coordinator.Coordinator
	URL         string
	Token       tranter.Secret // of a runner that takes jobs without tags

	t      testing.TB
	server *httptest.Server
	gate   *gate

	mu     sync.Mutex
	calls  []Call
	faults []*fault
}

// New starts a server that lives as long as the test. Requests for a job are held for 100 ms at most.
func New(t testing.TB, change ...func(*coordinator.Options)) *GitLab {
	t.Helper()
	return NewAt(t, "127.0.0.1", change...)
}

// NewAt is New for jobs that reach this machine by another address.
func NewAt(t testing.TB, address string, change ...func(*coordinator.Options)) *GitLab {
	t.Helper()
	o := coordinator.Options{LongPoll: 100 * time.Millisecond, SweepEvery: 20 * time.Millisecond}
	for _, f := range change {
		f(&o)
	}
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "gitlab")
	}
	c, err := coordinator.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	rn, err := c.CreateRunner(coordinator.RunnerSpec{RunUntagged: true, Description: "of the test"})
	if err != nil {
		t.Fatal(err)
	}
	g := &GitLab{Coordinator: c, Token: rn.Token, t: t}
	g.gate = newGate(t, net.JoinHostPort(address, "0"))
	g.server = httptest.NewUnstartedServer(g.handler(c.Handler()))
	_ = g.server.Listener.Close()
	g.server.Listener = g.gate
	g.server.Start()
	g.URL = g.server.URL
	t.Cleanup(func() {
		g.Clear()
		g.server.CloseClientConnections()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		g.server.Close()
	})
	return g
}

// Script is the payload of a job that runs commands without a repository.
func Script(commands ...string) tranter.Job {
	return tranter.Job{
		Info:  tranter.JobInfo{Name: "job", Stage: "test", ProjectID: 1, ProjectName: "demo", ProjectFullPath: "local/demo"},
		Git:   tranter.GitInfo{Ref: "main", SHA: "0123456789abcdef0123456789abcdef01234567", RefType: "branch"},
		Steps: []tranter.JobStep{{Name: "script", Script: commands, Timeout: 3600, When: "on_success"}},
		Variables: []tranter.Variable{
			{Key: "GIT_STRATEGY", Value: "none", Public: true}, {Key: "CI_PROJECT_PATH", Value: "local/demo", Public: true},
		},
		Features: tranter.JobFeatures{TraceSections: true},
	}
}

// Serve makes the directory, a working tree or not, available as a repository, and completes the payload so that a
// runner gets its present content.
func (g *GitLab) Serve(dir string, job tranter.Job) tranter.Job {
	g.t.Helper()
	p, err := g.Coordinator.CreateProject("local/demo", dir)
	if err != nil {
		g.t.Fatal(err)
	}
	commit, err := g.Coordinator.Snapshot(context.WithoutCancel(g.t.Context()), p.ID)
	if err != nil {
		g.t.Fatal(err)
	}
	job.Info.ProjectID, job.Info.ProjectFullPath = p.ID, p.Path
	job.Git = tranter.GitInfo{
		Ref: commit.Ref, SHA: commit.SHA, RefType: "branch", ObjectFormat: "sha1",
		Refspecs: []string{"+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"},
	}
	var vars []tranter.Variable
	for _, v := range job.Variables {
		if v.Key != "GIT_STRATEGY" {
			vars = append(vars, v)
		}
	}
	job.Variables = vars
	return job
}

// Enqueue offers a job to the runner and returns its id. The payload's id and token are replaced.
func (g *GitLab) Enqueue(job tranter.Job) int64 {
	g.t.Helper()
	id, err := g.Coordinator.Enqueue(job)
	if err != nil {
		g.t.Fatal(err)
	}
	return id
}

// Cancel asks for a graceful end of the job, if its runner can.
func (g *GitLab) Cancel(id int64) { g.cancel(id, false) }

// Abort ends the job at once: its runner hears that it is cancelled, and is not listened to any more.
func (g *GitLab) Abort(id int64) { g.cancel(id, true) }

func (g *GitLab) cancel(id int64, force bool) {
	g.t.Helper()
	if err := g.Coordinator.CancelJob(id, force); err != nil {
		g.t.Fatal(err)
	}
}

// Job returns the job as it stands.
func (g *GitLab) Job(id int64) coordinator.JobView {
	g.t.Helper()
	v, err := g.Coordinator.Job(id)
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}

// Wait returns the job once it is in one of the states, or over when none is given. It gives up after 30 s.
func (g *GitLab) Wait(id int64, states ...coordinator.Status) coordinator.JobView {
	g.t.Helper()
	return g.wait(id, func(v coordinator.JobView) bool {
		return slices.Contains(states, v.Status) || len(states) == 0 && v.Status.Finished()
	})
}

// WaitLog waits until the job's log has at least so many bytes.
func (g *GitLab) WaitLog(id, bytes int64) coordinator.JobView {
	g.t.Helper()
	return g.wait(id, func(v coordinator.JobView) bool { return v.LogBytes >= bytes })
}

func (g *GitLab) wait(id int64, done func(coordinator.JobView) bool) coordinator.JobView {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(g.t.Context()), 30*time.Second)
	defer cancel()
	v, err := g.Coordinator.Wait(ctx, id, done)
	if err != nil {
		g.t.Fatalf("%v; log so far:\n%s", err, g.Log(id))
	}
	return v
}

// Log returns the log of the job as far as it has arrived.
func (g *GitLab) Log(id int64) string {
	g.t.Helper()
	r, err := g.Coordinator.Trace(id)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(g.read(r))
}

// Artifact returns an uploaded file: of type "archive", "junit", and so on.
func (g *GitLab) Artifact(id int64, kind string) []byte {
	g.t.Helper()
	f, err := g.Coordinator.OpenArtifact(id, kind)
	if err != nil {
		g.t.Fatal(err)
	}
	return g.read(f)
}

func (g *GitLab) read(r io.ReadCloser) []byte {
	g.t.Helper()
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		g.t.Fatal(err)
	}
	return data
}

// PutArtifact uploads a file as the runner of a job that is running would.
func (g *GitLab) PutArtifact(job *tranter.Job, kind, format, file string) *http.Response {
	g.t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		g.t.Fatal(err)
	}
	return g.post(job, kind, format, filepath.Base(file), data)
}
