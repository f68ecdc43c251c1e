package coordinator

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash/fnv"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// placeAdmin is the part of GitLab's management API about groups, the runners of projects and groups, and who asks
// (gitlab-server 4.1).
type placeAdmin struct{ c *Coordinator }

func (a *placeAdmin) register(mux *http.ServeMux) {
	a.c.administer(mux, map[string]http.HandlerFunc{
		"GET /user":                        a.user,
		"GET /personal_access_tokens/self": a.token,
		"GET /groups/{group}":              a.withGroup(a.showGroup),
		"GET /groups/{group}/projects":     a.withGroup(a.groupProjects),
		"GET /groups/{group}/runners":      a.withGroup(a.groupRunners),
		"GET /projects/{project}/runners":  a.projectRunners,
		"POST /projects/{project}/runners": a.assignRunner,
	})
}

func (a *placeAdmin) user(w http.ResponseWriter, r *http.Request) {
	t := callerOf(r).token
	answer(w, http.StatusOK, map[string]any{"id": t.UserID, "username": t.User, "name": t.User, "state": "active"})
}

func (a *placeAdmin) token(w http.ResponseWriter, r *http.Request) {
	t := callerOf(r).token
	var expires any
	if !t.Expires.IsZero() {
		expires = t.Expires.Format(time.DateOnly)
	}
	answer(w, http.StatusOK, map[string]any{
		"id": 1, "name": t.Name, "scopes": t.Scopes, "user_id": t.UserID, "active": true, "revoked": false, "expires_at": expires,
	})
}

// withGroup calls f with the group that the path names, by its id or its path.
func (a *placeAdmin) withGroup(f func(http.ResponseWriter, *http.Request, group)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("group")
		b := a.c.book
		b.mu.Lock()
		for _, p := range b.settings.Projects {
			b.makeGroups(p.Path) // of a server from before there were groups
		}
		g := b.group(name)
		if id, err := strconv.ParseInt(name, 10, 64); g == nil && err == nil {
			g = b.groupByID(id)
		}
		var found group
		if g != nil {
			found = *g
		}
		b.mu.Unlock()
		if found.ID == 0 || !callerOf(r).sees(found.Path) {
			answer(w, http.StatusNotFound, map[string]string{"message": "404 Group Not Found"})
			return
		}
		f(w, r, found)
	}
}

func (a *placeAdmin) showGroup(w http.ResponseWriter, r *http.Request, g group) {
	answer(w, http.StatusOK, map[string]any{"id": g.ID, "full_path": g.Path, "web_url": a.c.base(r) + "/groups/" + g.Path})
}

func (a *placeAdmin) groupProjects(w http.ResponseWriter, r *http.Request, g group) {
	deep := r.URL.Query().Get("include_subgroups") == "true"
	projects := slices.DeleteFunc(a.c.Projects(), func(p Project) bool {
		return !g.holds(p.Path) || !deep && directory(p.Path) != g.Path || !callerOf(r).sees(p.Path)
	})
	list := []map[string]any{}
	for _, p := range page(w, r, projects) {
		list = append(list, (&pipelineAdmin{c: a.c}).projectEntity(r, p))
	}
	answer(w, http.StatusOK, list)
}

// directory is the path of the group that something is in.
func directory(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[:i]
		}
	}
	return ""
}

func (a *placeAdmin) groupRunners(w http.ResponseWriter, r *http.Request, g group) {
	a.sendRunners(w, r, func(rn Runner) bool {
		return rn.Type == groupRunner && rn.Owner == g.ID || rn.Type == instanceRunner
	})
}

func (a *placeAdmin) projectRunners(w http.ResponseWriter, r *http.Request) {
	p, ok := (&pipelineAdmin{c: a.c}).pathProject(w, r)
	if !ok {
		return
	}
	a.sendRunners(w, r, func(rn Runner) bool { return rn.Type != groupRunner && rn.serves(p.ID) })
}

// serves tells whether a runner that is none of a group takes jobs of the project.
func (s *RunnerSpec) serves(project int64) bool {
	return s.Type != projectRunner || s.Owner == project || slices.Contains(s.Projects, project)
}

func (a *placeAdmin) sendRunners(w http.ResponseWriter, r *http.Request, wanted func(Runner) bool) {
	now := a.c.options.Now()
	list := slices.DeleteFunc(a.c.Runners(), func(rn Runner) bool { return !wanted(rn) || !rn.fits(r.URL.Query(), now) })
	slices.Reverse(list)
	entities := []map[string]any{}
	for _, rn := range page(w, r, list) {
		entities = append(entities, listEntity(rn, now))
	}
	answer(w, http.StatusOK, entities)
}

// listEntity is a runner as a list shows it: with less than a look at it does.
func listEntity(rn Runner, now time.Time) map[string]any {
	e := runnerEntity(rn, now)
	for _, key := range []string{"tag_list", "run_untagged", "locked", "access_level", "maximum_timeout", "contacted_at", "maintenance_note", "projects", "groups"} {
		delete(e, key)
	}
	return e
}

// assignRunner lets a project runner serve one more project.
func (a *placeAdmin) assignRunner(w http.ResponseWriter, r *http.Request) {
	p, ok := (&pipelineAdmin{c: a.c}).pathProject(w, r)
	if !ok {
		return
	}
	var body struct {
		Runner int64 `json:"runner_id"`
	}
	if !decode(w, r, &body) {
		return
	}
	b := a.c.book
	b.mu.Lock()
	send := a.assign(b.runner(body.Runner), p.ID)
	b.mu.Unlock()
	send(w)
}

// assign is called with the book locked.
func (a *placeAdmin) assign(rn *runner, project int64) reply {
	switch {
	case rn == nil:
		return replyRefusal(http.StatusNotFound, "")
	case rn.Spec.Type != projectRunner:
		return replyRefusal(http.StatusForbidden, "Runner is a group or instance runner")
	case rn.Spec.Locked:
		return replyRefusal(http.StatusForbidden, "Runner is locked")
	case rn.Spec.serves(project):
		return replyJSON(http.StatusBadRequest, map[string]any{"message": map[string][]string{"runner_projects": {"is invalid"}}})
	}
	spec := rn.Spec
	spec.Projects = append(slices.Clip(spec.Projects), project)
	if err := a.c.book.saveRunner(rn, func() { rn.Spec = spec }); err != nil {
		return replyRefusal(http.StatusInternalServerError, "")
	}
	return replyJSON(http.StatusCreated, runnerEntity(rn.view(), a.c.book.now()))
}

// places are the projects and groups of a runner, as its entity names them.
func (b *roster) places(base string, rn Runner) (projects, groups []map[string]any) {
	projects, groups = []map[string]any{}, []map[string]any{}
	if rn.Type == projectRunner {
		for _, id := range append([]int64{rn.Owner}, rn.Projects...) {
			if p := b.project(id); p.ID != 0 {
				projects = append(projects, map[string]any{"id": p.ID, "path_with_namespace": p.Path})
			}
		}
	}
	if g := b.groupByID(rn.Owner); rn.Type == groupRunner && g != nil {
		groups = append(groups, map[string]any{"id": g.ID, "web_url": base + "/groups/" + g.Path})
	}
	return projects, groups
}

// startedBy is the login of who has started a pipeline, as its variables tell.
func (r *run) startedBy() string {
	vars := r.Variables.Predefined
	if len(r.Definitions) > 0 && r.Definitions[0].Raw != nil {
		vars = r.Definitions[0].Raw.Variables
	}
	for _, v := range vars {
		if v.Key == "GITLAB_USER_LOGIN" {
			return v.Value
		}
	}
	return "root"
}

// userEntity is a user as a job shows it. Users have no numbers here: one is made of the name.
func userEntity(login string) map[string]any {
	h := fnv.New32a()
	_, _ = h.Write([]byte(login))
	return map[string]any{"id": int64(h.Sum32()), "username": login, "name": login}
}

// tagged sends v as JSON with an ETag, or only says that the caller has it already.
func tagged(w http.ResponseWriter, r *http.Request, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "")
		return
	}
	sum := sha256.Sum256(data)
	tag := `W/"` + hex.EncodeToString(sum[:16]) + `"`
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	answer(w, http.StatusOK, v)
}

// keyset cuts out of a list, the newest first, what comes after the query's cursor, and tells in the headers how to go on
// (gitlab-server 4.2): one more job at the front does not push one to the next page, as with page numbers.
func keyset(w http.ResponseWriter, r *http.Request, jobs []*job) []*job {
	q := r.URL.Query()
	if after, err := strconv.ParseInt(q.Get("cursor"), 10, 64); err == nil {
		jobs = slices.DeleteFunc(jobs, func(j *job) bool { return j.ID >= after })
	}
	size, err := strconv.Atoi(q.Get("per_page"))
	if err != nil || size < 1 {
		size = 20
	}
	if size = min(size, 100); len(jobs) <= size {
		return jobs
	}
	jobs = jobs[:size]
	q.Set("cursor", strconv.FormatInt(jobs[size-1].ID, 10))
	w.Header().Set("Link", nextLink(r, q))
	return jobs
}

func nextLink(r *http.Request, q url.Values) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return "<" + scheme + "://" + r.Host + apiPrefix + r.URL.EscapedPath() + "?" + q.Encode() + `>; rel="next"`
}
