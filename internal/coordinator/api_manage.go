package coordinator

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// runnerAdmin is a small part of GitLab's management API, for the administrator's token and access tokens
// (gitlab-server 4.1).
type runnerAdmin struct{ c *Coordinator }

func (a *runnerAdmin) register(mux *http.ServeMux) {
	a.c.administer(mux, map[string]http.HandlerFunc{"GET /version": version})
	a.c.administer(mux, map[string]http.HandlerFunc{
		"POST /user/runners":                            a.createRunner,
		"GET /runners":                                  a.runners,
		"GET /runners/all":                              a.runners,
		"GET /runners/{id}":                             a.withRunner(a.showRunner),
		"GET /runners/{id}/managers":                    a.withRunner(a.managers),
		"PUT /runners/{id}":                             a.changeRunner,
		"DELETE /runners/{id}":                          a.withRunner(a.removeRunner),
		"POST /runners/{id}/reset_authentication_token": a.withRunner(a.c.book.resetToken),
	})
}

func bearer(r *http.Request) string {
	const scheme = "Bearer "
	h := r.Header.Get("Authorization")
	if len(h) > len(scheme) && h[:len(scheme)] == scheme {
		return h[len(scheme):]
	}
	return ""
}

func version(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"version": ServerVersion, "revision": "local"})
}

// ServerVersion is the version of GitLab whose behaviour the coordinator follows.
const ServerVersion = "19.2.0"

// runnerChange are the settings of a runner that a call may give.
type runnerChange struct {
	Type            string   `json:"runner_type"`
	Group           int64    `json:"group_id"`
	Project         int64    `json:"project_id"`
	Description     *string  `json:"description"`
	MaintenanceNote *string  `json:"maintenance_note"`
	Tags            *tags    `json:"tag_list"`
	RunUntagged     *bool    `json:"run_untagged"`
	Paused          *bool    `json:"paused"`
	Active          *bool    `json:"active"` // the older word for not paused
	Locked          *bool    `json:"locked"`
	Access          *string  `json:"access_level"`
	MaximumTimeout  lifetime `json:"maximum_timeout"`
}

func (rc *runnerChange) apply(s *RunnerSpec) {
	set(&s.Description, rc.Description)
	set(&s.MaintenanceNote, rc.MaintenanceNote)
	set(&s.RunUntagged, rc.RunUntagged)
	set(&s.Locked, rc.Locked)
	if rc.Active != nil {
		s.Paused = !*rc.Active
	}
	set(&s.Paused, rc.Paused)
	if rc.Tags != nil {
		s.Tags = *rc.Tags
	}
	if rc.Access != nil {
		s.ProtectedOnly = *rc.Access == protectedAccess
	}
	if rc.MaximumTimeout.given {
		s.MaximumTimeout = time.Duration(min(rc.MaximumTimeout.n, maxSeconds)) * time.Second
	}
}

// lifetime is a number of seconds that may be given as null, which takes it away.
type lifetime struct {
	given bool
	n     int64
}

// UnmarshalJSON reads a number, which a form brings as text, or null.
func (s *lifetime) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	if text == "null" || text == "" {
		*s = lifetime{given: true}
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return &json.UnmarshalTypeError{Value: "value", Type: reflect.TypeFor[lifetime]()}
	}
	*s = lifetime{given: true, n: n}
	return nil
}

// maxSeconds is far more than any timeout, and far less than what a Duration can hold.
const maxSeconds = int64(1e9)

const protectedAccess = "ref_protected"

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// refuse names what is wrong with the parameters, or returns "".
func (rc *runnerChange) refuse() string {
	switch {
	case rc.Access != nil && *rc.Access != protectedAccess && *rc.Access != "not_protected":
		return "access_level does not have a valid value"
	case rc.Active != nil && rc.Paused != nil:
		return "active, paused are mutually exclusive"
	}
	return ""
}

func (rc *runnerChange) empty() bool {
	return rc.Description == nil && rc.MaintenanceNote == nil && rc.Tags == nil && rc.RunUntagged == nil && rc.Paused == nil &&
		rc.Active == nil && rc.Locked == nil && rc.Access == nil && !rc.MaximumTimeout.given
}

func (a *runnerAdmin) createRunner(w http.ResponseWriter, r *http.Request) {
	var body runnerChange
	if !decode(w, r, &body) {
		return
	}
	wrong := body.refuse()
	switch {
	case !slices.Contains([]string{instanceRunner, groupRunner, projectRunner}, body.Type):
		wrong = "runner_type does not have a valid value"
	case body.Type == groupRunner && body.Group == 0:
		wrong = "group_id is missing"
	case body.Type == projectRunner && body.Project == 0:
		wrong = "project_id is missing"
	}
	if wrong != "" {
		invalid(w, wrong)
		return
	}
	if !a.ownerSeen(r, &body) {
		refuse(w, http.StatusForbidden, "")
		return
	}
	spec := RunnerSpec{Type: body.Type, Owner: body.Group + body.Project, RunUntagged: true}
	body.apply(&spec)
	created(a.c.CreateRunner(spec))(w)
}

// ownerSeen tells whether the runner's project or group is one that the caller can see.
func (a *runnerAdmin) ownerSeen(r *http.Request, body *runnerChange) bool {
	b := a.c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	switch body.Type {
	case projectRunner:
		p := b.project(body.Project)
		return p.ID != 0 && callerOf(r).sees(p.Path)
	case groupRunner:
		g := b.groupByID(body.Group)
		return g != nil && callerOf(r).sees(g.Path)
	}
	return len(callerOf(r).token.Places) == 0
}

// withRunner calls f, with the book locked, with the runner that the path names.
func (a *runnerAdmin) withRunner(f func(*runner) reply) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b := a.c.book
		b.mu.Lock()
		send := replyRefusal(http.StatusNotFound, "")
		if rn := b.runner(pathID(r)); rn != nil {
			send = f(rn)
		}
		b.mu.Unlock()
		send(w)
	}
}

// runners lists the runners that fit the query's type, status, paused and tag_list, the newest first.
func (a *runnerAdmin) runners(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	now := a.c.options.Now()
	list := a.c.Runners()
	slices.Reverse(list)
	list = slices.DeleteFunc(list, func(rn Runner) bool { return !rn.fits(q, now) })
	entities := []map[string]any{}
	for _, rn := range page(w, r, list) {
		entities = append(entities, runnerEntity(rn, now))
	}
	answer(w, http.StatusOK, entities)
}

func (r Runner) fits(q url.Values, now time.Time) bool {
	differs := func(key, have string) bool { return q.Get(key) != "" && q.Get(key) != have }
	if differs("type", r.Type) || differs("paused", strconv.FormatBool(r.Paused)) || differs("status", r.status(now)) {
		return false
	}
	var want tags
	want.set(append([]string{q.Get("tag_list")}, q["tag_list[]"]...))
	return !slices.ContainsFunc(want, func(tag string) bool { return !slices.Contains(r.Tags, tag) })
}

func (r Runner) contact() (last time.Time) {
	for _, m := range r.Managers {
		if m.Contact.After(last) {
			last = m.Contact
		}
	}
	return last
}

func (r Runner) status(now time.Time) string {
	if r.contact().IsZero() {
		return "never_contacted"
	}
	return statusAfter(now.Sub(r.contact()))
}

func statusAfter(silence time.Duration) string {
	switch {
	case silence < onlineFor:
		return "online"
	case silence < staleAfter:
		return "offline"
	}
	return "stale"
}

func runnerEntity(rn Runner, now time.Time) map[string]any {
	access := "not_protected"
	if rn.ProtectedOnly {
		access = protectedAccess
	}
	return map[string]any{
		"id": rn.ID, "description": rn.Description, "active": !rn.Paused, "paused": rn.Paused, "is_shared": rn.Type == instanceRunner,
		"runner_type": rn.Type, "name": "gitlab-runner", "online": rn.status(now) == "online", "status": rn.status(now), "ip_address": nil,
		"tag_list": orEmpty(rn.Tags), "run_untagged": rn.RunUntagged, "locked": rn.Locked, "access_level": access,
		"maximum_timeout": nullable(int64(rn.MaximumTimeout / time.Second)), "contacted_at": moment(rn.contact()),
		"maintenance_note": rn.MaintenanceNote, "projects": []any{}, "groups": []any{},
	}
}

func nullable(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

func (a *runnerAdmin) showRunner(rn *runner) reply {
	e := runnerEntity(rn.view(), a.c.book.now())
	e["projects"], e["groups"] = a.c.book.places(a.c.URL(), rn.view())
	return replyJSON(http.StatusOK, e)
}

func (a *runnerAdmin) managers(rn *runner) reply {
	list := []map[string]any{}
	for i, m := range rn.view().Managers {
		list = append(list, map[string]any{
			"id": i + 1, "system_id": m.SystemID, "version": m.Info.Version, "revision": m.Info.Revision, "platform": m.Info.Platform,
			"architecture": m.Info.Architecture, "created_at": m.Created, "contacted_at": m.Contact, "ip_address": nil,
			"status": statusAfter(a.c.book.now().Sub(m.Contact)),
		})
	}
	return replyJSON(http.StatusOK, list)
}

func (a *runnerAdmin) changeRunner(w http.ResponseWriter, r *http.Request) {
	var body runnerChange
	if !decode(w, r, &body) {
		return
	}
	wrong := body.refuse()
	if body.empty() {
		wrong = "description, paused, tag_list, run_untagged, locked, access_level, maximum_timeout, maintenance_note are missing, " +
			"at least one parameter must be provided"
	}
	if wrong != "" {
		invalid(w, wrong)
		return
	}
	a.withRunner(func(rn *runner) reply {
		spec := rn.Spec
		body.apply(&spec)
		err := spec.check()
		if err == nil {
			err = a.c.book.saveRunner(rn, func() { rn.Spec = spec })
		}
		if err != nil {
			return created(Runner{}, err)
		}
		return a.showRunner(rn)
	})(w, r)
}

func (a *runnerAdmin) removeRunner(rn *runner) reply { return replyDone(a.c.book.removeRunner(rn.ID)) }

// page cuts out of a list what the query's page and per_page ask for, and tells in the headers how to go on.
func page[T any](w http.ResponseWriter, r *http.Request, list []T) []T {
	q := r.URL.Query()
	number := func(key string, fallback, most int) int {
		n, err := strconv.Atoi(q.Get(key))
		if err != nil && !errors.Is(err, strconv.ErrRange) || n < 1 {
			return fallback
		}
		return min(n, most)
	}
	size := number("per_page", 20, 100)
	pages := max(1, (len(list)+size-1)/size)
	this := number("page", 1, pages+1)
	h := w.Header()
	h.Set("X-Per-Page", strconv.Itoa(size))
	h.Set("X-Page", strconv.Itoa(this))
	h.Set("X-Total", strconv.Itoa(len(list)))
	h.Set("X-Total-Pages", strconv.Itoa(pages))
	h.Set("X-Next-Page", "")
	if this < pages {
		next := strconv.Itoa(this + 1)
		h.Set("X-Next-Page", next)
		q.Set("page", next)
		h.Set("Link", nextLink(r, q))
	}
	from := min(len(list), (this-1)*size)
	return list[from:min(len(list), from+size)]
}
