package coordinator_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// as calls the management API with an access token.
func (b *bench) as(token tranter.Secret, method, path string, body any, status int, into any) {
	b.t.Helper()
	resp := b.want(b.call(method, "/api/v4/"+path, body, "Private-Token", token.Reveal()), status)
	if into != nil {
		b.json(resp, into)
	}
}

func TestAnAccessTokenMayDoWhatItsScopesSay(t *testing.T) {
	now := time.Now()
	var later atomic.Int64 // the coordinator's own goroutines look at the clock too
	b := open(t, coordinator.Options{Now: func() time.Time { return now.Add(time.Duration(later.Load())) }})
	if _, err := b.c.CreateProject("hpc/app", ""); err != nil {
		t.Fatal(err)
	}
	token := func(scopes ...string) tranter.Secret {
		made, err := b.c.CreateAccessToken(coordinator.AccessToken{Name: fmt.Sprint(scopes), User: "ada", UserID: 7, Scopes: scopes, Expires: now.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	read, create, change := token("read_api"), token("create_runner"), token("manage_runner")
	body := map[string]any{"runner_type": "instance_type", "description": "x"}
	var refused struct{ Error, Scope string }
	b.as(read, "POST", "user/runners", body, http.StatusForbidden, &refused)
	if refused.Error != "insufficient_scope" || refused.Scope != "create_runner api" {
		t.Errorf("%+v", refused)
	}
	var made struct{ ID int64 }
	b.as(create, "POST", "user/runners", body, http.StatusCreated, &made)
	path := fmt.Sprintf("runners/%d", made.ID)
	b.as(create, "GET", path, nil, http.StatusForbidden, nil)
	b.as(read, "GET", path, nil, http.StatusOK, nil)
	b.as(read, "PUT", path, map[string]any{"paused": true}, http.StatusForbidden, nil)
	b.as(change, "PUT", path, map[string]any{"paused": true}, http.StatusOK, nil)
	b.as(change, "POST", path+"/reset_authentication_token", nil, http.StatusCreated, nil)
	b.as(read, "DELETE", path, nil, http.StatusForbidden, nil)
	b.as(change, "DELETE", path, nil, http.StatusNoContent, nil)
	b.as(change, "POST", "projects/1/pipeline", map[string]any{"ref": "main"}, http.StatusForbidden, nil)
	var self struct {
		Scopes []string
		User   int64 `json:"user_id"`
	}
	if b.as(change, "GET", "personal_access_tokens/self", nil, http.StatusOK, &self); self.User != 7 || len(self.Scopes) != 1 {
		t.Errorf("%+v", self)
	}
	later.Store(int64(2 * time.Hour))
	b.as(read, "GET", "projects", nil, http.StatusUnauthorized, nil)
}

func TestARunnerOfAGroupTakesOnlyItsJobs(t *testing.T) {
	b := open(t, coordinator.Options{LongPoll: -1})
	ids := map[string]int64{}
	for _, path := range []string{"other/app", "hpc/codes/app", "hpcx/app"} {
		p, err := b.c.CreateProject(path, "")
		if err != nil {
			t.Fatal(err)
		}
		ids[path] = p.ID
	}
	var group struct {
		ID   int64
		Path string `json:"full_path"`
	}
	b.admin("GET", "groups/hpc", nil, http.StatusOK, &group)
	b.admin("GET", "groups/hpc%2Fcodes", nil, http.StatusOK, nil)
	b.admin("GET", "groups/none", nil, http.StatusNotFound, nil)
	b.admin("POST", "user/runners", map[string]any{"runner_type": "group_type", "group_id": 4711}, http.StatusForbidden, nil)
	var made struct{ Token string }
	b.admin("POST", "user/runners", map[string]any{"runner_type": "group_type", "group_id": group.ID, "run_untagged": true}, http.StatusCreated, &made)
	mine := int64(0)
	for path, project := range ids {
		id, err := b.c.Enqueue(tranter.Job{Info: tranter.JobInfo{Name: path, ProjectID: project, ProjectFullPath: path}})
		if err != nil {
			t.Fatal(err)
		}
		if path == "hpc/codes/app" {
			mine = id
		}
	}
	ask := map[string]any{"token": made.Token, "system_id": "s"}
	var job struct{ ID int64 }
	if b.json(b.want(b.call("POST", "/api/v4/jobs/request", ask), http.StatusCreated), &job); job.ID != mine {
		t.Errorf("the runner has got job %d, want %d", job.ID, mine)
	}
	b.want(b.call("POST", "/api/v4/jobs/request", ask), http.StatusNoContent)
}
