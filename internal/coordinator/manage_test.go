package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// admin calls the management API with the administrator's token.
func (b *bench) admin(method, path string, body any, status int, into any) *response {
	b.t.Helper()
	resp := b.want(b.call(method, "/api/v4/"+path, body, "Private-Token", b.c.AdminToken().Reveal()), status)
	if into != nil {
		b.json(resp, into)
	}
	return resp
}

func TestManagementNeedsTheAdministratorsToken(t *testing.T) {
	b := started(t, coordinator.Options{})
	b.start(stages(script("one", "test")))
	j := b.take()
	for _, path := range []string{"version", "runners", "runners/all", "runners/1", "projects", "projects/1/jobs", "projects/1/pipelines", "projects/1/jobs/1/trace"} {
		for _, token := range []string{"", "glpat-wrong", b.runner.Token.Reveal(), j.Token.Reveal()} {
			b.want(b.call("GET", "/api/v4/"+path, nil, "Private-Token", token), http.StatusUnauthorized)
			b.want(b.call("GET", "/api/v4/"+path, nil, "Authorization", "Bearer "+token), http.StatusUnauthorized)
		}
		b.want(b.call("GET", "/api/v4/"+path, nil, "Authorization", "Bearer "+b.c.AdminToken().Reveal()), http.StatusOK)
	}
}

func TestManagingRunners(t *testing.T) {
	b := open(t, coordinator.Options{})
	var made struct {
		ID      int64
		Token   string
		Expires *string `json:"token_expires_at"`
	}
	b.admin("POST", "user/runners", map[string]any{
		"runner_type": "instance_type", "description": "pool a", "tag_list": []string{"linux", "docker"}, "run_untagged": false,
		"maximum_timeout": 3600, "maintenance_note": "by site", "locked": true, "access_level": "ref_protected",
	}, http.StatusCreated, &made)
	if !strings.HasPrefix(made.Token, "glrt-t1_") || made.Expires != nil {
		t.Errorf("made: %+v", made)
	}
	for _, wrong := range []any{
		map[string]any{},
		map[string]any{"runner_type": "other"},
		map[string]any{"runner_type": "group_type"},
		map[string]any{"runner_type": "project_type"},
		map[string]any{"runner_type": "instance_type", "run_untagged": false},
	} {
		b.admin("POST", "user/runners", wrong, http.StatusBadRequest, nil)
	}
	type entity struct {
		ID          int64
		Description string
		Paused      bool
		Status      string
		Tags        []string `json:"tag_list"`
		Untagged    bool     `json:"run_untagged"`
		Access      string   `json:"access_level"`
		Timeout     *int     `json:"maximum_timeout"`
		Note        string   `json:"maintenance_note"`
		Locked      bool
	}
	var got entity
	path := fmt.Sprintf("runners/%d", made.ID)
	b.admin("GET", path, nil, http.StatusOK, &got)
	if got.Description != "pool a" || !slices.Equal(got.Tags, []string{"linux", "docker"}) || got.Untagged || got.Access != "ref_protected" ||
		*got.Timeout != 3600 || got.Note != "by site" || !got.Locked || got.Status != "never_contacted" {
		t.Errorf("runner: %+v", got)
	}
	b.admin("PUT", path, map[string]any{}, http.StatusBadRequest, nil)
	b.admin("PUT", path, map[string]any{"tag_list": ""}, http.StatusBadRequest, nil) // neither tags nor untagged
	b.admin("PUT", path, map[string]any{"tag_list": "gpu", "paused": true}, http.StatusOK, &got)
	if !slices.Equal(got.Tags, []string{"gpu"}) || !got.Paused || got.Description != "pool a" {
		t.Errorf("changed: %+v", got)
	}
	for i := range 24 {
		b.admin("POST", "user/runners", map[string]any{"runner_type": "instance_type", "description": fmt.Sprint(i)}, http.StatusCreated, nil)
	}
	var list []entity
	resp := b.admin("GET", "runners/all?per_page=10&page=2", nil, http.StatusOK, &list)
	if len(list) != 10 || list[0].ID != 15 || resp.Header.Get("X-Next-Page") != "3" || !strings.Contains(resp.Header.Get("Link"), "page=3") {
		t.Errorf("page 2: %d runners, %v", len(list), resp.Header)
	}
	resp = b.admin("GET", "runners/all?per_page=10&page=4", nil, http.StatusOK, &list)
	if len(list) != 0 || resp.Header.Get("X-Next-Page") != "" {
		t.Errorf("behind the last page: %d runners", len(list))
	}
	for query, want := range map[string]int{"paused=true": 1, "tag_list=gpu": 1, "tag_list=gpu,x": 0, "status=online": 0, "type=group_type": 0} {
		if b.admin("GET", "runners?"+query, nil, http.StatusOK, &list); len(list) != want {
			t.Errorf("%s: %d runners, want %d", query, len(list), want)
		}
	}
	b.admin("DELETE", path, nil, http.StatusNoContent, nil)
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		b.admin(method, path, map[string]any{"paused": true}, http.StatusNotFound, nil)
	}
	b.want(b.call("POST", "/api/v4/runners/verify", map[string]any{"token": made.Token}), http.StatusForbidden)
}

type jobEntity struct {
	ID      int64
	Name    string
	Status  string
	Tags    []string `json:"tag_list"`
	Reason  string   `json:"failure_reason"`
	Runner  *struct{ ID int64 }
	Manager *struct {
		System string `json:"system_id"`
	} `json:"runner_manager"`
	Pipeline struct{ ID int64 }
}

func names(jobs []jobEntity) []string {
	out := []string{}
	for _, j := range jobs {
		out = append(out, j.Name)
	}
	return out
}

func TestManagingJobs(t *testing.T) {
	b := started(t, coordinator.Options{})
	id := b.start(stages(
		script("one", "build", func(j *pipeline.Job) { j.Tags = []string{"linux"} }), script("two", "build"), script("three", "test"),
		script("by hand", "test", func(j *pipeline.Job) { j.When, j.AllowFailure = pipeline.Manual, true }),
	))
	one := b.take()
	var jobs []jobEntity
	list := func(path string, want ...string) {
		t.Helper()
		if b.admin("GET", path, nil, http.StatusOK, &jobs); !slices.Equal(names(jobs), orNone(want)) {
			t.Errorf("%s: %v, want %v", path, names(jobs), want)
		}
	}
	list("projects/1/jobs", "by hand", "three", "two", "one")
	list("projects/local%2Fdemo/jobs?scope[]=pending&scope[]=running", "two", "one")
	if jobs[1].Runner.ID != b.runner.ID || jobs[1].Manager.System != "s_0123456789ab" || !slices.Equal(jobs[1].Tags, []string{"linux"}) || jobs[0].Runner != nil {
		t.Errorf("jobs: %+v", jobs)
	}
	list("projects/1/jobs?scope=created&per_page=1", "by hand")
	b.admin("GET", "projects/1/jobs?scope=odd", nil, http.StatusBadRequest, nil)
	list(fmt.Sprintf("projects/1/pipelines/%d/jobs?scope[]=created", id), "by hand", "three")

	b.want(b.patch(one, 0, "0123456789"), http.StatusAccepted)
	path := fmt.Sprintf("projects/1/jobs/%d", one.ID)
	for query, want := range map[string]string{"": "0123456789", "?byte_offset=3&byte_limit=2": "34", "?byte_offset=8": "89", "?byte_offset=99": "", "?byte_limit=-1": "0123456789"} {
		if got := b.body(b.admin("GET", path+"/trace"+query, nil, http.StatusOK, nil)); got != want {
			t.Errorf("trace%s: %q", query, got)
		}
	}
	var j jobEntity
	b.admin("POST", path+"/retry", nil, http.StatusForbidden, nil) // it is running
	b.admin("POST", path+"/play", nil, http.StatusBadRequest, nil)
	b.admin("POST", path+"/cancel", nil, http.StatusCreated, &j)
	if j.Status != "canceling" {
		t.Errorf("cancelled job: %+v", j)
	}
	b.admin("POST", path+"/cancel", map[string]any{"force": true}, http.StatusCreated, &j)
	if j.Status != "canceled" {
		t.Errorf("cancelled by force: %+v", j)
	}
	b.admin("POST", path+"/retry", nil, http.StatusCreated, &j)
	if j.ID == one.ID || j.Status != "pending" || j.Name != "one" {
		t.Errorf("retried: %+v", j)
	}
	b.admin("POST", path+"/retry", nil, http.StatusForbidden, nil) // no longer the latest
	list(fmt.Sprintf("projects/1/pipelines/%d/jobs?include_retried=true", id), "one", "by hand", "three", "two", "one")

	b.finish(b.take(), "success")
	b.finish(b.take(), "success")
	b.admin("GET", "projects/1/jobs?scope=manual", nil, http.StatusOK, &jobs)
	b.admin("POST", fmt.Sprintf("projects/1/jobs/%d/play", jobs[0].ID), map[string]any{
		"job_variables_attributes": []map[string]any{{"key": "WHO", "value": "me"}},
	}, http.StatusOK, &j)
	b.take() // three
	played := b.take()
	if who, _ := played.Variable("WHO"); played.Info.Name != "by hand" || who != "me" {
		t.Errorf("played: %s, WHO=%q", played.Info.Name, who)
	}
	b.admin("GET", "projects/1/jobs/4711", nil, http.StatusNotFound, nil)
	b.admin("GET", "projects/nobody/jobs", nil, http.StatusNotFound, nil)
	if _, err := b.c.CreateProject("other", ""); err != nil {
		t.Fatal(err)
	}
	b.admin("GET", fmt.Sprintf("projects/2/jobs/%d/trace", one.ID), nil, http.StatusNotFound, nil)
	b.admin("GET", fmt.Sprintf("projects/2/pipelines/%d", id), nil, http.StatusNotFound, nil)
}

func orNone(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func TestManagingPipelines(t *testing.T) {
	var b *bench
	b = started(t, coordinator.Options{
		NewPipeline: func(ctx context.Context, p coordinator.Project, ref string, vars []tranter.Variable) (int64, error) {
			if ref == "missing" {
				return 0, errors.New("Reference not found")
			}
			return b.c.StartPipeline(ctx, p.ID, coordinator.PipelineSpec{Pipeline: stages(script("one", "test")), Ref: ref, SHA: "a1", Variables: vars})
		},
	})
	if _, err := b.c.CreateProject("demo", ""); err != nil {
		t.Fatal(err)
	}
	var p struct {
		ID, IID     int64
		Status, Ref string
	}
	b.admin("POST", "projects/1/pipeline", nil, http.StatusBadRequest, nil)
	b.admin("POST", "projects/1/pipeline?ref=missing", nil, http.StatusBadRequest, nil)
	b.admin("POST", "projects/1/pipeline", map[string]any{"ref": "main", "variables": []map[string]any{{"key": "A", "value": "b"}}}, http.StatusCreated, &p)
	if p.Status != "pending" || p.IID != 1 || p.Ref != "main" {
		t.Errorf("pipeline: %+v", p)
	}
	j := b.take()
	if a, _ := j.Variable("A"); a != "b" {
		t.Errorf("A=%q", a)
	}
	path := fmt.Sprintf("projects/1/pipelines/%d", p.ID)
	b.admin("POST", path+"/cancel", map[string]any{"force": true}, http.StatusOK, &p)
	if p.Status != "canceled" {
		t.Errorf("cancelled: %+v", p)
	}
	b.admin("POST", path+"/retry", nil, http.StatusCreated, &p)
	if p.Status != "pending" {
		t.Errorf("retried: %+v", p)
	}
	b.finish(b.take(), "success")
	b.admin("GET", path, nil, http.StatusOK, &p)
	if p.Status != "success" {
		t.Errorf("in the end: %+v", p)
	}
	b.admin("POST", "projects/1/pipeline?ref=other", nil, http.StatusCreated, nil)
	var all []struct{ ID int64 }
	if b.admin("GET", "projects/1/pipelines", nil, http.StatusOK, &all); len(all) != 2 || all[0].ID < all[1].ID {
		t.Errorf("pipelines: %+v", all)
	}
	if b.admin("GET", "projects/1/pipelines?status=success", nil, http.StatusOK, &all); len(all) != 1 {
		t.Errorf("pipelines that succeeded: %+v", all)
	}
}
