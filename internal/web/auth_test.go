package web_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/web"
	"github.com/tranter-ci/tranter/internal/web/webtest"
)

// Who may do what: each route, by each method, without a token, with that for reading and with that for acting, where reading is
// free and where it is not.
func TestWhoMayDoWhat(t *testing.T) {
	type route struct {
		method, path string
		open         bool // to all
		acts         bool
	}
	var routes []route
	for _, path := range slices.Concat(pagePaths(), apiPaths(), []string{"/metrics", "/health/ready", "/debug/jobs/list", "/debug/process/state", "/cost.csv"}) {
		routes = append(routes, route{method: "GET", path: path, open: path == "/login"}, route{method: "HEAD", path: path, open: path == "/login"})
		if path != "/login" {
			routes = append(routes, route{method: "POST", path: path, acts: true}, route{method: "DELETE", path: path, acts: true})
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		routes = append(routes, route{method: "GET", path: path, open: true})
	}
	for _, path := range []string{"drain", "pause", "resume", "drain-machine", "remove-machine", "cancel-job"} {
		routes = append(routes, route{method: "POST", path: "/actions/" + path, acts: true})
	}
	for _, path := range []string{"", "cmdline", "symbol", "goroutine"} {
		routes = append(routes, route{method: "GET", path: "/debug/pprof/" + path, acts: true})
	}
	for _, private := range []bool{false, true} {
		r := newRig(t, webtest.Sample(time.Now()), func(o *web.Options) {
			if private {
				o.ReadToken = readToken
			}
		})
		for _, c := range routes {
			for _, token := range []string{"", readToken, actToken} {
				if token == readToken && !private {
					continue // there is no such token
				}
				may := c.open || token == actToken || !c.acts && (token == readToken || !private)
				w := r.do(c.method, c.path, bearer(token))
				refused := w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden
				if refused == may {
					t.Errorf("%s %s with token %q, private %t, answered %d", c.method, c.path, token, private, w.Code)
				}
			}
		}
		for _, did := range r.Did() {
			if did != "drain" { // the others need fields
				t.Errorf("it did %s", did)
			}
		}
		if n := len(r.Did()); n != 1 {
			t.Errorf("%d things were done, want that of the token for actions: %v", n, r.Did())
		}
	}
}

func TestABrowserIsLedToTheSignInPageAndBack(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), func(o *web.Options) { o.ReadToken = readToken })
	w := r.do("GET", "/jobs?q=a%26b&fragment=1", browser)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/login?back=%2Fjobs%3Fq%3Da%2526b" {
		t.Fatalf("answered %d %s", w.Code, w.Header().Get("Location"))
	}
	page := r.do("GET", "/login?back=/jobs").Body.String()
	if !strings.Contains(page, `<input type="hidden" name="back" value="/jobs">`) || strings.Contains(page, "Overview</a>") && strings.Contains(page, "platform/billing") {
		t.Errorf("the page is %s", page)
	}
	for _, token := range []string{readToken, actToken} {
		c := r.signIn(t, token)
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || strings.Contains(c.Value, token) {
			t.Errorf("the cookie is %v", c)
		}
		if w := r.do("GET", "/jobs", browser, cookie(c)); w.Code != 200 {
			t.Errorf("with the cookie /jobs answered %d", w.Code)
		}
		acts := strings.Contains(r.do("GET", "/runners", browser, cookie(c)).Body.String(), `action="/actions/pause"`)
		if acts != (token == actToken) {
			t.Errorf("with %s the page offers actions: %t", token, acts)
		}
		w := r.do("POST", "/logout", browser, cookie(c))
		if w.Code != http.StatusSeeOther {
			t.Errorf("signing out answered %d", w.Code)
		}
		if w := r.do("GET", "/jobs", browser, cookie(c)); w.Code != http.StatusSeeOther {
			t.Errorf("after signing out the cookie still serves: %d", w.Code)
		}
	}
}

func TestACookieIsForgedInVain(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), func(o *web.Options) { o.ReadToken = readToken })
	c := r.signIn(t, readToken)
	for _, value := range []string{"", ".", "2", "2.99999999999.x.y", "2" + strings.TrimPrefix(c.Value, "1"), c.Value + "x", c.Value[:len(c.Value)-1], strings.Replace(c.Value, ".1", ".9", 1), "0" + c.Value[1:], strings.Repeat(".", 3000)} {
		forged := *c
		forged.Value = value
		if w := r.do("GET", "/debug/pprof/cmdline", cookie(&forged)); w.Code != http.StatusUnauthorized {
			t.Errorf("%q answered %d", value, w.Code)
		}
		if w := r.do("GET", "/api/jobs", cookie(&forged)); w.Code != http.StatusUnauthorized {
			t.Errorf("%q reads: %d", value, w.Code)
		}
	}
	other := newRig(t, webtest.Sample(time.Now()), func(o *web.Options) { o.ReadToken = "another" })
	if w := other.do("GET", "/api/jobs", cookie(c)); w.Code != http.StatusUnauthorized {
		t.Errorf("the cookie of another token answered %d", w.Code)
	}
}

func TestWrongTokensAreSlowedDown(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	c := r.signIn(t, actToken)
	var codes []int
	for range 8 {
		codes = append(codes, r.do("POST", "/login", browser, posted("token", "guess")).Code)
	}
	if !slices.Equal(codes, []int{401, 401, 401, 401, 401, 429, 429, 429}) {
		t.Errorf("the guesses were answered with %v", codes)
	}
	if w := r.do("POST", "/login", browser, posted("token", actToken)); w.Code != 429 {
		t.Errorf("the right token after them, which a guesser must not find out, answered %d", w.Code)
	}
	if w := r.do("GET", "/api/jobs", bearer("guess")); w.Code != 429 || w.Header().Get("Retry-After") == "" {
		t.Errorf("a guess in a header answered %d", w.Code)
	}
	if w := r.do("GET", "/", browser, cookie(c)); w.Code != 200 {
		t.Errorf("who is signed in already got %d", w.Code)
	}
	elsewhere := func(r *http.Request) { r.RemoteAddr = "198.51.100.9:5555" }
	if w := r.do("POST", "/login", browser, elsewhere, posted("token", actToken)); w.Code != http.StatusSeeOther {
		t.Errorf("somebody else got %d", w.Code)
	}
}

func TestOtherSitesCannotAct(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	c := r.signIn(t, actToken)
	for _, header := range []map[string]string{
		{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
	} {
		w := r.do("POST", "/actions/drain", browser, cookie(c), posted("confirm", "yes"), func(r *http.Request) {
			for name, value := range header {
				r.Header.Set(name, value)
			}
		})
		if w.Code != http.StatusForbidden || len(r.Did()) > 0 {
			t.Errorf("%v answered %d and did %v", header, w.Code, r.Did())
		}
	}
	w := r.do("POST", "/actions/drain", browser, cookie(c), posted("confirm", "yes"), func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") })
	if w.Code != http.StatusSeeOther || !slices.Equal(r.Did(), []string{"drain"}) {
		t.Errorf("our own page got %d and did %v", w.Code, r.Did())
	}
}

func TestSigningInLeadsNowhereElse(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	for _, back := range []string{"https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "evil", "/\r\nX: y", "\\\\evil", ""} {
		w := r.do("POST", "/login", posted("token", actToken, "back", back))
		if got := w.Header().Get("Location"); got != "/" {
			t.Errorf("%q leads to %q", back, got)
		}
	}
}

func TestActionsAskFirstAndSayWhatWasDone(t *testing.T) {
	for _, c := range []struct {
		name   string
		fields []string
		did    string
		says   string
	}{
		{"drain", nil, "drain", "The manager drains"},
		{"pause", []string{"runner", "aUt0sCale"}, "pause aUt0sCale true the web page (192.0.2.1)", "aUt0sCale is paused"},
		{"resume", []string{"runner", "aUt0sCale"}, "pause aUt0sCale false the web page (192.0.2.1)", "The runner aUt0sCale takes jobs again"},
		{"drain-machine", []string{"name", "m-1"}, "drain m-1", "m-1 gets no more jobs"},
		{"remove-machine", []string{"name", "m-1", "force", "yes"}, "remove m-1 true", "m-1 is being removed"},
		{"cancel-job", []string{"key", "k-1", "label", "<b>lint</b>"}, "cancel k-1 the web page (192.0.2.1)", "The job &lt;b&gt;lint&lt;/b&gt; is being canceled"},
	} {
		r := newRig(t, webtest.Sample(time.Now()), nil)
		session := cookie(r.signIn(t, actToken))
		ask := r.do("POST", "/actions/"+c.name, browser, session, posted(append(c.fields, "back", "/runners")...))
		if ask.Code != 200 || !strings.Contains(ask.Body.String(), `name="confirm" value="yes"`) || len(r.Did()) > 0 {
			t.Errorf("%s without confirmation answered %d and did %v", c.name, ask.Code, r.Did())
		}
		w := r.do("POST", "/actions/"+c.name, browser, session, posted(append(c.fields, "back", "/runners", "confirm", "yes")...))
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/runners" || !slices.Equal(r.Did(), []string{c.did}) {
			t.Errorf("%s answered %d and did %v", c.name, w.Code, r.Did())
		}
		var flash *http.Cookie
		for _, f := range w.Result().Cookies() {
			flash = f
		}
		page := r.do("GET", "/runners", browser, session, cookie(flash))
		if !strings.Contains(page.Body.String(), c.says) || !strings.Contains(page.Header().Get("Set-Cookie"), "tranter_flash=;") {
			t.Errorf("%s: the page does not say %q once", c.name, c.says)
		}
		if again := r.do("GET", "/runners", browser, session); strings.Contains(again.Body.String(), c.says) {
			t.Errorf("%s is said to others as well", c.name)
		}
		r.Fail(http.ErrBodyNotAllowed)
		if w := r.do("POST", "/actions/"+c.name, bearer(actToken), posted(c.fields...)); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "not allow") {
			t.Errorf("%s by a program answered %d %s", c.name, w.Code, w.Body)
		}
	}
}

func TestWithoutATokenNothingCanBeDone(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), func(o *web.Options) { o.Token = "" })
	for _, token := range []string{"", " ", "x"} {
		if w := r.do("POST", "/actions/drain", bearer(token)); w.Code != 403 && w.Code != 401 {
			t.Errorf("%q answered %d", token, w.Code)
		}
		if w := r.do("POST", "/login", browser, posted("token", token)); w.Code == http.StatusSeeOther {
			t.Errorf("%q signs in", token)
		}
	}
	if w := r.do("GET", "/debug/pprof/"); w.Code != 403 {
		t.Errorf("pprof answered %d", w.Code)
	}
	if strings.Contains(r.do("GET", "/").Body.String(), "/actions/") {
		t.Error("the page offers actions")
	}
}

// TestAScraperWithATokenOfAnotherServerIsServed also holds when it asks often, and keeps nobody else at its address from signing in.
func TestAScraperWithATokenOfAnotherServerIsServed(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	all := r.h
	r.h = r.server.Listen()
	for range 20 {
		if w := r.do("GET", "/metrics", bearer("of-another-server")); w.Code != http.StatusOK {
			t.Fatalf("it is answered %d", w.Code)
		}
	}
	if w := r.do("GET", "/debug/pprof/", bearer("of-another-server")); w.Code != http.StatusUnauthorized {
		t.Errorf("for pprof it is answered %d", w.Code)
	}
	r.h = all
	if w := r.do("GET", "/debug/pprof/", bearer(actToken)); w.Code != http.StatusOK {
		t.Errorf("the right token is answered %d", w.Code)
	}
}
