package web_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/events"
	"github.com/tranter-ci/tranter/internal/view"
	"github.com/tranter-ci/tranter/internal/web"
	"github.com/tranter-ci/tranter/internal/web/webtest"
)

const (
	actToken  = "act-with-this-token"
	readToken = "read-with-this-token"
)

// rig is a server with a fake manager behind it.
type rig struct {
	*webtest.Fake

	hub    *events.Hub
	server *web.Server
	h      http.Handler
}

func newRig(t *testing.T, s view.Snapshot, change func(*web.Options)) *rig {
	t.Helper()
	r := &rig{Fake: webtest.New(s, s.At), hub: &events.Hub{}}
	o := web.Options{
		Source: r, Past: webtest.History{Fake: r.Fake}, Bills: webtest.Bills{Fake: r.Fake}, Control: webtest.Control{Fake: r.Fake}, Events: r.hub,
		Token: actToken, Version: "1.2.3", Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "tranter_up 1\n") }),
		Config: func() web.ConfigView {
			return web.ConfigView{Path: "/etc/tranter/config.toml", Global: "concurrent = 60", Runners: []web.RunnerConfig{{
				Runner: "aUt0sCale", Name: "autoscaled docker", Text: "token = \"******\"", Problems: []web.ConfigProblem{{Level: "warning", At: "line 3", Text: "IdleCount is 0", Fix: "Set it."}},
			}}}
		},
	}
	if change != nil {
		change(&o)
	}
	r.server = web.New(o)
	r.h = r.server.Handler()
	return r
}

func (r *rig) do(method, path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, nil)
	for _, c := range change {
		c(req)
	}
	w := httptest.NewRecorder()
	r.h.ServeHTTP(w, req)
	return w
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) {
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
	}
}

func browser(r *http.Request) { r.Header.Set("Accept", "text/html,application/xhtml+xml") }

func posted(fields ...string) func(*http.Request) {
	v := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		v.Set(fields[i], fields[i+1])
	}
	return func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Body = io.NopCloser(strings.NewReader(v.Encode()))
	}
}

func cookie(c *http.Cookie) func(*http.Request) { return func(r *http.Request) { r.AddCookie(c) } }

// signIn returns the cookie of a session.
func (r *rig) signIn(t *testing.T, token string) *http.Cookie {
	t.Helper()
	w := r.do("POST", "/login", browser, posted("token", token, "back", "/jobs"))
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/jobs" {
		t.Fatalf("signing in answered %d to %q", w.Code, w.Header().Get("Location"))
	}
	for _, c := range w.Result().Cookies() {
		if strings.HasPrefix(c.Name, "tranter_session_") {
			return c
		}
	}
	t.Fatal("signing in set no cookie")
	return nil
}

// paths of all pages.
func pagePaths() []string {
	return []string{
		"/", "/jobs", "/jobs/aUt0sCale-99001", "/jobs/aUt0sCale-90003", "/machines", "/machines/tranter-ci-7f37", "/batches", "/batches/tr-hpc-18",
		"/runners", "/charts", "/events", "/cost", "/login", "/nothing-here",
	}
}

func apiPaths() []string {
	return []string{
		"/api/snapshot", "/api/overview", "/api/machines", "/api/runners", "/api/pipelines", "/api/jobs", "/api/jobs/aUt0sCale-99001",
		"/api/jobs/aUt0sCale-90003", "/api/events", "/api/cost", "/api/chart?name=machines&range=day",
	}
}

func TestEveryPageAnswersWithItsHeaders(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	for _, path := range slices.Concat(pagePaths(), apiPaths(), []string{"/healthz", "/readyz", "/health/ready", "/debug/jobs/list", "/debug/process/state", "/metrics", "/cost.csv"}) {
		w := r.do("GET", path, browser)
		want := http.StatusOK
		if path == "/nothing-here" {
			want = http.StatusNotFound
		}
		if w.Code != want {
			t.Errorf("%s answered %d: %.300s", path, w.Code, w.Body)
		}
		const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
		if got := w.Header().Get("Content-Security-Policy"); got != policy {
			t.Errorf("%s has the policy %q", path, got)
		}
		for name, value := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"} {
			if got := w.Header().Get(name); got != value {
				t.Errorf("%s has %s: %q", path, name, got)
			}
		}
		if w.Header().Get("Cache-Control") == "" && path != "/metrics" {
			t.Errorf("%s has no Cache-Control", path)
		}
	}
}

func TestPagesMarkWhereOneIs(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	for path, name := range map[string]string{"/": "Overview", "/runners": "Runners", "/events": "Events", "/cost": "Cost", "/jobs": "Jobs", "/machines": "Machines", "/charts": "Charts"} {
		body := r.do("GET", path).Body.String()
		if strings.Count(body, `aria-current="page"`) != 1 || !strings.Contains(body, `aria-current="page">`+name) {
			t.Errorf("%s does not mark %s in its navigation", path, name)
		}
		for _, landmark := range []string{`<main id="main"`, `<nav `, `<header `, `class="skip" href="#main"`, `aria-live="polite"`, `<html lang="en">`} {
			if !strings.Contains(body, landmark) {
				t.Errorf("%s has no %s", path, landmark)
			}
		}
	}
}

func TestAFragmentIsThePageWithoutItsFrame(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	for _, w := range []*httptest.ResponseRecorder{
		r.do("GET", "/runners?fragment=1"),
		r.do("GET", "/runners", func(r *http.Request) { r.Header.Set("HX-Request", "true") }),
	} {
		body := w.Body.String()
		if strings.Contains(body, "<html") || !strings.Contains(body, `<main id="main"`) || !strings.Contains(body, `id="manager-state"`) {
			t.Errorf("the fragment is %.200s", body)
		}
	}
}

func TestErrorsArePagesForPeopleAndJSONForPrograms(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	for _, c := range []struct {
		method, path string
		status       int
	}{{"GET", "/nothing", 404}, {"POST", "/jobs", 405}, {"GET", "/actions/drain", 405}, {"GET", "/jobs/no-such-job", 404}, {"GET", "/cost?by=colour", 400}, {"GET", "/cost?month=soon", 400}} {
		w := r.do(c.method, c.path, browser, bearer(actToken))
		if w.Code != c.status || !strings.Contains(w.Body.String(), "<h1>") || !strings.Contains(w.Body.String(), `<nav `) {
			t.Errorf("%s %s answered %d: %.200s", c.method, c.path, w.Code, w.Body)
		}
	}
	if w := r.do("POST", "/jobs", bearer(actToken)); w.Header().Get("Allow") == "" {
		t.Error("405 without Allow")
	}
	w := r.do("GET", "/api/jobs/no-such-job")
	if w.Code != 404 || w.Header().Get("Content-Type") != "application/json" || !strings.Contains(w.Body.String(), `"error"`) {
		t.Errorf("a program got %d %s", w.Code, w.Body)
	}
}

func TestAFailingSourceIsSaidOnThePage(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	r.Fail(context.DeadlineExceeded)
	for _, path := range []string{"/", "/runners", "/events", "/cost"} {
		w := r.do("GET", path, browser)
		if w.Code < 500 || !strings.Contains(w.Body.String(), "deadline exceeded") {
			t.Errorf("%s answered %d: %.300s", path, w.Code, w.Body)
		}
	}
	if w := r.do("GET", "/readyz"); w.Code != 503 || !strings.Contains(w.Body.String(), "manager: not ok: context deadline exceeded") {
		t.Errorf("/readyz answered %d %s", w.Code, w.Body)
	}
}

func TestEventsAreFilteredAndPaged(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	body := r.do("GET", "/events?level=error&kind=runner_").Body.String()
	if !strings.Contains(body, "403 Forbidden: the token") || strings.Contains(body, "was read anew") {
		t.Errorf("the filter does not hold: %.500s", body)
	}
	first := r.do("GET", "/events").Body.String()
	if !strings.Contains(first, "/events?before=901") {
		t.Error("the first page does not lead to older events")
	}
	second := r.do("GET", "/events?before=901").Body.String()
	if strings.Contains(second, `id="event-901"`) || !strings.Contains(second, `id="event-900"`) || strings.Contains(second, `data-topics="events"`) {
		t.Error("the second page does not go on where the first one ends, or moves")
	}
}

func TestCostIsACSVThatSpreadsheetsDoNotRun(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	r.Past(func(_ []tranter.JobHistory, _ []tranter.Event, report *cost.Report) {
		report.Lines[0].Name = `=HYPERLINK("http://evil")`
	})
	w := r.do("GET", "/cost.csv?by=project&month=2026-11")
	if !strings.HasPrefix(w.Body.String(), "kind,name,jobs,") || !strings.Contains(w.Body.String(), `"'=HYPERLINK(""http://evil"")"`) {
		t.Errorf("the table is %s", w.Body)
	}
	if got := w.Header().Get("Content-Disposition"); !strings.Contains(got, `filename="cost-project-2026-11-01.csv"`) {
		t.Errorf("it is called %s", got)
	}
}

func TestHealthSaysWhy(t *testing.T) {
	s := webtest.Sample(time.Now())
	s.Manager.State = "draining"
	r := newRig(t, s, func(o *web.Options) {
		o.Checks = func(context.Context) []web.Check {
			return []web.Check{{Name: "store", OK: true}, {Name: "runner x", Reason: "403\nForbidden"}}
		}
	})
	w := r.do("GET", "/readyz")
	if want := "manager: not ok: draining\nstore: ok\nrunner x: not ok: 403 Forbidden\n"; w.Code != 503 || w.Body.String() != want {
		t.Errorf("/readyz answered %d %q, want %q", w.Code, w.Body, want)
	}
	for path, want := range map[string]string{"/healthz": "ok\n", "/health/ready": "ready", "/debug/process/state": "graceful-shutdown\n"} {
		if w := r.do("GET", path); w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s answered %d %q", path, w.Code, w.Body)
		}
	}
	r2 := newRig(t, view.Snapshot{Manager: view.Manager{State: "starting"}}, nil)
	if w := r2.do("GET", "/health/ready"); w.Code != 503 || w.Body.String() != "boot-verify pending" {
		t.Errorf("while it starts it answered %d %q", w.Code, w.Body)
	}
	w = r.do("GET", "/debug/jobs/list")
	lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
	if w.Header().Get("X-List-Version") != "2" || len(lines) != 7 || !strings.HasPrefix(lines[0], "url=https://gitlab.example.com/web/shop/-/jobs/98950 state=running stage=step_script executor_stage=run duration=") {
		t.Errorf("the list of jobs is %s", w.Body)
	}
}

func TestTheSmallListenerHasOnlyWhatScrapersNeed(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), func(o *web.Options) { o.ReadToken = readToken })
	r.h = r.server.Listen()
	for path, want := range map[string]int{
		"/metrics": 200, "/healthz": 200, "/readyz": 200, "/health/ready": 200, "/debug/jobs/list": 200, "/debug/process/state": 200,
		"/debug/pprof/": 401, "/": 404, "/jobs": 404, "/api/snapshot": 404, "/live": 404, "/login": 404,
	} {
		if w := r.do("GET", path); w.Code != want {
			t.Errorf("%s answered %d, want %d", path, w.Code, want)
		}
	}
	if w := r.do("POST", "/actions/drain", bearer(actToken)); w.Code != 404 {
		t.Errorf("an action answered %d", w.Code)
	}
	if w := r.do("GET", "/debug/pprof/cmdline", bearer(actToken)); w.Code != 200 {
		t.Errorf("pprof with the token answered %d", w.Code)
	}
}
