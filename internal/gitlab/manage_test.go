package gitlab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

func manage(t *testing.T, url string, token tranter.Secret) *Management {
	t.Helper()
	m, err := NewManagement(ManagementOptions{URL: url, Token: token, Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func project(t *testing.T, g *coordinatortest.GitLab, path string) coordinator.Project {
	t.Helper()
	p, err := g.Coordinator.CreateProject(path, "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestATokenTellsItsScopesAndWhatItLacks(t *testing.T) {
	g := coordinatortest.New(t)
	token, err := g.Coordinator.CreateAccessToken(coordinator.AccessToken{
		Name: "reader", User: "ada", UserID: 7, Scopes: []string{ScopeReadAPI}, Expires: time.Now().Add(48 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	m := manage(t, g.URL, token)
	access, err := m.Scopes(t.Context())
	if err != nil || access.User != "ada" || access.UserID != 7 || !slices.Equal(access.Scopes, []string{ScopeReadAPI}) || access.ExpiresAt.IsZero() {
		t.Fatalf("%+v, %v", access, err)
	}
	if err := access.Check(ScopeReadAPI); err != nil {
		t.Error(err)
	}
	err = access.Check(ScopeReadAPI, ScopeCreateRunner, ScopeManageRunner)
	var lack *ScopeError
	if !errors.As(err, &lack) || !errors.Is(err, tranter.ErrForbidden) || !slices.Equal(lack.Missing, []string{ScopeCreateRunner, ScopeManageRunner}) {
		t.Fatalf("check: %v", err)
	}
	for _, text := range []string{"create_runner (to create runners)", "it has read_api", "/-/user_settings/personal_access_tokens"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in: %v", text, err)
		}
	}
	// What was not asked about beforehand is told by the call.
	_, err = m.CreateRunner(t.Context(), RunnerScope{Kind: InstanceRunner}, RunnerChange{})
	if !errors.As(err, &lack) || !slices.Equal(lack.Missing, []string{ScopeCreateRunner}) {
		t.Errorf("create: %v", err)
	}
	if err := m.DeleteRunner(t.Context(), 1); !errors.As(err, &lack) || !slices.Equal(lack.Missing, []string{ScopeManageRunner}) {
		t.Errorf("delete: %v", err)
	}
	all, err := manage(t, g.URL, g.Coordinator.AdminToken()).Scopes(t.Context())
	if err == nil {
		err = all.Check(ScopeReadAPI, ScopeCreateRunner, ScopeManageRunner)
	}
	if err != nil {
		t.Errorf("a token with the scope api: %v", err)
	}
	_, err = manage(t, g.URL, "glpat-wrongwrongwrong").Scopes(t.Context())
	if !errors.Is(err, tranter.ErrForbidden) || !strings.Contains(err.Error(), "wrong, revoked or has expired") || strings.Contains(err.Error(), "wrongwrong") {
		t.Errorf("a wrong token: %v", err)
	}
}

func TestProjectsAndGroupsAreFoundByTheirPaths(t *testing.T) {
	g := coordinatortest.New(t)
	app, lib := project(t, g, "hpc/codes/app"), project(t, g, "hpc/lib")
	project(t, g, "other/lib")
	m := manage(t, g.URL, g.Coordinator.AdminToken())
	for _, path := range []string{"hpc/codes/app", "HPC/Codes/App", fmt.Sprint(app.ID)} {
		if p, err := m.Project(t.Context(), path); err != nil || p != (Place{app.ID, app.Path}) {
			t.Errorf("%s: %+v, %v", path, p, err)
		}
	}
	if _, err := m.Project(t.Context(), "hpc/none"); !errors.Is(err, tranter.ErrNotFound) || !strings.Contains(err.Error(), "no member") {
		t.Errorf("no project: %v", err)
	}
	group, err := m.Group(t.Context(), "hpc")
	if err != nil || group.Path != "hpc" || group.ID == 0 {
		t.Fatalf("group: %+v, %v", group, err)
	}
	list, err := m.GroupProjects(t.Context(), "hpc")
	if err != nil || !slices.Equal(list, []Place{{app.ID, app.Path}, {lib.ID, lib.Path}}) {
		t.Errorf("projects of the group: %+v, %v", list, err)
	}
	if err := g.Coordinator.MoveProject(lib.ID, "hpc/codes/lib"); err != nil {
		t.Fatal(err)
	}
	p, err := m.Project(t.Context(), "hpc/lib")
	var moved *MovedError
	if !errors.As(err, &moved) || moved.To != "hpc/codes/lib" || p.ID != lib.ID {
		t.Errorf("a project that has moved: %+v, %v", p, err)
	}
	guest, err := g.Coordinator.CreateAccessToken(coordinator.AccessToken{Name: "guest", User: "eve", Scopes: []string{ScopeReadAPI}, Places: []string{"other"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := manage(t, g.URL, guest).Project(t.Context(), "hpc/codes/app"); !errors.Is(err, tranter.ErrNotFound) {
		t.Errorf("a project of others: %v", err)
	}
}

func TestAllPagesOfAGroupAreRead(t *testing.T) {
	g := coordinatortest.New(t)
	for i := range 230 {
		project(t, g, fmt.Sprintf("big/p%03d", i))
	}
	list, err := manage(t, g.URL, g.Coordinator.AdminToken()).GroupProjects(t.Context(), "big")
	if err != nil || len(list) != 230 {
		t.Errorf("%d projects, %v", len(list), err)
	}
}

func TestWaitingJobsAreListedOnAllPagesAndCheaplyAgain(t *testing.T) {
	g := coordinatortest.New(t, func(o *coordinator.Options) { now := time.Now(); o.Now = func() time.Time { return now } })
	p := project(t, g, "hpc/app")
	job := coordinatortest.Script("true")
	job.Info.ProjectID, job.Info.ProjectFullPath = p.ID, p.Path
	job.Variables = append(job.Variables, tranter.Variable{Key: "GITLAB_USER_LOGIN", Value: "ada"})
	want := map[int64]bool{}
	for range 250 {
		id, err := g.Coordinator.Enqueue(job, "small", "slurm")
		if err != nil {
			t.Fatal(err)
		}
		want[id] = true
	}
	m := manage(t, g.URL, g.Coordinator.AdminToken())
	pending, err := m.Pending(t.Context(), p.ID)
	if err != nil || len(pending) != len(want) {
		t.Fatalf("%d jobs, %v", len(pending), err)
	}
	for _, j := range pending {
		if !want[j.ID] || j.Project != "hpc/app" || j.ProjectID != p.ID || j.PipelineID == 0 || !slices.Equal(j.Tags, []string{"small", "slurm"}) ||
			j.UserName != "ada" || j.UserID == 0 || j.QueuedAt.IsZero() || time.Since(j.QueuedAt) > time.Minute {
			t.Fatalf("job: %+v", j)
		}
	}
	if !slices.IsSortedFunc(pending, func(a, b PendingJob) int { return int(b.ID - a.ID) }) {
		t.Error("the newest is not the first")
	}
	before := len(g.Calls(coordinatortest.Any))
	again, err := m.Pending(t.Context(), p.ID)
	if err != nil || len(again) != len(pending) {
		t.Fatalf("again: %d jobs, %v", len(again), err)
	}
	for _, c := range g.Calls(coordinatortest.Any)[before:] {
		if c.Status != http.StatusNotModified {
			t.Errorf("%s: status %d though nothing has changed", c.URL, c.Status)
		}
	}
	for id := range want {
		g.Abort(id)
	}
	if last, err := m.Pending(t.Context(), p.ID); err != nil || len(last) != 0 {
		t.Errorf("in the end: %d jobs, %v", len(last), err)
	}
}

func TestARateLimitIsWaitedFor(t *testing.T) {
	g := coordinatortest.New(t)
	p := project(t, g, "hpc/app")
	m := manage(t, g.URL, g.Coordinator.AdminToken())
	var waited []time.Duration
	m.pause = func(_ context.Context, d time.Duration) error { waited = append(waited, d); return nil }
	reset := time.Now().Add(40 * time.Second)
	g.Inject(coordinatortest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"17"}}})
	g.Inject(coordinatortest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Ratelimit-Remaining": {"0"}, "Ratelimit-Reset": {fmt.Sprint(reset.Unix())}}})
	if _, err := m.Pending(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if len(waited) != 2 || waited[0] != 17*time.Second || waited[1] < 30*time.Second || waited[1] > 41*time.Second {
		t.Errorf("waited %v", waited)
	}
	g.Inject(coordinatortest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"600"}}})
	_, err := m.Pending(t.Context(), p.ID)
	if u, ok := errors.AsType[*tranter.UnavailableError](err); !ok || u.RetryAfter != 10*time.Minute {
		t.Errorf("a long wait is left to the caller: %v", err)
	}
}

func TestManagingARunner(t *testing.T) {
	g := coordinatortest.New(t)
	p, more := project(t, g, "hpc/app"), project(t, g, "hpc/more")
	m := manage(t, g.URL, g.Coordinator.AdminToken())
	timeout := 2 * time.Hour
	made, err := m.CreateRunner(t.Context(), RunnerScope{ProjectRunner, p.ID}, RunnerChange{
		Description: new("hpc-small"), Tags: &[]string{"small"}, Paused: new(false), Locked: new(true), RunUntagged: new(false),
		AccessLevel: new("ref_protected"), MaximumTimeout: &timeout, MaintenanceNote: new("of the site"),
	})
	if err != nil || made.ID == 0 || !strings.HasPrefix(made.Token.Reveal(), "glrt-t3_") {
		t.Fatalf("%+v, %v", made, err)
	}
	r, err := m.Runner(t.Context(), made.ID)
	if err != nil || r.Kind != ProjectRunner || r.Description != "hpc-small" || !slices.Equal(r.Tags, []string{"small"}) || r.Paused || !r.Locked ||
		r.RunUntagged || r.AccessLevel != "ref_protected" || r.MaximumTimeout != timeout || r.MaintenanceNote != "of the site" ||
		!slices.Equal(r.Projects, []Place{{p.ID, p.Path}}) {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := m.AssignRunner(t.Context(), made.ID, more.ID); !errors.Is(err, tranter.ErrForbidden) || !strings.Contains(err.Error(), "locked") {
		t.Errorf("a locked runner was assigned: %v", err)
	}
	if err := m.UpdateRunner(t.Context(), made.ID, RunnerChange{Paused: new(true), Locked: new(false), MaximumTimeout: new(time.Duration(0))}); err != nil {
		t.Fatal(err)
	}
	if err := m.AssignRunner(t.Context(), made.ID, more.ID); err != nil {
		t.Error(err)
	}
	r, err = m.Runner(t.Context(), made.ID)
	if err != nil || !r.Paused || r.MaximumTimeout != 0 || r.Description != "hpc-small" || len(r.Projects) != 2 {
		t.Errorf("changed: %+v, %v", r, err)
	}
	list, err := m.Runners(t.Context(), RunnerScope{ProjectRunner, p.ID})
	if err != nil || len(list) != 1 || list[0].ID != made.ID || list[0].Description != "hpc-small" {
		t.Errorf("list: %+v, %v", list, err)
	}
	again, err := m.ResetToken(t.Context(), made.ID)
	if err != nil || again.ID != made.ID || again.Token == made.Token {
		t.Errorf("reset: %+v, %v", again, err)
	}
	if err := m.DeleteRunner(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
	for _, err := range []error{m.DeleteRunner(t.Context(), made.ID), m.UpdateRunner(t.Context(), made.ID, RunnerChange{Paused: new(false)})} {
		if !errors.Is(err, tranter.ErrNotFound) {
			t.Errorf("a runner that is gone: %v", err)
		}
	}
}

// A proxy that answers 502 may have passed the call on: a second runner must not be made.
func TestACreationIsNotRepeatedWhenItMayHaveHappened(t *testing.T) {
	g := coordinatortest.New(t)
	m := manage(t, g.URL, g.Coordinator.AdminToken())
	for _, f := range []coordinatortest.Fault{{Status: http.StatusBadGateway}, {Lose: true}} {
		before := len(g.Calls(coordinatortest.Any))
		g.Inject(f)
		if _, err := m.CreateRunner(t.Context(), RunnerScope{Kind: InstanceRunner}, RunnerChange{Description: new("once")}); err == nil {
			t.Errorf("%+v: no error", f)
		}
		if n := len(g.Calls(coordinatortest.Any)) - before; n != 1 {
			t.Errorf("%+v: %d calls", f, n)
		}
	}
	g.Inject(coordinatortest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"1"}}})
	m.pause = func(context.Context, time.Duration) error { return nil }
	if _, err := m.CreateRunner(t.Context(), RunnerScope{Kind: InstanceRunner}, RunnerChange{Description: new("later")}); err != nil {
		t.Errorf("a call that was turned away is made again: %v", err)
	}
}

func TestAListThatNeverEndsIsAnError(t *testing.T) {
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n++
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Link", fmt.Sprintf(`<http://elsewhere.invalid/?cursor=%d>; rel="next"`, n))
		fmt.Fprint(w, `[]`)
	}))
	defer s.Close()
	m := manage(t, s.URL, "t")
	if _, err := m.Pending(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "does not end") {
		t.Errorf("pending: %v", err)
	}
	if _, err := m.GroupProjects(t.Context(), "g"); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("projects: %v", err)
	}
}

func FuzzPendingJobs(f *testing.F) {
	f.Add([]byte(`[{"id":1,"status":"pending","tag_list":["a"],"queued_duration":1.5,"web_url":"https://x/a/b/-/jobs/1","user":{"id":1,"username":"u"},"pipeline":{"id":3}}]`))
	f.Add([]byte(`[{"id":1,"status":"pending","queued_duration":1e300,"user":null,"pipeline":null,"tag_list":null}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		now := time.Unix(1e9, 0)
		jobs, err := decodePending(data, 5, now)
		for _, j := range jobs {
			if err != nil || j.ID <= 0 || j.ProjectID != 5 {
				t.Errorf("%+v, %v", j, err)
			}
		}
	})
}

func FuzzManagedRunner(f *testing.F) {
	f.Add([]byte(`{"id":3,"runner_type":"group_type","groups":[{"id":1,"web_url":"https://x/groups/a/b"}],"maximum_timeout":null,"contacted_at":"2026-01-02T03:04:05Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRunner(data)
		if err == nil && (r.ID <= 0 || r.MaximumTimeout < 0) {
			t.Errorf("%+v", r)
		}
	})
}
